"""Amounts: nothing is made and nothing is lost by rounding."""

from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as st
from hypothesis import given

from daemon.domain.money import SATS_PER_BTC, Price, divide_half_down, split_msat

ALL_MSAT = 21_000_000 * SATS_PER_BTC * 1000
amounts_sat = st.integers(0, 21_000_000 * SATS_PER_BTC)
prices = st.builds(Price, st.integers(1, 10**9 * 100 * 10**6))


@given(st.integers(0, ALL_MSAT))
def test_a_split_amount_is_whole_again(amount_msat: int) -> None:
    """Sats and rest make up the amount, and the rest is less than a sat."""
    sats, rest = split_msat(amount_msat)
    assert sats * 1000 + rest == amount_msat
    assert 0 <= rest < 1000


@given(st.integers(0, 10**30), st.integers(1, 10**20))
def test_division_is_to_the_nearest_and_a_half_goes_down(numerator: int, denominator: int) -> None:
    """The error is above minus a half, and at most a half."""
    error = Fraction(numerator, denominator) - divide_half_down(numerator, denominator)
    assert Fraction(-1, 2) < error <= Fraction(1, 2)


@given(prices, amounts_sat)
def test_cents_are_the_nearest_to_the_true_value(price: Price, amount_sat: int) -> None:
    """Off by half a cent at most, save that some sats are never worth nothing."""
    cents = price.cents(amount_sat=amount_sat)
    exact = Fraction(amount_sat * price.microcents_per_btc, SATS_PER_BTC * 10**6)
    assert (cents == 0) == (amount_sat == 0)
    assert abs(cents - exact) <= Fraction(1, 2) or (cents == 1 and exact < 1)


@given(prices, amounts_sat, amounts_sat)
def test_more_sats_are_never_worth_fewer_cents(price: Price, one: int, other: int) -> None:
    """Cents grow with sats."""
    low, high = sorted((one, other))
    assert price.cents(amount_sat=low) <= price.cents(amount_sat=high)
