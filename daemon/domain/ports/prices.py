"""The dollar price of bitcoin, what dollars cost, and the quotes that were given."""

from __future__ import annotations

from typing import Protocol

from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import Price
from daemon.domain.quotes import Deal, Quote, Unpriced


class PriceSource(Protocol):
    """Dollar price of bitcoin."""

    def current(self) -> Price | None:
        """The price now, None if there is none or it is too old. Never blocks."""
        ...


class Dealer(Protocol):
    """Who changes sats into dollars and stands by it for a while: the bank's own, at one price source.

    May ask another server, with a deadline of a few seconds: for worker threads. An outage is no error but a value,
    for money that needs a price waits for it in its own place.
    """

    @property
    def name(self) -> str:
        """The price's source: "fixed", "http", "blink"; "none" where there is none."""
        ...

    def age_s(self) -> float | None:
        """How old the newest price is, also where it is too old to be used; None if there is none. Never blocks."""
        ...

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        """What a payer has to send within `expiry_s` so that a dollar wallet gets these cents."""
        ...

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        """What a dollar wallet gets for sats that are here, or that a payer has to send within `expiry_s`; 0 cents
        where they are worth less than one."""
        ...


class Quotes(Protocol):
    """`teller_quotes`. Posting marks them used; everything else is here."""

    def keep(self, quote: Quote, *, instead_of: Quote | None = None) -> Quote:
        """Stores the quote and returns it; where one is there already that is used, or not expired at this one's
        `created_at_ms` and not `instead_of`, that one stays and is returned."""
        ...

    def get(self, payment_hash: PaymentHash) -> Quote | None:
        """The invoice's quote, None if there is none."""
        ...
