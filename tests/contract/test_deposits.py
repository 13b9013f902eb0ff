"""The port `Deposits`: what was committed is read back, in order and in pages."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.domain.chain import Deposit, DepositBooking, DepositState
from daemon.domain.errors import BadInput
from daemon.domain.identifiers import Outpoint, WalletId
from tests.contract.conftest import Database
from tests.contract.deposit_samples import (
    WALLET,
    block,
    changes,
    confirmed,
    cursor_at,
    deposit,
    outpoints,
    put,
    txid_of,
)
from tests.samples import MORNING_MS

OTHER_WALLET = WalletId("wallet-2")

FULL = confirmed(
    "full",
    7,
    vout=3,
    wallet_id=OTHER_WALLET,
    amount_sat=21 * 10**14,
    is_coinbase=True,
    inputs=(),
    state=DepositState.SETTLED,
    policy_version=4,
    confirmations_required=100,
    updated_at_ms=MORNING_MS + 5,
    settlements=2,
    revision=9,
    booking=DepositBooking(is_dust=False, fee_sat=2**33, bank_owner=WalletId("bank"), cents=2**35, fee_cents=0),
)


@pytest.mark.parametrize(
    "written",
    [
        FULL,
        confirmed("held", 8, held_reason="no price", booking=None),
        deposit("gone", state=DepositState.DROPPED, dropped_reason="replaced", replaced_by=txid_of("winner")),
        confirmed(
            "dust", 9, state=DepositState.SETTLED, booking=DepositBooking(is_dust=True, fee_sat=0, bank_owner=None)
        ),
    ],
    ids=["full", "held", "gone", "dust"],
)
def test_a_deposit_is_read_back_as_it_was_written(store: Database, written: Deposit) -> None:
    """Every field survives, the empty ones too."""
    put(store, written)
    assert store.deposits.get(written.outpoint) == written


def test_a_deposit_is_written_whole_again(store: Database) -> None:
    """A change replaces all of it: a fallback to the mempool leaves no block behind."""
    put(store, confirmed("a", 7, revision=1))
    fallen = deposit("a", revision=2)
    put(store, fallen)
    assert store.deposits.get(fallen.outpoint) == fallen
    assert store.deposits.due(height=1_000, after=None, limit=10) == []


def test_an_unknown_deposit_is_none(store: Database) -> None:
    """There is no error for it."""
    assert store.deposits.get(Outpoint(f"{txid_of('nothing')}:0")) is None


def test_the_cursor_is_the_one_last_written(store: Database) -> None:
    """None before the first block; it moves back, too."""
    assert store.deposits.cursor() is None
    for cursor in (cursor_at(5), cursor_at(6), cursor_at(5, "fork")):
        store.books.commit(changes(store, chain_cursor=cursor))
        assert store.deposits.cursor() == cursor
    put(store, deposit("a"))
    assert store.deposits.cursor() == cursor_at(5, "fork")


def all_pages(store: Database, size: int, **query: Any) -> list[Deposit]:
    """All deposits of a listing, page by page."""
    seen: list[Deposit] = []
    token = None
    while True:
        page, token = store.deposits.page(**query, after=token, limit=size)
        assert len(page) == size or token is None
        seen += page
        if token is None:
            return seen


def test_pages_are_newest_first_by_detection(store: Database) -> None:
    """Each deposit stands on one page, those of one moment too; pages of every size agree."""
    made = [deposit(f"a{n}", vout=n, detected_at_ms=MORNING_MS + n // 3) for n in range(8)]
    put(store, *made)
    newest_first = sorted(made, key=lambda one: (one.detected_at_ms, one.outpoint), reverse=True)
    for size in (1, 2, 3, 8, 9):
        assert all_pages(store, size, wallet_id=None, states=()) == newest_first


def test_pages_of_a_wallet_and_of_states(store: Database) -> None:
    """Both narrow the listing, each alone and together, in the same order."""
    mine = [
        deposit("a", detected_at_ms=MORNING_MS + 3),
        confirmed("b", 5, detected_at_ms=MORNING_MS + 2),
        deposit("c", detected_at_ms=MORNING_MS + 1),
    ]
    other = [deposit("d", wallet_id=OTHER_WALLET, detected_at_ms=MORNING_MS + 2), FULL]
    put(store, *other, *mine)
    detected, confirmed_ = DepositState.DETECTED, DepositState.CONFIRMED
    for size in (1, 10):
        assert all_pages(store, size, wallet_id=WALLET, states=()) == mine
        assert all_pages(store, size, wallet_id=WALLET, states={detected}) == [mine[0], mine[2]]
        assert all_pages(store, size, wallet_id=OTHER_WALLET, states={detected, confirmed_}) == [other[0]]
        assert all_pages(store, size, wallet_id=None, states={DepositState.SETTLED}) == [FULL]
    assert all_pages(store, 1, wallet_id=WalletId("nobody"), states=()) == []


@pytest.mark.parametrize("token", ["", "garbage", "-1:x", "9" * 40])
def test_a_token_that_is_none_is_refused(store: Database, token: str) -> None:
    """The caller is told, and the database is not asked."""
    with pytest.raises(BadInput, match="page_token"):
        store.deposits.page(wallet_id=None, states=(), after=token, limit=1)


def test_detected_ones_ascend_by_outpoint(store: Database) -> None:
    """Only those in no block and not dropped, in pages after an outpoint."""
    waiting = sorted((deposit(name, vout) for name in "abc" for vout in (0, 1)), key=lambda one: one.outpoint)
    put(store, FULL, confirmed("d", 5), deposit("e", state=DepositState.DROPPED), *reversed(waiting))
    assert store.deposits.detected(after=None, limit=100) == waiting
    assert store.deposits.detected(after=None, limit=4) == waiting[:4]
    assert store.deposits.detected(after=waiting[3].outpoint, limit=4) == waiting[4:]
    assert store.deposits.detected(after=waiting[5].outpoint, limit=4) == []


def test_due_ones_are_deep_enough_and_not_held(store: Database) -> None:
    """A deposit in block 10 that needs 3 is due when the tip is 12; held ones and settled ones never are."""
    first = [confirmed(f"three{n}", 10, confirmations_required=3) for n in range(3)]
    later = confirmed("one", 13, confirmations_required=1)
    put(store, *first, later)
    put(
        store,
        confirmed("held", 10, confirmations_required=3, held_reason="no price"),
        confirmed("settled", 10, confirmations_required=3, state=DepositState.SETTLED),
    )
    first.sort(key=lambda one: one.outpoint)
    assert store.deposits.due(height=11, after=None, limit=10) == []
    assert store.deposits.due(height=12, after=None, limit=10) == first
    assert store.deposits.due(height=12, after=None, limit=2) == first[:2]
    assert store.deposits.due(height=12, after=first[1].outpoint, limit=2) == first[2:]
    every = sorted([*first, later], key=lambda one: one.outpoint)
    assert store.deposits.due(height=13, after=None, limit=10) == every
    released = confirmed("held", 10, confirmations_required=3, revision=1)
    put(store, released)
    assert released in store.deposits.due(height=12, after=None, limit=10)


def test_waiting_money_is_counted(store: Database) -> None:
    """Detected and confirmed ones, held ones included; no others."""
    assert store.deposits.waiting() == (0, 0)
    put(
        store,
        deposit("a", amount_sat=2**40),
        confirmed("b", 5, amount_sat=7),
        confirmed("c", 5, amount_sat=11, held_reason="no price"),
        deposit("d", state=DepositState.DROPPED, dropped_reason="evicted"),
        FULL,
    )
    assert store.deposits.waiting() == (3, 2**40 + 18)


def test_samples_tell_blocks_and_outputs_apart() -> None:
    """What the other tests here rest on."""
    assert block(5) != block(5, "fork")
    assert len(set(outpoints(deposit("a"), deposit("a", 1), deposit("b")))) == 3
