"""The port `Books`, for the chain: what a commit writes of deposits, and what the next decision is read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from bson import ObjectId

from adapters.mongo import MongoStore, known_wallets
from adapters.mongo.audit import audit_of
from daemon.domain.accounts import ON_CHAIN, wallet_account
from daemon.domain.books import ChainFacts, Changes, Wanted
from daemon.domain.chain import Deposit, DepositBooking, DepositState
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.errors import Conflict
from daemon.domain.identifiers import Outpoint, WalletId, deposit_key, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxEvent, OutboxRow
from daemon.matching.plan import Plan, Step
from daemon.posting.seal import seal
from regtest.mongod import Mongod
from tests.contract.conftest import Database
from tests.contract.deposit_samples import (
    KEY,
    WALLET,
    block,
    changes,
    confirmed,
    cursor_at,
    deposit,
    derived,
    outpoints,
    pending,
    put,
    script_of,
    txid_of,
)
from tests.contract.teller import Teller, teller_on
from tests.samples import MORNING_MS, NODE, hash_of, invoice, moved, node_opened, settled

BOOKING = DepositBooking(is_dust=False, fee_sat=3_000, bank_owner=WalletId("bank"))


def chain_facts(store: Database, **wanted: Any) -> ChainFacts:
    return store.books.read_facts(Wanted(**wanted)).chain


def credit(store: Database, paid: Deposit, amount_sat: int = 17_000) -> Changes:
    """A commit that credits a deposit's wallet, with the details of Blink's on-chain receipt."""
    plan = Plan(facts=store.books.read_facts(Wanted()))
    entry = JournalEntry(
        key=deposit_key(paid.outpoint, 1),
        memo="",
        datetime_ms=MORNING_MS,
        legs=(
            Leg(account=ON_CHAIN, currency="BTC", debit=amount_sat),
            Leg(account=wallet_account(paid.wallet_id), currency="BTC", credit=amount_sat),
        ),
        details={
            "type": "onchain_receipt",
            "pending": False,
            "hash": paid.txid,
            "vout": paid.vout,
            "payee_addresses": (paid.address,),
            "external_id": None,
        },
    )
    plan.take(Step(key=entry.key, entry=entry, events=()))
    return replace(seal(plan, now_ms=MORNING_MS, writer_id=store.books.writer_id), deposits=[paid])


def everything(store: Database, *deposits: Deposit) -> tuple[object, ...]:
    """All that a commit here could have left."""
    facts = store.books.read_facts(Wanted(chain=True, outpoints=set(outpoints(*deposits))))
    page = store.deposits.page(wallet_id=None, states=(), after=None, limit=100)
    return facts, page, store.another.pending_receives(), store.deposits.cursor()


def test_a_commit_writes_deposits_cursor_and_projection_together(store: Database) -> None:
    """All three are there after it."""
    one, two = deposit("a"), deposit("a", 1)
    store.books.commit(
        changes(
            store,
            chain_cursor=cursor_at(5),
            deposits=[one, two],
            pending={one.outpoint: pending(one), two.outpoint: pending(two)},
        )
    )
    facts = chain_facts(store, outpoints={one.outpoint, two.outpoint})
    assert facts.cursor == cursor_at(5)
    assert facts.deposits == {one.outpoint: one, two.outpoint: two}
    assert store.another.pending_receives() == {one.outpoint, two.outpoint}


def test_a_refused_commit_writes_nothing_of_the_chain(store: Database) -> None:
    """A head that moved is a Conflict; deposits, projection and cursor stay as they were."""
    one, two = deposit("a"), deposit("b")
    store.books.commit(changes(store, chain_cursor=cursor_at(5), deposits=[one], pending={one.outpoint: pending(one)}))
    late = changes(
        store,
        chain_cursor=cursor_at(6),
        deposits=[replace(one, revision=7), two],
        pending={one.outpoint: None, two.outpoint: pending(two)},
    )
    before = everything(store, one, two)
    with pytest.raises(Conflict):
        store.books.commit(replace(late, before=replace(late.before, sequence=late.before.sequence + 1)))
    assert everything(store, one, two) == before
    store.books.commit(late)
    assert everything(store, one, two) != before


def test_the_projection_goes_when_a_deposit_settles(store: Database) -> None:
    """Only the output that is named goes, and what is not there is no error; a second sighting keeps the first."""
    one, two = deposit("a"), deposit("a", 1)
    store.books.commit(changes(store, pending={one.outpoint: pending(one), two.outpoint: pending(two)}))
    store.books.commit(changes(store, pending={one.outpoint: pending(one, amount_sat=1)}))
    gone: dict[Outpoint, None] = {two.outpoint: None, outpoint_of(txid_of("never"), 0): None}
    store.books.commit(changes(store, pending=gone))
    assert store.another.pending_receives() == {one.outpoint}


def test_without_chain_fields_there_are_no_chain_facts(store: Database) -> None:
    """A batch of Lightning's does not read the chain."""
    store.books.commit(changes(store, chain_cursor=cursor_at(5)))
    assert store.books.read_facts(Wanted(opening=True, keys={"k"})).chain == ChainFacts()
    assert chain_facts(store, chain=True).cursor == cursor_at(5)


