"""Balance snapshots of medici that hide legs, and how they are found.

medici keeps, per account, a balance and the largest leg `_id` that it has counted; later reads add
only legs above that `_id`. A snapshot hides a leg of ours if it was read while our transaction was
open, and another program had meanwhile written a leg of the same account with a larger `_id`. It then
ends at that program's leg, and one of our legs lies below it within the life of a transaction. Such a
snapshot is deleted: medici counts from the start, or from an older one, the next time. One that ends
at a leg of ours hides nothing, because our commits are one after another.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from daemon.domain.accounts import BOOK

_TRANSACTION_LIFE = timedelta(seconds=60)
"""MongoDB ends a transaction after 60 s (transactionLifetimeLimitSeconds): no leg is hidden for longer."""

_FIRST_MOMENT = datetime.fromtimestamp(0, tz=UTC)
"""No `_id` is older."""

_LOOK_BACK = timedelta(seconds=90)
"""A snapshot is looked at until no transaction can be open that was open when it was read; half a minute
more for clocks that differ."""

_MAX_SNAPSHOTS = 1_000
"""Looked at in one sweep, oldest first: snapshots are made once per account and day."""


def sweep(db: Database[Document], writer_id: bytes) -> int:
    """Deletes the snapshots that hide legs; returns how many."""
    head = db[names.HEAD].find_one({"_id": "head"}) or {}
    last_commit: datetime = head["committed_at"]
    made = {"createdAt": {"$gt": last_commit - _LOOK_BACK}}
    query = {"book": BOOK, **made, "transaction": {"$type": "objectId"}}  # without a leg it is none of medici's
    fields = {"transaction": 1}
    doomed = [
        snapshot["_id"]
        for snapshot in db[names.SNAPSHOTS].find(query, fields).sort("createdAt", 1).limit(_MAX_SNAPSHOTS)
        if _hides_a_leg(db, snapshot["transaction"], writer_id)
    ]
    if not doomed:
        return 0
    return db[names.SNAPSHOTS].delete_many({"_id": {"$in": doomed}}).deleted_count


def _hides_a_leg(db: Database[Document], last_counted: ObjectId, writer_id: bytes) -> bool:
    leg = db[names.LEGS].find_one({"_id": last_counted}, {"_journal": 1})
    if leg is not None and isinstance(leg.get("_journal"), ObjectId) and made_by(writer_id, leg["_journal"]):
        return False
    oldest = ObjectId.from_datetime(max(last_counted.generation_time - _TRANSACTION_LIFE, _FIRST_MOMENT))
    below: dict[str, Any] = {"_id": {"$gt": oldest, "$lt": last_counted}}
    return db[names.LEGS].find_one({**below, **journal_made_by(writer_id)}, {"_id": 1}) is not None


def made_by(writer_id: bytes, journal: ObjectId) -> bool:
    """Whether tellerd made this journal: its id bears the writer's five bytes."""
    return bool(journal.binary[4:9] == writer_id)


def journal_made_by(writer_id: bytes) -> Document:
    """The same as a query over legs."""
    return {"$expr": {"$eq": [_writer_of("$_journal"), writer_id.hex()]}}


def not_made_by(writer_id: bytes, field: str) -> Document:
    """A query for documents whose journal id in `field` was not made by tellerd."""
    return {"$expr": {"$ne": [_writer_of(field), writer_id.hex()]}}


def _writer_of(field: str) -> Document:
    # $toString would refuse, and with it the whole query, where another program has written something else there.
    as_text = {"$convert": {"input": field, "to": "string", "onError": "", "onNull": ""}}
    return {"$substrCP": [as_text, 8, 10]}
