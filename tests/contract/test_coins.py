"""The port `Coins`: spent coins are kept, and added up with the account and the deposits that they belong to."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.domain.accounts import DUST as DUST_ACCOUNT
from daemon.domain.accounts import ON_CHAIN, wallet_account
from daemon.domain.books import Wanted
from daemon.domain.chain import DepositBooking, DepositState
from daemon.domain.coins import CoinBooks, OthersBooked, SpentCoin
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.identifiers import BlockHash, Txid, WalletId, outpoint_of
from daemon.matching.plan import Plan, Step
from daemon.posting.seal import seal
from tests.contract.conftest import Database
from tests.contract.deposit_samples import changes, confirmed, cursor_at, deposit, put, txid_of
from tests.contract.test_deposit_books import credit
from tests.samples import MORNING_MS

BOOKING = DepositBooking(is_dust=False, fee_sat=3_000, bank_owner=WalletId("bank"))
DUST = DepositBooking(is_dust=True, fee_sat=0, bank_owner=None)
SPENDER = txid_of("spender")
BLINKS = wallet_account(WalletId("blinks"))


def spent(name: str, vout: int = 0, **fields: Any) -> SpentCoin:
    """A coin of 20,000 sat mined at 7 and spent by SPENDER at 12, unless the fields say otherwise."""
    defaults: dict[str, Any] = {
        "amount_sat": 20_000,
        "mined_height": 7,
        "spender": SPENDER,
        "height": 12,
        "block_hash": BlockHash("ab" * 32),
        "noticed_at_ms": MORNING_MS,
    }
    return SpentCoin(outpoint=outpoint_of(txid_of(name), vout), **{**defaults, **fields})


def lost(name: str, **fields: Any) -> SpentCoin:
    """One whose spender is not known."""
    return spent(name, **{"spender": None, "block_hash": None, **fields})


def take(store: Database, amount_sat: int, *, currency: str = "BTC", **details: Any) -> None:
    """Another program's journal takes sats from the on-chain account (gives, if below zero); it is adopted."""
    legs = (
        Leg(account=ON_CHAIN, currency=currency, credit=max(amount_sat, 0), debit=max(-amount_sat, 0)),
        Leg(account=BLINKS, currency=currency, debit=max(amount_sat, 0), credit=max(-amount_sat, 0)),
    )
    store.another.write_journal(legs, details=details)
    store.post(*store.journals.foreign_journals(after=None, limit=100))


def book_dust(store: Database, txid: Txid, amount_sat: int) -> None:
    """tellerd's own journal of a deposit of dust: it is no receipt, for no wallet gets it."""
    plan = Plan(facts=store.books.read_facts(Wanted()))
    entry = JournalEntry(
        key=f"chain:{txid}:0:1",
        memo="",
        datetime_ms=MORNING_MS,
        legs=(
            Leg(account=ON_CHAIN, currency="BTC", debit=amount_sat),
            Leg(account=DUST_ACCOUNT, currency="BTC", credit=amount_sat),
        ),
        details={"type": "reconciliation", "hash": txid, "vout": 0},
    )
    plan.take(Step(key=entry.key, entry=entry, events=()))
    store.books.commit(seal(plan, now_ms=MORNING_MS, writer_id=store.books.writer_id))


@pytest.mark.parametrize(
    "coin", [spent("a", amount_sat=21 * 10**14), lost("b", height=-1, mined_height=0)], ids=["spent", "lost"]
)
def test_a_coin_is_read_back_as_it_was_written(store: Database, coin: SpentCoin) -> None:
    """Every field survives, the empty ones too; another write replaces it whole."""
    store.coins.put([coin])
    assert store.coins.spent([coin.outpoint]) == {coin.outpoint: coin}
    again = spent(coin.outpoint, spender=txid_of("other"), height=13)
    again = SpentCoin(**{**{name: getattr(again, name) for name in again.__slots__}, "outpoint": coin.outpoint})
    store.coins.put([again])
    assert store.coins.spent([coin.outpoint]) == {coin.outpoint: again}


def test_coins_are_found_by_name_and_by_spender(store: Database) -> None:
    """Only those asked for; a tx that spends none has none; nothing asked is nothing found."""
    mine, others = [spent("a"), spent("a", 1)], [spent("b", spender=txid_of("other")), lost("c")]
    store.coins.put([*others, *mine])
    assert store.coins.spent([mine[0].outpoint, others[1].outpoint, outpoint_of(txid_of("d"), 0)]) == {
        mine[0].outpoint: mine[0],
        others[1].outpoint: others[1],
    }
    assert store.coins.spent_by([SPENDER, txid_of("nobody")]) == sorted(mine, key=lambda coin: coin.outpoint)
    assert store.coins.spent([]) == {}
    assert store.coins.spent_by([]) == []