def test_any_chain_field_brings_the_common_facts(store: Database) -> None:
    """Cursor and bank owner come with each of them."""
    store.books.commit(changes(store, chain_cursor=cursor_at(5)))
    for wanted in (
        Wanted(chain=True),
        Wanted(outpoints={deposit("a").outpoint}),
        Wanted(gone_txids={txid_of("a")}),
        Wanted(disconnected={block(1).hash}),
        Wanted(wallet_ids={WALLET}),
    ):
        facts = store.books.read_facts(wanted).chain
        assert facts.cursor == cursor_at(5)
        assert facts.bank_owner is not None
        assert (facts.deposits, facts.policy, facts.balances) == ({}, None, {})


def test_the_bank_owner_is_a_btc_wallet(store: Database) -> None:
    """The one that `tellerd init` makes."""
    owner = chain_facts(store, chain=True).bank_owner
    assert owner is not None
    wallet = store.wallets.get(owner)
    assert wallet is not None
    assert wallet.currency is Currency.BTC


def test_deposits_are_read_by_outpoint_by_tx_and_by_block(store: Database) -> None:
    """Each way brings its own, with all outputs of a tx that is gone, and no others; together each comes once."""
    a0, a1 = deposit("a"), deposit("a", 1)
    b0, b1 = confirmed("b", 7), confirmed("b", 7, 1)
    c0, d0 = confirmed("c", 8), confirmed("d", 8, branch="fork")
    put(store, a0, a1, b0, b1, c0, d0)

    def read(**wanted: Any) -> set[Outpoint]:
        return set(chain_facts(store, **wanted).deposits)

    assert read(outpoints={a1.outpoint, b0.outpoint}) == {a1.outpoint, b0.outpoint}
    assert read(gone_txids={a0.txid, txid_of("never")}) == {a0.outpoint, a1.outpoint}
    assert read(disconnected={block(7).hash, block(8).hash}) == set(outpoints(b0, b1, c0))
    together = {"outpoints": {b0.outpoint}, "gone_txids": {a0.txid}, "disconnected": {block(7).hash}}
    assert read(**together) == set(outpoints(a0, a1, b0, b1))


def test_currencies_of_wallets_that_exist(store: Database) -> None:
    """Of those that are asked for, and of those whose deposits are read; one that is not there is left out."""
    btc = store.new_wallet()
    usd = store.wallets.create(account_id=btc.account_id, currency=Currency.USD, external_id="usd")
    paid = deposit("a", wallet_id=usd.wallet_id)
    put(store, paid, deposit("b"))
    facts = chain_facts(store, outpoints=set(outpoints(paid, deposit("b"))), wallet_ids={btc.wallet_id, WALLET})
    assert facts.currencies == {btc.wallet_id: Currency.BTC, usd.wallet_id: Currency.USD}


