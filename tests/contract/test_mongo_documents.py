"""The documents of a Lightning receive into a BTC wallet, compared whole with blink-contract.md sections 1 and 2.

Raw BSON decoding: an int32 is an `int`, an int64 an `Int64`, a double a `float`; all three are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from bson.int64 import Int64

from adapters.mongo.collections import WALLETS
from adapters.mongo.commit import _ids_in_order
from adapters.mongo.sessions import session_uuid
from daemon.domain.accounts import LIGHTNING, SUSPENSE, wallet_account
from daemon.domain.errors import Conflict, InvariantViolation, Unavailable
from daemon.domain.outcomes import Suspended
from regtest.mongod import Mongod
from tests.contract.teller import NOW_MS, PRICE, Teller, teller_on
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, preimage_of, settled

pytestmark = pytest.mark.mongo

Typed = dict[str, Any]


@pytest.fixture
def teller(mongod: Mongod) -> Iterator[Teller]:
    """A leader whose node was opened empty, on a fresh database."""
    with teller_on(mongod) as teller:
        teller.open_node()
        yield teller


def documents(teller: Teller, collection: str, query: Typed | None = None) -> list[Typed]:
    """All documents that match, in the order of their `_id`."""
    return list(teller.store.db[collection].find(query or {}).sort("_id", 1))


def typed(value: Any) -> Any:
    """The value with its BSON type beside it, for True == 1 == 1.0 == Int64(1) in Python."""
    if isinstance(value, dict):
        return {name: typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return (type(value).__name__, value)


def assert_same(found: Typed, expected: Typed) -> None:
    """Equal field by field, types included; a field too many or too few fails."""
    assert typed(found) == typed(expected)


def at(unix_ms: int) -> datetime:
    """A time as the driver reads it."""
    return datetime.fromtimestamp(unix_ms // 1000, tz=UTC).replace(microsecond=unix_ms % 1000 * 1000)


def leg(journal: ObjectId, **fields: Any) -> Typed:
    """A leg of "a", received with 1,234 sats, without `_id`."""
    return {
        "_journal": journal,
        "book": "MainBook",
        "datetime": at(MORNING_MS + 1_000),
        "timestamp": at(NOW_MS),
        "memo": "memo of a",
        "type": "invoice",
        "pending": False,
        "hash": hash_of("a"),
        "pubkey": NODE,
        "external_id": "ext-a",
        "currency": "BTC",
        "satsAmount": 1_234,
        "satsFee": 0,
        **fields,
    }


@pytest.mark.parametrize("priced", [True, False])
def test_a_receive_into_a_btc_wallet(teller: Teller, priced: bool) -> None:
    """Legs, journal and metadata as Blink's core writes them; without a price the dollar fields are absent."""
    teller.price = PRICE if priced else None
    wallet = teller.new_wallet()
    teller.receive("a", wallet, 1, 1_234_567)

    (journal,) = documents(teller, "medici_journals")
    legs = documents(teller, "medici_transactions")
    leg_ids = [found.pop("_id") for found in legs]
    assert all(isinstance(leg_id, ObjectId) for leg_id in leg_ids)
    assert_same(
        journal,
        {
            "_id": journal["_id"],
            "datetime": at(MORNING_MS + 1_000),
            "memo": "memo of a",
            "_transactions": leg_ids,
            "book": "MainBook",
        },
    )
    dollars: Typed = {}
    if priced:  # 1,234 sats at 60,000.00 dollars are 74.04 cents
        dollars = {"centsAmount": 74, "centsFee": 0, "displayAmount": 74, "displayFee": 0, "displayCurrency": "USD"}
    account = wallet_account(wallet.wallet_id)
    debit, credit = legs
    assert_same(
        debit,
        leg(
            journal["_id"],
            accounts=LIGHTNING,
            account_path=["Assets", "Reserve", "Lightning"],
            debit=1_234,
            credit=0,
            **dollars,
        ),
    )
    assert_same(
        credit,
        leg(
            journal["_id"],
            accounts=account,
            account_path=["Liabilities", wallet.wallet_id],
            debit=0,
            credit=1_234,
            **dollars,
        ),
    )
    proof = {"hash": hash_of("a"), "revealedPreImage": preimage_of("a").hex(), "__v": 0}
    metadata = documents(teller, "medici_transaction_metadatas")
    assert typed(metadata) == typed([{"_id": leg_id, **proof} for leg_id in leg_ids])


