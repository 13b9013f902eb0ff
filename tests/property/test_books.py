"""For any payments, in any order and batching, with a crash after any step: the same books.

The daemon's own code decides, seals and commits (`daemon.matching`, `daemon.posting`); the right books are
worked out from the payments alone (`tests.property.world`).
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from adapters.memory import CommitFault
from tests.property.ledger_run import KILLED_AT, Fate, LedgerRun
from tests.property.world import AMP, NODES, SPONTANEOUS, World, worlds

nodes = st.sampled_from(NODES)
fates: st.SearchStrategy[Fate] = st.one_of(st.none(), st.sampled_from(CommitFault), st.sampled_from(KILLED_AT))
sizes = st.lists(st.integers(1, 6), max_size=4)
picks = st.lists(st.tuples(nodes, st.integers(0, 30)), min_size=1, max_size=12)
steps = st.one_of(
    st.tuples(st.just("settle"), nodes, st.integers(1, 6)),
    st.tuples(st.just("stream"), picks, sizes, fates),
    st.tuples(st.just("stream"), picks, sizes, fates),
    st.tuples(st.just("listing"), nodes, sizes, fates, st.integers(0, 3)),
    st.tuples(st.just("look_up_open"), fates),
    st.tuples(st.just("adopt"), st.integers(1, 3), fates),
    st.tuples(st.just("write_document")),
    st.tuples(st.just("write_foreign")),
)


openings = st.tuples(st.tuples(sizes, fates), st.tuples(sizes, fates))
scripts = st.lists(steps, max_size=14)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(most=8), openings=openings, script=scripts)
def test_any_history_ends_in_the_same_books(
    world: World, openings: tuple[tuple[list[int], Fate], ...], script: list[tuple[object, ...]]
) -> None:
    """Duplicates, reorderings, gaps, late documents, foreign journals, lost replies, kills: one outcome.

    After every commit: trial balance zero, balances the sums of legs, feed gapless, chain whole, cursor never
    ahead of the books, node and books equal to the msat.
    """
    _check_history(world, openings, script)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    world=worlds(most=8, kinds=st.sampled_from(sorted(AMP | SPONTANEOUS, key=lambda kind: kind.name))),
    openings=openings,
    script=scripts,
)
def test_sets_of_amp_invoices_and_spontaneous_payments_end_in_the_same_books(
    world: World, openings: tuple[tuple[list[int], Fate], ...], script: list[tuple[object, ...]]
) -> None:
    """The same where nearly every invoice is paid several times, and nobody has asked for the rest."""
    _check_history(world, openings, script)


def _check_history(
    world: World, openings: tuple[tuple[list[int], Fate], ...], script: list[tuple[object, ...]]
) -> None:
    run = LedgerRun(world)
    for pubkey, (batch_sizes, fate) in zip(NODES, openings, strict=True):
        run.open_node(pubkey, batch_sizes, fate)
    for name, *arguments in script:
        getattr(run, str(name))(*arguments)
    run.finish()
    run.check_final()


@settings(max_examples=30, deadline=None)
@given(world=worlds(most=8), shuffle=st.integers(0, 100), batch_sizes=sizes)
def test_batching_and_order_change_nothing_but_the_order(world: World, shuffle: int, batch_sizes: list[int]) -> None:
    """The same payments one by one in order, and shuffled in batches: equal balances, keys and cursors."""
    orderly, wild = LedgerRun(world), LedgerRun(world)
    for pubkey in NODES:
        orderly.open_node(pubkey, [1], None)
        wild.open_node(pubkey, batch_sizes, None)
        for run in (orderly, wild):
            run.settle(pubkey, 100)
        orderly.listing(pubkey, [1], None)
        wild.listing(pubkey, batch_sizes, None, shuffle)
    for run in (orderly, wild):
        run.finish()
    assert orderly.final_books() == wild.final_books()
