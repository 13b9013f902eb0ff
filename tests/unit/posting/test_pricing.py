"""Quotes: kept before anything is settled, made anew only after they expired, refused without a price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from adapters.memory import MemoryStore
from adapters.prices.fixed import FixedPrice
from daemon.domain.books import Expectation
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.quotes import Deal, Quote, Unpriced, UnpricedReason
from daemon.posting.pricing import Pricing
from tests.samples import MORNING_MS, hash_of


class Dealer:
    """One price, or none."""

    name = "fixed"

    def __init__(self) -> None:
        self.usd_per_btc: int | None = 60_000
        self.asked = 0
        self.meanwhile: Callable[[], None] | None = None

    def age_s(self) -> float | None:
        return 0.0

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        return self._fixed() or FixedPrice(Decimal(self.usd_per_btc or 1)).sats_for(
            amount_cents=amount_cents, expiry_s=expiry_s
        )

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        return self._fixed() or FixedPrice(Decimal(self.usd_per_btc or 1)).cents_for(
            amount_sat=amount_sat, expiry_s=expiry_s
        )

    def _fixed(self) -> Unpriced | None:
        self.asked += 1
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return Unpriced(UnpricedReason.STALE) if self.usd_per_btc is None else None


class Till:
    def __init__(self) -> None:
        self.dealer = Dealer()
        self.now_ms = MORNING_MS
        self.heard: list[str] = []
        self.store = MemoryStore()
        self.pricing = Pricing(
            dealer=self.dealer,
            quotes=self.store.quotes,
            quote_s=300,
            now_ms=lambda: self.now_ms,
            on_quote=self.heard.append,
        )


@pytest.fixture
def till() -> Till:
    return Till()


HELD = Expectation(
    payment_hash=hash_of("a"),
    wallet_id=WalletId("dollars"),
    account_id=AccountId("account-1"),
    external_id="a",
    currency=Currency.USD,
    wallet_currency=Currency.USD,
    cents=None,
    paid=False,
)


def test_a_held_payment_is_quoted_and_the_quote_is_stored(till: Till) -> None:
    """Whole sats, rounded down, at the price of the moment."""
    quote = till.pricing.ready(HELD, 1_000_999)
    assert quote == Quote(
        payment_hash=hash_of("a"),
        wallet_id=WalletId("dollars"),
        cents=60,
        sat=1_000,
        price="60000.00",
        source="fixed",
        created_at_ms=MORNING_MS,
        expires_at_ms=MORNING_MS + 300_000,
    )
    assert till.store.quotes.get(hash_of("a")) == quote
    assert till.heard == ["made"]


def test_a_repeat_gets_the_same_quote_whatever_the_price_does(till: Till) -> None:
    """Also without a price, until it expires."""
    first = till.pricing.ready(HELD, 1_000_000)
    till.dealer.usd_per_btc = 90_000
    till.now_ms += 299_999
    assert till.pricing.ready(HELD, 1_000_000) == first
    till.dealer.usd_per_btc = None
    assert till.pricing.ready(HELD, 1_000_000) == first
    till.now_ms += 1
    assert till.pricing.ready(HELD, 1_000_000) == Unpriced(UnpricedReason.STALE)
    till.dealer.usd_per_btc = 90_000
    again = till.pricing.ready(HELD, 1_000_000)
    assert isinstance(again, Quote)
    assert again.cents == 90
    assert till.heard == ["made", "price_stale", "made"]


def test_another_amount_is_quoted_anew(till: Till) -> None:
    """The first payment was given up, and another one came within the life of its quote."""
    till.pricing.ready(HELD, 1_000_000)
    till.dealer.usd_per_btc = 90_000
    quote = till.pricing.ready(HELD, 2_000_000)
    assert isinstance(quote, Quote)
    assert (quote.sat, quote.cents) == (2_000, 180)
    assert till.store.quotes.get(hash_of("a")) == quote


def test_a_price_that_came_late_does_not_replace_another_ones(till: Till) -> None:
    """A daemon that hung while it asked, and another that took over: it may have settled at its own quote."""
    others: list[Quote | Unpriced | None] = []

    def meanwhile() -> None:
        others.append(till.pricing.ready(HELD, 1_000_000))
        till.dealer.usd_per_btc = 90_000
        till.now_ms += 300_001

    till.dealer.meanwhile = meanwhile
    assert [till.pricing.ready(HELD, 1_000_000)] == others
    assert [till.store.quotes.get(hash_of("a"))] == others


def test_without_a_price_nothing_is_guessed(till: Till) -> None:
    """And nothing is stored."""
    till.dealer.usd_per_btc = None
    assert till.pricing.ready(HELD, 1_000_000) == Unpriced(UnpricedReason.STALE)
    assert till.store.quotes.get(hash_of("a")) is None


@pytest.mark.parametrize(
    ("expectation", "received_msat"),
    [
        (replace(HELD, currency=Currency.BTC, wallet_currency=Currency.BTC), 1_000_000),
        (replace(HELD, wallet_currency=None), 1_000_000),
        (replace(HELD, cents=60), 1_000_000),
        (HELD, 999),
    ],
    ids=["sats", "no wallet", "cents are fixed", "under a sat"],
)
def test_what_needs_no_price_asks_for_none(till: Till, expectation: Expectation, received_msat: int) -> None:
    """And keeps nothing."""
    assert till.pricing.ready(expectation, received_msat) is None
    assert till.dealer.asked == 0
    assert till.store.quotes.get(hash_of("a")) is None


def test_less_than_a_cent_is_quoted_as_none(till: Till) -> None:
    """So that the settlement finds that it is for the BTC wallet."""
    quote = till.pricing.ready(HELD, 16_000)
    assert isinstance(quote, Quote)
    assert (quote.cents, quote.sat) == (0, 16)


def test_an_invoices_quote_is_kept_once(till: Till) -> None:
    """A second deal for the same invoice does not change what it asks for."""
    deal = till.pricing.sats_for(amount_cents=100, expiry_s=300)
    assert isinstance(deal, Deal)
    first = till.pricing.keep(hash_of("a"), WalletId("dollars"), deal, made_at_ms=MORNING_MS, expiry_s=120)
    assert (first.sat, first.cents, first.expires_at_ms) == (1_667, 100, MORNING_MS + 120_000)
    till.dealer.usd_per_btc = 90_000
    other = till.pricing.sats_for(amount_cents=100, expiry_s=300)
    assert isinstance(other, Deal)
    made_at_ms = MORNING_MS + 119_999
    assert till.pricing.keep(hash_of("a"), WalletId("dollars"), other, made_at_ms=made_at_ms, expiry_s=120) == first
    assert till.pricing.of(hash_of("a")) == first