def test_the_invoice_after_it_was_settled(teller: Teller) -> None:
    """`paid` and `processingCompleted` are set; nothing else of the document is touched."""
    wallet = teller.new_wallet()
    teller.expect("a", wallet)
    expected = {
        "_id": hash_of("a"),
        "walletId": wallet.wallet_id,
        "accountId": wallet.account_id,
        "secret": preimage_of("a").hex(),
        "currency": "BTC",
        "timestamp": at(MORNING_MS),
        "selfGenerated": True,
        "pubkey": NODE,
        "paid": False,
        "processingCompleted": False,
        "paymentRequest": "lnbcrt1sample",
        "externalId": "ext-a",
        "__v": 0,
    }
    (found,) = documents(teller, "invoiceusers")
    assert_same(found, expected)
    teller.post(settled("a", 1, 1_000))
    (found,) = documents(teller, "invoiceusers")
    assert_same(found, {**expected, "paid": True, "processingCompleted": True})


def test_a_document_of_another_program_keeps_its_fields(teller: Teller) -> None:
    """An invoice with fields that tellerd does not know is paid in place."""
    wallet = teller.new_wallet()
    teller.expect("a", wallet)
    migrated = {"migratedExternalId": "old", "migratedAccountId": "older"}
    teller.store.db["invoiceusers"].update_one({"_id": hash_of("a")}, {"$set": migrated})
    (before,) = documents(teller, "invoiceusers")
    teller.post(settled("a", 1, 1_000))
    (after,) = documents(teller, "invoiceusers")
    assert_same(after, {**before, "paid": True, "processingCompleted": True})


def test_an_amount_beyond_32_bits_is_an_integer(teller: Teller) -> None:
    """A receive of more than 2^31 sats is stored as int64, never as a double."""
    wallet = teller.new_wallet()
    teller.receive("a", wallet, 1, 3_000_000_000_000)
    (found,) = documents(teller, "medici_transactions", {"accounts": LIGHTNING})
    assert typed(found["debit"]) == typed(Int64(3_000_000_000))
    assert typed(found["satsAmount"]) == typed(Int64(3_000_000_000))
    assert typed(found["credit"]) == typed(0)


def test_money_in_suspense_is_no_receive_for_blink(teller: Teller) -> None:
    """Its legs are a reconciliation: Blink counts a leg {hash, type "invoice"} as credited to a wallet. There is
    no preimage to reveal."""
    teller.receive("a", None, 1, 1_234_000)
    debit, credit = documents(teller, "medici_transactions")
    common = {
        "_journal": debit["_journal"],
        "book": "MainBook",
        "datetime": at(MORNING_MS + 1_000),
        "timestamp": at(NOW_MS),
        "memo": "memo of a",
        "type": "reconciliation",
        "pending": False,
        "hash": hash_of("a"),
        "pubkey": NODE,
        "currency": "BTC",
    }
    for found, account, amounts in (
        (debit, LIGHTNING, {"debit": 1_234, "credit": 0}),
        (credit, SUSPENSE, {"debit": 0, "credit": 1_234}),
    ):
        assert isinstance(found.pop("_id"), ObjectId)
        assert_same(found, {**common, "accounts": account, "account_path": account.split(":"), **amounts})
    assert documents(teller, "medici_transaction_metadatas") == []


