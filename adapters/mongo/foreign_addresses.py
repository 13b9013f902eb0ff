"""Addresses of other programs: found by a sweep over `wallets`, hinted at by a change stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import structlog
from bson import ObjectId
from pymongo import errors
from pymongo.change_stream import CollectionChangeStream
from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from adapters.mongo.script_numbers import ScriptNumbers

log = structlog.get_logger()

_MOST_TOLD: Final = 10_000
"""Addresses that were logged, so as not to log them in every sweep; beyond that they are told again."""

_MOST_IN_A_TRANSACTION: Final = 1_000
"""Scripts added at once: some 20 ms, for which callers who are given an address wait."""

_FIELDS: Final = {"id": 1, "onchain": 1}


class MongoForeignAddresses:
    """`daemon.domain.ports.ForeignAddresses` over one database.

    `script_of` gives the scriptPubKey of an address, and raises ValueError if it is none of this network.
    """

    def __init__(self, db: Database[Document], script_of: Callable[[str], bytes]) -> None:
        self._db = db
        self._script_of = script_of
        self._numbers = ScriptNumbers(db)
        self._hints: CollectionChangeStream[Document] | None = None
        self._told: set[tuple[str, str]] = set()

    def sweep(self, *, after: str | None, limit: int) -> tuple[int, str | None]:
        """See the port."""
        query: Document = {} if after is None else {"_id": {"$gt": ObjectId(after)}}
        with mapped("sweeping addresses"):
            wallets = list(self._db[names.WALLETS].find(query, _FIELDS).sort("_id", 1).limit(limit))
            return self._learn(wallets), str(wallets[-1]["_id"]) if len(wallets) == limit else None

    def take_hinted(self, timeout_s: float) -> int:
        """See the port; one wallet in a call. tellerd's own addresses come by here, too, and are known."""
        with mapped("watching wallets"):
            try:
                if self._hints is None or not self._hints.alive:
                    self._hints = self._watch(timeout_s)
                change = self._hints.try_next()
                wallet = change.get("fullDocument") if change else None
                return self._learn([wallet]) if wallet else 0
            except errors.PyMongoError:
                self.close()
                raise

    def _watch(self, timeout_s: float) -> CollectionChangeStream[Document]:
        changed = {"operationType": {"$in": ["insert", "update", "replace"]}}
        fields = {f"fullDocument.{field}": 1 for field in _FIELDS}
        return self._db[names.WALLETS].watch(
            [{"$match": changed}, {"$project": fields}],
            full_document="updateLookup",
            max_await_time_ms=int(timeout_s * 1000),
        )

    def close(self) -> None:
        """Ends the change stream."""
        hints, self._hints = self._hints, None
        if hints is not None:
            hints.close()

    def _learn(self, wallets: Sequence[Document]) -> int:
        """Adds the scripts that are not known; returns how many."""
        found: dict[bytes, tuple[str, str]] = {}
        for wallet in wallets:
            if "id" not in wallet:
                continue
            for script, address in self._scripts_in(wallet):
                owner, _ = found.setdefault(script, (wallet["id"], address))
                self._compare(owner, wallet["id"], address)
        for known in self._db[names.SCRIPTS].find({"_id": {"$in": list(found)}}, {"wallet_id": 1}) if found else ():
            wallet_id, address = found.pop(bytes(known["_id"]))
            self._compare(known["wallet_id"], wallet_id, address)
        return self._add(found)

    def _scripts_in(self, wallet: Document) -> Iterator[tuple[bytes, str]]:
        entries: Any = wallet.get("onchain")
        for entry in entries if isinstance(entries, list) else ():
            address = entry.get("address") if isinstance(entry, dict) else entry
            if isinstance(entry, dict) and entry.get("pubkey"):
                continue
            try:
                yield self._script_of(str(address)), str(address)
            except ValueError as problem:
                self._tell_once("address of another program cannot be used", wallet["id"], str(problem))

    def _compare(self, owner: str, wallet_id: str, address: str) -> None:
        if owner != wallet_id:
            self._tell_once("address of another program is another wallet's already", wallet_id, address)

    def _tell_once(self, what: str, wallet_id: str, detail: str) -> None:
        if (wallet_id, detail) in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add((wallet_id, detail))
        log.warning(what, wallet_id=wallet_id, detail=detail)

    def _add(self, found: dict[bytes, tuple[str, str]]) -> int:
        new: list[Document] = [
            {"_id": script, "address": address, "wallet_id": wallet_id, "unscanned": True}
            for script, (wallet_id, address) in found.items()
        ]
        return sum(
            self._numbers.write(partial(self._insert, new[start : start + _MOST_IN_A_TRANSACTION]))
            for start in range(0, len(new), _MOST_IN_A_TRANSACTION)
        )

    def _insert(self, scripts: Sequence[Document], session: ClientSession) -> int:
        # A script may have become known in between: then it stays as it is.
        ids = [script["_id"] for script in scripts]
        known = {bytes(one["_id"]) for one in self._db[names.SCRIPTS].find({"_id": {"$in": ids}}, {}, session=session)}
        new = [script for script in scripts if script["_id"] not in known]
        self._numbers.insert(new, session)
        return len(new)
