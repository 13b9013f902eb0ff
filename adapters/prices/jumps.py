"""A price that jumps is doubted until it has come again: one wrong answer must not make anybody rich."""

from __future__ import annotations

from typing import Final

from daemon.domain.money import Price

CONFIRMATIONS: Final = 3
"""Further readings that have to agree with one that jumped: a service, or a cache before it, that answers wrongly for a
moment is not believed, and a market that crashes is believed a minute and a half later (three times `refresh_s`)."""

ANY_JUMP: Final = float("inf")
"""No jump is doubted."""


class PriceUnreadable(Exception):
    """The service answered nothing that a price can be read from, or nothing that is believed."""


class PriceJumped(PriceUnreadable):
    """The price differs too much from the one before to be believed at once."""


class Jumps:
    """What is doubted now, of one source. `max_jump_percent` is of the price before."""

    def __init__(self, max_jump_percent: float) -> None:
        self._max_jump_percent = max_jump_percent
        self._doubted: Price | None = None
        self._agreeing = 0

    def check(self, price: Price, before: Price | None) -> None:
        """Raises PriceJumped if this one is not to be believed yet; `before` is the last one that is, None where there
        is none that still counts."""
        if before is None or not self._is_jump(before, price):
            self._doubted = None
            return
        self._agreeing = self._agreeing + 1 if self._doubted and not self._is_jump(self._doubted, price) else 0
        self._doubted = price
        if self._agreeing == CONFIRMATIONS:
            self._doubted = None
            return
        raise PriceJumped(
            f"{price.usd_per_btc} dollars per bitcoin after {before.usd_per_btc}, more than "
            f"{self._max_jump_percent:g} percent: not believed before {CONFIRMATIONS - self._agreeing} more like it"
        )

    def _is_jump(self, before: Price, price: Price) -> bool:
        change = abs(price.microcents_per_btc - before.microcents_per_btc)
        return change * 100 > self._max_jump_percent * before.microcents_per_btc
