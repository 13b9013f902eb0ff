"""No price at all: what a configuration without [prices] means."""

from __future__ import annotations

from daemon.domain.money import Price
from daemon.domain.quotes import Unpriced, UnpricedReason


class NoPrice:
    """Implements `PriceSource` and `Dealer` without a price: dollar fields stay absent from the books, and dollar
    wallets get nothing until there is one."""

    name = "none"

    def current(self) -> Price | None:
        """None."""
        return None

    def age_s(self) -> float | None:
        """None."""
        return None

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Unpriced:  # noqa: ARG002 (whatever is asked)
        """Never a price."""
        return Unpriced(UnpricedReason.MISSING)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Unpriced:  # noqa: ARG002 (whatever is asked)
        """Never a price."""
        return Unpriced(UnpricedReason.MISSING)
