"""Amounts are integers with their unit in the name; conversion rounds as Blink's core does.

Units: sats and cents are what wallets hold, msats is what Lightning moves (1 sat = 1,000 msat).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

MSAT_PER_SAT = 1000
SATS_PER_BTC = 100_000_000
_PRICE_SCALE = 1_000_000  # a price keeps six decimals of a cent per bitcoin
_PRICE_DECIMALS = 8  # of a dollar


class Currency(StrEnum):
    """What a leg or a wallet is counted in: BTC in sats, USD in cents."""

    BTC = "BTC"
    USD = "USD"


def split_msat(amount_msat: int) -> tuple[int, int]:
    """Whole sats, rounded down, and the msats that are left (0 to 999)."""
    if amount_msat < 0:
        raise ValueError(f"amount_msat must not be negative, got {amount_msat}")
    return divmod(amount_msat, MSAT_PER_SAT)


def divide_half_down(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest integer; exactly a half goes down (blink-contract 2.6)."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + 1 if 2 * rest > denominator else quotient


def divide_up(numerator: int, denominator: int) -> int:
    """numerator / denominator, rounded up: as fees are (blink-contract 2.6)."""
    return -(-numerator // denominator)


def fee_in_cents(*, fee_sat: int, total_sat: int, total_cents: int) -> int:
    """The fee's share of what all is worth, rounded up (blink-contract 2.6: ceil(fB*U/B))."""
    return divide_up(fee_sat * total_cents, total_sat)


MIN_USD_PER_BTC, MAX_USD_PER_BTC = Decimal("0.01"), Decimal(10**9)
"""A price beyond these is a mistake; above them, all bitcoin would be more cents than 64 bits hold."""


@dataclass(frozen=True, slots=True)
class Price:
    """Cents per bitcoin at one moment, as an integer in millionths of a cent."""

    microcents_per_btc: int

    @classmethod
    def from_usd_per_btc(cls, usd_per_btc: Decimal) -> Price:
        """From dollars per bitcoin; raises ValueError unless it is a number within the bounds."""
        if not usd_per_btc.is_finite() or not MIN_USD_PER_BTC <= usd_per_btc <= MAX_USD_PER_BTC:
            raise ValueError(f"a price must be {MIN_USD_PER_BTC} to {MAX_USD_PER_BTC}, got {usd_per_btc}")
        return cls(int((usd_per_btc * 100 * _PRICE_SCALE).to_integral_value()))

    @property
    def picocents_per_sat(self) -> int:
        """The price of a sat in 10^-12 cents, rounded down: what Blink keeps as base with offset 12."""
        return self.microcents_per_btc // 100

    def cents(self, *, amount_sat: int) -> int:
        """What sats are worth in cents; an amount that is not zero is never worth zero cents."""
        if amount_sat == 0:
            return 0
        return max(1, divide_half_down(amount_sat * self.microcents_per_btc, SATS_PER_BTC * _PRICE_SCALE))

    def whole_cents(self, *, amount_sat: int) -> int:
        """What sats buy for a dollar wallet: as `cents`, but 0 for what is worth less than a cent."""
        if amount_sat * self.microcents_per_btc < SATS_PER_BTC * _PRICE_SCALE:
            return 0
        return self.cents(amount_sat=amount_sat)

    def sats(self, *, amount_cents: int) -> int:
        """What cents cost in sats, rounded as `cents`; an amount that is not zero never costs zero sats."""
        if amount_cents == 0:
            return 0
        return max(1, divide_half_down(amount_cents * SATS_PER_BTC * _PRICE_SCALE, self.microcents_per_btc))

    @property
    def usd_per_btc(self) -> str:
        """Dollars per bitcoin as an exact decimal, with two to eight decimals."""
        dollars = Decimal(self.microcents_per_btc).scaleb(-_PRICE_DECIMALS)
        return f"{dollars.normalize():f}" if dollars != round(dollars, 2) else f"{dollars:.2f}"
