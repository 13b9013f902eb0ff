"""What dollars cost in sats: a dealer's offer of one moment, and the quote that is kept of it for an invoice.

A quote is stored before its invoice can be paid (or, where the payer decides the amount, before the held payment is
settled). So the settlement is credited with it whatever happens in between, and never with another price.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from daemon.domain.identifiers import PaymentHash, WalletId
from daemon.domain.money import Price

DEFAULT_QUOTE_S: Final = 300
"""How long a dealer stands by a price (blink-contract.md 4, INVOICE_EXPIRATIONS of dollar wallets)."""


RELEASE_GRACE_S: Final = 60
"""A payment may come in the last second of its invoice: so long its shop has in any case to let go of the goods and
release it. As long as the shortest invoice lives; more would be time to wait and see what bitcoin does."""


class UnpricedReason(StrEnum):
    """Why there is no price now."""

    MISSING = "price_missing"
    """No source is configured, or none was read yet."""
    STALE = "price_stale"
    """The newest one is too old, or so far from the one before that it is not believed yet."""
    DEALER_AWAY = "dealer_away"
    """The dealer does not answer."""
    REFUSED = "dealer_refused"
    """The dealer gives no price for this amount; he may give one for another."""


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


def release_until_ms(expires_at_ms: int, *, held_at_s: int) -> int:
    """Until when a person may release, at a quoted price, a payment that is held since then: until the quote expires,
    or `RELEASE_GRACE_S` after the payment came, whichever is later.

    A held HTLC waits for hours. Whoever makes an invoice, pays it himself and may decide so late, takes his cents if
    bitcoin fell and his sats if it rose; the dealer pays for it.
    """
    return max(expires_at_ms, (held_at_s + RELEASE_GRACE_S) * 1000)


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
