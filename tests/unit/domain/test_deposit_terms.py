"""Confirmations by amount, fees and dust: Blink's numbers, and the limits of what may be configured."""

from __future__ import annotations

import pytest

from daemon.domain.deposit_terms import (
    MAX_CONFIRMATIONS,
    MAX_TIERS,
    ConfirmationPolicy,
    ConfirmationTier,
    DepositTerms,
    checked_tiers,
)
from daemon.domain.errors import BadInput

SMALL, LARGE = (
    ConfirmationTier(from_sat=0, confirmations=2),
    ConfirmationTier(from_sat=1_000_000, confirmations=6),
)


@pytest.mark.parametrize(
    ("amount_sat", "fee_sat"),
    [
        (5_000, 3_000),
        (999_999, 3_000),
        (1_000_000, 3_000),
        (1_000_166, 3_000),  # 3,000.498
        (1_000_500, 3_001),  # 3,001.5: a half goes down
        (1_000_501, 3_002),  # 3,001.503
        (21_000_000 * 10**8, 63_000 * 10**8),
    ],
)
def test_the_fee_is_flat_below_the_threshold_and_basis_points_from_it_on(amount_sat: int, fee_sat: int) -> None:
    """Blink's: 3,000 sats below a million, 30 basis points of the whole amount above, a half rounded down."""
    assert DepositTerms().fee_sat(amount_sat) == fee_sat


@pytest.mark.parametrize(("amount_sat", "is_dust"), [(0, True), (1, True), (4_999, True), (5_000, False)])
def test_what_is_below_the_threshold_is_dust(amount_sat: int, is_dust: bool) -> None:
    """Blink's threshold is 5,000 sats, and 5,000 sats are no dust."""
    assert DepositTerms().is_dust(amount_sat) is is_dust


@pytest.mark.parametrize(("amount_sat", "is_dust"), [(3_000, True), (3_001, False)])
def test_what_is_not_more_than_its_fee_is_dust(amount_sat: int, is_dust: bool) -> None:
    """Nothing would reach the wallet."""
    assert DepositTerms(dust_threshold_sat=0).is_dust(amount_sat) is is_dust


def test_without_a_fee_and_a_threshold_only_nothing_is_dust() -> None:
    """One sat reaches the wallet."""
    free = DepositTerms(flat_fee_sat=0, fee_basis_points=0, dust_threshold_sat=0)
    assert (free.fee_sat(1), free.is_dust(1), free.is_dust(0)) == (0, False, True)


@pytest.mark.parametrize(("amount_sat", "confirmations"), [(1, 2), (999_999, 2), (1_000_000, 6), (10**15, 6)])
def test_confirmations_grow_with_the_amount(amount_sat: int, confirmations: int) -> None:
    """The tier with the largest from_sat that the amount reaches."""
    policy = ConfirmationPolicy(version=1, tiers=(SMALL, LARGE))
    assert policy.confirmations_for(amount_sat, is_coinbase=False) == confirmations


@pytest.mark.parametrize(("asked", "needed"), [(1, 100), (100, 100), (144, 144)])
def test_a_coinbase_needs_its_maturity_at_least(asked: int, needed: int) -> None:
    """Consensus lets nobody spend it before 100 confirmations; a stricter policy stays stricter."""
    policy = ConfirmationPolicy(version=1, tiers=(ConfirmationTier(from_sat=0, confirmations=asked),))
    assert policy.confirmations_for(50 * 10**8, is_coinbase=True) == needed


def test_tiers_are_put_in_order() -> None:
    """Whoever gives the largest first means the same."""
    assert checked_tiers([LARGE, SMALL]) == (SMALL, LARGE)


def test_the_widest_policy_is_accepted() -> None:
    """As many tiers, and as many confirmations, as there may be."""
    tiers = [ConfirmationTier(from_sat=n, confirmations=MAX_CONFIRMATIONS) for n in range(MAX_TIERS)]
    assert checked_tiers(tiers) == tuple(tiers)


@pytest.mark.parametrize(
    ("tiers", "remedy"),
    [
        ([], "1 to 20 tiers"),
        ([(n, 1) for n in range(MAX_TIERS + 1)], "1 to 20 tiers"),
        ([(1, 1)], "must be 0"),
        ([(-1, 1), (0, 2)], "must be 0"),
        ([(0, 1), (5, 2), (5, 3)], "once"),
        ([(0, 3), (5, 2)], "must not need fewer"),
        ([(0, 0)], "1 to 1000"),
        ([(0, 1), (5, MAX_CONFIRMATIONS + 1)], "1 to 1000"),
    ],
)
def test_what_is_no_policy_is_refused(tiers: list[tuple[int, int]], remedy: str) -> None:
    """With the remedy: none, too many, a hole at the bottom, doubles, less for more, beyond the limits."""
    with pytest.raises(BadInput, match=remedy):
        checked_tiers([ConfirmationTier(from_sat=from_sat, confirmations=count) for from_sat, count in tiers])
