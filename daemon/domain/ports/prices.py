"""The dollar price of bitcoin."""

from __future__ import annotations

from typing import Protocol

from daemon.domain.money import Price


class PriceSource(Protocol):
    """Dollar price of bitcoin."""

    def current(self) -> Price | None:
        """The price now, None if there is none or it is too old. Never blocks."""
        ...