def test_another_programs_receipt_counts_as_booked_elsewhere(store: Database) -> None:
    """By hash, type and vout; one without a vout stands for all outputs of its tx; ours do not count."""
    a0, a1, b0, b1 = deposit("a"), deposit("a", 1), deposit("b"), deposit("b", 1)
    ours, sent = deposit("ours"), deposit("sent")
    receipt = moved(ON_CHAIN, "Liabilities:w", 5)
    for details in (
        {"type": "onchain_receipt", "hash": a0.txid, "vout": 1},
        {"type": "onchain_receipt", "hash": b0.txid},
        {"type": "onchain_payment", "hash": sent.txid, "vout": 0},
    ):
        store.another.write_journal(receipt, details=details)
    store.books.commit(credit(store, ours))
    asked = set(outpoints(a0, a1, b0, b1, ours, sent))
    assert chain_facts(store, outpoints=asked).booked_elsewhere == set(outpoints(a1, b0, b1))
    assert chain_facts(store, outpoints={a0.outpoint}).booked_elsewhere == set()


def test_a_receipt_whose_vout_is_null_or_a_double_is_understood(store: Database) -> None:
    """Node.js writes undefined as null, and numbers as doubles."""
    a0, b1 = deposit("a"), deposit("b", 1)
    receipt = moved(ON_CHAIN, "Liabilities:w", 5)
    store.another.write_journal(receipt, details={"type": "onchain_receipt", "hash": a0.txid, "vout": None})
    store.another.write_journal(receipt, details={"type": "onchain_receipt", "hash": b1.txid, "vout": 1.0})
    asked = {a0.outpoint, b1.outpoint, deposit("b").outpoint}
    assert chain_facts(store, outpoints=asked).booked_elsewhere == {a0.outpoint, b1.outpoint}


def test_balances_of_wallets_that_a_reorg_takes_from(store: Database) -> None:
    """Of the deposits in these blocks, and those that the batch is about besides; one that was never booked to has
    none in it: zero."""
    rich, poor, named = WalletId("rich"), WalletId("poor"), WalletId("named")
    settled_: dict[str, Any] = {"state": DepositState.SETTLED, "booking": BOOKING, "settlements": 1}
    paid = confirmed("a", 7, wallet_id=rich, **settled_)
    store.books.commit(credit(store, paid))
    put(
        store,
        confirmed("b", 7, wallet_id=poor, **{**settled_, "booking": None}),
        confirmed("c", 7, wallet_id=WalletId("unsettled")),
        confirmed("d", 8, wallet_id=WalletId("elsewhere"), **settled_),
    )
    facts = chain_facts(store, disconnected={block(7).hash}, wallet_ids={named})
    assert facts.balances == {rich: 17_000, poor: 0, named: 0, "unsettled": 0}
    assert chain_facts(store, outpoints={paid.outpoint}).balances == {}


def test_the_chains_cursor_is_no_nodes(store: Database) -> None:
    """Lightning's cursors are seen without it, and it is not disturbed by theirs."""
    store.books.commit(changes(store, chain_cursor=cursor_at(5)))
    store.post(node_opened())
    store.post(settled("a", 1, 1_000))
    assert set(store.books.read_facts(Wanted(opening=True)).cursors) == {NODE}
    named = store.books.cursor_of_name("lnd1")
    assert named is not None
    assert named.pubkey == NODE
    assert store.deposits.cursor() == cursor_at(5)


def test_details_are_read_back_as_a_database_keeps_them(store: Database) -> None:
    """Several addresses are an array, and what is None stays there as null."""
    store.books.commit(credit(store, deposit("a")))
    (entry,) = store.ledger.entries(account=ON_CHAIN, before=None, limit=10)
    assert entry.details["payee_addresses"] == ["bcrt1a"]
    assert entry.details["external_id"] is None
    assert "external_id" in entry.details


# MongoDB alone: documents field by field, and what its queries cost.


@pytest.fixture
def teller(mongod: Mongod) -> Iterator[Teller]:
    """A leader on a fresh database."""
    with teller_on(mongod) as teller:
        yield teller


