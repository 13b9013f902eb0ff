"""What another program has written oddly stops nothing: its money waits in suspense, all others' goes on.

Nothing in MongoDB keeps a program from writing a list for a name, or microseconds where milliseconds belong, which is
a date beyond the year 9999.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import bson
import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument

from adapters.mongo import collections as names
from adapters.mongo.audit import audit_of
from daemon.domain.accounts import wallet_account
from daemon.domain.books import Wanted
from daemon.domain.identifiers import PaymentHash
from daemon.domain.outbox import JOURNAL_ADOPTED
from daemon.domain.outcomes import Adopted, Posted, Suspended
from daemon.domain.ports import OpenInvoice
from daemon.matching.holds import preimage_of
from daemon.posting.verify import verify
from regtest.mongod import Mongod
from tests.contract.teller import Teller, teller_on
from tests.samples import NODE, hash_of, settled

pytestmark = pytest.mark.mongo

IN_MICROSECONDS: Final = DatetimeMS(1_795_000_000_000_000)
"""A moment of 2026, written as a program does that mistakes the unit."""

LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)

NO_DATE_AT_ALL: Final = DatetimeMS(2**62)
"""Beyond what JavaScript, and canonical JSON, can count."""


@pytest.fixture
def teller(mongod: Mongod) -> Iterator[Teller]:
    """A leader whose node was opened empty, on a fresh database."""
    with teller_on(mongod) as teller:
        teller.open_node()
        yield teller


def set_in(teller: Teller, collection: str, query: dict[str, Any], change: dict[str, Any]) -> None:
    """Writes it as another program would; there is such a document."""
    assert teller.store.db[collection].update_one(query, change).matched_count == 1


NO_TEXT: Final = (None, 7, ["a"], {"a": 1}, ObjectId("65" * 12), IN_MICROSECONDS)


def test_a_document_that_names_no_wallet_waits_in_suspense(teller: Teller) -> None:
    """And the settlement beside it is credited."""
    wallet = teller.new_wallet()
    for index, value in enumerate(NO_TEXT, start=1):
        good, odd = f"good {index}", f"odd {index}"
        teller.expect(good, wallet)
        teller.expect(odd, wallet)
        set_in(teller, names.INVOICES, {"_id": hash_of(odd)}, {"$set": {"walletId": value}})
        outcomes = teller.post(settled(odd, 2 * index, 5_000), settled(good, 2 * index + 1, 9_000)).plan.outcomes
        assert [type(outcome) for outcome in outcomes] == [Suspended, Posted], value
    assert teller.balance(wallet_account(wallet.wallet_id)) == 9 * len(NO_TEXT)


@pytest.mark.parametrize("field", ["externalId", "secret", "timestamp", "paymentRequest", "accountId", "memo"])
def test_what_is_odd_beside_the_wallet_keeps_no_money_from_it(teller: Teller, field: str) -> None:
    """The document is found among the open ones, decided when its payment is held, and credited."""
    changes: list[dict[str, Any]] = [{"$set": {field: value}} for value in NO_TEXT]
    changes.append({"$unset": {field: ""}})
    for index, change in enumerate(changes, start=1):
        name = f"odd {index}"
        wallet = teller.new_wallet(name)
        teller.expect(name, wallet)
        set_in(teller, names.INVOICES, {"_id": hash_of(name)}, change)
        (document,) = teller.store.open_invoices.open_invoices(pubkey=NODE, after=None, limit=10)
        assert document.payment_hash == hash_of(name)
        assert document.payment_request is None or isinstance(document.payment_request, str)
        teller.store.open_invoices.open_invoices_since(pubkey=NODE, since=LONG_AGO, limit=10)
        expectations = teller.store.books.read_facts(Wanted(payment_hashes={hash_of(name)})).expectations
        assert (preimage_of(expectations[hash_of(name)]) is None) == (field == "secret")
        teller.post(settled(name, index, 5_000))
        assert teller.balance(wallet_account(wallet.wallet_id)) == 5, change
    assert verify_breaks(teller) == []


@pytest.mark.parametrize("name", ["a test", "ab" * 31, "AB" * 32, 7, ObjectId("65" * 12)], ids=repr)
def test_a_document_whose_name_is_no_hash_is_not_asked_for(teller: Teller, name: object) -> None:
    """No node can be asked about it; those after it are found."""
    wallet = teller.new_wallet()
    teller.expect("good", wallet)
    document = teller.store.db[names.INVOICES].find_one({"_id": hash_of("good")})
    assert document is not None
    teller.store.db[names.INVOICES].insert_one({**document, "_id": name, "externalId": "odd"})
    after: PaymentHash | None = None
    found: list[OpenInvoice] = []
    while page := teller.store.open_invoices.open_invoices(pubkey=NODE, after=after, limit=1):
        after = page[-1].payment_hash
        found += page
    assert [one.payment_hash for one in found] == [hash_of("good")]
    young = teller.store.open_invoices.open_invoices_since(pubkey=NODE, since=LONG_AGO, limit=10)
    assert [one.payment_hash for one in young] == [hash_of("good")]


UNREADABLE: Final[list[tuple[str, Any]]] = [
    *(("currency", value) for value in (*NO_TEXT, "EUR")),
    *(("timestamp", value) for value in (None, 7, ["a"], {"a": 1}, "now", NO_DATE_AT_ALL)),
]


def test_a_document_that_nobody_can_read_is_not_listed(teller: Teller) -> None:
    """Nor shown; those of the same wallet are, also with oddities beside what tells them."""
    wallet = teller.new_wallet()
    teller.expect("good", wallet)
    set_in(teller, names.INVOICES, {"_id": hash_of("good")}, {"$set": {"externalId": ["a"], "secret": ["a"]}})
    for index, (field, value) in enumerate(UNREADABLE):
        teller.expect(f"odd {index}", wallet)
        set_in(teller, names.INVOICES, {"_id": hash_of(f"odd {index}")}, {"$set": {field: value}})
        assert teller.store.invoices.get(hash_of(f"odd {index}")) is None, (field, value)
    page, token = teller.store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=50)
    assert [(one.payment_hash, one.external_id, one.preimage) for one in page] == [(hash_of("good"),) * 2 + ("",)]
    assert token is None


def test_an_account_that_was_locked_and_says_nothing_readable_since_is_locked(teller: Teller) -> None:
    """What nobody can read unlocks nothing: its money waits for a person."""
    locked = {"status": "locked"}
    for index, history in enumerate((locked, [locked, "active"], [locked, {"status": ["active"]}]), start=1):
        name = f"odd {index}"
        wallet = teller.new_wallet(name)
        teller.expect(name, wallet)
        set_in(teller, names.ACCOUNTS, {"id": wallet.account_id}, {"$set": {"statusHistory": history}})
        (outcome,) = teller.post(settled(name, index, 5_000)).plan.outcomes
        assert isinstance(outcome, Suspended)
        assert outcome.reason == "account_locked"


def test_a_wallet_that_counts_in_nothing_readable_is_no_wallet(teller: Teller) -> None:
    """Its payment waits in suspense."""
    for index, value in enumerate(NO_TEXT, start=1):
        name = f"odd {index}"
        wallet = teller.new_wallet(name)
        teller.expect(name, wallet)
        set_in(teller, names.WALLETS, {"id": wallet.wallet_id}, {"$set": {"currency": value}})
        (outcome,) = teller.post(settled(name, index, 5_000)).plan.outcomes
        assert isinstance(outcome, Suspended)
        assert outcome.reason == "no_wallet"


def test_a_wallet_of_no_readable_account_is_a_wallet(teller: Teller) -> None:
    """It says what it counts in, and that is enough for sats."""
    for index, value in enumerate(NO_TEXT, start=1):
        name = f"odd {index}"
        wallet = teller.new_wallet(name)
        teller.expect(name, wallet)
        set_in(teller, names.WALLETS, {"id": wallet.wallet_id}, {"$set": {"accountId": value}})
        teller.post(settled(name, index, 5_000))
        assert teller.balance(wallet_account(wallet.wallet_id)) == 5


def write_journal(teller: Teller, **changes: Any) -> Any:
    """Another program's journal of two legs; returns its `_id`."""
    journal = {"_id": ObjectId(), "datetime": datetime.now(tz=UTC), "memo": "", "book": "MainBook", **changes}
    legs = []
    for account, side in (("Assets:OnChain", "debit"), ("Liabilities:w", "credit")):
        sides = {"debit": 0, "credit": 0, side: 5}
        moment = {"datetime": journal["datetime"], "timestamp": journal["datetime"], "book": "MainBook"}
        where = {"accounts": account, "account_path": account.split(":"), "currency": "BTC"}
        leg = {"_id": ObjectId(), "_journal": journal["_id"], **where, **sides, **moment}
        teller.store.db[names.LEGS].insert_one(leg)
        legs.append(leg["_id"])
    teller.store.db[names.JOURNALS].insert_one({"_transactions": legs, **journal})
    return journal["_id"]


