"""The books' store: facts in, one transaction out."""

from __future__ import annotations

import threading
import time

from pymongo import errors
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from adapters.mongo import collections as names
from adapters.mongo.commit import Writer
from adapters.mongo.documents import Document, cursor_from
from adapters.mongo.errors import is_lost_race, is_outage, mapped
from adapters.mongo.facts import FactsReader
from adapters.mongo.leases import MongoLeases
from adapters.mongo.sessions import PostingSession
from adapters.mongo.snapshots import sweep
from daemon.domain.books import Changes, Facts, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import CommitUnknown, Conflict, LeaseLost

_COMMIT_RETRY_S = 5.0
"""How long a commit whose reply was lost is asked for again on the same session; commitTransaction may be
repeated, and after a fail-over the answer comes within this time or the head is asked instead."""


class MongoBooks:
    """`daemon.domain.ports.Books` over one database."""

    def __init__(
        self, db: Database[Document], *, posting: PostingSession, leases: MongoLeases, writer_id: bytes
    ) -> None:
        self._db = db
        self._posting = posting
        self._leases = leases
        self._writer_id = writer_id
        self._facts = FactsReader(db, writer_id)
        self._one_commit = threading.Lock()

    @property
    def writer_id(self) -> bytes:
        """See the port."""
        return self._writer_id

    def read_facts(self, wanted: Wanted) -> Facts:
        """See the port."""
        return self._facts.read(wanted)

    def commit(self, changes: Changes) -> None:
        """See the port."""
        with self._one_commit:
            try:
                session = self._session(changes.before.fence)
                with mapped("commit"):
                    self._write(session, changes)
                self._commit(session)
            except BaseException:
                self._posting.discard()
                raise

    def _session(self, fence: int) -> ClientSession:
        session = self._posting.current()
        if session is not None:
            return session
        session = self._posting.fresh()
        if not self._leases.note_session(fence=fence):
            self._posting.discard()
            raise LeaseLost("the lease is another daemon's")
        return session

    def _write(self, session: ClientSession, changes: Changes) -> None:
        session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True))
        Writer(self._db, session).write(changes)

    def _commit(self, session: ClientSession) -> None:
        """Commits; a lost reply is asked for again, then the outcome is unknown."""
        give_up_at = time.monotonic() + _COMMIT_RETRY_S
        while True:
            try:
                session.commit_transaction()
                return
            except errors.PyMongoError as error:
                if is_lost_race(error):
                    raise Conflict(f"MongoDB, commit: {error}") from error
                if not (error.has_error_label("UnknownTransactionCommitResult") or is_outage(error)):
                    raise
                if time.monotonic() > give_up_at:
                    raise CommitUnknown(f"MongoDB, commit: {error}") from error
                time.sleep(0.1)

    def sweep_snapshots(self) -> int:
        """See the port."""
        with mapped("sweeping balance snapshots"):
            return sweep(self._db, self._writer_id)

    def cursor_of_name(self, name: str) -> LndCursor | None:
        """See the port."""
        with mapped("reading a cursor"):
            document = self._db[names.CURSORS].find_one({"name": name}, sort=[("updated_at", -1)])
        return cursor_from(document) if document else None