def committed(teller: Teller, **fields: Any) -> None:
    head = teller.store.books.read_facts(Wanted()).head
    empty: dict[str, Any] = dict.fromkeys(
        ("keys", "paid", "outbox", "entries", "suspense_new", "suspense_assigned", "gaps", "cursors"), ()
    )
    common = {"before": head, "after": head, "committed_at_ms": MORNING_MS, "deltas": {}}
    teller.store.books.commit(Changes(**{**common, **empty, **fields}))


@pytest.mark.mongo
def test_the_projection_is_blinks_document(teller: Teller) -> None:
    """Field by field as blink-contract.md 1 has it: display amounts are strings in dollars."""
    one = deposit("a", 2)
    committed(teller, pending={one.outpoint: pending(one, cents=1_005, fee_cents=7, price_base=60_000_000_000)})
    (found,) = teller.store.db["walletonchainpendingreceives"].find()
    assert isinstance(found.pop("_id"), ObjectId)
    assert found == {
        "walletId": WALLET,
        "address": "bcrt1a",
        "transactionHash": one.txid,
        "vout": 2,
        "walletAmount": 17_000,
        "walletFee": 3_000,
        "walletCurrency": "BTC",
        "displayAmount": "10.05",
        "displayFee": "0.07",
        "displayPriceBase": "60000000000",
        "displayPriceOffset": "12",
        "displayPriceCurrency": "USD",
        "createdAt": datetime.fromtimestamp(MORNING_MS / 1000, tz=UTC),
        "__v": 0,
    }


@pytest.mark.mongo
def test_without_a_price_the_projection_has_no_display_fields(teller: Teller) -> None:
    """They are absent, not null."""
    one = deposit("a")
    committed(teller, pending={one.outpoint: pending(one, cents=None, fee_cents=None, price_base=None)})
    (found,) = teller.store.db["walletonchainpendingreceives"].find()
    assert [name for name in found if name.startswith("display")] == []
    assert found["walletAmount"] == 17_000


@pytest.mark.mongo
def test_a_document_that_blink_wrote_first_stays(teller: Teller) -> None:
    """Its amounts are Blink's; it goes like any other when the deposit settles."""
    one = deposit("a")
    collection = teller.store.db["walletonchainpendingreceives"]
    collection.insert_one({"transactionHash": one.txid, "vout": 0, "walletAmount": 1})
    committed(teller, pending={one.outpoint: pending(one)})
    assert [found["walletAmount"] for found in collection.find()] == [1]
    committed(teller, pending={one.outpoint: None})
    assert collection.count_documents({}) == 0


@pytest.mark.mongo
def test_the_audit_sees_the_nodes_cursors_only(teller: Teller) -> None:
    """What `tellerd verify` adds up are the Lightning nodes' sums."""
    committed(teller, chain_cursor=cursor_at(5))
    teller.open_node()
    with audit_of(teller.store.db) as audit:
        assert [cursor.pubkey for cursor in audit.cursors()] == [NODE]


@pytest.mark.mongo
def test_deposits_of_txs_with_very_many_inputs_are_written(teller: Teller) -> None:
    """Each tx as large as a block: together more than MongoDB takes in one command."""
    inputs = tuple(outpoint_of(txid_of("inputs"), vout) for vout in range(24_000))
    large = [deposit("large", vout, inputs=inputs) for vout in range(12)]
    committed(teller, deposits=large)
    assert teller.store.deposits.get(large[11].outpoint) == large[11]
    assert len(teller.store.deposits.detected(after=None, limit=100)) == 12


