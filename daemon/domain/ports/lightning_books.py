"""What the books say of the Lightning nodes, for the comparison with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.domain.cursors import LndCursor


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningTotals:
    """The Lightning account (credit less debit, sats) and every node's cursor, of one moment; `sequence` is the
    feed's position then."""

    sequence: int
    balance_sat: int
    cursors: Sequence[LndCursor]


class LightningBooks(Protocol):
    """The books, for reading: majority read concern; raises Unavailable."""

    def totals(self) -> LightningTotals:
        """Account and cursors of one moment."""
        ...

    def taken_by_others(self, hashes: Collection[str]) -> Mapping[str, int]:
        """Sats that journals of other programs took from the Lightning account (credit less debit) for these payment
        hashes or txids: legs with it as `hash`. Only hashes for which there is such a leg."""
        ...

    def taken_as(self, types: Collection[str], *, since_ms: int) -> Mapping[str, int]:
        """Sats that journals of other programs took from the Lightning account (credit less debit) since this moment,
        by the leg's type; only types for which there is such a leg. For types of which there are few."""
        ...

    def booked(self, keys: Collection[str]) -> Collection[str]:
        """Those of these idempotency keys that exist."""
        ...
