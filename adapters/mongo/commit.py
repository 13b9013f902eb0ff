"""One commit: every write of a batch in one MongoDB transaction, majority and journaled.

The order of the writes: what may already be taken first (paid marks, keys), then balances, feed and
cursors; the ledger's legs as late as can be, because another program's balance snapshot must not get
between their `_id`s and their commit; the head last, so that a conflict over it is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import errors
from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.chain_documents import chain_cursor_of, deposit_of, pending_of
from adapters.mongo.documents import (
    Document,
    balance_id,
    cursor_of,
    gap_of,
    head_of,
    journal_of,
    key_of,
    leg_documents,
    link_of,
    metadata_of,
    outbox_of,
    suspense_of,
)
from adapters.mongo.errors import DUPLICATE_KEY
from adapters.mongo.quotes import quote_of
from daemon.domain.books import Changes, GapState, SealedEntry
from daemon.domain.chain import Deposit
from daemon.domain.errors import Conflict, InvariantViolation, LeaseLost

_MOST_INPUTS_IN_A_COMMAND = 50_000
"""Input outpoints of the deposits in one command: 4 MB, where MongoDB takes 16. A tx has at most some 24,000."""

_MOST_IN_A_COMMAND = 5_000
"""Documents in one command: 5 MB of the largest kind, without the inputs of deposits. A block that somebody has
filled with outputs to our wallets makes 25,000 deposits and twice as many rows of the feed."""


class Writer:
    """Writes the changes of one commit inside an open transaction."""

    def __init__(self, db: Database[Document], session: ClientSession) -> None:
        self._db = db
        self._session = session

    def write(self, changes: Changes) -> None:
        """All writes, in order. Raises Conflict or LeaseLost; the caller aborts then."""
        self._mark_paid(changes)
        self._close(changes)
        self._insert(names.KEYS, [key_of(record) for record in changes.keys])
        self._raise_received(changes)
        self._add_to_balances(changes)
        self._insert(names.OUTBOX, [outbox_of(row) for row in changes.outbox])
        self._insert(names.SUSPENSE, [suspense_of(entry) for entry in changes.suspense_new])
        self._put(names.SUSPENSE, [suspense_of(entry) for entry in changes.suspense_assigned])
        self._put_gaps(changes)
        self._put(names.CURSORS, [cursor_of(cursor, changes.committed_at_ms) for cursor in changes.cursors])
        self._write_chain(changes)
        self._put(names.QUOTES, [quote_of(quote) for quote in changes.quotes])
        self._insert(names.LINKS, [link_of(sealed) for sealed in changes.entries])
        self._write_ledger(changes)
        self._move_head(changes)

    def _write_ledger(self, changes: Changes) -> None:
        ours = [sealed for sealed in changes.entries if not sealed.foreign]
        if not ours:
            return
        timestamp = DatetimeMS(changes.committed_at_ms)
        legs = [leg_documents(sealed, timestamp) for sealed in ours]
        self._insert(names.LEGS, [leg for of_entry in legs for leg in of_entry])
        written = self._written_legs(ours)
        journals, metadata = [], []
        for sealed in ours:
            leg_ids = _ids_in_order(sealed, written.get(sealed.journal_id, []))
            journals.append(journal_of(sealed, leg_ids))
            metadata += metadata_of(sealed, leg_ids)
        self._insert(names.JOURNALS, journals)
        self._insert(names.LEG_METADATA, metadata)

    def _written_legs(self, entries: Sequence[SealedEntry]) -> dict[str, list[Document]]:
        """The legs with the ids that the server gave them, per journal, ascending."""
        fields = {"_journal": 1, "accounts": 1, "currency": 1, "debit": 1}
        query = {"_journal": {"$in": [ObjectId(sealed.journal_id) for sealed in entries]}}
        found: dict[str, list[Document]] = {}
        for leg in self._db[names.LEGS].find(query, fields, session=self._session, batch_size=10_000):
            found.setdefault(str(leg["_journal"]), []).append(leg)
        for legs in found.values():
            legs.sort(key=lambda leg: leg["_id"])
        return found

    def _mark_paid(self, changes: Changes) -> None:
        if not changes.paid:
            return
        marked = self._update(
            names.INVOICES,
            [
                {
                    "q": {"_id": {"$in": list(changes.paid)}, "paid": {"$ne": True}},
                    "u": {"$set": {"paid": True, "processingCompleted": True}},
                    "multi": True,
                }
            ],
        )
        if marked != len(changes.paid):
            raise Conflict("another program marked an invoice paid meanwhile")

    def _close(self, changes: Changes) -> None:
        """One that another program has paid or closed meanwhile is as it should be."""
        if changes.closed:
            query = {"_id": {"$in": list(changes.closed)}, "paid": {"$ne": True}}
            change = {"$set": {"processingCompleted": True}}
            self._update(names.INVOICES, [{"q": query, "u": change, "multi": True}])

    def _raise_received(self, changes: Changes) -> None:
        """The head's fence says that nobody else has raised them since they were read."""
        updates = [
            {"q": {"_id": key}, "u": {"$set": {"received_msat": Int64(msat)}}} for key, msat in changes.received.items()
        ]
        if updates and self._update(names.KEYS, updates) != len(updates):
            raise InvariantViolation("a settlement that was booked has no idempotency key any more")

    def _add_to_balances(self, changes: Changes) -> None:
        self._update(
            names.BALANCES,
            [
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
        )

    def _put_gaps(self, changes: Changes) -> None:
        """A gap keeps its first sighting. One that is found open again stays in the state that it is in by now: its
        reason may have been found; one that a decision explains or closes gets that state, and none is made to be
        closed."""
        now = DatetimeMS(changes.committed_at_ms)
        updates = []
        for gap in changes.gaps:
            document = gap_of(gap)
            query = {"_id": document.pop("_id")}
            if gap.state is GapState.OPEN:
                change = {"$setOnInsert": {**document, "updated_at": now}}
            else:
                first = {"seen_at": document.pop("seen_at")}
                change = {"$set": {**document, "updated_at": now}, "$setOnInsert": first}
            updates.append({"q": query, "u": change, "upsert": gap.state is not GapState.CLOSED})
        self._update(names.GAPS, updates)

    def _write_chain(self, changes: Changes) -> None:
        if changes.chain_cursor is not None:
            self._put(names.CURSORS, [chain_cursor_of(changes.chain_cursor, changes.committed_at_ms)])
        for part in _in_parts(changes.deposits):
            self._put(names.DEPOSITS, [deposit_of(deposit) for deposit in part])
        self._project_pending(changes)

    def _project_pending(self, changes: Changes) -> None:
        """Blink's own document of the same output, if there is one, stays as it is until it goes."""
        updates, deletes = [], []
        for outpoint, pending in changes.pending.items():
            txid, _, vout = outpoint.partition(":")
            query = {"transactionHash": txid, "vout": int(vout)}
            if pending is None:
                deletes.append({"q": query, "limit": 1})
                continue
            document = {name: value for name, value in pending_of(pending).items() if name not in query}
            updates.append({"q": query, "u": {"$setOnInsert": document}, "upsert": True})
        self._update(names.PENDING_RECEIVES, updates)
        self._in_commands("delete", names.PENDING_RECEIVES, "deletes", deletes)

    def _move_head(self, changes: Changes) -> None:
        before = changes.before
        expected = {
            "_id": "head",
            "fence": Int64(before.fence),
            "sequence": Int64(before.sequence),
            "chain_length": Int64(before.chain_length),
            "chain_hash": before.chain_hash,
        }
        change = {"q": expected, "u": {"$set": head_of(changes.after, changes.committed_at_ms)}}
        if self._update(names.HEAD, [change]) == 1:
            return
        head = self._db[names.HEAD].find_one({"_id": "head"}, session=self._session)
        if head is None or head["fence"] != before.fence:
            raise LeaseLost("the head has another daemon's fence")
        raise Conflict("the head moved meanwhile")

    def _insert(self, collection: str, documents: Sequence[Document]) -> None:
        self._in_commands("insert", collection, "documents", documents)

    def _put(self, collection: str, documents: Sequence[Document]) -> None:
        """Replaces documents whole, or makes them."""
        self._update(collection, [{"q": {"_id": d["_id"]}, "u": d, "upsert": True} for d in documents])

    def _update(self, collection: str, updates: Sequence[Document]) -> int:
        """Returns how many documents matched."""
        return self._in_commands("update", collection, "updates", updates)

    def _in_commands(self, verb: str, collection: str, field: str, items: Sequence[Document]) -> int:
        """As many commands as it takes: a commit can be larger than one holds. Returns how many documents matched."""
        return sum(
            int(
                self._command({verb: collection, field: items[start : start + _MOST_IN_A_COMMAND], "ordered": True})[
                    "n"
                ]
            )
            for start in range(0, len(items), _MOST_IN_A_COMMAND)
        )

    def _command(self, command: Document) -> Document:
        """A raw write command: unlike PyMongo's helpers it leaves `_id` to the server where there is none."""
        reply: dict[str, Any] = self._db.command(command, session=self._session)
        for problem in reply.get("writeErrors", ()):
            if problem["code"] == DUPLICATE_KEY:
                raise Conflict(f"{next(iter(command.values()))}: a key exists already")
            raise errors.OperationFailure(problem["errmsg"], problem["code"])
        return reply


def _in_parts(deposits: Sequence[Deposit]) -> Iterator[list[Deposit]]:
    """The deposits, so many together as one command can hold."""
    part: list[Deposit] = []
    inputs = 0
    for deposit in deposits:
        inputs += len(deposit.inputs)
        if part and (inputs > _MOST_INPUTS_IN_A_COMMAND or len(part) == _MOST_IN_A_COMMAND):
            yield part
            part, inputs = [], len(deposit.inputs)
        part.append(deposit)
    if part:
        yield part


def _ids_in_order(sealed: SealedEntry, written: Sequence[Document]) -> list[ObjectId]:
    """The ids of the legs as the server wrote them.

    The chain covers the order of the legs, and that is the order of their ids: Conflict if the server's
    counter (three bytes, and some 20,000 ids a second under load) began again between two of them.
    """
    legs = sealed.entry.legs
    if len(written) != len(legs):
        raise InvariantViolation(
            f"journal {sealed.journal_id} has {len(written)} legs in the ledger, {len(legs)} were written"
        )
    if [(leg.account, leg.currency, leg.debit) for leg in legs] != [
        (leg["accounts"], leg["currency"], leg["debit"]) for leg in written
    ]:
        raise Conflict(f"the ids of journal {sealed.journal_id} do not ascend: to be written again")
    return [leg["_id"] for leg in written]
