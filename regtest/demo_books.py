"""The books as they stand in MongoDB: read by the demo with a driver of its own, past tellerd."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from pymongo import MongoClient

from regtest.demo_story import NotAsClaimed, table

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

    def quote_of(self, payment_hash: str) -> dict[str, Any]:
        """The price that a dollar invoice was made at, as tellerd keeps it. NotAsClaimed without one."""
        quote = self._db["teller_quotes"].find_one({"_id": payment_hash})
        if quote is None:
            raise NotAsClaimed(f"every dollar invoice has a quote: {payment_hash} has none")
        return quote

    def dealer_accounts(self) -> tuple[str, str]:
        """The accounts of the dealer's two wallets, BTC and USD. NotAsClaimed where `tellerd init` made none."""
        dealer = self._db["accounts"].find_one({"role": "dealer"})
        if dealer is None:
            raise NotAsClaimed("there is a dealer")
        wallets = self._db["wallets"].find({"accountId": dealer["id"]})
        accounts = {wallet["currency"]: f"Liabilities:{wallet['id']}" for wallet in wallets}
        return accounts["BTC"], accounts["USD"]

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
        """How many journals credit each payment; those that none does are not in it."""
        found = self._db["medici_transactions"].find(
            {"hash": {"$in": list(payment_hashes)}, "type": "invoice", "credit": {"$gt": 0}}, {"hash": 1, "_journal": 1}
        )
        # A dollar invoice's journal has two credits: the dealer's sats, and the wallet's cents.
        return Counter(payment_hash for payment_hash, _ in {(str(leg["hash"]), leg["_journal"]) for leg in found})

    def close(self) -> None:
        """Close the connection."""
        self._mongo.close()
