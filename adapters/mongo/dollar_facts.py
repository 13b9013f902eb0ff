"""What credits to dollar wallets rest on; a batch without an invoice of one does not come here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.quotes import quote_from
from daemon.domain.accounts import DealerWallets
from daemon.domain.books import DollarFacts
from daemon.domain.identifiers import AccountId, PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.quotes import Quote


class DollarFactsReader:
    """Reads `DollarFacts`; the dealer's wallets are found once, as Blink's core finds them."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._dealer: DealerWallets | None = None

    def read(self, payment_hashes: Collection[PaymentHash], account_ids: Collection[AccountId]) -> DollarFacts:
        """The facts for these invoices, all of dollar wallets."""
        dealer, quotes = self.dealer(), self._quotes(payment_hashes)
        # Only what is worth less than a cent goes to a BTC wallet.
        asked = account_ids if any(quote.cents == 0 for quote in quotes.values()) else ()
        return DollarFacts(dealer=dealer, quotes=quotes, btc_wallets=self._btc_wallets(asked))

    def dealer(self) -> DealerWallets | None:
        """The dealer's wallets: there is no index on roles, and they never change."""
        if self._dealer is None:
            account = self._db[names.ACCOUNTS].find_one({"role": "dealer"}, {"id": 1})
            if account is not None:
                self._dealer = self._wallets_of(account["id"])
        return self._dealer

    def _wallets_of(self, account_id: str) -> DealerWallets | None:
        found = self._db[names.WALLETS].find({"accountId": account_id}).sort("_id", -1)
        # The oldest, where an account has several of one currency.
        wallets = {one["currency"]: WalletId(one["id"]) for one in found}
        if not wallets.keys() >= {Currency.BTC, Currency.USD}:
            return None
        return DealerWallets(btc=wallets[Currency.BTC], usd=wallets[Currency.USD])

    def _quotes(self, payment_hashes: Collection[PaymentHash]) -> Mapping[PaymentHash, Quote]:
        found = self._db[names.QUOTES].find({"_id": {"$in": list(payment_hashes)}})
        return {quote.payment_hash: quote for quote in map(quote_from, found)}

    def _btc_wallets(self, account_ids: Collection[AccountId]) -> Mapping[AccountId, WalletId]:
        if not account_ids:
            return {}
        query: dict[str, Any] = {"accountId": {"$in": list(account_ids)}, "currency": Currency.BTC.value}
        found = self._db[names.WALLETS].find(query, {"id": 1, "accountId": 1}).sort("_id", -1)
        return {AccountId(one["accountId"]): WalletId(one["id"]) for one in found}
