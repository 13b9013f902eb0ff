"""`DollarFacts` in memory."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.memory.state import Tables
from daemon.domain.books import DollarFacts, Expectation
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency


def dollar_facts(tables: Tables, expectations: Iterable[Expectation]) -> DollarFacts:
    """See `daemon.domain.books`; the caller holds the lock."""
    in_dollars = [one for one in expectations if one.is_in_dollars]
    if not in_dollars:
        return DollarFacts()
    quotes = {
        one.payment_hash: tables.quotes[one.payment_hash] for one in in_dollars if one.payment_hash in tables.quotes
    }
    btc_wallets: dict[AccountId, WalletId] = {}
    if any(quote.cents == 0 for quote in quotes.values()):
        accounts = {one.account_id for one in in_dollars}
        for document in tables.wallets.values():
            wallet = document.wallet
            if wallet.account_id in accounts and wallet.currency is Currency.BTC:
                btc_wallets.setdefault(wallet.account_id, wallet.wallet_id)
    return DollarFacts(dealer=tables.dealer, quotes=quotes, btc_wallets=btc_wallets)
