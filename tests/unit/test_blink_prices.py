"""Prices of Blink's own servers, over real sockets: its price feed and its dealer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from adapters.prices._pb import dealer_pb2, price_pb2
from adapters.prices.blink import BlinkPrice
from adapters.prices.refreshed import PriceUnreadable
from daemon.domain.money import Price
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from tests.blinks_prices import Servers, serving

SIXTY_THOUSAND = Price.from_usd_per_btc(Decimal(60_000))


@pytest.fixture
def servers() -> Iterator[tuple[Servers, str]]:
    """Both services at one address."""
    state = Servers()
    with serving(state) as address:
        yield state, address


@pytest.fixture
def source() -> Iterator[Callable[..., BlinkPrice]]:
    """Makes price sources, closed in the end."""
    made: list[BlinkPrice] = []

    def make(price_address: str | None = None, dealer_address: str | None = None, **more: Any) -> BlinkPrice:
        made.append(
            BlinkPrice(price_address=price_address, dealer_address=dealer_address, refresh_s=30, max_age_s=600, **more)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_wire_names_are_blinks() -> None:
    """The paths that its servers answer at; the feed stands in no package."""
    (dealer,) = dealer_pb2.DESCRIPTOR.services_by_name.values()
    assert dealer.full_name == "services.price.v1.PriceService"
    (feed,) = price_pb2.DESCRIPTOR.services_by_name.values()
    assert feed.full_name == "PriceFeed"
    response = price_pb2.PriceResponse(price=60_000.0)
    assert response.SerializeToString() == bytes.fromhex("0d00606a47")  # field 1, 32 bits, 60000 as a float


def test_the_feeds_price_is_the_price_without_a_dealer(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice]
) -> None:
    """Sats and cents are changed at it, and it is named."""
    state, address = servers
    prices = source(address)
    assert (prices.current(), prices.age_s()) == (None, None)
    prices.refresh()
    assert prices.current() == SIXTY_THOUSAND
    assert [request.currency for request in state.asked] == ["USD"]
    assert prices.sats_for(amount_cents=100, expiry_s=300) == Deal(
        amount_sat=1_667, amount_cents=100, price="60000.00", source="blink"
    )
    assert prices.cents_for(amount_sat=16) == Deal(amount_sat=16, amount_cents=0, price="60000.00", source="blink")


def test_the_dealer_is_asked_for_each_amount(servers: tuple[Servers, str], source: Callable[..., BlinkPrice]) -> None:
    """Its spread is in what it answers; the mid price is only shown."""
    state, address = servers
    prices = source(address, address)
    prices.refresh()
    assert prices.current() == Price.from_usd_per_btc(Decimal(60_100))
    state.asked.clear()
    assert prices.sats_for(amount_cents=100, expiry_s=240) == Deal(
        amount_sat=1_670, amount_cents=100, price="59880.24", source="blink"
    )
    assert prices.cents_for(amount_sat=1_000) == Deal(
        amount_sat=1_000, amount_cents=59, price="59000.00", source="blink"
    )
    first, second = state.asked
    assert (first.amount_in_cents, first.time_in_seconds, second.amount_in_satoshis) == (100, 240, 1_000)


def test_sats_that_come_later_have_a_price_of_their_own(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice]
) -> None:
    """The dealer hears how long the payer has; his answer stands, also that it is less than a cent."""
    state, address = servers
    prices = source(None, address)
    assert prices.cents_for(amount_sat=1_000, expiry_s=240) == Deal(
        amount_sat=1_000, amount_cents=58, price="58000.00", source="blink"
    )
    (asked,) = state.asked
    assert (asked.amount_in_satoshis, asked.time_in_seconds) == (1_000, 240)
    state.later_cents = 0
    nothing = prices.cents_for(amount_sat=16, expiry_s=240)
    assert isinstance(nothing, Deal)
    assert nothing.amount_cents == 0
    state.failure = "StalePrice"
    assert prices.cents_for(amount_sat=1_000, expiry_s=240) == Unpriced(UnpricedReason.STALE)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("StalePrice: last update was at 1667", UnpricedReason.STALE),
        ("No price data available", UnpricedReason.MISSING),
        ("No connection established", UnpricedReason.MISSING),
        ("anything else", UnpricedReason.REFUSED),
    ],
)
def test_a_dealer_that_has_no_price_says_why(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice], failure: str, reason: UnpricedReason
) -> None:
    """By the texts that Blink's core knows; the mid price of before is never taken instead."""
    state, address = servers
    prices = source(address, address)
    prices.refresh()
    state.failure = failure
    assert prices.cents_for(amount_sat=1_000) == Unpriced(reason)
    assert prices.sats_for(amount_cents=100, expiry_s=300) == Unpriced(reason)


