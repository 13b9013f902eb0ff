"""`teller_coins`: coins of ours that bitcoind says are spent; and the sums that they are compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure

from adapters.mongo import collections as names
from adapters.mongo.chain_facts import read_chain_cursor
from adapters.mongo.documents import Document, balance_id, head_from, milliseconds
from adapters.mongo.errors import mapped
from adapters.mongo.journals import leg_from
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import ON_CHAIN
from daemon.domain.chain import DepositState
from daemon.domain.coins import CoinBooks, OthersBooked, SpentCoin
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid
from daemon.domain.money import Currency

_MAX_MS: Final = 15_000
"""A walk over the index of a million deposits takes a second; the socket is given up after 20."""

_NO_SNAPSHOT: Final = frozenset({239, 246})
"""SnapshotTooOld, SnapshotUnavailable: too much was written meanwhile, or an index was just made; later it works."""

_IN_A_QUERY: Final = 10_000
"""Names asked for, or documents written, at once: 1 MB."""


class MongoCoins:
    """`daemon.domain.ports.Coins` over one database."""

    def __init__(self, db: Database[Document], writer_id: bytes) -> None:
        self._db = db
        self._writer_id = writer_id

    def books(self) -> CoinBooks:
        """See the port; one snapshot of the database."""
        try:
            with mapped("adding up coins"), self._db.client.start_session(snapshot=True) as session:
                return self._books(session)
        except OperationFailure as refused:
            if refused.code not in _NO_SNAPSHOT:
                raise
            raise Unavailable(f"MongoDB, adding up coins: no snapshot (code {refused.code})") from refused

    def _books(self, session: ClientSession) -> CoinBooks:
        head_document = self._db[names.HEAD].find_one({"_id": "head"}, session=session)
        if head_document is None:
            raise InvariantViolation("teller_head has no head document: run `tellerd init`")
        head = head_from(head_document)
        account = {"_id": balance_id(ON_CHAIN, Currency.BTC)}
        balance = self._db[names.BALANCES].find_one(account, session=session)
        # What tellerd booked has this field, true or false. The index has it, and not the whole booking.
        settled = {"state": DepositState.SETTLED.value}
        deposits = self._sums(names.DEPOSITS, settled, "$booking.is_dust", names.SETTLED_SUMS, session)
        coins_sat = self._sums(names.COINS, {}, None, names.SPENT_SUMS, session).get(None, 0)
        lost_sat = self._sums(names.COINS, {"spender": None}, None, names.SPENT_SUMS, session).get(None, 0)
        return CoinBooks(
            sequence=head.sequence,
            position=head.chain_length,
            cursor=read_chain_cursor(self._db, session),
            balance_sat=int(balance["balance"]) if balance else 0,
            credited_sat=deposits.get(True, 0) + deposits.get(False, 0),
            elsewhere_sat=deposits.get(None, 0),
            spent_sat=coins_sat - lost_sat,
            lost_sat=lost_sat,
        )

    def _sums(
        self, collection: str, query: Document, field: str | None, index: list[tuple[str, int]], session: ClientSession
    ) -> dict[bool | None, int]:
        """Sats by the value of a field; the index, which is named, has all that is read: 1.5 s for a million."""
        total = {"$group": {"_id": field, "amount_sat": {"$sum": "$amount_sat"}}}
        rows = self._db[collection].aggregate(
            [{"$match": query}, total], session=session, hint=dict(index), maxTimeMS=_MAX_MS
        )
        return {row["_id"]: int(row["amount_sat"]) for row in rows}

    def others_booked(self, since: OthersBooked, *, through: int, limit: int) -> OthersBooked:
        """See the port."""
        query = {"effects.account": ON_CHAIN, "n": {"$gt": since.position, "$lte": through}}
        fields = {"n": 1, "foreign": 1, "effects": 1}
        with mapped("adding up journals"):
            found = list(self._db[names.LINKS].find(query, fields).sort("n", 1).limit(limit))
        added_sat = -sum(
            int(effect["delta"])
            for link in found
            if link["foreign"]
            for effect in link["effects"]
            if (effect["account"], effect["currency"]) == (ON_CHAIN, Currency.BTC)
        )
        position = int(found[-1]["n"]) if len(found) == limit else through
        return OthersBooked(position=position, amount_sat=since.amount_sat + added_sat)

    def taken_by_others(self, txids: Collection[Txid]) -> Mapping[Txid, int]:
        """See the port; the index on `hash` finds the few legs of each tx."""
        taken: dict[Txid, int] = {}
        asked = list(txids)
        with mapped("looking for journals of txs"):
            for start in range(0, len(asked), _IN_A_QUERY):
                query = {
                    "hash": {"$in": asked[start : start + _IN_A_QUERY]},
                    "accounts": ON_CHAIN,
                    "currency": Currency.BTC.value,
                    "type": {"$ne": "onchain_receipt"},
                    **not_made_by(self._writer_id, "$_journal"),
                }
                for document in self._db[names.LEGS].find(query):
                    txid = Txid(document["hash"])
                    taken[txid] = taken.get(txid, 0) + _taken_sat(document)
        return taken

    def spent(self, outpoints: Collection[Outpoint]) -> Mapping[Outpoint, SpentCoin]:
        """See the port."""
        return {coin.outpoint: coin for coin in self._named("_id", outpoints)}

    def spent_by(self, txids: Collection[Txid]) -> Sequence[SpentCoin]:
        """See the port."""
        return sorted(self._named("spender", txids), key=lambda coin: coin.outpoint)

    def _named(self, field: str, values: Collection[str]) -> list[SpentCoin]:
        asked = list(values)
        found: list[SpentCoin] = []
        with mapped("reading coins"):
            for start in range(0, len(asked), _IN_A_QUERY):
                query = {field: {"$in": asked[start : start + _IN_A_QUERY]}}
                found += map(_coin_from, self._db[names.COINS].find(query))
        return found

    def spent_from(self, height: int, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        """See the port. Of a chain's last blocks there are few; they are sorted in memory."""
        recent = {"spender": {"$ne": None}, "height": {"$gte": height}}
        return self._ascending(recent, after, limit, index=[("height", 1)])

    def lost(self, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        """See the port."""
        return self._ascending({"spender": None}, after, limit, index=[("spender", 1), ("_id", 1)])

    def _ascending(
        self, query: Document, after: Outpoint | None, limit: int, *, index: list[tuple[str, int]]
    ) -> Sequence[SpentCoin]:
        if after is not None:
            query["_id"] = {"$gt": after}
        with mapped("looking for spent coins"):
            # Named, because the planner might walk all coins by `_id` for the sake of their order.
            found = self._db[names.COINS].find(query, max_time_ms=_MAX_MS).sort("_id", 1).limit(limit).hint(index)
            return [_coin_from(document) for document in found]

    def put(self, coins: Collection[SpentCoin]) -> None:
        """See the port."""
        writes = [ReplaceOne({"_id": coin.outpoint}, _coin_of(coin), upsert=True) for coin in coins]
        with mapped("writing coins"):
            for start in range(0, len(writes), _IN_A_QUERY):
                self._db[names.COINS].bulk_write(writes[start : start + _IN_A_QUERY], ordered=False)

    def forget(self, outpoints: Collection[Outpoint]) -> None:
        """See the port."""
        asked = list(outpoints)
        with mapped("forgetting coins"):
            for start in range(0, len(asked), _IN_A_QUERY):
                self._db[names.COINS].delete_many({"_id": {"$in": asked[start : start + _IN_A_QUERY]}})


def _taken_sat(document: Document) -> int:
    """What the leg took from its account; one that is no money is in no balance either (`adapters.mongo.journals`)."""
    try:
        leg = leg_from(document)
    except InvariantViolation:
        return 0
    return leg.credit - leg.debit


def _coin_of(coin: SpentCoin) -> Document:
    return {
        "_id": coin.outpoint,
        "amount_sat": Int64(coin.amount_sat),
        "mined_height": coin.mined_height,
        "spender": coin.spender,
        "height": coin.height,
        "block_hash": coin.block_hash,
        "noticed_at": DatetimeMS(coin.noticed_at_ms),
    }


def _coin_from(document: dict[str, Any]) -> SpentCoin:
    spender, block_hash = document["spender"], document["block_hash"]
    return SpentCoin(
        outpoint=Outpoint(document["_id"]),
        amount_sat=int(document["amount_sat"]),
        mined_height=document["mined_height"],
        spender=None if spender is None else Txid(spender),
        height=document["height"],
        block_hash=None if block_hash is None else BlockHash(block_hash),
        noticed_at_ms=milliseconds(document["noticed_at"]),
    )
