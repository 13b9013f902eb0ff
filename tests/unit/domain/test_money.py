"""Amounts: rounding as Blink's core does it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from daemon.domain.money import Price, divide_half_down, split_msat


@pytest.mark.parametrize(("msat", "expected"), [(0, (0, 0)), (999, (0, 999)), (1000, (1, 0)), (21_500, (21, 500))])
def test_a_wallet_gets_whole_sats(msat: int, expected: tuple[int, int]) -> None:
    """Rounded down; the rest is kept."""
    assert split_msat(msat) == expected


def test_an_amount_below_zero_is_refused() -> None:
    """LND never says so; if it did, nothing may be booked from it."""
    with pytest.raises(ValueError, match="negative"):
        split_msat(-1)


@pytest.mark.parametrize(("numerator", "quotient"), [(4, 1), (5, 1), (6, 1), (7, 2), (8, 2), (9, 2), (10, 2), (11, 3)])
def test_exactly_a_half_goes_down(numerator: int, quotient: int) -> None:
    """Divided by four: 1.5 is 1, 2.5 is 2 (blink-contract.md 2.6)."""
    assert divide_half_down(numerator, 4) == quotient


def test_sats_are_worth_cents() -> None:
    """At 60,000 dollars a bitcoin 21,000 sats are 12.60 dollars."""
    price = Price.from_usd_per_btc(Decimal("60000.00"))
    assert price.cents(amount_sat=21_000) == 1_260
    assert price.cents(amount_sat=100_000_000) == 6_000_000


def test_some_sats_are_never_worth_nothing() -> None:
    """One sat at 60,000 dollars is 0.06 cents: shown as one; no sats are no cents."""
    price = Price.from_usd_per_btc(Decimal(60_000))
    assert (price.cents(amount_sat=1), price.cents(amount_sat=0)) == (1, 0)


@pytest.mark.parametrize("usd", ["0", "-1", "NaN", "Infinity"])
def test_a_price_is_above_zero(usd: str) -> None:
    """What a broken source may say is refused."""
    with pytest.raises(ValueError, match="price"):
        Price.from_usd_per_btc(Decimal(usd))