@pytest.mark.mongo
def test_a_full_cache_of_currencies_forgets_no_wallet_of_the_batch(
    teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wallet that is known and one that is not, read together when the cache is full: both have a currency."""
    monkeypatch.setattr(known_wallets, "MAX_CACHED", 1)
    wallets = [teller.new_wallet(f"w{n}").wallet_id for n in range(3)]
    read = teller.store.books.read_facts
    read(Wanted(wallet_ids={wallets[0], wallets[1]}))
    assert set(read(Wanted(wallet_ids={wallets[1], wallets[2]})).chain.currencies) == {wallets[1], wallets[2]}


class Profile:
    """What the server says that it did, query by query."""

    def __init__(self, store: MongoStore) -> None:
        self._db = store.db

    def __enter__(self) -> Self:
        self._db.command("profile", 2)
        return self

    def __exit__(self, *_: object) -> None:
        self._db.command("profile", 0)

    def reads(self) -> list[tuple[str, str]]:
        """Collection and plan of every read since."""
        found = self._db["system.profile"].find({"planSummary": {"$exists": True}})
        return [(row["ns"].partition(".")[2], row["planSummary"]) for row in found]


@pytest.mark.mongo
def test_no_read_walks_a_collection(teller: Teller) -> None:
    """Every read of the ports has an index; the bank owner alone is looked for, once in a process."""
    store, one = teller.store, confirmed("a", 7)
    wallet = teller.new_wallet()
    committed(teller, deposits=[one, deposit("b")], chain_cursor=cursor_at(7))
    store.addresses.give(wallet.wallet_id, derived(0), key_id=KEY)
    wanted = Wanted(outpoints={one.outpoint}, gone_txids={txid_of("b")}, disconnected={block(7).hash})
    store.books.read_facts(wanted)
    with Profile(store) as profile:
        store.books.read_facts(wanted)
        store.books.read_facts(Wanted(opening=True))
        for wallet_id in (None, wallet.wallet_id):
            for states in ((), (DepositState.DETECTED,)):
                _, token = store.deposits.page(wallet_id=wallet_id, states=states, after=None, limit=1)
                store.deposits.page(wallet_id=wallet_id, states=states, after=token or "1:x", limit=1)
        store.deposits.get(one.outpoint)
        store.deposits.detected(after=one.outpoint, limit=10)
        store.deposits.due(height=9, after=one.outpoint, limit=10)
        store.deposits.waiting()
        store.addresses.current(wallet.wallet_id, key_id=KEY)
        store.scripts.owners([derived(0).script])
        store.scripts.unscanned(limit=10)
        store.foreign_addresses(script_of).sweep(after=str(ObjectId()), limit=10)
    reads = profile.reads()
    assert {collection for collection, _ in reads} >= {
        "teller_deposits",
        "teller_scripts",
        "teller_cursors",
        "medici_transactions",
        "wallets",
    }
    assert [read for read in reads if "COLLSCAN" in read[1]] == []


@pytest.mark.mongo
def test_a_batch_without_the_chain_costs_one_query(teller: Teller) -> None:
    """Lightning's speed: its facts stay one round trip."""
    with Profile(teller.store) as profile:
        teller.store.books.read_facts(Wanted(keys={"k"}, pubkeys={NODE}))
    assert [collection for collection, _ in profile.reads()] == ["teller_head"]


@pytest.mark.mongo
def test_a_batch_with_invoices_of_known_wallets_costs_two_queries(teller: Teller) -> None:
    """Whose wallets they are is known with what they count in; whether the account is locked is asked each time."""
    wallet, store = teller.new_wallet(), teller.store
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    wanted = Wanted(payment_hashes={hash_of("a")})
    store.books.read_facts(wanted)
    with Profile(store) as profile:
        store.books.read_facts(wanted)
    assert [collection for collection, _ in profile.reads()] == ["teller_head", "accounts"]


@pytest.mark.mongo
def test_a_commit_may_be_larger_than_a_command_of_mongodb_holds(teller: Teller) -> None:
    """A block that somebody has filled with outputs to our wallets makes more rows of the feed than 16 MB hold."""
    event = OutboxEvent(
        type="deposit.detected", key="chain:a", occurred_at_ms=MORNING_MS, wallet_ids=(), payload={"text": "x" * 3_000}
    )
    committed(teller, outbox=[OutboxRow(sequence, event, None) for sequence in range(1, 6_001)])
    assert len(teller.store.ledger.events(after_sequence=5_990, limit=100)) == 10
