"""`teller_gaps`: one document for each thing that does not add up. Posting writes some in its commits, too
(`adapters.mongo.commit`)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, gap_from, gap_of
from adapters.mongo.errors import mapped
from adapters.mongo.paging import newest_first, older_than
from daemon.domain.books import Gap, GapState

_MAX_MS = 5_000
"""What takes longer is given up: nobody waits for a list as long, and metrics must not weigh on a slow database."""

_IN_A_COMMAND = 1_000
"""Gaps written or asked for at once: some 300 kB."""

_NEWEST_FIRST = newest_first("seen_at")


class MongoGaps:
    """`daemon.domain.ports.Gaps` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._gaps = db[names.GAPS]

    def put(self, gaps: Collection[Gap]) -> None:
        """See the port."""
        now = DatetimeMS(time.time_ns() // 1_000_000)
        writes = [_write_of(gap, now) for gap in gaps]
        with mapped("writing gaps"):
            for start in range(0, len(writes), _IN_A_COMMAND):
                self._gaps.bulk_write(writes[start : start + _IN_A_COMMAND], ordered=False)

    def get(self, keys: Collection[str]) -> Mapping[str, Gap]:
        """See the port."""
        asked = list(keys)
        found: dict[str, Gap] = {}
        with mapped("reading gaps"):
            for start in range(0, len(asked), _IN_A_COMMAND):
                part = asked[start : start + _IN_A_COMMAND]
                found |= {document["_id"]: gap_from(document) for document in self._gaps.find({"_id": {"$in": part}})}
        return found

    def by_kind(self, kind: str, *, states: Collection[GapState], limit: int) -> Sequence[Gap]:
        """See the port."""
        query = {"kind": kind, "state": _in(states)}
        with mapped("listing gaps"):
            cursor = self._gaps.find(query, max_time_ms=_MAX_MS).sort(_NEWEST_FIRST).limit(limit)
            return [gap_from(document) for document in cursor] if limit else []

    def page(self, *, states: Collection[GapState], after: str | None, limit: int) -> tuple[Sequence[Gap], str | None]:
        """See the port; the token is the last gap's time of sighting and key."""
        query: Document = {"state": _in(states)} if states else {}
        if after is not None:
            query |= older_than(after, "seen_at")
        with mapped("listing gaps"):
            found = list(self._gaps.find(query, max_time_ms=_MAX_MS).sort(_NEWEST_FIRST).limit(limit + 1))
        page = [gap_from(document) for document in found[:limit]]
        return page, f"{page[-1].seen_at_ms}:{page[-1].key}" if len(found) > limit else None

    def totals(self) -> Mapping[tuple[str, GapState], tuple[int, int]]:
        """See the port."""
        group = {
            "_id": {"kind": "$kind", "state": {"$ifNull": ["$state", GapState.OPEN.value]}},
            "gaps": {"$sum": 1},
            "amount_msat": {"$sum": "$amount_msat"},
        }
        waiting = {"state": _in((GapState.OPEN, GapState.EXPLAINED))}
        with mapped("adding up gaps"):
            rows = list(self._gaps.aggregate([{"$match": waiting}, {"$group": group}], maxTimeMS=_MAX_MS))
        return {
            (row["_id"]["kind"], GapState(row["_id"]["state"])): (int(row["gaps"]), int(row["amount_msat"]))
            for row in rows
        }


def _write_of(gap: Gap, now: DatetimeMS) -> UpdateOne:
    document = gap_of(gap)
    first = {"seen_at": document.pop("seen_at")}
    key = document.pop("_id")
    return UpdateOne({"_id": key}, {"$set": {**document, "updated_at": now}, "$setOnInsert": first}, upsert=True)


def _in(states: Collection[GapState]) -> Document:
    """These states; None stands for a document that has none, which is open."""
    values: list[str | None] = [state.value for state in states]
    return {"$in": [*values, None] if GapState.OPEN in states else values}