def test_a_journal_with_an_odd_date_is_adopted(teller: Teller) -> None:
    """It moves balances like any other, and the chain that holds it is whole; where its date is none, its `_id`'s
    counts."""
    moments = (IN_MICROSECONDS, NO_DATE_AT_ALL, "today", 2.5, 7, {"a": 1})
    for moment in moments:
        write_journal(teller, datetime=moment)
    found = teller.store.journals.foreign_journals(after=None, limit=10)
    outcomes = teller.post(*found).plan.outcomes
    assert [type(outcome) for outcome in outcomes] == [Adopted] * len(moments)
    assert teller.balance("Liabilities:w") == 5 * len(moments)
    assert verify_breaks(teller) == []
    assert teller.store.ledger.events(after_sequence=0, limit=10)[-1].type == JOURNAL_ADOPTED


MIDWAY: Final = "a" + "é" * 12
"""Text whose bytes cannot be cut where the writer's part of an id begins and ends."""

NO_IDS: Final = (["a"], MIDWAY)


@pytest.mark.parametrize("changes", [{"_transactions": 7}, {"_id": "its name"}, {"_id": MIDWAY}, {"_id": 7}], ids=str)
def test_what_is_no_journal_of_medicis_is_left_alone(teller: Teller, changes: dict[str, Any]) -> None:
    """The one beside it is adopted; `tellerd verify` names the legs that belong to no journal."""
    write_journal(teller, **changes)
    good = write_journal(teller)
    found = teller.store.journals.foreign_journals(after=None, limit=10)
    assert [one.journal_id for one in found] == [str(good)]
    teller.post(*found)
    assert all("not in the chain" in problem for problem in verify_breaks(teller))
    assert len(verify_breaks(teller)) == 2


