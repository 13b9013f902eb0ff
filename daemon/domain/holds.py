"""Hold invoices: who releases what is held, and how long LND lets it wait."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_CANCEL_REASON: Final = 64
"""Characters of a reason in snake case."""


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
