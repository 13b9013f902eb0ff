"""Journals of other programs: found by a sweep over `_id`, hinted at by a change stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from bson.int64 import Int64
from pymongo import errors
from pymongo.change_stream import CollectionChangeStream
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, journal_ms
from adapters.mongo.errors import mapped
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import BOOK
from daemon.domain.entries import MAX_LEG_AMOUNT, Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import JournalId
from daemon.domain.node_events import ForeignJournalFound

_SCAN_PAGE = 1_000
"""Candidates looked at in one round trip."""


_SMALLEST_ID = ObjectId(b"\x00" * 12)
"""A query from it on finds all that medici makes; an `_id` of another type is no journal's."""

_COUNTER_FIRST, _COUNTER_LAST = b"\x00" * 3, b"\xff" * 3

_MAX_LEAPS_S = 900
"""A query has one interval for each second of ours, 25 us each; one that goes further back walks the index."""


class MongoJournals:
    """`daemon.domain.ports.Journals` over one database."""

    def __init__(self, db: Database[Document], writer_id: bytes) -> None:
        self._db = db
        self._writer_id = writer_id
        self._hints: CollectionChangeStream[Document] | None = None

    def foreign_journals(self, *, after: JournalId | None, limit: int) -> Sequence[ForeignJournalFound]:
        """See the port."""
        with mapped("looking for journals"):
            found: list[ForeignJournalFound] = []
            last = ObjectId(after) if after else None
            while len(found) < limit:
                page = self._candidates(last)
                found += self._complete(self._unlinked(page))
                if len(page) < _SCAN_PAGE:
                    break
                last = page[-1]["_id"]
            return found[:limit]

    def newest_adopted(self) -> JournalId | None:
        """See the port."""
        with mapped("reading the newest adopted journal"):
            link = self._db[names.LINKS].find_one({"foreign": True}, {"_id": 1}, sort=[("_id", -1)])
        return JournalId(str(link["_id"])) if link else None

    def _candidates(self, after: ObjectId | None) -> list[Document]:
        query: Document = {"book": BOOK, **not_made_by(self._writer_id, "$_id")}
        now_s = int(time.time())
        if after is None:
            query["_id"] = {"$gte": _SMALLEST_ID}
        elif now_s - int(after.generation_time.timestamp()) > _MAX_LEAPS_S:
            query["_id"] = {"$gt": after}
        else:
            query["$or"] = between_ours(self._writer_id, after, through_s=now_s)
        return list(self._db[names.JOURNALS].find(query).sort("_id", 1).limit(_SCAN_PAGE))

    def _unlinked(self, journals: list[Document]) -> list[Document]:
        ids = [journal["_id"] for journal in journals]
        linked = {link["_id"] for link in self._db[names.LINKS].find({"_id": {"$in": ids}}, {"_id": 1})}
        return [journal for journal in journals if journal["_id"] not in linked]

    def _complete(self, journals: list[Document]) -> list[ForeignJournalFound]:
        """Those whose legs are all there; medici writes legs first, so the rest is looked at again later."""
        ids = [journal["_id"] for journal in journals]
        legs: dict[ObjectId, list[Document]] = {}
        for leg in self._db[names.LEGS].find({"_journal": {"$in": ids}}).sort("_id", 1) if ids else ():
            legs.setdefault(leg["_journal"], []).append(leg)
        return [
            found_in(journal, legs[journal["_id"]])
            for journal in journals
            if legs.get(journal["_id"]) and len(legs[journal["_id"]]) == _legs_listed(journal)
        ]

    def wait_for_hint(self, timeout_s: float) -> bool:
        """See the port."""
        with mapped("watching for changes"):
            try:
                if self._hints is None or not self._hints.alive:
                    self._hints = self._watch(timeout_s)
                return self._hints.try_next() is not None
            except errors.PyMongoError:
                self.end_hints()
                raise

    def _watch(self, timeout_s: float) -> CollectionChangeStream[Document]:
        match = {"operationType": "insert", **not_made_by(self._writer_id, "$documentKey._id")}
        pipeline: list[Document] = [{"$match": match}, {"$project": {"_id": 1}}]
        return self._db[names.JOURNALS].watch(pipeline, max_await_time_ms=int(timeout_s * 1000))

    def end_hints(self) -> None:
        """See the port."""
        hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()


def _legs_listed(journal: Document) -> int:
    """How many legs the journal says that it has."""
    legs = journal.get("_transactions")
    return len(legs) if isinstance(legs, list) else 0


def found_in(journal: Document, legs: list[Document]) -> ForeignJournalFound:
    try:
        readable, unreadable = tuple(leg_from(leg) for leg in legs), ""
    except InvariantViolation as problem:
        readable, unreadable = (), str(problem)
    return ForeignJournalFound(
        journal_id=JournalId(str(journal["_id"])),
        datetime_ms=journal_ms(journal),
        memo=journal.get("memo") or "",
        legs=readable,
        unreadable=unreadable,
    )


def between_ours(writer_id: bytes, after: ObjectId, *, through_s: int) -> list[Document]:
    """Intervals of `_id` above `after` that hold none of our ids, through this second, and all that is later.

    An ObjectId begins with the second and the writer, so ours of one second stand side by side, and the index
    leaps over them: what a sweep costs grows with the time that it goes back, not with what we have booked.
    """
    low, intervals = after, []
    for second in range(int(after.generation_time.timestamp()), through_s + 1):
        ours = second.to_bytes(4, "big") + writer_id
        if ours + _COUNTER_LAST > low.binary:
            intervals.append({"_id": {"$gt": low, "$lt": ObjectId(ours + _COUNTER_FIRST)}})
            low = ObjectId(ours + _COUNTER_LAST)
    return [*intervals, {"_id": {"$gt": low}}]


def leg_from(document: Document) -> Leg:
    """A leg as the ledger holds it; raises InvariantViolation if it is not whole minor units on an account."""
    account, currency = document.get("accounts"), document.get("currency") or ""
    if not isinstance(account, str) or not isinstance(currency, str):
        raise InvariantViolation(f"leg {document['_id']}: account {account!r}, currency {currency!r} are no names")
    return Leg(
        account=account,
        currency=currency,
        debit=_whole(document, "debit"),
        credit=_whole(document, "credit"),
    )


def _whole(document: Document, side: str) -> int:
    # Node.js writes a number as a double or an int32, as it likes; money is whole in either.
    value: Any = document.get(side)
    if value is None:
        return 0
    is_whole = type(value) in (int, Int64) or (isinstance(value, float) and value.is_integer())
    if not is_whole or abs(value) > MAX_LEG_AMOUNT:
        raise InvariantViolation(f"leg {document['_id']}: {side} {value!r} is not a whole number of minor units")
    return int(value)
