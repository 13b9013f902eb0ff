"""What `tellerd verify` reads: all of the books, in pages, from one snapshot of the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bson import ObjectId
from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import LND_CURSORS, Document, cursor_from, head_from, journal_ms
from adapters.mongo.errors import mapped
from adapters.mongo.journals import leg_from
from daemon.domain.accounts import BOOK
from daemon.domain.books import AccountEffect, Head
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import JournalId
from daemon.domain.ports import AccountRow, AuditedJournal, AuditedLink

_PAGE = 1_000
"""Links looked at together: each page is four queries."""


@contextmanager
def audit_of(db: Database[Document]) -> Iterator[MongoAudit]:
    """An audit over the database as it is now, whatever is committed meanwhile.

    MongoDB keeps a snapshot for 5 minutes (minSnapshotHistoryWindowInSeconds), which is enough for
    some millions of journals; a larger ledger needs a larger window on the server.
    """
    with mapped("audit"), db.client.start_session(snapshot=True) as session:
        yield MongoAudit(db, session)


class MongoAudit:
    """`daemon.domain.ports.Audit` over one snapshot."""

    def __init__(self, db: Database[Document], session: ClientSession) -> None:
        self._db = db
        self._session = session

    def _find(self, collection: str, query: Document, order: str = "_id") -> Iterator[Document]:
        yield from self._db[collection].find(query, session=self._session, batch_size=_PAGE).sort(order, 1)

    def head(self) -> Head:
        """See the port."""
        for document in self._find(names.HEAD, {"_id": "head"}):
            return head_from(document)
        raise InvariantViolation("teller_head has no head document: run `tellerd init`")

    def links(self) -> Iterator[AuditedLink]:
        """See the port."""
        page: list[Document] = []
        for link in self._find(names.LINKS, {}, order="n"):
            page.append(link)
            if len(page) == _PAGE:
                yield from self._audited(page)
                page = []
        yield from self._audited(page)

    def _audited(self, links: list[Document]) -> Iterator[AuditedLink]:
        if not links:
            return
        ids = [link["_id"] for link in links]
        journals = {journal["_id"]: journal for journal in self._find(names.JOURNALS, {"_id": {"$in": ids}})}
        legs: dict[ObjectId, list[Document]] = {}
        for leg in self._find(names.LEGS, {"_journal": {"$in": ids}, "book": BOOK}):
            legs.setdefault(leg["_journal"], []).append(leg)
        keys = {key["_id"]: key for key in self._find(names.KEYS, {"_id": {"$in": [link["key"] for link in links]}})}
        for link in links:
            yield AuditedLink(
                journal_id=JournalId(str(link["_id"])),
                position=int(link["n"]),
                key=link["key"],
                previous=link["previous"],
                hash=link["hash"],
                foreign=link["foreign"],
                effects=tuple(
                    AccountEffect(account=effect["account"], currency=effect["currency"], delta=int(effect["delta"]))
                    for effect in link["effects"]
                ),
                journal=_journal(journals.get(link["_id"]), legs.get(link["_id"], [])),
                key_journal_id=keys[link["key"]].get("journal") if link["key"] in keys else None,
            )

    def balances(self) -> Iterator[AccountRow]:
        """See the port."""
        for row in self._find(names.BALANCES, {}):
            yield AccountRow(account=row["account"], currency=row["currency"], balance=int(row["balance"]))

    def outbox_sequences(self) -> Iterator[int]:
        """See the port."""
        rows = self._db[names.OUTBOX].find({}, {"_id": 1}, session=self._session, batch_size=10 * _PAGE)
        for row in rows.sort("_id", 1):
            yield int(row["_id"])

    def cursors(self) -> Sequence[LndCursor]:
        """See the port."""
        return [cursor_from(document) for document in self._find(names.CURSORS, LND_CURSORS)]

    def deposited_sat(self) -> int:
        """See the port."""
        credited = {"booking": {"$ne": None}}
        return sum(int(deposit["amount_sat"]) for deposit in self._find(names.DEPOSITS, credited))

    def unlinked_legs(self) -> Iterator[tuple[str, str]]:
        """See the port."""
        join: Any = {"from": names.LINKS, "localField": "_journal", "foreignField": "_id", "as": "link"}
        pipeline: list[Document] = [
            {"$match": {"book": BOOK}},
            {"$sort": {"_id": 1}},
            {"$project": {"_journal": 1}},
            {"$lookup": join},
            {"$match": {"link": []}},
        ]
        for leg in self._db[names.LEGS].aggregate(pipeline, session=self._session):
            yield str(leg["_id"]), str(leg["_journal"])


def _journal(journal: Document | None, legs: list[Document]) -> AuditedJournal | None:
    if journal is None:
        return None
    return AuditedJournal(
        datetime_ms=journal_ms(journal),
        legs=tuple(_leg(leg) for leg in legs),
        leg_ids=tuple(str(leg["_id"]) for leg in legs),
        listed_leg_ids=tuple(str(leg_id) for leg_id in journal.get("_transactions") or ()),
    )


def _leg(document: Document) -> Leg:
    """The leg; one whose account is written in two ways (medici reads by both) is on neither account."""
    leg = leg_from(document)
    path = ":".join(document["account_path"])
    return leg if path == leg.account else replace(leg, account=f"{leg.account} (account_path: {path})")
