"""The chart of accounts: Blink's names, and tellerd's own under `Liabilities:Teller`.

Blink's check is Assets + Liabilities = 0 per currency, and its ledger library allows at most three
parts in a path, so tellerd's own accounts are liabilities of exactly three parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daemon.domain.identifiers import WalletId

BOOK = "MainBook"
"""The one book, shared with every program that writes to the ledger."""

LIGHTNING = "Assets:Reserve:Lightning"
ON_CHAIN = "Assets:OnChain"
SUSPENSE = "Liabilities:Teller:Suspense"
ROUNDING = "Liabilities:Teller:Rounding"
DUST = "Liabilities:Teller:Dust"
OPENING = "Liabilities:Teller:Opening"
GAP = "Liabilities:Teller:Gap"

_WALLET_PREFIX = "Liabilities:"


def wallet_account(wallet_id: WalletId) -> str:
    """The ledger account of a wallet."""
    return _WALLET_PREFIX + wallet_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DealerWallets:
    """The two wallets of the bank's dealer, who changes sats into dollars (blink-contract.md 2.4)."""

    btc: WalletId
    usd: WalletId


class Barred(StrEnum):
    """Why an account's wallets are not credited: what comes for them waits in suspense for a person."""

    LOCKED = "account_locked"
    CLOSED = "account_closed"


BARRED_STATUSES: Final[Mapping[str, Barred]] = {"locked": Barred.LOCKED, "closed": Barred.CLOSED}
"""By the status of the last element of an account's `statusHistory` (blink-contract.md 1)."""
