"""An independent reader and writer of the books: Blink's ledger library in Node.js, with Blink's fields and
balance snapshots on, on the same database as tellerd."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from adapters.mongo.audit import audit_of
from adapters.mongo.commit import Writer
from daemon.domain.accounts import LIGHTNING, ON_CHAIN, SUSPENSE, wallet_account
from daemon.domain.errors import Conflict
from daemon.domain.money import Currency
from daemon.domain.ports import SystemWallet, Wallet
from daemon.domain.quotes import Deal
from daemon.posting.verify import verify
from tests.contract.teller import NOW_MS, PRICE, Teller
from tests.medici.conftest import Medici
from tests.samples import (
    MORNING_MS,
    NODE,
    block_at,
    chain_moved,
    connected,
    deposit_due,
    hash_of,
    invoice,
    output,
    settled,
)

pytestmark = pytest.mark.mongo

PAYEE = "02" + "ee" * 32


def send_legs(wallet: Wallet, amount_sat: int) -> list[dict[str, Any]]:
    """A Lightning send from a BTC wallet (blink-contract.md 2.5)."""
    return moved_legs(wallet_account(wallet.wallet_id), LIGHTNING, amount_sat)


def moved_legs(source: str, target: str, amount_sat: int) -> list[dict[str, Any]]:
    """Debit source, credit target, in sats."""
    return [
        {"account": source, "debit": amount_sat, "details": {"currency": "BTC"}},
        {"account": target, "credit": amount_sat, "details": {"currency": "BTC"}},
    ]


def send_details(payment_hash: str, amount_sat: int) -> dict[str, Any]:
    """What Blink's core writes on every leg of a Lightning send."""
    return {
        "type": "payment",
        "pending": True,
        "hash": payment_hash,
        "pubkey": PAYEE,
        "feeKnownInAdvance": True,
        "memoPayer": None,
        "satsAmount": amount_sat,
        "satsFee": 0,
        "centsAmount": 1,
        "centsFee": 0,
        "displayAmount": 1,
        "displayFee": 0,
        "displayCurrency": "USD",
        "external_id": None,
    }


def transfer_details(amount_sat: int) -> dict[str, Any]:
    """The same for a transfer between two wallets."""
    return {"type": "on_us", "pending": False, "satsAmount": amount_sat, "satsFee": 0, "username": "somebody"}


def assert_same_balances(teller: Teller, medici: Medici, expected: dict[str, int]) -> None:
    """GetBalance and medici both say what is expected, for every account."""
    assert {account: teller.balance(account) for account in expected} == expected
    assert {account: medici.balance(account) for account in expected} == expected


def snapshots_of(teller: Teller, account: str) -> list[dict[str, Any]]:
    """medici's balance snapshots of an account."""
    return list(teller.store.db["medici_balances"].find({"account": account}))


def test_medici_reads_what_tellerd_wrote(teller: Teller, medici: Medici) -> None:
    """Wallets, the Lightning account and suspense have the same balances in both; another currency has none."""
    mine, yours = teller.new_wallet("mine"), teller.new_wallet("yours")
    teller.receive("a", mine, 1, 100_000)
    teller.receive("b", yours, 2, 2_000_999)
    teller.receive("c", None, 3, 30_000)
    mine_account = wallet_account(mine.wallet_id)
    assert_same_balances(
        teller,
        medici,
        {mine_account: 100, wallet_account(yours.wallet_id): 2_000, SUSPENSE: 30, LIGHTNING: -2_130},
    )
    assert medici.balance(mine_account, "USD") == teller.balance(mine_account, "USD") == 0


def test_medici_counts_on_from_its_snapshot(teller: Teller, medici: Medici) -> None:
    """What is settled after a snapshot is added to it: the legs sort above it, batch after batch."""
    wallet = teller.new_wallet()
    account = wallet_account(wallet.wallet_id)
    teller.receive("a", wallet, 1, 100_000)
    assert_same_balances(teller, medici, {account: 100, LIGHTNING: -100})
    (snapshot,) = snapshots_of(teller, account)
    for number in range(2, 6):
        teller.receive(f"more-{number}", wallet, number, 7_000)
        assert teller.store.books.sweep_snapshots() == 0
        assert_same_balances(teller, medici, {account: 100 + 7 * (number - 1), LIGHTNING: -100 - 7 * (number - 1)})
    assert snapshots_of(teller, account) == [snapshot]
    # medici really counts from it: what a snapshot says goes into the balance.
    teller.store.db["medici_balances"].update_one({"_id": snapshot["_id"]}, {"$inc": {"balance": 1_000}})
    assert medici.balance(account) == 1_128


