"""The port `Gaps`: what does not add up keeps its first sighting, whoever writes it, and is found by state and kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.mongo import MongoStore
from adapters.mongo.collections import GAPS
from daemon.domain.books import Gap, GapState
from daemon.domain.errors import BadInput
from daemon.domain.node_events import NodeOpened
from regtest.mongod import Mongod
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE

OPEN, EXPLAINED, CLOSED = GapState.OPEN, GapState.EXPLAINED, GapState.CLOSED


def gap(key: str, *, kind: str = "wallet_sent", state: GapState = OPEN, seen_at_ms: int = MORNING_MS) -> Gap:
    return Gap(
        key=key,
        kind=kind,
        detail=f"about {key}",
        amount_msat=-7_001,
        seen_at_ms=seen_at_ms,
        state=state,
        reference="ab" * 32,
        node="lnd1",
        moved_msat=-9_000,
    )


def commit(store: Database, *gaps: Gap) -> None:
    """What posting does with gaps that decisions found."""
    number = store.ledger.head().sequence
    opened = NodeOpened(
        pubkey=NODE if number == 0 else type(NODE)(f"02{number:064x}"),
        name=f"lnd{number}",
        funds_msat=1_000,
        through_index=0,
        checkpoint_hash=None,
        opened_at_ms=MORNING_MS,
    )
    store.books.commit(replace(store.decided(opened), gaps=gaps))


def test_a_gap_is_read_back_as_it_was_written(store: Database) -> None:
    """To the millisecond and the millisatoshi; a key that nobody wrote is not there."""
    one, other = gap("a"), replace(gap("b"), amount_msat=21 * 10**17, state=CLOSED, reference="", node="")
    store.gaps.put([one, other])
    assert store.gaps.get(["a", "b", "c"]) == {"a": one, "b": other}
    assert store.gaps.get([]) == {}
    store.gaps.put([])


def test_what_is_seen_again_gets_a_new_state_and_keeps_its_first_sighting(store: Database) -> None:
    """State, amount and detail are the newest, in any direction; the time is the first."""
    store.gaps.put([gap("a")])
    for state, amount_msat in ((EXPLAINED, -5), (CLOSED, 0), (OPEN, -9)):
        newer = replace(gap("a"), state=state, amount_msat=amount_msat, detail=f"is {state}", seen_at_ms=MORNING_MS + 5)
        store.gaps.put([newer])
        assert store.gaps.get(["a"]) == {"a": replace(newer, seen_at_ms=MORNING_MS)}


def test_a_repeated_decision_does_not_open_what_was_explained(store: Database) -> None:
    """A settlement that is told again is decided again: its gap stays as it is by now."""
    commit(store, gap("a"), gap("b"))
    assert store.gaps.get(["a", "b"]) == {"a": gap("a"), "b": gap("b")}
    store.gaps.put([gap("a", state=CLOSED), gap("b", state=EXPLAINED)])
    commit(store, replace(gap("a"), amount_msat=1), replace(gap("b"), amount_msat=1))
    assert store.gaps.get(["a", "b"]) == {"a": gap("a", state=CLOSED), "b": gap("b", state=EXPLAINED)}


def test_a_decision_that_explains_or_closes_changes_the_state(store: Database) -> None:
    """With its own words, and the first sighting; what was never open is not made to be closed."""
    commit(store, gap("a"), gap("b"))
    closing = replace(gap("a", state=CLOSED), detail="over", amount_msat=0, seen_at_ms=MORNING_MS + 1)
    commit(store, closing, gap("c", state=CLOSED), gap("d", state=EXPLAINED))
    assert store.gaps.get("abcd") == {
        "a": replace(closing, seen_at_ms=MORNING_MS),
        "b": gap("b"),
        "d": gap("d", state=EXPLAINED),
    }


def test_gaps_of_one_kind_are_found_by_state_newest_first(store: Database) -> None:
    """Bounded; other kinds and states are left out."""
    states = [OPEN, EXPLAINED, OPEN, CLOSED]
    gaps = [gap(f"k{n}", state=state, seen_at_ms=MORNING_MS + n) for n, state in enumerate(states)]
    store.gaps.put([*gaps, gap("other", kind="coin_spent", seen_at_ms=MORNING_MS + 9)])

    def found(*states: GapState, limit: int = 10) -> list[str]:
        return [one.key for one in store.gaps.by_kind("wallet_sent", states=states, limit=limit)]

    assert found(OPEN) == ["k2", "k0"]
    assert found(OPEN, EXPLAINED) == ["k2", "k1", "k0"]
    assert found(OPEN, EXPLAINED, limit=2) == ["k2", "k1"]
    assert found(CLOSED) == ["k3"]
    assert found() == []
    assert found(OPEN, limit=0) == []


@pytest.mark.parametrize("states", [(), (OPEN,), (OPEN, CLOSED)])
def test_gaps_are_listed_newest_first_in_pages(store: Database, states: tuple[GapState, ...]) -> None:
    """Those of one moment by their keys, which may have any form; every gap stands on one page."""
    gaps = [gap(f"ln:02:{n}:lost", state=list(GapState)[n % 3], seen_at_ms=MORNING_MS + n // 4) for n in range(12)]
    store.gaps.put(gaps)
    wanted = sorted(
        (one for one in gaps if not states or one.state in states),
        key=lambda one: (one.seen_at_ms, one.key),
        reverse=True,
    )
    seen: list[Gap] = []
    token: str | None = None
    while True:
        page, token = store.gaps.page(states=states, after=token, limit=3)
        seen += page
        if token is None:
            break
        assert len(page) == 3
    assert seen == wanted


@pytest.mark.parametrize("token", ["yesterday:a", "17", ":", "²:a"])
def test_a_token_of_another_list_is_refused(store: Database, token: str) -> None:
    """It cannot be mistaken for a place."""
    with pytest.raises(BadInput, match="page_token"):
        store.gaps.page(states=(), after=token, limit=2)


def test_totals_are_by_kind_and_state_without_what_is_closed(store: Database) -> None:
    """How many, and the sum of their amounts with its sign."""
    assert store.gaps.totals() == {}
    store.gaps.put(
        [
            gap("a"),
            replace(gap("b"), amount_msat=10_000),
            gap("c", state=EXPLAINED),
            gap("d", kind="coin_spent", state=EXPLAINED),
            gap("e", kind="coin_spent", state=CLOSED),
        ]
    )
    assert store.gaps.totals() == {
        ("wallet_sent", OPEN): (2, 2_999),
        ("wallet_sent", EXPLAINED): (1, -7_001),
        ("coin_spent", EXPLAINED): (1, -7_001),
    }


@pytest.mark.mongo
def test_a_gap_of_the_first_releases_is_open(mongod: Mongod) -> None:
    """It had neither state nor reference, and is found with those that are open."""
    with MongoStore.connect(mongod.url, "old_gaps") as mongo:
        mongo.client.drop_database("old_gaps")
        mongo.init()
        full: dict[str, Any] = {"_id": "old", "kind": "paid_without_journal", "detail": "x", "amount_msat": 5}
        mongo.gaps.put([gap("new", state=EXPLAINED)])
        mongo.db[GAPS].insert_one(full | {"seen_at": mongo.db[GAPS].find_one({})["seen_at"]})  # type: ignore[index]  # it is there
        old = Gap(key="old", kind="paid_without_journal", detail="x", amount_msat=5, seen_at_ms=MORNING_MS)
        assert mongo.gaps.get(["old"]) == {"old": old}
        assert mongo.gaps.page(states=[OPEN], after=None, limit=5) == ([old], None)
        assert mongo.gaps.by_kind("paid_without_journal", states=[OPEN], limit=5) == [old]
        assert mongo.gaps.totals()["paid_without_journal", OPEN] == (1, 5)
        mongo.client.drop_database("old_gaps")
