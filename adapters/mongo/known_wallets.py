"""What never changes of a wallet, read once: what it counts in, and whose it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, text_of
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency

MAX_CACHED: Final = 200_000
"""Some 50 MB."""


@dataclass(frozen=True, slots=True)
class KnownWallet:
    """`account_id` is empty where another program's document has none."""

    currency: Currency
    account_id: AccountId


class KnownWallets:
    """Wallets that exist, kept for the life of the process: a batch whose wallets are known costs no query."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._known: dict[WalletId, KnownWallet] = {}

    def of(self, wallet_ids: Collection[WalletId]) -> dict[WalletId, KnownWallet]:
        """Those of these that exist. For any thread: another one may make room at any moment."""
        found = {wallet_id: wallet for wallet_id in wallet_ids if (wallet := self._known.get(wallet_id)) is not None}
        unknown = {wallet_id for wallet_id in wallet_ids if wallet_id not in found}
        if unknown:
            read = self._read(unknown)
            if len(self._known) > MAX_CACHED:
                self._known = {}
            self._known.update(read)
            found |= read
        return found

    def _read(self, wallet_ids: Collection[WalletId]) -> dict[WalletId, KnownWallet]:
        query = {"id": {"$in": list(wallet_ids)}}
        read: dict[WalletId, KnownWallet] = {}
        for wallet in self._db[names.WALLETS].find(query, {"id": 1, "currency": 1, "accountId": 1}):
            # A wallet of a kind that is not known here cannot be credited here: as if it were not there.
            if text_of(wallet, "currency") in Currency.__members__:
                account_id = AccountId(text_of(wallet, "accountId"))
                read[WalletId(wallet["id"])] = KnownWallet(Currency(wallet["currency"]), account_id)
        return read
