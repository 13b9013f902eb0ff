"""Addresses given out: their index, their script, and their place in the wallet."""

from __future__ import annotations

from bson.int64 import Int64
from pymongo.client_session import ClientSession
from pymongo.collection import ReturnDocument
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from adapters.mongo.script_numbers import ScriptNumbers
from daemon.domain.errors import InvariantViolation, NotFound
from daemon.domain.identifiers import WalletId
from daemon.domain.ports import DerivedAddress


class MongoAddresses:
    """`daemon.domain.ports.Addresses` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._numbers = ScriptNumbers(db)

    def current(self, wallet_id: WalletId, *, key_id: str) -> str | None:
        """See the port; the newest address is the one with the highest index."""
        with mapped("reading an address"):
            newest = self._db[names.SCRIPTS].find_one(
                {"wallet_id": wallet_id, "key_id": key_id}, {"address": 1}, sort=[("index", -1)]
            )
            if newest is None:
                return None
            address: str = newest["address"]
            used = self._db[names.DEPOSITS].find_one({"address": address}, {"_id": 1})
        return None if used else address

    def take_index(self, *, key_id: str) -> int:
        """See the port."""
        with mapped("taking an index"):
            before = self._db[names.DERIVATIONS].find_one_and_update(
                {"_id": key_id}, {"$inc": {"next": Int64(1)}}, upsert=True, return_document=ReturnDocument.BEFORE
            )
        return int(before["next"]) if before else 0

    def give(self, wallet_id: WalletId, derived: DerivedAddress, *, key_id: str) -> None:
        """See the port; a repeat changes nothing."""
        with mapped("giving an address"):
            self._numbers.write(lambda session: self._write(wallet_id, derived, key_id, session))

    def _write(self, wallet_id: WalletId, derived: DerivedAddress, key_id: str, session: ClientSession) -> None:
        wallets, scripts = self._db[names.WALLETS], self._db[names.SCRIPTS]
        if wallets.find_one({"id": wallet_id}, {"_id": 1}, session=session) is None:
            raise NotFound(f"wallet_id: no wallet {wallet_id}")
        known = scripts.find_one({"_id": derived.script}, {"wallet_id": 1}, session=session)
        if known is not None and known["wallet_id"] != wallet_id:
            raise InvariantViolation(
                f"address {derived.address} of wallet {wallet_id} is wallet {known['wallet_id']}'s already"
            )
        ours = {
            "address": derived.address,
            "wallet_id": wallet_id,
            "key_id": key_id,
            "index": Int64(derived.index),
        }
        if known is None:
            self._numbers.insert([{"_id": derived.script, **ours}], session)
        else:
            scripts.update_one({"_id": derived.script}, {"$set": ours}, session=session)
        wallets.update_one(
            {"id": wallet_id, "onchain.address": {"$ne": derived.address}},
            {"$push": {"onchain": {"address": derived.address}}},
            session=session,
        )
