"""Counts and sums over tellerd's own collections, for metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pymongo.database import Database
from pymongo.errors import OperationFailure

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, balance_id
from adapters.mongo.errors import mapped
from daemon.domain.books import BalanceKey, SuspenseState
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.ports import BookTotals, SuspenseTotal, SystemWallet

_MAX_MS = 5_000
"""What takes longer is given up: metrics must not weigh on a database that is slow already."""

_NO_SNAPSHOT = frozenset({239, 246})
"""SnapshotTooOld, SnapshotUnavailable: too much was written meanwhile, or an index was just made; later it works."""


class MongoFigures:
    """`daemon.domain.ports.Figures` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._system_wallets: Mapping[SystemWallet, WalletId] = {}

    def suspense(self) -> SuspenseTotal:
        """See the port; the index on `assigned_to` has what waits side by side."""
        total = {"_id": None, "payments": {"$sum": 1}, "amount_sat": {"$sum": "$amount_sat"}}
        waiting = {"assigned_to": None, "state": {"$ne": SuspenseState.REVERSED.value}}
        pipeline: list[Document] = [{"$match": waiting}, {"$group": total}]
        with mapped("adding up suspense"):
            for row in self._db[names.SUSPENSE].aggregate(pipeline, maxTimeMS=_MAX_MS):
                return SuspenseTotal(payments=int(row["payments"]), amount_sat=int(row["amount_sat"]))
        return SuspenseTotal(payments=0, amount_sat=0)

    def outbox_rows(self) -> int:
        """See the port. Rows are numbered without gaps, so that the two ends tell, however many there are."""
        with mapped("measuring the outbox"):
            ends = [
                row["_id"]
                for order in (1, -1)
                for row in self._db[names.OUTBOX].find({}, {"_id": 1}, max_time_ms=_MAX_MS).sort("_id", order).limit(1)
            ]
        return int(ends[-1]) - int(ends[0]) + 1 if ends else 0

    def totals(self, accounts: Collection[BalanceKey]) -> BookTotals:
        """See the port; one snapshot of the database."""
        try:
            return self._totals(accounts)
        except OperationFailure as refused:
            if refused.code not in _NO_SNAPSHOT:
                raise
            raise Unavailable(f"MongoDB, adding up the books: no snapshot (code {refused.code})") from refused

    def _totals(self, accounts: Collection[BalanceKey]) -> BookTotals:
        root = {"$arrayElemAt": [{"$split": ["$account", ":"]}, 0]}
        group = {"_id": {"root": root, "currency": "$currency"}, "balance": {"$sum": "$balance"}}
        asked = {balance_id(*key): key for key in accounts}
        with mapped("adding up the books"), self._db.client.start_session(snapshot=True) as session:
            balances = self._db[names.BALANCES]
            sums = list(balances.aggregate([{"$group": group}], session=session, maxTimeMS=_MAX_MS))
            found = list(balances.find({"_id": {"$in": list(asked)}}, session=session, max_time_ms=_MAX_MS))
        return BookTotals(
            roots={(row["_id"]["root"], row["_id"]["currency"]): int(row["balance"]) for row in sums},
            balances=dict.fromkeys(accounts, 0) | {asked[row["_id"]]: int(row["balance"]) for row in found},
        )

    def system_wallets(self) -> Mapping[SystemWallet, WalletId]:
        """See the port. Found once, as Blink's exporter does: `init` has made them, and there is no index on roles."""
        if not self._system_wallets:
            with mapped("looking for system wallets"):
                self._system_wallets = self._find_system_wallets()
        return self._system_wallets

    def _find_system_wallets(self) -> Mapping[SystemWallet, WalletId]:
        roles = sorted({wallet.role for wallet in SystemWallet})
        accounts = self._db[names.ACCOUNTS].find({"role": {"$in": roles}}, {"id": 1, "role": 1}, max_time_ms=_MAX_MS)
        role_of = {account["id"]: account["role"] for account in accounts}
        found = self._db[names.WALLETS].find({"accountId": {"$in": list(role_of)}}, max_time_ms=_MAX_MS).sort("_id", -1)
        # The oldest, where an account has several of one currency.
        wallets = {f"{role_of[one['accountId']]}_{one['currency']}": WalletId(one["id"]) for one in found}
        return {wallet: wallets[wallet.value] for wallet in SystemWallet if wallet.value in wallets}
