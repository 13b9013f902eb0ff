"""A price that never changes: for regtest, and where an operator sets it by hand."""

from __future__ import annotations

from decimal import Decimal

from daemon.domain.money import Price


class FixedPrice:
    """Implements `PriceSource` with one price."""

    def __init__(self, usd_per_btc: Decimal) -> None:
        self._price = Price.from_usd_per_btc(usd_per_btc)

    def current(self) -> Price | None:
        """The price."""
        return self._price
