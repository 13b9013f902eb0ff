"""A price that never changes: for regtest, and where an operator sets it by hand."""

from __future__ import annotations

from decimal import Decimal

from daemon.domain.money import Price
from daemon.domain.quotes import Deal, cents_at, sats_at


class FixedPrice:
    """Implements `PriceSource` and `Dealer` with one price."""

    name = "fixed"

    def __init__(self, usd_per_btc: Decimal) -> None:
        self._price = Price.from_usd_per_btc(usd_per_btc)

    def current(self) -> Price | None:
        """The price."""
        return self._price

    def age_s(self) -> float | None:
        """It never grows old."""
        return 0.0

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal:  # noqa: ARG002 (the same at any time)
        """At the price."""
        return sats_at(self._price, amount_cents=amount_cents, source=self.name)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal:  # noqa: ARG002 (the same at any time)
        """At the price."""
        return cents_at(self._price, amount_sat=amount_sat, source=self.name)