@pytest.mark.parametrize("journal", NO_IDS, ids=str)
def test_a_leg_that_belongs_to_no_journal_is_another_programs(teller: Teller, journal: Any) -> None:
    """Its hash counts as booked elsewhere; nothing stops."""
    wallet = teller.new_wallet()
    teller.expect("odd", wallet)
    leg = {"accounts": "Assets:Reserve:Lightning", "currency": "BTC", "debit": 5, "credit": 0}
    found = {"_journal": journal, "book": "MainBook", "hash": hash_of("odd"), "type": "invoice"}
    teller.store.db[names.LEGS].insert_one({**leg, **found})
    teller.post(settled("odd", 1, 5_000))
    assert teller.balance(wallet_account(wallet.wallet_id)) == 0


@pytest.mark.parametrize("journal", NO_IDS, ids=str)
def test_a_snapshot_of_medicis_that_names_no_leg_stays(teller: Teller, journal: Any) -> None:
    """It hides none of ours; those beside it are looked at."""
    teller.post(settled("a", 1, 5_000))
    now = datetime.now(tz=UTC)
    foreign = ObjectId.from_datetime(now + timedelta(seconds=5))  # beyond our legs, which the server has named
    between = ObjectId.from_datetime(now - timedelta(seconds=20))
    for leg in (foreign, between):
        teller.store.db[names.LEGS].insert_one({"_id": leg, "_journal": journal, "book": "MainBook"})
    long_ago = ObjectId(b"\x00" * 12)
    odd: list[dict[str, Any]] = [{}, {"transaction": None}, {"transaction": "a"}, {"transaction": long_ago}]
    hides = {"transaction": foreign}
    for snapshot in (*odd, hides):
        teller.store.db[names.SNAPSHOTS].insert_one({"book": "MainBook", "createdAt": now, **snapshot})
    assert teller.store.books.sweep_snapshots() == 1
    assert teller.store.db[names.SNAPSHOTS].count_documents({}) == len(odd)


def test_text_that_is_no_utf_8_is_read(teller: Teller) -> None:
    """MongoDB takes whatever bytes a driver calls a string."""
    wallet = teller.new_wallet()
    teller.expect("odd", wallet)
    set_in(teller, names.INVOICES, {"_id": hash_of("odd")}, {"$set": {"externalId": "shop ~~"}})
    document = teller.store.db[names.INVOICES].find_one({"_id": hash_of("odd")})
    assert document is not None
    broken = RawBSONDocument(bson.encode(document).replace(b"shop ~~", b"shop \xff\xfe"))
    teller.store.db[names.INVOICES].delete_one({"_id": hash_of("odd")})
    teller.store.db[names.INVOICES].insert_one(broken)
    teller.post(settled("odd", 1, 5_000))
    assert teller.balance(wallet_account(wallet.wallet_id)) == 5


def verify_breaks(teller: Teller) -> list[str]:
    """What `tellerd verify` names."""
    with audit_of(teller.store.db) as audit:
        return verify(audit).breaks
