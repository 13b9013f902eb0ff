"""The one server session that commits are made in; the lease names it, so that a successor can end it."""

from __future__ import annotations

import threading
from uuid import UUID

from pymongo import MongoClient
from pymongo.client_session import ClientSession

from adapters.mongo.documents import Document


class PostingSession:
    """Holds the session; thrown away after an error, for its server side may be in any state."""

    def __init__(self, client: MongoClient[Document]) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._session: ClientSession | None = None

    def fresh(self) -> ClientSession:
        """A new session in place of the present one."""
        self.discard()
        with self._lock:
            self._session = self._client.start_session(causal_consistency=False)
            return self._session

    def current(self) -> ClientSession | None:
        """The session, None after `discard`."""
        with self._lock:
            return self._session

    def discard(self) -> None:
        """Ends the session; a transaction that is open in it is aborted."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.end_session()


def session_uuid(session: ClientSession) -> UUID:
    """The id that the server knows the session by."""
    identifier: UUID = session.session_id["id"].as_uuid()
    return identifier
