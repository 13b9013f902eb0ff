"""`Wallets` in memory."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from adapters.memory.state import Tables, WalletDocument
from daemon.domain.accounts import Barred
from daemon.domain.errors import AlreadyExists, NotFound
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet


class MemoryWallets:
    """See `daemon.domain.ports.Wallets`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def create(self, *, account_id: AccountId | None, currency: Currency, external_id: str) -> Wallet:
        tables = self._tables
        with tables.lock:
            for document in tables.wallets.values():
                if document.external_id == external_id:
                    if (document.asked_account_id, document.wallet.currency) != (account_id, currency):
                        raise AlreadyExists(f"external_id {external_id!r} made another wallet before")
                    return document.wallet
            if account_id is not None and account_id not in tables.accounts:
                raise NotFound(f"there is no account {account_id}")
            wallet = Wallet(
                wallet_id=WalletId(_repeatable_id("wallet", external_id)),
                account_id=account_id or AccountId(_repeatable_id("account", external_id)),
                currency=currency,
            )
            tables.accounts.setdefault(wallet.account_id, wallet.wallet_id)
            tables.wallets[wallet.wallet_id] = WalletDocument(
                wallet=wallet, external_id=external_id, asked_account_id=account_id
            )
            return wallet

    def get(self, wallet_id: WalletId) -> Wallet | None:
        with self._tables.lock:
            document = self._tables.wallets.get(wallet_id)
            return document.wallet if document else None

    def barred(self, wallet: Wallet) -> Barred | None:
        with self._tables.lock:
            return self._tables.barred.get(wallet.account_id)

    def page(
        self, *, account_id: AccountId | None, after: str | None, limit: int
    ) -> tuple[Sequence[Wallet], str | None]:
        with self._tables.lock:
            numbered = [
                (number, document.wallet)
                for number, document in enumerate(self._tables.wallets.values())
                if account_id is None or document.wallet.account_id == account_id
            ]
        rest = [(number, wallet) for number, wallet in numbered if after is None or number > int(after)]
        page = rest[:limit]
        return [wallet for _, wallet in page], str(page[-1][0]) if len(rest) > limit else None


def _repeatable_id(what: str, external_id: str) -> str:
    """A UUID that is the same in every run: a simulation must repeat itself."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{what}:{external_id}"))
