"""What the books add up to: for metrics, read every few seconds, never while somebody waits for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from daemon.domain.books import BalanceKey
from daemon.domain.identifiers import WalletId


class SystemWallet(StrEnum):
    """Wallets of Blink's system accounts; the value is `<role>_<currency>`, the account's role and the wallet's."""

    BANK_OWNER = "bankowner_BTC"
    DEALER_BTC = "dealer_BTC"
    DEALER_USD = "dealer_USD"
    FUNDER = "funder_BTC"

    @property
    def role(self) -> str:
        """The account's."""
        return self.value.partition("_")[0]

    @property
    def currency(self) -> str:
        """The wallet's."""
        return self.value.partition("_")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseTotal:
    """Money that waits in suspense, assigned to no wallet."""

    payments: int
    amount_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookTotals:
    """Running balances of one moment, credit minus debit in minor units.

    `roots` sums all accounts by the first part of their name and their currency ("Assets", "BTC"): a pair without
    accounts is not there. `balances` has the accounts that were asked for, 0 where nothing was ever booked.
    """

    roots: Mapping[tuple[str, str], int]
    balances: Mapping[BalanceKey, int]


class Figures(Protocol):
    """Counts and sums over the books; majority read concern. Raises Unavailable, also where it takes too long."""

    def suspense(self) -> SuspenseTotal:
        """What waits in suspense."""
        ...

    def outbox_rows(self) -> int:
        """How many rows the outbox holds."""
        ...

    def totals(self, accounts: Collection[BalanceKey]) -> BookTotals:
        """Sums over all accounts, and the balances of these; costs a walk over all running balances."""
        ...

    def system_wallets(self) -> Mapping[SystemWallet, WalletId]:
        """Those that exist."""
        ...
