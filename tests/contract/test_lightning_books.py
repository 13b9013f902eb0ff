"""What the books say of the Lightning nodes: account and cursors of one moment, and what other programs booked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from daemon.domain.accounts import LIGHTNING, OPENING, wallet_account
from daemon.domain.books import GapState
from daemon.domain.identifiers import (
    Outpoint,
    Txid,
    channel_cost_key,
    opening_key,
    routing_key,
    wallet_opening_key,
)
from daemon.domain.movements import MovementMarks
from daemon.domain.node_events import ChannelChange, ChannelCost, MarksMoved, NodeOpened, RoutingIncome
from daemon.domain.ports import SystemWallet
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, moved, settled

MARKS = MovementMarks(
    forwards_ns=1_790_000_000_000_000_001,
    payments_index=2**40,
    height=150,
    payments_open=((7, hash_of("slow")),),
    known_txids=frozenset({Txid(hash_of("early"))}),
    closing={Outpoint(f"{hash_of('ours')}:1"): 2**45},
)
POINT = Outpoint(f"{hash_of('ours')}:1")


def opened(store: Database, *, marks: MovementMarks | None = MARKS, funds_msat: int = 9_000_500) -> None:
    store.post(
        NodeOpened(
            pubkey=NODE,
            name="lnd1",
            funds_msat=funds_msat,
            through_index=0,
            checkpoint_hash=None,
            opened_at_ms=MORNING_MS,
            movements=marks,
        )
    )


def bank_owner_sat(store: Database) -> int:
    return store.balance(wallet_account(store.figures.system_wallets()[SystemWallet.BANK_OWNER]))


def taken(store: Database, hashes: Iterable[str]) -> dict[str, int]:
    return dict(store.lightning_books.taken_by_others(list(hashes)))


def test_account_and_cursors_are_read_together(store: Database) -> None:
    """As they were written, marks included; of an empty database nothing."""
    empty = store.lightning_books.totals()
    assert (empty.sequence, empty.balance_sat, list(empty.cursors)) == (0, 0, [])
    opened(store)
    totals = store.lightning_books.totals()
    (cursor,) = totals.cursors
    assert (totals.sequence, totals.balance_sat) == (store.ledger.head().sequence, -9_000)
    assert (cursor.movements, cursor.remainder_msat) == (MARKS, 500)


def test_routing_income_is_booked_once_to_the_bank_owner(store: Database) -> None:
    """Whole sats, the rest beside the cursor, which moves in the same commit; what does not begin there is old."""
    opened(store)
    income = RoutingIncome(
        pubkey=NODE,
        before_ns=MARKS.forwards_ns,
        through_ns=MARKS.forwards_ns + 5,
        forwards=3,
        fee_msat=4_700,
        books=True,
    )
    store.post(income)
    later = replace(income, through_ns=income.through_ns + 1, fee_msat=99_000)
    assert store.decided(income, later).keys == []
    (cursor,) = store.lightning_books.totals().cursors
    assert cursor.movements == replace(MARKS, forwards_ns=income.through_ns)
    assert (cursor.booked_msat, cursor.remainder_msat) == (9_005_200, 200)
    # 500 and 700 msat have made a sat, which goes to the rounding account as always.
    assert (store.balance(LIGHTNING), bank_owner_sat(store)) == (-9_005, 4)
    assert store.lightning_books.booked([routing_key(NODE, income.through_ns), "nothing"]) == {
        routing_key(NODE, income.through_ns)
    }


def test_a_channels_cost_is_taken_from_the_bank_owner_once(store: Database) -> None:
    """The next full sat of it; the channel is forgotten, and those that are over with it are told no more."""
    opened(store)
    other = Outpoint(f"{hash_of('other')}:0")
    cost = ChannelCost(
        pubkey=NODE,
        channel_point=POINT,
        change=ChannelChange.CLOSE,
        txid=Txid(hash_of("closing")),
        cost_msat=1_500_223,
        at_ms=MORNING_MS,
        resolved=(POINT, other),
    )
    store.post(cost)
    assert store.decided(cost, replace(cost, channel_point=other)).keys == []
    (cursor,) = store.lightning_books.totals().cursors
    assert cursor.movements == replace(MARKS, closing={})
    assert cursor.booked_msat == 9_000_500 - 1_500_223
    assert -store.balance(LIGHTNING) * 1000 + cursor.remainder_msat == cursor.booked_msat
    assert bank_owner_sat(store) == -1_501
    keys = {channel_cost_key(NODE, point, "close") for point in (POINT, other)}
    assert store.lightning_books.booked(keys) == keys


@pytest.mark.parametrize(
    ("is_fee", "kind", "state"), [(True, "channel_fee", "explained"), (False, "channel_loss", "open")]
)
def test_a_cost_that_is_not_booked_is_a_gap(store: Database, is_fee: bool, kind: str, state: str) -> None:
    """Left to another program, or no fee at all; the key is taken with it."""
    opened(store)
    cost = ChannelCost(
        pubkey=NODE,
        channel_point=POINT,
        change=ChannelChange.CLOSE,
        txid=Txid(hash_of("closing")),
        cost_msat=7_000,
        at_ms=MORNING_MS,
        resolved=(POINT,),
        is_fee=is_fee,
        books=not is_fee,
    )
    store.post(cost)
    (gap,) = store.gaps.by_kind(kind, states=[GapState(state)], limit=10)
    assert (gap.amount_msat, gap.reference) == (-7_000, POINT)
    assert (bank_owner_sat(store), store.balance(LIGHTNING)) == (0, -9_000)
    assert store.decided(cost).keys == []


def test_marks_move_from_where_they_stand_only(store: Database) -> None:
    """What was told of an older position changes nothing."""
    opened(store)
    after = replace(
        MARKS, payments_index=MARKS.payments_index + 1, payments_open=(), known_txids=frozenset(), closing={}
    )
    store.post(MarksMoved(pubkey=NODE, before=MARKS, after=after))
    assert store.lightning_books.totals().cursors[0].movements == after
    assert store.decided(MarksMoved(pubkey=NODE, before=MARKS, after=MARKS)).cursors == []


def test_the_wallet_of_a_node_that_was_opened_without_it_is_taken_in_later(store: Database) -> None:
    """By a second journal against the opening account, once."""
    opened(store, marks=None)
    marked = MarksMoved(pubkey=NODE, before=None, after=MARKS, opening_msat=3_000_700, at_ms=MORNING_MS)
    store.post(marked)
    assert store.decided(marked).keys == []
    (cursor,) = store.lightning_books.totals().cursors
    assert (cursor.movements, cursor.booked_msat, cursor.remainder_msat) == (MARKS, 12_001_200, 200)
    assert -store.balance(LIGHTNING) * 1000 + cursor.remainder_msat == 12_001_200
    assert store.balance(OPENING) == 12_000
    assert store.lightning_books.booked([wallet_opening_key(NODE), opening_key(OTHER_NODE)]) == {
        wallet_opening_key(NODE)
    }


def test_what_other_programs_took_is_found_by_hash(store: Database) -> None:
    """Credit less debit on the Lightning account, over all their journals; ours do not count, nor do other accounts."""
    opened(store)
    wallet = wallet_account(store.new_wallet().wallet_id)
    paid, refunded, elsewhere = hash_of("paid"), hash_of("refunded"), hash_of("elsewhere")
    for source, target, amount_sat, name in (
        (wallet, LIGHTNING, 2_000, paid),
        (wallet, LIGHTNING, 900, refunded),
        (LIGHTNING, wallet, 100, refunded),
        (wallet, "Assets:OnChain", 5_000, elsewhere),
    ):
        store.another.write_journal(moved(source, target, amount_sat), details={"hash": name, "type": "payment"})
    store.post(settled("ours", 1, 1_000_000))
    assert taken(store, [paid, refunded, elsewhere, hash_of("ours"), hash_of("nobody")]) == {paid: 2_000, refunded: 800}
    assert taken(store, []) == {}


def test_what_other_programs_took_is_found_by_type(store: Database) -> None:
    """Since a moment, for types that carry no hash."""
    opened(store)
    wallet = wallet_account(store.new_wallet().wallet_id)
    store.another.write_journal(moved(LIGHTNING, wallet, 70), details={"type": "routing_fee"})
    store.another.write_journal(moved(wallet, LIGHTNING, 300), details={"type": "fee"})
    store.another.write_journal(moved(wallet, LIGHTNING, 5), details={"type": "payment"})
    books = store.lightning_books
    assert dict(books.taken_as(["routing_fee", "fee", "escrow"], since_ms=0)) == {"routing_fee": -70, "fee": 300}
    assert dict(books.taken_as(["fee"], since_ms=0)) == {"fee": 300}
    assert dict(books.taken_as(["routing_fee", "fee"], since_ms=4_000_000_000_000)) == {}
