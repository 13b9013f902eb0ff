"""What the books say of the Lightning nodes, for the comparison with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from bson.datetime_ms import DatetimeMS
from pymongo.database import Database
from pymongo.errors import OperationFailure

from adapters.mongo import collections as names
from adapters.mongo.documents import LND_CURSORS, Document, balance_id, cursor_from, head_from
from adapters.mongo.errors import mapped
from adapters.mongo.journals import leg_from
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import LIGHTNING
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.money import Currency
from daemon.domain.ports import LightningTotals

_IN_A_QUERY: Final = 1_000
"""Hashes or keys asked for at once: 80 kB."""

_NO_SNAPSHOT: Final = frozenset({239, 246})
"""SnapshotTooOld, SnapshotUnavailable: too much was written meanwhile, or an index was just made; later it works."""


class MongoLightningBooks:
    """`daemon.domain.ports.LightningBooks` over one database."""

    def __init__(self, db: Database[Document], writer_id: bytes) -> None:
        self._db = db
        self._writer_id = writer_id

    def totals(self) -> LightningTotals:
        """See the port; one snapshot of the database."""
        try:
            return self._totals()
        except OperationFailure as refused:
            if refused.code not in _NO_SNAPSHOT:
                raise
            raise Unavailable(f"MongoDB, reading the cursors: no snapshot (code {refused.code})") from refused

    def _totals(self) -> LightningTotals:
        with mapped("reading the cursors"), self._db.client.start_session(snapshot=True) as session:
            head = self._db[names.HEAD].find_one({"_id": "head"}, session=session)
            key = {"_id": balance_id(LIGHTNING, Currency.BTC)}
            balance = self._db[names.BALANCES].find_one(key, session=session)
            cursors = list(self._db[names.CURSORS].find(LND_CURSORS, session=session))
        if head is None:
            raise InvariantViolation("teller_head has no head document: run `tellerd init`")
        return LightningTotals(
            sequence=head_from(head).sequence,
            balance_sat=int(balance["balance"]) if balance else 0,
            cursors=tuple(map(cursor_from, cursors)),
        )

    def taken_by_others(self, hashes: Collection[str]) -> Mapping[str, int]:
        """See the port; the index on `hash` finds the few legs of each."""
        taken: dict[str, int] = {}
        asked = list(set(hashes))
        with mapped("looking for journals of payments"):
            for start in range(0, len(asked), _IN_A_QUERY):
                query = {
                    "hash": {"$in": asked[start : start + _IN_A_QUERY]},
                    "accounts": LIGHTNING,
                    "currency": Currency.BTC.value,
                    **not_made_by(self._writer_id, "$_journal"),
                }
                for document in self._db[names.LEGS].find(query):
                    taken[document["hash"]] = taken.get(document["hash"], 0) + _taken_sat(document)
        return taken

    def taken_as(self, types: Collection[str], *, since_ms: int) -> Mapping[str, int]:
        """See the port; the index on account and type finds them."""
        query = {
            "accounts": LIGHTNING,
            "type": {"$in": list(types)},
            "datetime": {"$gte": DatetimeMS(since_ms)},
            "currency": Currency.BTC.value,
            **not_made_by(self._writer_id, "$_journal"),
        }
        taken: dict[str, int] = {}
        with mapped("looking for journals of fees"):
            for document in self._db[names.LEGS].find(query):
                taken[document["type"]] = taken.get(document["type"], 0) + _taken_sat(document)
        return taken

    def booked(self, keys: Collection[str]) -> Collection[str]:
        """See the port."""
        asked = list(keys)
        found: set[str] = set()
        with mapped("looking for keys"):
            for start in range(0, len(asked), _IN_A_QUERY):
                query = {"_id": {"$in": asked[start : start + _IN_A_QUERY]}}
                found |= {document["_id"] for document in self._db[names.KEYS].find(query, {"_id": 1})}
        return found


def _taken_sat(document: Document) -> int:
    """What the leg took from its account; one that is no money is in no balance either (`adapters.mongo.journals`)."""
    try:
        leg = leg_from(document)
    except InvariantViolation:
        return 0
    return leg.credit - leg.debit
