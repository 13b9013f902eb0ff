"""`verify` over the audit of a real MongoDB: whole books pass; what is edited by hand is found and named first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from bson.int64 import Int64
from pymongo.database import Database

from adapters.mongo.audit import audit_of
from daemon.domain.accounts import LIGHTNING, ROUNDING, SUSPENSE, wallet_account
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import WalletId
from daemon.posting.verify import MAX_BREAKS, Report, verify
from regtest.mongod import Mongod
from tests.contract.another_program import AnotherProgram
from tests.contract.teller import Teller, teller_on
from tests.samples import NODE, block_at, chain_moved, connected, deposit_due, hash_of, moved, output, settled

pytestmark = pytest.mark.mongo

Document = dict[str, Any]


@dataclass
class Books:
    """Seven journals: an opening, four receipts (one in suspense, with remainders), a rounding, one adopted."""

    db: Database[Document]
    teller: Teller
    wallet: str
    foreign: str = ""
    third: Document = field(default_factory=dict)
    third_legs: list[Document] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.foreign = AnotherProgram(self.db).write_journal(
            moved(self.wallet, LIGHTNING, 40), details={"type": "payment", "pending": True, "hash": hash_of("sent")}
        )
        self.teller.adopt()
        link = self.one("teller_links", n=3)
        self.third = self.one("medici_journals", _id=link["_id"])
        self.third_legs = list(self.db["medici_transactions"].find({"_journal": link["_id"]}).sort("_id", 1))

    def one(self, collection: str, **query: Any) -> Document:
        """The document."""
        found = self.db[collection].find_one(query)
        assert found is not None
        return found

    def change(self, collection: str, identity: Any, change: Document) -> None:
        """Edits a document by hand."""
        assert self.db[collection].update_one({"_id": identity}, change).modified_count == 1

    def delete(self, collection: str, identity: Any) -> None:
        """Deletes a document by hand."""
        assert self.db[collection].delete_one({"_id": identity}).deleted_count == 1

    def verified(self) -> Report:
        """What `tellerd verify` finds now."""
        with audit_of(self.db) as audit:
            return verify(audit)


@pytest.fixture(scope="module")
def whole(mongod: Mongod) -> Iterator[Books]:
    """Books of seven journals, whole; made once, for making collections and indexes is slow."""
    with teller_on(mongod) as teller:
        teller.open_node(funds_msat=9_000_500)
        wallet = teller.new_wallet()
        teller.receive("a", wallet, 1, 100_300)
        teller.receive("b", wallet, 2, 200_000)
        teller.receive("c", None, 3, 30_400)
        teller.receive("d", wallet, 4, 70_000)
        yield Books(teller.store.db, teller, wallet_account(WalletId(wallet.wallet_id)))


@pytest.fixture
def books(whole: Books) -> Iterator[Books]:
    """The books, whole again after each test."""
    before = contents(whole.db)
    yield whole
    for name, documents in before.items():
        collection = whole.db[name]
        collection.delete_many({"_id": {"$nin": list(documents)}})
        for identity, document in documents.items():
            collection.replace_one({"_id": identity}, document, upsert=True)
    assert contents(whole.db) == before


def contents(db: Database[Document]) -> dict[str, dict[Any, Document]]:
    """All documents of the books."""
    names = [name for name in db.list_collection_names() if name.startswith(("teller_", "medici_"))]
    return {name: {document["_id"]: document for document in db[name].find()} for name in names}


def test_whole_books_pass(books: Books) -> None:
    """Everything is counted, and the chain ends where the head says."""
    report = books.verified()
    assert report.breaks == []
    assert (report.journals, report.foreign, report.events, report.accounts) == (7, 1, 7, 5)
    assert report.chain_hash == books.teller.store.ledger.head().chain_hash
    assert report.balances[(books.wallet, "BTC")] == books.teller.balance(books.wallet) == 330
    assert report.balances[(SUSPENSE, "BTC")] == 30


def test_books_with_money_that_came_again_pass(mongod: Mongod) -> None:
    """Its fraction and the one that was booked before make a sat, which is taken back from the rounding account."""
    with teller_on(mongod) as teller:
        teller.open_node()
        wallet = teller.new_wallet()
        teller.receive("a", wallet, 1, 3_400)
        teller.receive("b", wallet, 2, 1_700)  # the fractions of both are a sat
        teller.post(settled("a", 1, 7_200))
        with audit_of(teller.store.db) as audit:
            report = verify(audit)
        assert report.breaks == []
        teller.post(settled("a", 1, 8_100))
        with audit_of(teller.store.db) as audit:
            report = verify(audit)
        assert report.breaks == []
        assert report.balances[(ROUNDING, "BTC")] == 0
        assert teller.balance(wallet_account(WalletId(wallet.wallet_id))) == 9


def test_books_just_made_pass(mongod: Mongod) -> None:
    """A database with nothing in it is whole."""
    with teller_on(mongod) as teller, audit_of(teller.store.db) as audit:
        report = verify(audit)
    assert (report.breaks, report.journals) == ([], 0)


def at_third(books: Books) -> str:
    """How a break in the third journal begins."""
    key = f"ln:{NODE}:{hash_of('b')}"
    return f"chain position 3, journal {books.third['_id']} ({key}): "


Tampering = Callable[[Books], str]
"""Edits the books by hand and returns how the first break that is named must begin."""


def amount_of_a_leg(books: Books) -> str:
    books.change("medici_transactions", books.third_legs[1]["_id"], {"$set": {"credit": 201}})
    return at_third(books) + f"changed after it was booked: {books.wallet} BTC moved by 200, the legs now say 201"


def amounts_of_a_whole_journal(books: Books) -> str:
    books.change("medici_transactions", books.third_legs[0]["_id"], {"$set": {"debit": 201}})
    books.change("medici_transactions", books.third_legs[1]["_id"], {"$set": {"credit": 201}})
    return at_third(books) + f"changed after it was booked: {LIGHTNING} BTC moved by -200, the legs now say -201"


def currency_of_a_leg(books: Books) -> str:
    books.change("medici_transactions", books.third_legs[1]["_id"], {"$set": {"currency": "USD"}})
    return at_third(books) + f"changed after it was booked: {books.wallet} BTC moved by 200, the legs now say 0"


def account_of_a_leg(books: Books) -> str:
    change = {"$set": {"accounts": SUSPENSE, "account_path": SUSPENSE.split(":")}}
    books.change("medici_transactions", books.third_legs[1]["_id"], change)
    return at_third(books) + f"changed after it was booked: {books.wallet} BTC moved by 200, the legs now say 0"


def account_path_of_a_leg(books: Books) -> str:
    change = {"$set": {"account_path": SUSPENSE.split(":")}}
    books.change("medici_transactions", books.third_legs[1]["_id"], change)
    return at_third(books) + f"changed after it was booked: {books.wallet} BTC moved by 200, the legs now say 0"


def accounts_of_two_legs_swapped(books: Books) -> str:
    debit, credit = books.third_legs
    for leg, other in ((debit, credit), (credit, debit)):
        change = {"$set": {"accounts": other["accounts"], "account_path": other["account_path"]}}
        books.change("medici_transactions", leg["_id"], change)
    return at_third(books) + f"changed after it was booked: {LIGHTNING} BTC moved by -200, the legs now say 200"


def book_of_a_leg(books: Books) -> str:
    books.change("medici_transactions", books.third_legs[1]["_id"], {"$set": {"book": "AnotherBook"}})
    return at_third(books) + f"the legs it names are not those that it has: {books.third_legs[1]['_id']}"


def leg_deleted(books: Books) -> str:
    books.delete("medici_transactions", books.third_legs[0]["_id"])
    return at_third(books) + f"the legs it names are not those that it has: {books.third_legs[0]['_id']}"


def leg_added_to_a_journal(books: Books) -> str:
    leg = {**books.third_legs[0], "_id": ObjectId(), "debit": 0}
    books.db["medici_transactions"].insert_one(leg)
    return at_third(books) + f"the legs it names are not those that it has: {leg['_id']}"


def journal_deleted(books: Books) -> str:
    books.delete("medici_journals", books.third["_id"])
    return at_third(books) + "the journal is gone from the ledger"


def datetime_of_a_journal(books: Books) -> str:
    later = books.third["datetime"] + timedelta(milliseconds=1)
    books.change("medici_journals", books.third["_id"], {"$set": {"datetime": later}})
    return at_third(books) + "changed after it was booked: its datetime"


def adopted_journal_edited(books: Books) -> str:
    (leg,) = books.db["medici_transactions"].find({"_journal": ObjectId(books.foreign), "accounts": books.wallet})
    books.change("medici_transactions", leg["_id"], {"$set": {"debit": 39}})
    return f"chain position 7, journal {books.foreign} (foreign:{books.foreign}): changed after it was booked"


def link_deleted(books: Books) -> str:
    books.delete("teller_links", books.third["_id"])
    link = books.one("teller_links", n=4)
    return f"chain position 4, journal {link['_id']} ({link['key']}): position 3 is missing"


def last_link_deleted(books: Books) -> str:
    books.delete("teller_links", ObjectId(books.foreign))
    return "head: the chain should have 7 links"


def hash_of_a_link(books: Books) -> str:
    books.change("teller_links", books.third["_id"], {"$set": {"hash": "0" * 64}})
    return at_third(books) + "changed after it was booked"


def previous_of_a_link(books: Books) -> str:
    books.change("teller_links", books.third["_id"], {"$set": {"previous": "0" * 64}})
    return at_third(books) + "it does not follow from the link before it"


def key_of_a_link(books: Books) -> str:
    books.change("teller_links", books.third["_id"], {"$set": {"key": "ln:another"}})
    return f"chain position 3, journal {books.third['_id']} (ln:another): its idempotency key names journal None"


def effects_of_a_link(books: Books) -> str:
    books.change("teller_links", books.third["_id"], {"$inc": {"effects.1.delta": 1}})
    return at_third(books) + "what the link says that it does to the accounts is not what its legs do"


def writer_of_a_link(books: Books) -> str:
    books.change("teller_links", books.third["_id"], {"$set": {"foreign": True}})
    return at_third(books) + "the link is wrong about who wrote the journal"


def key_deleted(books: Books) -> str:
    books.delete("teller_keys", f"ln:{NODE}:{hash_of('b')}")
    return at_third(books) + "its idempotency key names journal None"


def key_of_another_journal(books: Books) -> str:
    books.change("teller_keys", f"ln:{NODE}:{hash_of('b')}", {"$set": {"journal": books.foreign}})
    return at_third(books) + f"its idempotency key names journal {books.foreign}"


def balance_edited(books: Books) -> str:
    books.change("teller_balances", f"{books.wallet}|BTC", {"$inc": {"balance": 1}})
    return f"balance of {books.wallet} BTC is 331, its legs add up to 330"


def balance_deleted(books: Books) -> str:
    books.delete("teller_balances", f"{books.wallet}|BTC")
    return f"balance of {books.wallet} BTC is missing, its legs add up to 330"


def balance_added(books: Books) -> str:
    row = {"_id": "Liabilities:me|BTC", "account": "Liabilities:me", "currency": "BTC", "balance": Int64(5)}
    books.db["teller_balances"].insert_one(row)
    return "balance of Liabilities:me BTC is 5, its legs add up to 0"


def event_deleted(books: Books) -> str:
    books.delete("teller_outbox", 3)
    return "feed: event 3 is missing, 4 comes next"


def last_event_deleted(books: Books) -> str:
    books.delete("teller_outbox", 7)
    return "feed: it should end at 7, it ends at 6"


def hash_in_the_head(books: Books) -> str:
    books.change("teller_head", "head", {"$set": {"chain_hash": "0" * 64}})
    return "head: the chain should have 7 links and end in 0000000000000000…"


def length_in_the_head(books: Books) -> str:
    books.change("teller_head", "head", {"$inc": {"chain_length": 1}})
    return "head: the chain should have 8 links"


def sequence_in_the_head(books: Books) -> str:
    books.change("teller_head", "head", {"$inc": {"sequence": 1}})
    return "feed: it should end at 8, it ends at 7"


def foreign_journal_without_a_link(books: Books) -> str:
    journal = AnotherProgram(books.db).begin_journal(moved(books.wallet, LIGHTNING, 1))
    return f"leg {journal.leg_ids[0]} of journal {journal.journal_id} is in the book, but not in the chain"


def booked_msat_of_a_cursor(books: Books) -> str:
    books.change("teller_cursors", f"lnd:{NODE}", {"$inc": {"booked_msat": 1_000}})
    return "cursors: they say that 9402000 msat of the nodes are booked in whole sats"


def remainder_of_a_cursor(books: Books) -> str:
    books.change("teller_cursors", f"lnd:{NODE}", {"$inc": {"remainder_msat": -1}})
    return "cursors: they say that 9401001 msat of the nodes are booked in whole sats"


def rounding_of_a_cursor(books: Books) -> str:
    books.change("teller_cursors", f"lnd:{NODE}", {"$inc": {"rounding_sats": 1}})
    return "cursors: they say that 2 sat of remainders are booked"


def cursor_deleted(books: Books) -> str:
    books.delete("teller_cursors", f"lnd:{NODE}")
    return "cursors: they say that 0 msat"


TAMPERINGS: list[Tampering] = [
    amount_of_a_leg,
    amounts_of_a_whole_journal,
    currency_of_a_leg,
    account_of_a_leg,
    account_path_of_a_leg,
    accounts_of_two_legs_swapped,
    book_of_a_leg,
    leg_deleted,
    leg_added_to_a_journal,
    journal_deleted,
    datetime_of_a_journal,
    adopted_journal_edited,
    link_deleted,
    last_link_deleted,
    hash_of_a_link,
    previous_of_a_link,
    key_of_a_link,
    effects_of_a_link,
    writer_of_a_link,
    key_deleted,
    key_of_another_journal,
    balance_edited,
    balance_deleted,
    balance_added,
    event_deleted,
    last_event_deleted,
    hash_in_the_head,
    length_in_the_head,
    sequence_in_the_head,
    foreign_journal_without_a_link,
    booked_msat_of_a_cursor,
    remainder_of_a_cursor,
    rounding_of_a_cursor,
    cursor_deleted,
]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_an_edit_by_hand_is_found_and_named(books: Books, tamper: Tampering) -> None:
    """The first break says which document it is and what is wrong with it."""
    begins = tamper(books)
    breaks = books.verified().breaks
    assert breaks
    assert breaks[0].startswith(begins)


def test_an_amount_that_is_not_whole_stops_the_audit(books: Books) -> None:
    """Half a sat is no amount: the leg is named, and nothing is computed with it."""
    leg_id = books.third_legs[1]["_id"]
    books.change("medici_transactions", leg_id, {"$set": {"credit": 200.5}})
    with pytest.raises(InvariantViolation, match=f"leg {leg_id}: credit 200.5"):
        books.verified()


def test_one_deleted_link_breaks_no_later_one(books: Books) -> None:
    """A hole in the chain is named once, not at every position after it."""
    books.delete("teller_links", books.third["_id"])
    assert sum("is missing before it" in problem for problem in books.verified().breaks) == 1


def test_the_number_of_named_breaks_is_bounded(books: Books) -> None:
    """However much is broken, the list stays short."""
    books.db["medici_journals"].delete_many({})
    books.db["teller_keys"].delete_many({})
    books.db["teller_balances"].delete_many({})
    assert len(books.verified().breaks) == MAX_BREAKS


def test_what_blink_may_change_breaks_nothing(books: Books) -> None:
    """`pending`, `voided`, a payout's hash and the like are updated in place by Blink's core."""
    changes = {
        "pending": False,
        "voided": True,
        "void_reason": "Payment canceled",
        "bundle_completion_state": "ln_payment.failed",
        "hash": "f" * 64,
        "vout": 1,
        "payout_id": "payout",
    }
    assert books.db["medici_transactions"].update_many({}, {"$set": changes}).modified_count == 14
    voided = {"voided": True, "void_reason": "Payment canceled"}
    assert books.db["medici_journals"].update_many({}, {"$set": voided}).modified_count == 7
    assert books.verified().breaks == []


def test_a_number_that_node_js_wrote_as_a_double_is_the_same_number(books: Books) -> None:
    """Another writer may store whole amounts as doubles."""
    for leg in books.third_legs:
        doubles = {"debit": float(leg["debit"]), "credit": float(leg["credit"])}
        books.change("medici_transactions", leg["_id"], {"$set": doubles})
    assert books.verified().breaks == []


def test_a_deposit_that_is_not_what_was_booked_is_named(mongod: Mongod) -> None:
    """Whole while it is settled, reversed and settled again; edited by hand: the two sums are told."""
    with teller_on(mongod) as teller:
        wallet = teller.new_wallet()
        first, second, third, other, last = (*map(block_at, (1, 2, 3)), block_at(2, "b"), block_at(3, "b"))
        paid = output("a", wallet.wallet_id, 500_000)
        teller.post(chain_moved(None, connected(first)))
        teller.post(chain_moved(first, connected(second, paid), connected(third)), deposit_due("a"))
        assert verified(teller) == []
        teller.post(chain_moved(third, lost=[third, second], fork=first))
        assert verified(teller) == []
        teller.post(chain_moved(first, connected(other, paid), connected(last)), deposit_due("a"))
        assert teller.balance(wallet_account(wallet.wallet_id)) == 497_000
        assert verified(teller) == []
        teller.store.db["teller_deposits"].update_one({}, {"$set": {"amount_sat": Int64(400_000)}})
        assert verified(teller) == [
            (
                "deposits: those that are credited add up to 400000 sat, "
                "tellerd's journals on Assets:OnChain say 500000 sat"
            )
        ]


def verified(teller: Teller) -> list[str]:
    """What `verify` finds now."""
    with audit_of(teller.store.db) as audit:
        return verify(audit).breaks
