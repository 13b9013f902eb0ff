"""Another program on the shared MongoDB, as Blink's core writes there (blink-contract.md 2.1); by bare PyMongo.

The same methods as `adapters.memory.another_program.AnotherProgram`, so that one suite drives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, JournalId, Outpoint, PaymentHash, Txid, WalletId, outpoint_of
from daemon.domain.ports import StoredInvoice

_BOOK = "MainBook"


@dataclass(frozen=True)
class BegunJournal:
    """A journal whose legs are written, and nothing else."""

    journal_id: JournalId
    memo: str
    leg_ids: tuple[ObjectId, ...]


class AnotherProgram:
    """Writes into the ledger and into `invoiceusers` behind tellerd's back."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._db = db

    def begin_journal(
        self, legs: Sequence[Leg], *, memo: str = "", details: Mapping[str, Any] | None = None
    ) -> BegunJournal:
        """Writes the legs only; their ids are the server's, as medici's `forceServerObjectId` has it."""
        journal = ObjectId()
        now = datetime.now(UTC)
        documents = [
            {
                "_journal": journal,
                "account_path": leg.account.split(":"),
                "accounts": leg.account,
                "book": _BOOK,
                "credit": leg.credit,
                "debit": leg.debit,
                "currency": leg.currency,
                "datetime": now,
                "timestamp": now,
                "memo": memo,
                **(details or {}),
                **leg.details,
            }
            for leg in legs
        ]
        self._db.command({"insert": "medici_transactions", "documents": documents, "ordered": True})
        found = self._db["medici_transactions"].find({"_journal": journal}, {"_id": 1}).sort("_id", 1)
        return BegunJournal(JournalId(str(journal)), memo, tuple(leg["_id"] for leg in found))

    def finish_journal(self, begun: BegunJournal) -> JournalId:
        """Writes the document that completes a journal."""
        self._db["medici_journals"].insert_one(
            {
                "_id": ObjectId(begun.journal_id),
                "datetime": datetime.now(UTC),
                "memo": begun.memo,
                "_transactions": list(begun.leg_ids),
                "book": _BOOK,
            }
        )
        return begun.journal_id

    def write_journal(
        self, legs: Sequence[Leg], *, memo: str = "", details: Mapping[str, Any] | None = None
    ) -> JournalId:
        """Writes a complete journal."""
        return self.finish_journal(self.begin_journal(legs, memo=memo, details=details))

    def insert_invoice(self, invoice: StoredInvoice, *, cents: int | None = None) -> None:
        """Writes an `invoiceusers` document; without a pubkey it has no such field, as Blink's oldest ones."""
        document: dict[str, Any] = {
            "_id": invoice.payment_hash,
            "walletId": invoice.wallet_id,
            "accountId": invoice.account_id,
            "secret": invoice.preimage,
            "currency": invoice.currency.value,
            "timestamp": invoice.created_at,
            "selfGenerated": True,
            **({"pubkey": invoice.pubkey} if invoice.pubkey else {}),
            "paid": invoice.paid,
            "processingCompleted": invoice.completed,
            "paymentRequest": invoice.payment_request,
            "externalId": invoice.external_id,
            "__v": 0,
        }
        self._db["invoiceusers"].insert_one(document if cents is None else {**document, "cents": cents})

    def mark_paid(self, payment_hash: PaymentHash) -> None:
        """Marks a document paid and completed, without any journal."""
        change = {"$set": {"paid": True, "processingCompleted": True}}
        assert self._db["invoiceusers"].update_one({"_id": payment_hash}, change).matched_count == 1

    def set_status(self, account_id: AccountId, status: str) -> None:
        """Gives an account this status, as its history's last."""
        change = {"$push": {"statusHistory": {"status": status, "updatedAt": datetime.now(UTC)}}}
        assert self._db["accounts"].update_one({"id": account_id}, change).matched_count == 1

    def add_address(self, wallet_id: WalletId, address: str, *, pubkey: str | None = None) -> None:
        """Appends to a wallet's `onchain`; one with a pubkey is an LND's."""
        entry = {"address": address} if pubkey is None else {"pubkey": pubkey, "address": address}
        assert self._db["wallets"].update_one({"id": wallet_id}, {"$push": {"onchain": entry}}).matched_count == 1

    def addresses(self, wallet_id: WalletId) -> list[str]:
        """What it reads in a wallet's `onchain`."""
        (wallet,) = self._db["wallets"].find({"id": wallet_id})
        return [entry["address"] for entry in wallet["onchain"]]

    def pending_receives(self) -> set[Outpoint]:
        """The outputs that it shows as pending."""
        found = self._db["walletonchainpendingreceives"].find()
        return {outpoint_of(Txid(one["transactionHash"]), one["vout"]) for one in found}

    def take_snapshot(self, account: str, currency: str, *, beyond_legs_to_come: bool = False) -> None:
        """Keeps medici's balance snapshot of an account.

        `beyond_legs_to_come`: one that ends at a leg of another program which sorts after those that
        tellerd writes next, as when that leg overtook a commit in flight.
        """
        query = {"book": _BOOK, "accounts": account, "currency": currency}
        legs = list(self._db["medici_transactions"].find(query).sort("_id", 1))
        last = ObjectId.from_datetime(datetime.now(UTC) + timedelta(seconds=20)) if beyond_legs_to_come else None
        now = datetime.now(UTC)
        self._db["medici_balances"].insert_one(
            {
                "key": f"{_BOOK};{account};{currency}",
                "rawKey": f'{_BOOK};{account};currency:"{currency}"',
                "book": _BOOK,
                "account": account,
                "transaction": last or legs[-1]["_id"],
                "balance": sum(leg["credit"] - leg["debit"] for leg in legs),
                "notes": len(legs),
                "meta": {"currency": currency},
                "createdAt": now,
                "expireAt": now + timedelta(days=2),
            }
        )

    def snapshots(self) -> list[tuple[str, str]]:
        """Account and currency of every snapshot there is."""
        found = self._db["medici_balances"].find().sort("_id", 1)
        return [(snapshot["account"], snapshot["meta"]["currency"]) for snapshot in found]
