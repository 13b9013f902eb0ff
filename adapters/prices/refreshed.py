"""A price that is read every so often in the background, and none rather than an old one."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import structlog
import trio

from adapters.prices.jumps import ANY_JUMP, Jumps, PriceJumped, PriceUnreadable
from daemon.domain.money import Price
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason, cents_at, sats_at

__all__ = ["PriceJumped", "PriceUnreadable", "RefreshedPrice"]

_MAX_BACKOFF_S = 300.0
"""Longest pause after failures in a row; a service that is back is found within this time."""

log = structlog.get_logger()


class RefreshedPrice(ABC):
    """Implements `PriceSource`, and `Dealer` at that price; `run` keeps it fresh. A price older than `max_age_s` is
    none, and there is none while a jump of more than `max_jump_percent` is doubted. A subclass says where it is read
    from."""

    def __init__(
        self,
        *,
        name: str,
        refresh_s: float,
        max_age_s: float,
        max_jump_percent: float = ANY_JUMP,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._name = name
        self._refresh_s = refresh_s
        self._max_age_s = max_age_s
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (spreads requests, guards nothing)
        self._latest: tuple[Price, float] | None = None
        self._jumps = Jumps(max_jump_percent)
        self._in_doubt = False
        self._thread = trio.CapacityLimiter(1)  # one request at a time: a slow service must not pile up threads

    @abstractmethod
    def _read(self) -> Price:
        """The price now; blocks. Raises PriceUnreadable."""

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    def age_s(self) -> float | None:
        """Since the newest price was asked for; None before the first one."""
        latest = self._latest
        return None if latest is None else self._clock() - latest[1]

    def current(self) -> Price | None:
        """The newest price; None before the first one and when it is too old."""
        found = self._fresh()
        return None if isinstance(found, Unpriced) else found

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:  # noqa: ARG002 (no spread for time)
        """At the newest price; never blocks."""
        price = self._fresh()
        return price if isinstance(price, Unpriced) else sats_at(price, amount_cents=amount_cents, source=self._name)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:  # noqa: ARG002 (as above)
        """At the newest price; never blocks."""
        price = self._fresh()
        return price if isinstance(price, Unpriced) else cents_at(price, amount_sat=amount_sat, source=self._name)

    def _fresh(self) -> Price | Unpriced:
        latest = self._latest
        if latest is None:
            return Unpriced(UnpricedReason.MISSING)
        price, asked_at = latest
        is_good = self._clock() - asked_at <= self._max_age_s and not self._in_doubt
        return price if is_good else Unpriced(UnpricedReason.STALE)

    async def run(self) -> None:
        """Refreshes until cancelled; a failure is logged and tried again with backoff."""
        failures = 0
        while True:
            try:
                await trio.to_thread.run_sync(self.refresh, limiter=self._thread, abandon_on_cancel=True)
                failures = 0
            except PriceJumped as doubt:
                failures = 0  # it answers, and the next answers say whether this one was right
                log.warning("price.jumped", cause=str(doubt))
            except PriceUnreadable as problem:
                failures += 1
                log.warning("price.not_read", cause=str(problem), failures=failures)
            longest_s = max(self._refresh_s, _MAX_BACKOFF_S)
            pause_s = min(self._refresh_s * 2 ** min(failures, 10), longest_s) if failures else self._refresh_s
            await trio.sleep(pause_s * self._rng.uniform(0.9, 1.0))

    def refresh(self) -> None:
        """Reads the price once; blocks. Raises PriceUnreadable, or PriceJumped, and then leaves the former price in
        place."""
        asked_at = self._clock()  # not when it came: a late answer is not younger for it
        price = self._read()
        latest = self._latest
        before = latest[0] if latest is not None and asked_at - latest[1] <= self._max_age_s else None
        try:
            self._jumps.check(price, before)
        except PriceJumped:
            self._in_doubt = True  # one of the two is wrong: where it is the one before, it is worth money to others
            raise
        self._latest = price, asked_at
        self._in_doubt = False
