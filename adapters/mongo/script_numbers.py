"""The running number of every watched script: 1, 2, 3, … in the order in which they are committed.

The last number stands in one document, raised in the transaction that inserts the scripts. Two such transactions
conflict, so they commit one after the other: who reads the last number knows that every smaller one can be read,
and what has a larger one was not committed yet. `adapters.mongo.scripts` rests on that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from bson.int64 import Int64
from pymongo import errors
from pymongo.client_session import ClientSession
from pymongo.collection import ReturnDocument
from pymongo.database import Database
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import is_lost_race
from daemon.domain.errors import InvariantViolation, Unavailable

COUNTER: Final = "scripts"
"""`_id` of the document with the last number, beside the next index of each key (those ids are 16 hex digits)."""

_MAX_TRIES: Final = 20
"""Within a process writers take turns. What is left is a sweep beside it, another daemon, and a program that
writes the same wallet: of these one is done after each conflict."""

_PAUSE_S: Final = 0.005
"""A pause for each try so far, 1 s in all: the others hold the counter for milliseconds, 0.1 s at most."""

_TURN_S: Final = 5.0
"""How long a writer waits for its turn: 48 callers take 0.3 s together, more means that MongoDB hangs."""

_Written = TypeVar("_Written")


class ScriptNumbers:
    """Gives the numbers, for one writer of `teller_scripts`."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._turn = threading.Lock()

    def write(self, work: Callable[[ClientSession], _Written]) -> _Written:
        """What `work` returns, once all that it wrote in its transaction is committed by a majority, journaled.

        It is called again after a conflict. Raises Unavailable if the conflicts do not end; PyMongo's errors pass.
        """
        if not self._turn.acquire(timeout=_TURN_S):
            raise Unavailable("MongoDB, watching scripts: callers wait for each other too long")
        try:
            for tries in range(_MAX_TRIES):
                time.sleep(tries * _PAUSE_S)
                try:
                    return self._try_write(work)
                except errors.OperationFailure as error:
                    if not is_lost_race(error):
                        raise
        finally:
            self._turn.release()
        raise Unavailable("MongoDB, watching scripts: too many writers at once")

    def _try_write(self, work: Callable[[ClientSession], _Written]) -> _Written:
        with (
            self._db.client.start_session() as session,
            session.start_transaction(
                read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
            ),
        ):
            return work(session)

    def insert(self, scripts: Sequence[Document], session: ClientSession) -> None:
        """Inserts documents of new scripts, each with its number `n`, into the transaction of `write`."""
        if not scripts:
            return
        counter = self._db[names.DERIVATIONS].find_one_and_update(
            {"_id": COUNTER},
            {"$inc": {"n": Int64(len(scripts))}},
            return_document=ReturnDocument.BEFORE,
            session=session,
        )
        first = _number_in(counter) + 1
        numbered = [{**script, "n": Int64(n)} for n, script in enumerate(scripts, first)]
        self._db[names.SCRIPTS].insert_many(numbered, session=session)


def last_number(db: Database[Document]) -> int:
    """The number of the script that was committed last, 0 before the first; in the database's read concern."""
    return _number_in(db[names.DERIVATIONS].find_one({"_id": COUNTER}))


def _number_in(counter: Document | None) -> int:
    if counter is None:
        raise InvariantViolation(f"{names.DERIVATIONS} has no document {COUNTER!r}, which `tellerd init` makes")
    return int(counter["n"])