def test_recent_and_lost_coins_ascend_in_pages(store: Database) -> None:
    """Recent ones are spent at the height or above it, lost ones have no spender, whatever their height."""
    recent = sorted((spent(name, height=12 + n) for n, name in enumerate("abc")), key=lambda one: one.outpoint)
    missing = sorted((lost(name, height=12) for name in "def"), key=lambda one: one.outpoint)
    store.coins.put([spent("old", height=11), *reversed(recent), *reversed(missing)])
    assert store.coins.spent_from(12, after=None, limit=10) == recent
    assert store.coins.spent_from(12, after=None, limit=2) == recent[:2]
    assert store.coins.spent_from(12, after=recent[1].outpoint, limit=2) == recent[2:]
    assert store.coins.lost(after=None, limit=2) == missing[:2]
    assert store.coins.lost(after=missing[1].outpoint, limit=2) == missing[2:]


def test_a_coin_that_is_unspent_again_is_forgotten(store: Database) -> None:
    """Others stay; what is not there is no error."""
    store.coins.put([spent("a"), spent("b")])
    store.coins.forget([spent("a").outpoint, spent("c").outpoint])
    store.coins.put([])
    store.coins.forget([])
    assert store.coins.spent_by([SPENDER]) == [spent("b")]


def test_an_empty_database_adds_up_to_nothing(store: Database) -> None:
    """Before the chain is followed there is no cursor."""
    assert store.coins.books() == CoinBooks(
        sequence=0,
        position=0,
        cursor=None,
        balance_sat=0,
        credited_sat=0,
        elsewhere_sat=0,
        spent_sat=0,
        lost_sat=0,
    )


def test_the_sums_are_of_settled_deposits_and_of_spent_coins(store: Database) -> None:
    """Deposits that tellerd booked, dust too, apart from those that another program did; no others count."""
    settled = DepositState.SETTLED
    put(
        store,
        confirmed("a", 5, state=settled, booking=BOOKING, amount_sat=2**40),
        confirmed("b", 5, state=settled, booking=DUST, amount_sat=3),
        confirmed("c", 5, state=settled, booking=None, amount_sat=500),
        confirmed("d", 5, amount_sat=7_000),
        deposit("e", amount_sat=70_000),
        deposit("f", amount_sat=700_000, state=DepositState.DROPPED, dropped_reason="evicted"),
    )
    store.coins.put([spent("a", amount_sat=2**40), spent("x", amount_sat=5), lost("b", amount_sat=3)])
    store.books.commit(changes(store, chain_cursor=cursor_at(9)))
    store.books.commit(credit(store, confirmed("g", 5, state=settled, booking=BOOKING, amount_sat=17_000)))
    books = store.coins.books()
    assert (books.credited_sat, books.elsewhere_sat) == (2**40 + 3 + 17_000, 500)
    assert (books.spent_sat, books.lost_sat) == (2**40 + 5, 3)
    assert (books.balance_sat, books.position, books.cursor) == (-17_000, 1, cursor_at(9))
    assert books.sequence == store.ledger.head().sequence


def test_what_other_programs_booked_is_added_up_once_in_steps(store: Database) -> None:
    """tellerd's own journals do not count, nor other accounts and currencies; each step goes on from the last one."""
    take(store, -1_000)
    store.books.commit(credit(store, confirmed("a", 5, state=DepositState.SETTLED, booking=BOOKING)))
    take(store, 300)
    store.another.write_journal((Leg(account="a", currency="BTC", credit=9), Leg(account="b", currency="BTC", debit=9)))
    take(store, 77, currency="USD")
    assert store.coins.books().position == 5
    first = store.coins.others_booked(OthersBooked(), through=5, limit=1)
    assert first == OthersBooked(position=1, amount_sat=1_000)
    assert store.coins.others_booked(first, through=2, limit=100) == OthersBooked(position=2, amount_sat=1_000)
    second = store.coins.others_booked(first, through=5, limit=2)
    assert (second.position < 5, second.amount_sat) == (True, 700)
    assert store.coins.others_booked(second, through=5, limit=100) == OthersBooked(position=5, amount_sat=700)
    assert store.coins.others_booked(OthersBooked(), through=5, limit=100) == OthersBooked(position=5, amount_sat=700)


def test_what_other_programs_took_for_a_tx_is_found_by_its_txid(store: Database) -> None:
    """Sums over all journals with the hash; receipts of its outputs do not count, nor tellerd's own journals."""
    other = txid_of("other")
    take(store, 51_000, hash=SPENDER, type="onchain_payment")
    take(store, -1_000, hash=SPENDER, type="onchain_payment")
    take(store, -49_000, hash=SPENDER, vout=1, type="onchain_receipt")
    take(store, 8, currency="USD", hash=SPENDER, type="onchain_payment")
    take(store, 5, hash=other, type="fee")
    own = confirmed("own", 5, state=DepositState.SETTLED, booking=BOOKING)
    store.books.commit(credit(store, own))
    book_dust(store, SPENDER, 4_000)
    asked: list[Txid] = [SPENDER, own.txid, txid_of("nobody")]
    assert store.coins.taken_by_others(asked) == {SPENDER: 50_000}
    assert store.coins.taken_by_others([other]) == {other: 5}
    assert store.coins.taken_by_others([]) == {}
