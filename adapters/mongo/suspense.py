"""`teller_suspense`, read; posting writes it in its commits (`adapters.mongo.commit`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, suspense_from
from adapters.mongo.errors import mapped
from adapters.mongo.paging import newest_first, older_than
from daemon.domain.books import SuspenseEntry, SuspenseState

_REVERSED: Final = SuspenseState.REVERSED.value

_QUERIES: Final[dict[SuspenseState, Document]] = {
    # Documents of the first releases have no state; `assigned_to` is what the index begins with.
    SuspenseState.WAITING: {"assigned_to": None, "state": {"$ne": _REVERSED}},
    SuspenseState.ASSIGNED: {"assigned_to": {"$ne": None}, "state": {"$ne": _REVERSED}},
    SuspenseState.REVERSED: {"state": _REVERSED},
}

_MAX_MS = 5_000
"""What takes longer is given up: nobody waits for a list as long."""


class MongoSuspense:
    """`daemon.domain.ports.Suspense` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._entries = db[names.SUSPENSE]

    def get(self, key: str) -> SuspenseEntry | None:
        """See the port."""
        with mapped("reading suspense"):
            document = self._entries.find_one({"_id": key})
        return None if document is None else suspense_from(document)

    def page(
        self, *, state: SuspenseState | None, after: str | None, limit: int
    ) -> tuple[Sequence[SuspenseEntry], str | None]:
        """See the port; the token is the last entry's time of receipt and key."""
        query = {} if state is None else dict(_QUERIES[state])
        if after is not None:
            query |= older_than(after, "received_at")
        with mapped("listing suspense"):
            cursor = self._entries.find(query, max_time_ms=_MAX_MS).sort(newest_first("received_at")).limit(limit + 1)
            found = [suspense_from(document) for document in cursor]
        page = found[:limit]
        return page, f"{page[-1].received_at_ms}:{page[-1].key}" if len(found) > limit else None
