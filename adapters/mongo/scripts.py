"""`teller_scripts`: the scriptPubKeys that pay wallets, found by their bytes.

A query for a block's scripts takes MongoDB three times as long with a million documents as with a thousand, in every
form of it: some 5,000 searches in a larger tree. So nearly all scripts are ruled out here first, by a table of
constant size (`adapters.mongo.script_filter`), and a query decides on the few that are left. The table only ever
saves searches: it is brought up to date before each use, by the scripts' running numbers
(`adapters.mongo.script_numbers`), so whatever a query would find passes it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Final

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from adapters.mongo.script_filter import ScriptFilter
from adapters.mongo.script_numbers import last_number
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.ports import WatchedScript

_LONGEST_SCRIPT: Final = 42
"""Bytes of the longest script that has an address: a witness program of 40 (BIP141). Longer ones, up to a whole
block of data, pay nobody that we know, and are not sent."""

_MOST_IN_A_QUERY: Final = 100_000
"""Scripts of one query: 7 MB at most, where MongoDB takes 16. A block has some 30,000 outputs at most."""

_PAGE: Final = 10_000
"""Scripts loaded at once: 1 MB, and some 20 ms in which no other thread of this process runs."""

_FIELDS: Final = {"address": 1, "wallet_id": 1}


class MongoScripts:
    """`daemon.domain.ports.Scripts` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._loading = threading.Lock()
        self._filter = ScriptFilter()

    def owners(self, scripts: Collection[bytes]) -> Sequence[WatchedScript]:
        """See the port. The first call, if only for no scripts, loads all that there are (seconds for a million).

        Raises InvariantViolation if a number is missing among them: a script that is not found is money lost.
        """
        with mapped("looking for scripts"):
            asked = [script for script in self._up_to_date().candidates(scripts) if len(script) <= _LONGEST_SCRIPT]
            return [
                _watched(found)
                for start in range(0, len(asked), _MOST_IN_A_QUERY)
                for found in self._db[names.SCRIPTS].find(
                    {"_id": {"$in": asked[start : start + _MOST_IN_A_QUERY]}}, _FIELDS
                )
            ]

    def _up_to_date(self) -> ScriptFilter:
        """The filter, with every script in it that was committed before this call."""
        known = self._filter
        loaded = known.count  # before the last number is read: it may only grow in between
        last = last_number(self._db)
        if last < loaded:
            self._forget(known)
            raise Unavailable(
                f"MongoDB, looking for scripts: the last one has number {last}, {loaded} were there already: a new "
                "primary that is still catching up, or another database in its place; all are loaded again"
            )
        if last > loaded:
            with self._loading:
                known = self._filter
                self._load(known, last)
        return known

    def _forget(self, known: ScriptFilter) -> None:
        with self._loading:
            if self._filter is known:
                self._filter = ScriptFilter()

    def _load(self, known: ScriptFilter, last: int) -> None:
        if known.count == 0 and self._db[names.SCRIPTS].find_one({"n": None}, {"_id": 1}) is not None:
            raise InvariantViolation(f"{names.SCRIPTS} has a script without a number: it would never be matched")
        while known.count < last:
            above, through = known.count, min(known.count + _PAGE, last)
            query = {"n": {"$gt": above, "$lte": through}}
            page = self._db[names.SCRIPTS].find(query, {"n": 1}, batch_size=_PAGE).sort("n", 1).to_list()
            if [one["n"] for one in page] != list(range(above + 1, through + 1)):
                raise InvariantViolation(
                    f"{names.SCRIPTS} must have one script of each number from {above + 1} to {through}, "
                    f"and has {len(page)}: some are lost, so payments to them would be"
                )
            known.add([one["_id"] for one in page])

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
