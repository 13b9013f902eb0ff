"""`teller_scripts`: the scriptPubKeys that pay wallets, found by their bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from daemon.domain.ports import WatchedScript

_LONGEST_SCRIPT: Final = 42
"""Bytes of the longest script that has an address: a witness program of 40 (BIP141). Longer ones, up to a whole
block of data, pay nobody that we know, and are not sent."""

_MOST_IN_A_QUERY: Final = 100_000
"""Scripts of one query: 7 MB at most, where MongoDB takes 16. A block has some 30,000 outputs at most."""

_FIELDS: Final = {"address": 1, "wallet_id": 1}


class MongoScripts:
    """`daemon.domain.ports.Scripts` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def owners(self, scripts: Collection[bytes]) -> Sequence[WatchedScript]:
        """See the port."""
        asked = [script for script in scripts if len(script) <= _LONGEST_SCRIPT]
        with mapped("looking for scripts"):
            return [
                _watched(found)
                for start in range(0, len(asked), _MOST_IN_A_QUERY)
                for found in self._db[names.SCRIPTS].find(
                    {"_id": {"$in": asked[start : start + _MOST_IN_A_QUERY]}}, _FIELDS
                )
            ]

    def unscanned(self, *, limit: int) -> Sequence[WatchedScript]:
        """See the port; in the order of their bytes."""
        with mapped("looking for new scripts"):
            found = self._db[names.SCRIPTS].find({"unscanned": True}, _FIELDS).sort("_id", 1).limit(limit)
            return [_watched(document) for document in found]

    def mark_scanned(self, scripts: Collection[bytes]) -> None:
        """See the port."""
        with mapped("marking scripts"):
            self._db[names.SCRIPTS].update_many({"_id": {"$in": list(scripts)}}, {"$unset": {"unscanned": ""}})


def _watched(document: Document) -> WatchedScript:
    return WatchedScript(script=bytes(document["_id"]), address=document["address"], wallet_id=document["wallet_id"])
