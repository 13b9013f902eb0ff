"""For any history of chain and mempool, in any batching, with a crash after any step: books of the final chain.

The daemon's own code decides, seals and commits; the right books are worked out from what was told
(`tests.property.chain_world`), and at the end from the node's best chain.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from adapters.memory import CommitFault
from tests.property.chain_world import KILLED_AT, ChainRun, Fate, WatchedTx, tx_sets

fates: st.SearchStrategy[Fate] = st.one_of(
    st.none(), st.just(CommitFault.REPLY_LOST), st.sampled_from(CommitFault), st.sampled_from(KILLED_AT)
)
sizes = st.lists(st.integers(1, 4), max_size=4)
picks = st.lists(st.integers(0, 4), max_size=4)
number = st.integers(0, 20)

Step = tuple[object, ...]
"""A method of the node or of the run, with its arguments."""

outside: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("mine"), picks),
    st.tuples(st.just("mine"), picks),
    st.tuples(st.just("reorg"), st.integers(1, 4), st.lists(picks, min_size=1, max_size=5)),
    st.tuples(st.just("choose_any"), number),
    st.tuples(st.just("broadcast"), number),
    st.tuples(st.just("broadcast"), number),
    st.tuples(st.just("evict"), number),
)
walk: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("follow"), st.just((1,) * 5)), st.tuples(st.just("follow"), sizes), st.tuples(st.just("hop"))
)
aside: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("look")),
    st.tuples(st.just("look")),
    st.tuples(st.just("hint"), number),
    st.tuples(st.just("repeat"), st.integers(-5, 20)),
    st.tuples(st.just("ask_too_early")),
    st.tuples(st.just("learn")),
    st.tuples(st.just("set_policy"), number),
)
post: st.SearchStrategy[Step] = st.tuples(st.just("flush"), sizes, fates)
rounds: st.SearchStrategy[list[Step]] = st.builds(
    lambda *parts: [step for part in parts for step in part],
    st.lists(outside, max_size=3),
    st.lists(aside, max_size=2),
    st.lists(walk, max_size=1),
    st.lists(aside, max_size=2),
    st.lists(post, max_size=1),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(txs=tx_sets(), script=st.lists(rounds, min_size=3, max_size=10))
def test_any_history_ends_in_the_books_of_the_final_chain(txs: tuple[WatchedTx, ...], script: list[list[Step]]) -> None:
    """Reorgs, replacements, evictions, late scripts, policies, duplicates, lost replies, kills: one outcome.

    After every commit: trial balance zero, balances and states the fold of what was told, feed gapless, event ids
    and keys unique, pending exactly what is detected or confirmed. At the end: exactly what is deep enough in the
    best chain is credited, fees and dust included, and what is nowhere is dropped.
    """
    run = ChainRun(txs)
    for name, *arguments in (step for part in script for step in part):
        target = run if hasattr(run, str(name)) else run.node
        getattr(target, str(name))(*arguments)
    run.finish()
    run.check_final()
