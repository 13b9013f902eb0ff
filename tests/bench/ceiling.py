"""The ceiling: the documents and the transactions of tellerd's commits, by bare PyMongo and nothing else.

A batch holds exactly what a commit of the same settlements holds (daemon.posting.seal, adapters.mongo.documents),
made beforehand: what is timed is the driver and the database. Nothing is read but the ids of the legs, nothing is
decided or checked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from adapters.mongo import collections as names
from adapters.mongo.documents import (
    Document,
    balance_id,
    cursor_of,
    head_of,
    journal_of,
    key_of,
    leg_documents,
    link_of,
    metadata_of,
    outbox_of,
)
from adapters.mongo.store import MongoStore
from daemon.domain.books import Changes, Facts, Head
from daemon.domain.cursors import LndCursor
from daemon.domain.money import Price
from daemon.matching.decide import decide
from daemon.posting.seal import seal
from tests.bench.samples import PUBKEY, Sample, SampleDatabase


@dataclass(slots=True, kw_only=True)
class Batch:
    """The documents of one commit."""

    settlements: int
    paid: list[str]
    keys: list[Document]
    balances: list[Document]
    outbox: list[Document]
    cursors: list[Document]
    links: list[Document]
    legs: list[Document]
    journals: list[Document]
    metadata: list[Document]
    head: Document


class Ceiling:
    """A database of its own, with the same collections and indexes."""

    def __init__(self, url: str, price: Price) -> None:
        self.samples = SampleDatabase(MongoStore.connect(url, "ceiling"))
        self._db = self.samples.db
        self._price = price
        self._head = Head(fence=0)
        self._cursor = LndCursor(pubkey=PUBKEY, name="lnd1", opening_index=0)
        self._session = self.samples.store.client.start_session(causal_consistency=False)

    def close(self) -> None:
        """Closes the connections."""
        self._session.end_session()
        self.samples.close()

    def prepare(self, count: int, size: int) -> list[Batch]:
        """Batches of `size` settlements each, `count` settlements or a few less in all."""
        samples = self.samples.more(max(1, count // size) * size)
        return [self._batch(samples[start : start + size]) for start in range(0, len(samples), size)]

    def run(self, batches: Iterable[Batch], *, at_most_s: float) -> tuple[int, float]:
        """Writes batches one after another for this time; settlements and seconds."""
        began = time.perf_counter()
        settlements = 0
        for batch in batches:
            self.write(batch)
            settlements += batch.settlements
            if time.perf_counter() - began > at_most_s:
                break
        return settlements, time.perf_counter() - began

    def write(self, batch: Batch) -> None:
        """One transaction."""
        session, legs = self._session, self._db[names.LEGS]
        session.start_transaction(read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True))
        paid = {"$set": {"paid": True, "processingCompleted": True}}
        self._update(names.INVOICES, [{"q": {"_id": {"$in": batch.paid}}, "u": paid, "multi": True}])
        self._insert(names.KEYS, batch.keys)
        self._update(names.BALANCES, batch.balances)
        self._insert(names.OUTBOX, batch.outbox)
        self._update(names.CURSORS, batch.cursors)
        self._insert(names.LINKS, batch.links)
        self._insert(names.LEGS, batch.legs)
        written: dict[ObjectId, list[ObjectId]] = {}
        query = {"_journal": {"$in": [journal["_id"] for journal in batch.journals]}}
        for leg in legs.find(query, {"_journal": 1}, session=session, batch_size=10_000):
            written.setdefault(leg["_journal"], []).append(leg["_id"])
        for journal, metadata in zip(batch.journals, _pairs(batch.metadata), strict=True):
            journal["_transactions"] = written[journal["_id"]]
            for document, leg_id in zip(metadata, journal["_transactions"], strict=True):
                document["_id"] = leg_id
        self._insert(names.JOURNALS, batch.journals)
        self._insert(names.LEG_METADATA, batch.metadata)
        self._update(names.HEAD, [batch.head])
        session.commit_transaction()

    def _insert(self, collection: str, documents: Sequence[Document]) -> None:
        # Not insert_many: it would give the legs their ids here, and the contract wants the server's.
        self._db.command({"insert": collection, "documents": documents, "ordered": True}, session=self._session)

    def _update(self, collection: str, updates: Sequence[Document]) -> None:
        self._db.command({"update": collection, "updates": updates, "ordered": True}, session=self._session)

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        changes = self._changes(samples)
        at_ms = changes.committed_at_ms
        self._head, self._cursor = changes.after, changes.cursors[0]
        cursor = cursor_of(self._cursor, at_ms)
        unknown = [ObjectId(), ObjectId()]  # the server's are put in their place
        return Batch(
            settlements=len(samples),
            paid=list(changes.paid),
            keys=[key_of(record) for record in changes.keys],
            balances=[
                {
                    "q": {"_id": balance_id(account, currency)},
                    "u": {
                        "$inc": {"balance": Int64(delta)},
                        "$setOnInsert": {"account": account, "currency": currency},
                    },
                    "upsert": True,
                }
                for (account, currency), delta in changes.deltas.items()
            ],
            outbox=[outbox_of(row) for row in changes.outbox],
            cursors=[{"q": {"_id": cursor["_id"]}, "u": cursor, "upsert": True}],
            links=[link_of(sealed) for sealed in changes.entries],
            legs=[leg for sealed in changes.entries for leg in leg_documents(sealed, DatetimeMS(at_ms))],
            journals=[journal_of(sealed, unknown) for sealed in changes.entries],
            metadata=[document for sealed in changes.entries for document in metadata_of(sealed, unknown)],
            head={
                "q": {"_id": "head", **_numbers(changes.before)},
                "u": {"$set": head_of(changes.after, at_ms)},
            },
        )

    def _changes(self, samples: Sequence[Sample]) -> Changes:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        facts = Facts(
            head=self._head,
            booked=set(),
            expectations={sample.payment_hash: sample.expectation() for sample in samples},
            suspense={},
            cursors={PUBKEY: self._cursor},
            booked_elsewhere=set(),
        )
        first = self._cursor.settle_index + 1
        events = [sample.settlement(first + n, now_ms) for n, sample in enumerate(samples)]
        writer_id = self.samples.store.books.writer_id
        return seal(decide(events, facts, price=self._price), now_ms=now_ms, writer_id=writer_id)


def _numbers(head: Head) -> Document:
    return {name: value for name, value in head_of(head, 0).items() if name != "committed_at"}


def _pairs(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    for start in range(0, len(documents), 2):
        yield documents[start : start + 2]
