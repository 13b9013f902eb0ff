"""Accounts that are locked or closed: the database tells of those only, which are next to none.

A query of its own, because one by the unique index costs 0.5 ms, and 2.3 ms for a full batch; as a `$lookup` in the
pipeline that reads the rest of a batch's facts it cost 0.2 to 1 ms and 4 ms (2-core machine, 5,000 accounts).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from daemon.domain.accounts import BARRED_STATUSES, Barred
from daemon.domain.identifiers import AccountId, WalletId

_FIELDS: Document = {"_id": 0, "id": 1, "statusHistory": {"$slice": -1}}


def barred_accounts(db: Database[Document], account_ids: Collection[AccountId]) -> dict[AccountId, Barred]:
    """Those of these accounts whose newest status is locked or closed; or cannot be read, and an older one was."""
    if not account_ids:
        return {}
    ever_barred = {"id": {"$in": list(account_ids)}, "statusHistory.status": {"$in": list(BARRED_STATUSES)}}
    barred = {}
    for account in db[names.ACCOUNTS].find(ever_barred, _FIELDS):
        status = _newest_status(account.get("statusHistory"))
        if status is None or status in BARRED_STATUSES:
            barred[AccountId(account["id"])] = Barred.LOCKED if status is None else BARRED_STATUSES[status]
    return barred


def _newest_status(history: Any) -> str | None:
    """None where another program has written what nobody can read: that unlocks nothing."""
    newest = history[-1] if isinstance(history, list) and history else None
    status = newest.get("status") if isinstance(newest, dict) else None
    return status if isinstance(status, str) else None


def barred_wallets(db: Database[Document], account_of: Mapping[WalletId, AccountId]) -> dict[WalletId, Barred]:
    """Those of these wallets whose account is locked or closed."""
    barred = barred_accounts(db, set(account_of.values()))
    return {wallet_id: barred[account_id] for wallet_id, account_id in account_of.items() if account_id in barred}
