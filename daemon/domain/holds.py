"""Hold invoices: who releases what is held, and how long LND lets it wait."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from daemon.domain.identifiers import PaymentHash

ALREADY_PAID: Final = "already_paid"
"""Its invoice counts as paid: the payment goes back, and nobody is told that the invoice was canceled."""

CANCEL_REASONS: Final = frozenset(
    {
        *("by_call", "on_node", "not_released", "quote_expired", "no_preimage", "under_one_sat", "under_one_cent"),
        *("too_late", "closed", ALREADY_PAID),
        *("no_wallet", "no_dealer", "currency_differs", "account_locked", "account_closed"),
        *("not_priced", "underpaid", "price_missing", "price_stale", "dealer_away", "dealer_refused"),
    }
)
"""Why invoices are canceled, and held payments go back. The README lists them."""

PREIMAGE_BYTES: Final = 32


class Release(StrEnum):
    """Who decides that a held payment is taken."""

    AUTOMATIC = "automatic"
    """tellerd, as soon as it can be credited."""
    MANUAL = "manual"
    """A caller of the API, by SettleInvoice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRules:
    """What the configuration says. `release` counts for invoices whose document does not say: other programs'.

    `margin_blocks` before LND would cancel by itself a held payment is decided: blocks can come fast.
    """

    release: Release = Release.AUTOMATIC
    margin_blocks: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDeltas:
    """Blocks before an HTLC's expiry. At `auto_cancel` LND gives a held one back by itself
    (invoices.holdexpirydelta); at `broadcast` (IncomingBroadcastDelta) one that was settled off the chain and is not
    through yet makes it close the channel."""

    auto_cancel: int
    broadcast: int


def is_preimage(value: bytes, payment_hash: PaymentHash) -> bool:
    """Whether this opens the HTLCs of this hash: 32 bytes and no others, whatever their SHA-256 (BOLT 2, BOLT 3)."""
    return len(value) == PREIMAGE_BYTES and hashlib.sha256(value).hexdigest() == payment_hash


_DELTAS: Final = (
    ((0, 21), HoldDeltas(auto_cancel=18, broadcast=16)),
    ((0, 0), HoldDeltas(auto_cancel=12, broadcast=10)),
)
"""From which version on (node-interfaces.md A.2). The newest row also counts for versions that are not known yet, and
where the version cannot be read: too early is safe."""


def deltas_of(version: str) -> HoldDeltas:
    """What counts for an LND that says this of itself, as "0.21.3-beta commit=v0.21.3-beta"."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None:
        return _DELTAS[0][1]
    number = (int(match[1]), int(match[2]))
    return next(deltas for first, deltas in _DELTAS if number >= first)
