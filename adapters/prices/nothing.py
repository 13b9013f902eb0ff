"""No price at all: what a configuration without [prices] means."""

from __future__ import annotations

from daemon.domain.money import Price


class NoPrice:
    """Implements `PriceSource` without a price: dollar fields stay absent from the books."""

    def current(self) -> Price | None:
        """None."""
        return None
