"""`Figures` in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from adapters.memory.state import Tables
from daemon.domain.books import BalanceKey, SuspenseState
from daemon.domain.identifiers import WalletId
from daemon.domain.ports import BookTotals, SuspenseTotal, SystemWallet


class MemoryFigures:
    """See `daemon.domain.ports.Figures`. There is no funder."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def suspense(self) -> SuspenseTotal:
        with self._tables.lock:
            entries = self._tables.suspense.values()
            waiting = [entry.amount_sat for entry in entries if entry.state is SuspenseState.WAITING]
        return SuspenseTotal(payments=len(waiting), amount_sat=sum(waiting))

    def outbox_rows(self) -> int:
        with self._tables.lock:
            return len(self._tables.outbox)

    def totals(self, accounts: Collection[BalanceKey]) -> BookTotals:
        with self._tables.lock:
            balances = dict(self._tables.balances)
        roots: dict[tuple[str, str], int] = {}
        for (account, currency), balance in balances.items():
            root = (account.partition(":")[0], currency)
            roots[root] = roots.get(root, 0) + balance
        return BookTotals(roots=roots, balances={key: balances.get(key, 0) for key in accounts})

    def system_wallets(self) -> Mapping[SystemWallet, WalletId]:
        owner, dealer = self._tables.bank_owner, self._tables.dealer
        found = {} if owner is None else {SystemWallet.BANK_OWNER: owner}
        return (
            found
            if dealer is None
            else found | {SystemWallet.DEALER_BTC: dealer.btc, SystemWallet.DEALER_USD: dealer.usd}
        )