def test_medicis_own_journals_are_adopted(teller: Teller, medici: Medici) -> None:
    """A send, a transfer and a voided send, written by medici between tellerd's own, move GetBalance alike."""
    mine, yours = teller.new_wallet("mine"), teller.new_wallet("yours")
    mine_account, yours_account = wallet_account(mine.wallet_id), wallet_account(yours.wallet_id)
    teller.receive("a", mine, 1, 100_000)
    assert_same_balances(teller, medici, {mine_account: 100, yours_account: 0, LIGHTNING: -100})

    medici.write(send_legs(mine, 30), send_details(hash_of("sent"), 30))
    assert medici.settle(hash_of("sent")) == 2
    medici.write(moved_legs(mine_account, yours_account, 8), transfer_details(8), memo="for lunch")
    assert medici.balance(mine_account) == 62
    assert teller.balance(mine_account) == 100
    assert teller.adopt() == 2
    assert_same_balances(teller, medici, {mine_account: 62, yours_account: 8, LIGHTNING: -70})

    teller.receive("b", yours, 2, 5_000)
    failed = medici.write(send_legs(yours, 13), send_details(hash_of("failed"), 13))
    assert teller.adopt() == 1
    assert_same_balances(teller, medici, {mine_account: 62, yours_account: 0, LIGHTNING: -62})
    medici.settle(hash_of("failed"))
    medici.void(failed, "Payment canceled")
    assert teller.adopt() == 1
    assert_same_balances(teller, medici, {mine_account: 62, yours_account: 13, LIGHTNING: -75})

    assert teller.adopt() == 0
    assert teller.store.ledger.trial_balance(after=None, limit=10).totals == {"BTC": 0}
    with audit_of(teller.store.db) as audit:
        assert verify(audit).breaks == []


def test_a_snapshot_that_hides_a_leg_is_found(teller: Teller, medici: Medici) -> None:
    """medici writes and takes a snapshot while a commit of ours is open: it ends above legs that it has not
    counted. Without the sweep medici would never see them; after it the balance is right."""
    wallet, other = teller.new_wallet("mine"), teller.new_wallet("yours")
    account = wallet_account(wallet.wallet_id)
    teller.receive("a", wallet, 1, 100_000)
    teller.expect("b", wallet)
    changes = teller.sealed(settled("b", 2, 50_000))
    with teller.store.client.start_session() as session:
        session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True))
        Writer(teller.store.db, session).write(changes)
        medici.write(moved_legs(account, wallet_account(other.wallet_id), 7), transfer_details(7))
        assert medici.balance(account) == 93
        session.commit_transaction()
    with pytest.raises(Conflict):  # the poster believed its own last commit, and looks again after this
        teller.adopt()
    teller.adopt()
    assert teller.balance(account) == 143
    assert medici.balance(account) == 93  # the 50 sats are hidden
    assert teller.store.books.sweep_snapshots() == 1
    assert_same_balances(teller, medici, {account: 143, wallet_account(other.wallet_id): 7, LIGHTNING: -150})


def test_legs_have_exactly_blinks_fields(teller: Teller, medici: Medici) -> None:
    """A Lightning receive into a BTC wallet, read through medici: every field, and none beside them."""
    teller.price = PRICE
    wallet = teller.new_wallet()
    account = wallet_account(wallet.wallet_id)
    teller.receive("a", wallet, 1, 100_999)
    common = {
        "book": "MainBook",
        "memo": "memo of a",
        "datetime": at(MORNING_MS + 1_000),
        "timestamp": at(NOW_MS),
        "type": "invoice",
        "pending": False,
        "hash": hash_of("a"),
        "pubkey": NODE,
        "external_id": "ext-a",
        "currency": "BTC",
        "satsAmount": 100,
        "satsFee": 0,
        "centsAmount": 6,
        "centsFee": 0,
        "displayAmount": 6,
        "displayFee": 0,
        "displayCurrency": "USD",
    }
    (credit,), (debit,) = medici.ledger(account), medici.ledger(LIGHTNING)
    assert credit.pop("_journal") == debit.pop("_journal")
    assert isinstance(debit.pop("_id"), ObjectId)
    assert isinstance(credit.pop("_id"), ObjectId)
    path = ["Liabilities", wallet.wallet_id]
    assert credit == {**common, "accounts": account, "account_path": path, "credit": 100, "debit": 0}
    path = ["Assets", "Reserve", "Lightning"]
    assert debit == {**common, "accounts": LIGHTNING, "account_path": path, "credit": 0, "debit": 100}


