"""Amounts: nothing is made and nothing is lost by rounding."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
from hypothesis import given

from daemon.domain.money import SATS_PER_BTC, Price, divide_half_down, fee_in_cents, split_msat

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


amounts_cents = st.integers(0, 10**11)


@given(prices, amounts_cents)
def test_sats_are_the_nearest_to_the_true_price(price: Price, amount_cents: int) -> None:
    """Off by half a sat at most, a half goes down, and cents never cost nothing."""
    sats = price.sats(amount_cents=amount_cents)
    exact = Fraction(amount_cents * SATS_PER_BTC * 10**6, price.microcents_per_btc)
    assert (sats == 0) == (amount_cents == 0)
    assert Fraction(-1, 2) <= sats - exact < Fraction(1, 2) or (sats == 1 and exact < 1)


@given(prices, amounts_sat)
def test_less_than_a_cent_is_no_cent_and_all_else_is_rounded(price: Price, amount_sat: int) -> None:
    """`whole_cents` differs from `cents` only below one cent."""
    is_worth_a_cent = amount_sat * price.microcents_per_btc >= SATS_PER_BTC * 10**6
    assert price.whole_cents(amount_sat=amount_sat) == (price.cents(amount_sat=amount_sat) if is_worth_a_cent else 0)


@given(st.integers(1, 21_000_000 * SATS_PER_BTC), st.data())
def test_a_fee_in_cents_is_rounded_up_and_never_more_than_all(total_sat: int, data: st.DataObject) -> None:
    """What is left for the wallet is below its exact share by less than a cent, and not below zero."""
    fee_sat = data.draw(st.integers(0, total_sat))
    total_cents = data.draw(amounts_cents)
    fee_cents = fee_in_cents(fee_sat=fee_sat, total_sat=total_sat, total_cents=total_cents)
    assert 0 <= fee_cents - Fraction(fee_sat * total_cents, total_sat) < 1
    assert 0 <= fee_cents <= total_cents


@given(prices)
def test_a_price_is_written_exactly(price: Price) -> None:
    """As a decimal of dollars without an exponent, no digit of it lost."""
    assert Fraction(price.usd_per_btc) * 10**8 == price.microcents_per_btc
    assert "E" not in price.usd_per_btc


def test_a_half_goes_down_both_ways() -> None:
    """At 62,500 dollars 100,008 sats are 6,250.5 cents; at 80,000 a cent is 12.5 sats (blink-contract.md 2.6)."""
    assert Price.from_usd_per_btc(Decimal(62_500)).whole_cents(amount_sat=100_008) == 6_250
    assert Price.from_usd_per_btc(Decimal(80_000)).sats(amount_cents=1) == 12
    assert Price.from_usd_per_btc(Decimal(80_000)).sats(amount_cents=3) == 37


def test_exactly_a_cent_is_a_cent() -> None:
    """At 50,000 dollars 20 sats are one, and 19 are none."""
    price = Price.from_usd_per_btc(Decimal(50_000))
    assert (price.whole_cents(amount_sat=19), price.whole_cents(amount_sat=20)) == (0, 1)
