"""The books as they stand in MongoDB: read by the demo with a driver of its own, past tellerd."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from pymongo import MongoClient

from regtest.demo_story import table

TIMEOUT_MS: Final = 10_000
"""For a mongod on this machine: milliseconds; ten seconds is one that has ended."""


class MainBook:
    """Journals and legs in the layout that Blink's ledger library reads."""

    def __init__(self, url: str, database: str) -> None:
        self._mongo = MongoClient[dict[str, Any]](
            url, tz_aware=True, serverSelectionTimeoutMS=TIMEOUT_MS, socketTimeoutMS=TIMEOUT_MS
        )
        self._db = self._mongo[database]

    def legs_of(self, payment_hash: str) -> list[dict[str, Any]]:
        """The legs that a payment was booked with."""
        return list(self._db["medici_transactions"].find({"hash": payment_hash}).sort("_id", 1))

    def shown(self, legs: list[dict[str, Any]]) -> list[str]:
        """The journal of these legs as a table."""
        journal = self._db["medici_journals"].find_one({"_id": legs[0]["_journal"]})
        if journal is None:
            return ["medici_journals: nothing"]
        head = f"{journal['_id']}  {journal['book']}  {journal['datetime']:%Y-%m-%d %H:%M:%S} UTC  {journal['memo']!r}"
        rows = [("account", "currency", "debit", "credit")]
        rows += [(leg["accounts"], leg["currency"], f"{leg['debit']:,}", f"{leg['credit']:,}") for leg in legs]
        return [f"medici_journals      {head}", "medici_transactions", *(f"  {line}" for line in table(rows))]

    def credits(self, payment_hashes: Iterable[str]) -> Counter[str]:
        """How often each payment is credited to a wallet; those that are not are not in it."""
        found = self._db["medici_transactions"].find(
            {"hash": {"$in": list(payment_hashes)}, "type": "invoice", "credit": {"$gt": 0}}, {"hash": 1}
        )
        return Counter(str(leg["hash"]) for leg in found)

    def close(self) -> None:
        """Close the connection."""
        self._mongo.close()
