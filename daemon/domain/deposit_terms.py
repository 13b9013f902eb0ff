"""What a bank asks of a deposit: confirmations by amount, a fee, and a least amount."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from daemon.domain.chain import COINBASE_MATURITY
from daemon.domain.errors import BadInput
from daemon.domain.money import divide_half_down

MAX_TIERS: Final = 20
"""Amount steps of a policy; nobody can oversee more."""

MAX_CONFIRMATIONS: Final = 1_000
"""A week of blocks."""

_BASIS_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationTier:
    """Deposits of `from_sat` and more need `confirmations`."""

    from_sat: int
    confirmations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationPolicy:
    """Confirmations by amount: `tiers` ascend by `from_sat`, the first one from 0.

    Version 0 is the configuration's; each change makes the next version, and none is ever changed.
    """

    version: int
    tiers: tuple[ConfirmationTier, ...]

    def confirmations_for(self, amount_sat: int, *, is_coinbase: bool) -> int:
        """What a deposit of this amount needs; a coinbase never less than consensus asks for."""
        asked = next(tier.confirmations for tier in reversed(self.tiers) if tier.from_sat <= amount_sat)
        return max(asked, COINBASE_MATURITY) if is_coinbase else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """One entry of the policy's history: never changed, never deleted."""

    before: ConfirmationPolicy
    after: ConfirmationPolicy
    changed_by: str
    reason: str
    changed_at_ms: int


def checked_tiers(tiers: Sequence[ConfirmationTier]) -> tuple[ConfirmationTier, ...]:
    """The tiers, ascending; raises BadInput if they are no policy."""
    if not 1 <= len(tiers) <= MAX_TIERS:
        raise BadInput(field="tiers", value=len(tiers), remedy=f"give 1 to {MAX_TIERS} tiers")
    ordered = tuple(sorted(tiers, key=lambda tier: tier.from_sat))
    if ordered[0].from_sat != 0:
        raise BadInput(field="tiers", value=ordered[0].from_sat, remedy="the smallest from_sat must be 0")
    for tier, following in pairwise(ordered):
        if tier.from_sat == following.from_sat:
            raise BadInput(field="tiers", value=tier.from_sat, remedy="give each from_sat once")
        if tier.confirmations > following.confirmations:
            raise BadInput(
                field="tiers", value=following.confirmations, remedy="a larger amount must not need fewer confirmations"
            )
    for tier in ordered:
        if not 1 <= tier.confirmations <= MAX_CONFIRMATIONS:
            raise BadInput(
                field="tiers.confirmations", value=tier.confirmations, remedy=f"give 1 to {MAX_CONFIRMATIONS}"
            )
    return ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositTerms:
    """Fee and dust as configured; the defaults are Blink's (blink-contract.md 4).

    An amount below `fee_threshold_sat` costs `flat_fee_sat`, any other `fee_basis_points` of the whole amount.
    What is below `dust_threshold_sat`, or not more than its fee, is dust: booked, but to no wallet.
    """

    flat_fee_sat: int = 3_000
    fee_threshold_sat: int = 1_000_000
    fee_basis_points: int = 30
    dust_threshold_sat: int = 5_000

    def fee_sat(self, amount_sat: int) -> int:
        """The fee of a deposit, rounded as Blink's core rounds (blink-contract.md 2.6)."""
        if amount_sat < self.fee_threshold_sat:
            return self.flat_fee_sat
        return divide_half_down(amount_sat * self.fee_basis_points, _BASIS_POINTS)

    def is_dust(self, amount_sat: int) -> bool:
        """Whether nothing of it reaches the wallet."""
        return amount_sat < self.dust_threshold_sat or amount_sat <= self.fee_sat(amount_sat)
