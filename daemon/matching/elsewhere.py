"""Money that moved a node without tellerd: a gap says what it was, until journals of other programs account for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from daemon.domain.books import Gap, GapState
from daemon.domain.money import MSAT_PER_SAT

SENT_ELSEWHERE: Final = "sent_elsewhere"
WALLET_SENT: Final = "wallet_sent"
WALLET_RECEIVED: Final = "wallet_received"
CHANNEL_PUSH: Final = "channel_push"
"""Kinds of gaps: a payment, coins, and what went to the other side of a channel with its opening, that tellerd did not
book."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOutside:
    """What the books say: sats that other programs' journals took from the Lightning account by payment hash or txid,
    and which of the keys that were asked for exist."""

    taken: Mapping[str, int]
    keys: Collection[str]

    def taken_msat(self, reference: str) -> int:
        """By this payment hash or txid."""
        return self.taken.get(reference, 0) * MSAT_PER_SAT


def recheck(gap: Gap, taken: Mapping[str, int]) -> Gap | None:
    """A gap about money that went or came, with what journals say by now; None if nothing has changed.

    Other programs book whole sats: what is left below one is the fraction that they drop, and waits for nobody.
    """
    amount_msat = gap.moved_msat + taken.get(gap.reference, 0) * MSAT_PER_SAT
    if amount_msat == gap.amount_msat:
        return None
    return replace(gap, amount_msat=amount_msat, state=_state_after(gap, amount_msat))


def _state_after(gap: Gap, amount_msat: int) -> GapState:
    if amount_msat == 0:
        return GapState.CLOSED
    return GapState.EXPLAINED if abs(amount_msat) < MSAT_PER_SAT else gap.state
