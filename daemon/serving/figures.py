"""Reads the figures that only the database knows, every few seconds, for metrics; never while a scrape waits.

One daemon reads: the leader. A figure that cannot be read is left out, not guessed, and not kept from before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
import trio

from daemon.domain import accounts
from daemon.domain.books import GapState
from daemon.domain.errors import Conflict, Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.money import Currency, Price
from daemon.domain.ports import BookTotals, Deposits, Figures, Gaps, PriceSource, SuspenseTotal, SystemWallet

EVERY_S: Final = 10.0
"""Between readings: Prometheus' scrapes are as far apart, or farther."""

REST_PER_WORK: Final = 9.0
"""A reading that takes long is followed by a rest of nine times as long: at most a tenth of one connection's time."""

ACCOUNTS: Final = (
    accounts.LIGHTNING,
    accounts.ON_CHAIN,
    accounts.SUSPENSE,
    accounts.ROUNDING,
    accounts.DUST,
    accounts.OPENING,
    accounts.GAP,
)
"""The accounts that have a balance in the metrics; wallets are summed, for there is no bound on them."""

log = structlog.get_logger()

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read in one turn; None is what could not be. `pending` are deposits on their way, and their sats, None
    also without a chain. `read_at_s` is on the monotonic clock."""

    read_at_s: float
    suspense: SuspenseTotal | None = None
    pending: tuple[int, int] | None = None
    outbox_rows: int | None = None
    system_wallets: Mapping[SystemWallet, WalletId] | None = None
    totals: BookTotals | None = None
    price: Price | None = None
    gaps: Mapping[tuple[str, GapState], tuple[int, int]] | None = None


class FigureReader:
    """Reads in a thread of its own and tells `show`; None when it ends. `deposits` is None without a chain."""

    def __init__(
        self,
        *,
        figures: Figures,
        gaps: Gaps,
        deposits: Deposits | None,
        prices: PriceSource,
        show: Callable[[Reading | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._figures = figures
        self._gaps = gaps
        self._deposits = deposits
        self._prices = prices
        self._show = show
        self._clock = clock
        self._failed: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Reads until cancelled."""
        thread = trio.CapacityLimiter(1)
        try:
            while True:
                began = trio.current_time()
                self._show(await trio.to_thread.run_sync(self.read, limiter=thread, abandon_on_cancel=True))
                await trio.sleep(max(EVERY_S, REST_PER_WORK * (trio.current_time() - began)))
        finally:
            self._show(None)

    def read(self) -> Reading:
        """One turn; blocks."""
        failed: dict[str, str] = {}

        def tried(what: str, ask: Callable[[], _Value]) -> _Value | None:
            try:
                return ask()
            except (Unavailable, Conflict) as outage:
                failed[what] = str(outage)
                return None

        at_s = self._clock()
        wallets = tried("system wallets", self._figures.system_wallets)
        reading = Reading(
            read_at_s=at_s,
            suspense=tried("suspense", self._figures.suspense),
            pending=None if self._deposits is None else tried("deposits", self._deposits.waiting),
            outbox_rows=tried("outbox", self._figures.outbox_rows),
            system_wallets=wallets,
            totals=tried("totals", lambda: self._totals(wallets or {})),
            price=self._prices.current(),
            gaps=tried("gaps", self._gaps.totals),
        )
        self._tell(failed)
        return reading

    def _totals(self, wallets: Mapping[SystemWallet, WalletId]) -> BookTotals:
        own = [(account, Currency.BTC.value) for account in ACCOUNTS]
        system = [(accounts.wallet_account(wallet_id), wallet.currency) for wallet, wallet_id in wallets.items()]
        return self._figures.totals([*own, *system])

    def _tell(self, failed: Mapping[str, str]) -> None:
        """Once when it begins, once when it ends: an outage is told by others at length."""
        if frozenset(failed) != self._failed:
            if failed:
                log.warning("figures.not_read", what=sorted(failed), cause=next(iter(failed.values())))
            else:
                log.info("figures.read_again")
        self._failed = frozenset(failed)