def test_medici_writes_the_same_documents(teller: Teller, medici: Medici) -> None:
    """The same receive, once posted by tellerd and once written by medici: the stored documents have the same
    fields with the same BSON types and values, ids and the writer's clock apart."""
    teller.price = PRICE
    wallet = teller.new_wallet()
    teller.receive("a", wallet, 1, 100_000)
    db = teller.store.db
    (ours,) = db["medici_journals"].find()
    details = {
        "type": "invoice",
        "pending": False,
        "hash": hash_of("a"),
        "pubkey": NODE,
        "external_id": "ext-a",
        "satsAmount": 100,
        "satsFee": 0,
        "centsAmount": 6,
        "centsFee": 0,
        "displayAmount": 6,
        "displayFee": 0,
        "displayCurrency": "USD",
    }
    journal = medici.write(
        moved_legs(LIGHTNING, wallet_account(wallet.wallet_id), 100),
        details,
        memo="memo of a",
        datetime_ms=MORNING_MS + 1_000,
    )
    (theirs,) = db["medici_journals"].find({"_id": ObjectId(journal)})
    assert comparable(ours) == comparable(theirs)
    our_legs, their_legs = (
        [comparable(leg) for leg in db["medici_transactions"].find({"_journal": found["_id"]}).sort("_id", 1)]
        for found in (ours, theirs)
    )
    assert len(our_legs) == 2
    assert our_legs == their_legs


def comparable(document: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    """Each field's type and value; of ids and of the writer's clock, only the type."""
    own = ("_id", "_journal", "_transactions", "timestamp")
    return {name: (type(value), None if name in own else value) for name, value in document.items()}


def at(unix_ms: int) -> datetime:
    """A time as the driver reads it."""
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC)


def test_medici_reads_dollar_receives_in_both_currencies(teller: Teller, medici: Medici) -> None:
    """Wallet and dealer, sats and cents: Lightning and chain, a snapshot between, and a reorg that takes back."""
    wallet = teller.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
    wallets = teller.store.figures.system_wallets()
    account = wallet_account(wallet.wallet_id)
    dealer_btc = wallet_account(wallets[SystemWallet.DEALER_BTC])
    dealer_usd = wallet_account(wallets[SystemWallet.DEALER_USD])
    owner = wallet_account(wallets[SystemWallet.BANK_OWNER])

    def receive(name: str, index: int, cents: int, received_msat: int) -> None:
        document = invoice(name, wallet.wallet_id, account_id=wallet.account_id, currency=Currency.USD)
        teller.store.invoices.insert(replace(document, cents=cents))
        teller.post(settled(name, index, received_msat))

    def assert_alike(expected: dict[tuple[str, str], int]) -> None:
        ours = {key: teller.balance(*key) for key in expected}
        assert ours == expected
        assert {key: medici.balance(*key) for key in expected} == expected

    receive("a", 1, 150, 2_500_999)
    assert_alike(
        {
            (account, "USD"): 150,
            (account, "BTC"): 0,
            (dealer_usd, "USD"): -150,
            (dealer_btc, "BTC"): 2_500,
            (LIGHTNING, "BTC"): -2_500,
        }
    )
    receive("b", 2, 61, 1_000_000)
    paid, block = output("a", wallet.wallet_id, 100_000), block_at(101)
    teller.post(chain_moved(None, connected(block_at(100))), chain_moved(block_at(100), connected(block, paid)))
    teller.post(chain_moved(block, connected(block_at(102))))
    deal = Deal(amount_sat=100_000, amount_cents=6_000, price="60000.00", source="fixed")
    teller.post(replace(deposit_due("a"), deal=deal))
    assert_alike(
        {
            (account, "USD"): 211 + 5_820,
            (dealer_usd, "USD"): -211 - 5_820,
            (dealer_btc, "BTC"): 3_500 + 97_000,
            (owner, "BTC"): 3_000,
            (ON_CHAIN, "BTC"): -100_000,
        }
    )
    other = connected(block_at(101, "other"))
    teller.post(chain_moved(block_at(102), other, lost=[block_at(102), block], fork=block_at(100)))
    assert_alike(
        {
            (account, "USD"): 211,
            (dealer_usd, "USD"): -211,
            (dealer_btc, "BTC"): 3_500,
            (owner, "BTC"): 0,
            (ON_CHAIN, "BTC"): 0,
        }
    )
    assert teller.store.ledger.trial_balance(after=None, limit=100).totals == {"BTC": 0, "USD": 0}
    with audit_of(teller.store.db) as audit:
        assert verify(audit).breaks == []
