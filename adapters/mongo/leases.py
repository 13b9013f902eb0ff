"""The lease: one document, the database server's clock, and the end of the former holder's session."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from bson.binary import Binary
from bson.int64 import Int64
from pymongo import ReturnDocument, errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from adapters.mongo.sessions import PostingSession, session_uuid
from daemon.domain.ports import LeaseView

log = structlog.get_logger()

_MAX_HEAD_WAIT_MS = 5_000
"""The former holder's session was ended just before: its hold on the head is gone within milliseconds."""


class MongoLeases:
    """The lease in `teller_lease`."""

    def __init__(self, db: Database[Document], posting: PostingSession) -> None:
        self._db = db
        self._posting = posting

    def acquire(self, *, holder: str, ttl_s: float) -> int | None:
        """See `daemon.domain.ports.Leases`."""
        with mapped("acquiring the lease"):
            if self._held_by_another(holder):
                return None
            session = session_uuid(self._posting.fresh())
            before = self._db[names.LEASE].find_one_and_update(
                {"_id": "lease", "$expr": {"$or": [_EXPIRED, {"$eq": ["$holder", holder]}]}},
                [{"$set": _taken(holder, session, ttl_s)}],
                return_document=ReturnDocument.BEFORE,
            )
            if before is None:
                return None
            fence = int(before["fence"]) + 1
            self._end_session(before["session"])
            return fence if self._raise_fence(fence) else None

    def _held_by_another(self, holder: str) -> bool:
        """A look before the write: a standby asks every second, and must not write each time."""
        query = {"_id": "lease", "$expr": {"$or": [_EXPIRED, {"$eq": ["$holder", holder]}]}}
        return self._db[names.LEASE].find_one(query, {"_id": 1}) is None

    def _end_session(self, session: UUID | None) -> None:
        """Ends the former holder's session: a transaction left open would hold the head for a minute."""
        if session is None:
            return
        try:
            self._db.client.admin.command({"killSessions": [{"id": Binary.from_uuid(session)}]})
        except errors.OperationFailure as refusal:
            # Without the right to end sessions the takeover waits until the server times the transaction out.
            log.warning("lease.session_not_ended", cause=str(refusal), remedy="grant killAnySession")

    def _raise_fence(self, fence: int) -> bool:
        reply = self._db.command(
            {
                "update": names.HEAD,
                "updates": [
                    {
                        "q": {"_id": "head", "fence": {"$lt": Int64(fence)}},
                        "u": {"$set": {"fence": Int64(fence)}},
                    }
                ],
                "maxTimeMS": _MAX_HEAD_WAIT_MS,
                "writeConcern": {"w": "majority", "j": True},
            }
        )
        return int(reply["n"]) == 1

    def note_session(self, *, fence: int) -> bool:
        """Names the present posting session in the lease; False if the lease is no longer ours."""
        session = self._posting.current()
        if session is None:
            return False
        with mapped("naming the session"):
            result = self._db[names.LEASE].update_one(
                {"_id": "lease", "fence": fence},
                {"$set": {"session": Binary.from_uuid(session_uuid(session))}},
            )
        return result.matched_count == 1

    def renew(self, *, fence: int, ttl_s: float) -> bool:
        """See `daemon.domain.ports.Leases`."""
        with mapped("renewing the lease"):
            result = self._db[names.LEASE].update_one(
                {"_id": "lease", "fence": fence}, [{"$set": {"expires_at": _expiry(ttl_s)}}]
            )
        return result.matched_count == 1

    def release(self, *, fence: int) -> None:
        """See `daemon.domain.ports.Leases`."""
        self._posting.discard()
        with mapped("releasing the lease"):
            self._db[names.LEASE].update_one(
                {"_id": "lease", "fence": fence},
                [{"$set": {"expires_at": "$$NOW", "holder": None, "session": None}}],
            )

    def current(self) -> LeaseView | None:
        """See `daemon.domain.ports.Leases`."""
        with mapped("reading the lease"):
            lease = self._db[names.LEASE].find_one({"_id": "lease"})
        if lease is None or lease["holder"] is None:
            return None
        return LeaseView(holder=lease["holder"], fence=int(lease["fence"]), expires_at=lease["expires_at"])


_EXPIRED: Document = {"$lte": ["$expires_at", "$$NOW"]}


def _expiry(ttl_s: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(ttl_s * 1000)]}


def _taken(holder: str, session: UUID, ttl_s: float) -> Document:
    return {
        # A literal, so that a holder's name that looks like an expression stays a name.
        "holder": {"$literal": holder},
        "fence": {"$add": ["$fence", 1]},
        "session": Binary.from_uuid(session),
        "expires_at": _expiry(ttl_s),
    }
