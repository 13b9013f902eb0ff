"""`teller_deposits`, for reading."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.chain_documents import deposit_from
from adapters.mongo.chain_facts import read_chain_cursor
from adapters.mongo.documents import Document, milliseconds
from adapters.mongo.errors import mapped
from daemon.domain.chain import ChainCursor, Deposit, DepositState
from daemon.domain.errors import BadInput
from daemon.domain.identifiers import Outpoint, WalletId
from daemon.domain.money import Currency

_MAX_MS_DIGITS = 14
"""Unix milliseconds up to the year 5138."""


class MongoDeposits:
    """`daemon.domain.ports.Deposits` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def cursor(self) -> ChainCursor | None:
        """See the port."""
        with mapped("reading the chain's cursor"):
            return read_chain_cursor(self._db)

    def get(self, outpoint: Outpoint) -> Deposit | None:
        """See the port."""
        with mapped("reading a deposit"):
            document = self._db[names.DEPOSITS].find_one({"_id": outpoint})
        return deposit_from(document) if document else None

    def page(
        self, *, wallet_id: WalletId | None, states: Collection[DepositState], after: str | None, limit: int
    ) -> tuple[Sequence[Deposit], str | None]:
        """See the port; the token is the last document's time of detection and outpoint.

        States are always named: the index has one sorted run for each, which MongoDB merges.
        """
        query: Document = {"state": {"$in": [state.value for state in states or DepositState]}}
        if wallet_id is not None:
            query["wallet_id"] = wallet_id
        if after is not None:
            query |= _older_than(after)
        with mapped("listing deposits"):
            order = [("detected_at", -1), ("_id", -1)]
            found = list(self._db[names.DEPOSITS].find(query).sort(order).limit(limit + 1))
        token = None
        if len(found) > limit:
            last = found[limit - 1]
            token = f"{milliseconds(last['detected_at'])}:{last['_id']}"
        return [deposit_from(document) for document in found[:limit]], token

    def detected(self, *, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        """See the port."""
        return self._ascending({"state": DepositState.DETECTED.value}, after, limit, index="state")

    def due(self, *, height: int, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        """See the port."""
        query = {"state": DepositState.CONFIRMED.value, "held": False, "settles_at": {"$lte": height}}
        return self._ascending(query, after, limit, index="settles_at")

    def in_dollars(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        """See the port."""
        query = {"id": {"$in": list(wallet_ids)}, "currency": Currency.USD.value}
        with mapped("looking for dollar wallets"):
            return frozenset(WalletId(one["id"]) for one in self._db[names.WALLETS].find(query, {"id": 1}))

    def _ascending(self, query: Document, after: Outpoint | None, limit: int, *, index: str) -> Sequence[Deposit]:
        if after is not None:
            query["_id"] = {"$gt": after}
        with mapped("looking for deposits"):
            # Named, because the planner might walk all deposits by `_id` for the sake of their order.
            found = self._db[names.DEPOSITS].find(query).sort("_id", 1).limit(limit).hint([(index, 1), ("_id", 1)])
            return [deposit_from(document) for document in found]

    def waiting(self) -> tuple[int, int]:
        """See the port."""
        unsettled = {"state": {"$in": [DepositState.DETECTED.value, DepositState.CONFIRMED.value]}}
        total = {"_id": None, "count": {"$sum": 1}, "amount_sat": {"$sum": "$amount_sat"}}
        with mapped("counting deposits"):
            for row in self._db[names.DEPOSITS].aggregate([{"$match": unsettled}, {"$group": total}]):
                return int(row["count"]), int(row["amount_sat"])
        return 0, 0


def _older_than(token: str) -> Document:
    at_ms, _, outpoint = token.partition(":")
    if not at_ms.isdecimal() or len(at_ms) > _MAX_MS_DIGITS:
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    at = DatetimeMS(int(at_ms))
    # The first condition bounds the index, the second one only tells deposits of the same moment apart.
    return {"detected_at": {"$lte": at}, "$or": [{"detected_at": {"$lt": at}}, {"_id": {"$lt": outpoint}}]}