def test_a_dealer_that_is_away_is_no_price_and_no_error(source: Callable[..., BlinkPrice]) -> None:
    """Nothing listens there."""
    prices = source(None, "127.0.0.1:1")
    assert prices.cents_for(amount_sat=1_000) == Unpriced(UnpricedReason.DEALER_AWAY)
    with pytest.raises(PriceUnreadable):
        prices.refresh()
    assert prices.current() is None


def test_the_feed_stands_in_for_a_dealers_mid_price(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice]
) -> None:
    """As in Blink's core: for what is shown only."""
    _, address = servers
    prices = source(address, "127.0.0.1:1")
    prices.refresh()
    assert prices.current() == SIXTY_THOUSAND
    assert prices.cents_for(amount_sat=1_000) == Unpriced(UnpricedReason.DEALER_AWAY)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf"), 2e9])
def test_what_is_no_price_is_refused(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice], price: float
) -> None:
    """0 is how the feed says that it has none; the price of before stays, and grows old."""
    state, address = servers
    now = [1_000.0]
    prices = source(address, clock=lambda: now[0])
    prices.refresh()
    state.price = price
    with pytest.raises(PriceUnreadable):
        prices.refresh()
    now[0] += 600
    assert (prices.current(), prices.age_s()) == (SIXTY_THOUSAND, 600)
    now[0] += 1
    assert (prices.current(), prices.age_s()) == (None, 601)
    assert prices.cents_for(amount_sat=1_000) == Unpriced(UnpricedReason.STALE)


@pytest.mark.parametrize("sats", [0, 10_100_000_000, 2_100_000_000_000_001])
def test_an_answer_that_cannot_be_is_no_price(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice], sats: int
) -> None:
    """A dollar for no sats, for more than there are, or at less than a cent for a bitcoin."""
    state, address = servers
    state.sats = sats
    assert isinstance(source(None, address).sats_for(amount_cents=100, expiry_s=300), Unpriced)


@pytest.mark.parametrize(("sats", "cents"), [(1, 1_001), (1_000, 2_100_000_000_000_000), (100_000_000, 0)])
def test_cents_beyond_the_bounds_of_a_price_are_none(
    servers: tuple[Servers, str], source: Callable[..., BlinkPrice], sats: int, cents: int
) -> None:
    """More than a billion dollars for a bitcoin, or not even a cent: the same bounds that every other price has."""
    state, address = servers
    state.cents = cents
    assert isinstance(source(None, address).cents_for(amount_sat=sats), Unpriced)


def test_blinks_precision_is_kept(servers: tuple[Servers, str], source: Callable[..., BlinkPrice]) -> None:
    """A cent per sat has six decimals, rounded down; a float's last bits are no reason to lose one."""
    state, address = servers
    prices = source(None, address)
    for ratio, dollars in ((0.29, 290_000), (0.0600009, 60_000), (0.07, 70_000)):
        state.ratio = ratio
        prices.refresh()
        assert prices.current() == Price.from_usd_per_btc(Decimal(dollars))
