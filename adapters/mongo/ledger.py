"""The books for reading: balances, an account's journals, the trial balance, the feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, balance_id, head_from, milliseconds
from adapters.mongo.errors import mapped
from daemon.domain.accounts import BOOK
from daemon.domain.books import BalanceKey, Head
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import JournalId
from daemon.domain.ports import AccountEntry, AccountRow, StoredEvent, TrialBalancePage

_LEG_STRUCTURE = frozenset(
    (
        "_id",
        "_journal",
        "account_path",
        "accounts",
        "book",
        "credit",
        "debit",
        "datetime",
        "timestamp",
        "memo",
    )
)
"""Fields of a leg that are not its metadata."""


class MongoLedger:
    """`daemon.domain.ports.LedgerReader` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def head(self) -> Head:
        """See the port."""
        with mapped("reading the head"):
            return self._head(None)

    def _head(self, session: ClientSession | None) -> Head:
        document = self._db[names.HEAD].find_one({"_id": "head"}, session=session)
        if document is None:
            raise InvariantViolation("teller_head has no head document: run `tellerd init`")
        return head_from(document)

    def balance(self, key: BalanceKey) -> tuple[int, int]:
        """See the port; the head is read first, so the balance is at least as new."""
        with mapped("reading a balance"):
            sequence = self._head(None).sequence
            return self._balance(key, None), sequence

    def _balance(self, key: BalanceKey, session: ClientSession | None) -> int:
        document = self._db[names.BALANCES].find_one({"_id": balance_id(*key)}, session=session)
        return int(document["balance"]) if document else 0

    def entries(self, *, account: str, before: int | None, limit: int) -> Sequence[AccountEntry]:
        """See the port. Balances are taken back from the present one, in one snapshot of the database."""
        with mapped("listing journals"), self._db.client.start_session(snapshot=True) as session:
            links = self._links(account, before, limit, session)
            after: dict[str, int] = {}
            entries = []
            legs = self._legs(account, [link["_id"] for link in links], session)
            for link in links:
                for effect in reversed(_effects_on(account, link)):
                    currency = effect["currency"]
                    if currency not in after:
                        newer = self._newer_deltas(account, currency, before, session)
                        after[currency] = self._balance((account, currency), session) - newer
                    delta = int(effect["delta"])
                    leg = legs.get((link["_id"], currency), {})
                    entries.append(_entry(link, leg, delta=delta, balance_after=after[currency]))
                    after[currency] -= delta
            return entries

    def _links(self, account: str, before: int | None, limit: int, session: ClientSession) -> list[Document]:
        query: dict[str, Any] = {"effects.account": account}
        if before is not None:
            query["n"] = {"$lt": before}
        return list(self._db[names.LINKS].find(query, session=session).sort("n", -1).limit(limit))

    def _newer_deltas(self, account: str, currency: str, before: int | None, session: ClientSession) -> int:
        """What the journals from position `before` on did to the account."""
        if before is None:
            return 0
        pipeline: list[Document] = [
            {"$match": {"effects.account": account, "n": {"$gte": before}}},
            {"$unwind": "$effects"},
            {"$match": {"effects.account": account, "effects.currency": currency}},
            {"$group": {"_id": None, "delta": {"$sum": "$effects.delta"}}},
        ]
        found = list(self._db[names.LINKS].aggregate(pipeline, session=session))
        return int(found[0]["delta"]) if found else 0

    def _legs(
        self, account: str, journals: list[ObjectId], session: ClientSession
    ) -> dict[tuple[ObjectId, str], Document]:
        query = {"_journal": {"$in": journals}, "accounts": account, "book": BOOK}
        return {
            (leg["_journal"], leg.get("currency") or ""): leg
            for leg in self._db[names.LEGS].find(query, session=session).sort("_id", -1)
        }

    def trial_balance(self, *, after: str | None, limit: int) -> TrialBalancePage:
        """See the port; rows, totals and sequence are of one moment."""
        with mapped("trial balance"), self._db.client.start_session(snapshot=True) as session:
            head = self._head(session)
            group = {"$group": {"_id": "$currency", "total": {"$sum": "$balance"}}}
            totals = self._db[names.BALANCES].aggregate([group], session=session)
            query = {"_id": {"$gt": after}} if after is not None else {}
            found = list(self._db[names.BALANCES].find(query, session=session).sort("_id", 1).limit(limit + 1))
            return TrialBalancePage(
                rows=[
                    AccountRow(account=row["account"], currency=row["currency"], balance=int(row["balance"]))
                    for row in found[:limit]
                ],
                totals={total["_id"]: int(total["total"]) for total in totals},
                sequence=head.sequence,
                next_token=found[limit - 1]["_id"] if len(found) > limit else None,
            )

    def events(self, *, after_sequence: int, limit: int) -> Sequence[StoredEvent]:
        """See the port."""
        with mapped("reading the feed"):
            rows = self._db[names.OUTBOX].find({"_id": {"$gt": after_sequence}}).sort("_id", 1).limit(limit)
            return [
                StoredEvent(
                    sequence=int(row["_id"]),
                    id=row["id"],
                    type=row["type"],
                    occurred_at_ms=milliseconds(row["occurred_at"]),
                    wallet_ids=tuple(row["wallet_ids"]),
                    payload=row["payload"],
                )
                for row in rows
            ]


def _effects_on(account: str, link: Document) -> list[Document]:
    return [effect for effect in link["effects"] if effect["account"] == account]


def _entry(link: Document, leg: Document, *, delta: int, balance_after: int) -> AccountEntry:
    return AccountEntry(
        journal_id=JournalId(str(link["_id"])),
        key=link["key"],
        position=int(link["n"]),
        delta=delta,
        balance_after=balance_after,
        currency=leg.get("currency") or "",
        memo=leg.get("memo") or "",
        booked_at_ms=milliseconds(leg["datetime"]) if "datetime" in leg else 0,
        details={name: value for name, value in leg.items() if name not in _LEG_STRUCTURE},
    )