def test_leg_ids_are_the_servers(teller: Teller) -> None:
    """The server makes them: they ascend over batches, and their middle is not the driver's."""
    wallet = teller.new_wallet()
    for number in range(1, 4):
        teller.receive(f"a{number}", wallet, number, 1_000)
    journals = documents(teller, "medici_journals")
    ids = [leg_id for journal in journals for leg_id in journal["_transactions"]]
    assert len(ids) == 6
    assert ids == sorted(ids)
    assert {leg_id.binary[4:9] for leg_id in ids}.isdisjoint({ObjectId().binary[4:9], teller.store.books.writer_id})


def test_legs_whose_ids_do_not_ascend_are_written_again(teller: Teller) -> None:
    """The server's id counter begins again after 16.7 million ids; the chain needs legs in the order of their
    ids, so a journal that this cuts in two is a conflict, and not written."""
    (sealed,) = teller.sealed(settled("a", 1, 5_000)).entries
    written: list[Typed] = [
        {"_id": ObjectId(f"{second:024x}"), "accounts": leg.account, "currency": leg.currency, "debit": leg.debit}
        for second, leg in enumerate(sealed.entry.legs)
    ]
    assert _ids_in_order(sealed, written) == [leg["_id"] for leg in written]
    with pytest.raises(Conflict):
        _ids_in_order(sealed, written[::-1])
    with pytest.raises(InvariantViolation):
        _ids_in_order(sealed, written[:1])


def test_a_session_that_could_not_be_named_in_the_lease_is_not_used(
    teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor ends the session that the lease names: every commit is made in that one, whatever failed."""
    leases, named = teller.store.leases, teller.store.leases.note_session

    def away(*, fence: int) -> bool:
        raise Unavailable("away")

    teller.store.books._posting.discard()  # as after any error
    with teller.store.client.start_session() as another:
        session_uuid(another)  # takes the old session out of the driver's pool, as a broken connection does
        monkeypatch.setattr(leases, "note_session", away)
        with pytest.raises(Unavailable):
            teller.post(settled("a", 1, 5_000))
        monkeypatch.setattr(leases, "note_session", named)
        teller.post(settled("a", 1, 5_000))
    session = teller.store.books._posting.current()
    assert session is not None
    (lease,) = documents(teller, "teller_lease")
    assert lease["session"] == session_uuid(session)


@pytest.mark.parametrize("other_first", [True, False])
def test_the_same_hash_paid_on_another_node_is_money_of_its_own(teller: Teller, other_first: bool) -> None:
    """Who has paid an invoice knows its preimage and can send money with its hash to another node: that money
    is booked, to suspense, whether the wallet was credited before or not; the wallet is credited once."""
    wallet = teller.new_wallet()
    teller.open_node(pubkey=OTHER_NODE)
    teller.expect("a", wallet)
    elsewhere, awaited = settled("a", 1, 5_000, pubkey=OTHER_NODE), settled("a", 1, 9_000)
    for event in (elsewhere, awaited) if other_first else (awaited, elsewhere):
        teller.post(event)
    account = wallet_account(wallet.wallet_id)
    assert {name: teller.balance(name) for name in (SUSPENSE, account, LIGHTNING)} == {
        SUSPENSE: 5,
        account: 9,
        LIGHTNING: -14,
    }


def test_a_wallet_in_an_unknown_currency_is_no_reason_to_stop(teller: Teller) -> None:
    """Another program's wallet of a kind that tellerd does not know: its payment waits in suspense."""
    teller.open_node()
    wallet = teller.new_wallet()
    teller.expect("strange", wallet)
    teller.store.db[WALLETS].update_one({"id": wallet.wallet_id}, {"$set": {"currency": "EUR"}})
    (outcome,) = teller.post(settled("strange", 1, 5_000)).plan.outcomes
    assert isinstance(outcome, Suspended)
    assert outcome.reason == "no_wallet"
