"""What dollars cost in sats: a dealer's offer of one moment, and the quote that is kept of it for an invoice.

A quote is stored before its invoice can be paid (or, where the payer decides the amount, before the held payment is
settled). So the settlement is credited with it whatever happens in between, and never with another price.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from daemon.domain.identifiers import PaymentHash, WalletId
from daemon.domain.money import Price

DEFAULT_QUOTE_S = 300
"""How long a dealer stands by a price (blink-contract.md 4, INVOICE_EXPIRATIONS of dollar wallets)."""


class UnpricedReason(StrEnum):
    """Why there is no price now."""

    MISSING = "price_missing"
    """No source is configured, or none was read yet."""
    STALE = "price_stale"
    """The newest one is too old."""
    DEALER_AWAY = "dealer_away"
    """The dealer does not answer."""


PRICE_REASONS = frozenset(reason.value for reason in UnpricedReason)
"""Reasons that pass by themselves when the price is back."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price now: nothing is guessed, what needs one waits or is refused."""

    reason: UnpricedReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What the dealer gives at one moment: these sats for these cents.

    `price` is dollars per bitcoin as a decimal, `source` the name of the price's source.
    """

    amount_sat: int
    amount_cents: int
    price: str
    source: str


class QuoteState(StrEnum):
    """Whether the quoted invoice was credited."""

    OPEN = "open"
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What one invoice of a dollar wallet is credited with; one for each payment hash (`teller_quotes`).

    `sat` is what the payer is asked for, or what is held. It is made anew after `expires_at_ms` only while nothing
    was settled. `cents` is 0 where the sats are worth less than a cent: then they go to the account's BTC wallet.
    """

    payment_hash: PaymentHash
    wallet_id: WalletId
    cents: int
    sat: int
    price: str
    source: str
    created_at_ms: int
    expires_at_ms: int
    state: QuoteState = QuoteState.OPEN


def sats_at(price: Price, *, amount_cents: int, source: str) -> Deal:
    """What cents cost at a price."""
    sat = price.sats(amount_cents=amount_cents)
    return Deal(amount_sat=sat, amount_cents=amount_cents, price=price.usd_per_btc, source=source)


def cents_at(price: Price, *, amount_sat: int, source: str) -> Deal:
    """What sats buy at a price; 0 cents where they are worth less than one."""
    cents = price.whole_cents(amount_sat=amount_sat)
    return Deal(amount_sat=amount_sat, amount_cents=cents, price=price.usd_per_btc, source=source)


def deal_of(*, amount_sat: int, amount_cents: int, source: str) -> Deal:
    """What a dealer has answered; its price is the one that these two amounts mean."""
    dollars = Decimal(amount_cents * 1_000_000) / amount_sat if amount_sat else Decimal(0)
    return Deal(amount_sat=amount_sat, amount_cents=amount_cents, price=f"{dollars:.2f}", source=source)
