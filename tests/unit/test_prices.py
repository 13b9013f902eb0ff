"""Prices: read exactly, and none rather than an old one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from adapters.prices.fixed import FixedPrice
from adapters.prices.http_json import HttpJsonPrice, PriceUnreadable, read_price
from adapters.prices.nothing import NoPrice
from adapters.prices.refreshed import PriceJumped, RefreshedPrice
from daemon.domain.money import Price
from daemon.domain.quotes import Unpriced, UnpricedReason

SIXTY_THOUSAND = Price.from_usd_per_btc(Decimal(60000))


def test_a_fixed_price_never_changes() -> None:
    """And none at all stays none."""
    assert FixedPrice(Decimal("60000.00")).current() == SIXTY_THOUSAND
    assert NoPrice().current() is None


@pytest.mark.parametrize(
    ("body", "json_path"),
    [
        (b'{"data": {"amount": "60000.00"}}', "data.amount"),
        (b'{"data": {"amount": 60000}}', "data.amount"),
        (b'{"rates": [{"usd": 1}, {"usd": 6e4}]}', "rates.1.usd"),
        (b'{"2": 60000.0}', "2"),
    ],
)
def test_a_price_is_found_at_its_path(body: bytes, json_path: str) -> None:
    """Strings and numbers, keys and indexes."""
    assert read_price(body, json_path) == SIXTY_THOUSAND


def test_no_digit_is_lost_on_the_way() -> None:
    """A double would make 123456.12345677 of it, or worse: no float is made of a price."""
    assert read_price(b"[123456.12345678]", "0") == Price(12_345_612_345_678)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe\x00",
        b"{}",
        b"[]",
        b'{"a": null}',
        b'{"a": true}',
        b'{"a": "sixty"}',
        b'{"a": {"b": 1}}',
        b'{"a": 0}',
        b'{"a": -60000}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "Infinity"}',
        b'{"a": 1e999999999}',
        b'{"a": 1e99999999999999999999}',
        b'{"a": "1e99999999999999999999"}',
        b'{"a": 1000000001}',
        b'{"a": 0.001}',
        b"[" * 100_000,
    ],
)
def test_what_holds_no_price_is_refused(body: bytes) -> None:
    """Never a wrong number, never another error."""
    with pytest.raises(PriceUnreadable):
        read_price(body, "a")


class Ticker(HTTPServer):
    """Answers with what it is given."""

    answer: tuple[int, bytes] = (200, b'{"usd": 60000}')
    location: str | None = None


class TickerHandler(BaseHTTPRequestHandler):
    server: Ticker

    def do_GET(self) -> None:
        status, body = self.server.answer
        self.send_response(status)
        if self.server.location is not None:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    with Ticker(("127.0.0.1", 0), TickerHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_price_is_used_until_it_is_too_old(ticker: Ticker) -> None:
    """Failures leave the last price in place; it ages all the same."""
    now = [1000.0]
    prices = HttpJsonPrice(
        url=f"http://127.0.0.1:{ticker.server_port}/",
        json_path="usd",
        refresh_s=30,
        max_age_s=600,
        clock=lambda: now[0],
    )
    assert prices.current() is None
    prices.refresh()
    assert prices.current() == SIXTY_THOUSAND
    for answer in ((500, b'{"usd": 1}'), (200, b"{}"), (200, b" " * 1_000_001)):
        ticker.answer = answer
        with pytest.raises(PriceUnreadable):
            prices.refresh()
    now[0] += 600
    assert prices.current() == SIXTY_THOUSAND
    now[0] += 1
    assert prices.current() is None


class Read(RefreshedPrice):
    """Reads what a test says, every 30 s; a price is good for ten minutes, a jump of 20 percent for none."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.usd_per_btc = "60000"
        super().__init__(name="read", refresh_s=30, max_age_s=600, max_jump_percent=20, clock=lambda: self.now)

    def _read(self) -> Price:
        return Price.from_usd_per_btc(Decimal(self.usd_per_btc))

    def reads(self, *usd_per_btc: str) -> list[str | None]:
        """What the price is after each of these."""
        return [self._after(one) for one in usd_per_btc]

    def _after(self, usd_per_btc: str) -> str | None:
        self.now += 30
        self.usd_per_btc = usd_per_btc
        with suppress(PriceJumped):
            self.refresh()
        price = self.current()
        return None if price is None else price.usd_per_btc


@pytest.mark.parametrize(
    ("read", "believed"),
    [
        (("60000", "72000", "57600"), ("60000.00", "72000.00", "57600.00")),
        (("60000", "6", "60000"), ("60000.00", None, "60000.00")),
        (("60000", "72001", "71000"), ("60000.00", None, "71000.00")),
        (("60000", "6", "6.1", "6.2", "6.3", "6.4"), ("60000.00", None, None, None, "6.30", "6.40")),
        (("60000", "6", "6", "600000", "6", "6", "6", "6"), ("60000.00", *[None] * 6, "6.00")),
    ],
    ids=["no jump", "one wrong answer", "one too high", "a crash", "answers that do not agree"],
)
def test_a_price_that_jumps_counts_when_it_has_come_again(
    read: tuple[str, ...], believed: tuple[str | None, ...]
) -> None:
    """Three times more, in a row; until then there is none, for it may be the one before that is wrong."""
    assert Read().reads(*read) == list(believed)


def test_a_price_in_doubt_prices_nothing_and_says_what_it_doubts() -> None:
    """Neither invoices nor deposits; what was read before counts again once it comes again."""
    prices = Read()
    prices.refresh()
    prices.usd_per_btc = "6"
    with pytest.raises(
        PriceJumped, match=r"6\.00 dollars per bitcoin after 60000\.00, more than 20 percent.*3 more like it"
    ):
        prices.refresh()
    stale = Unpriced(UnpricedReason.STALE)
    assert (prices.cents_for(amount_sat=1_000), prices.sats_for(amount_cents=60, expiry_s=300)) == (stale, stale)
    prices.usd_per_btc = "60001"
    prices.refresh()
    assert prices.current() == Price.from_usd_per_btc(Decimal(60_001))


def test_nothing_is_doubted_for_a_price_that_is_too_old() -> None:
    """After an outage the market may be anywhere, and so at the start."""
    prices = Read()
    prices.refresh()
    prices.now += 601
    assert prices.reads("30000") == ["30000.00"]


@pytest.mark.parametrize(
    "location", ["http://[", f"http://{'a' * 70}.example/", "http://\u00e9/", "file:///etc/hostname"]
)
def test_a_service_that_sends_us_nowhere_is_unreadable(ticker: Ticker, location: str) -> None:
    """What somebody else's server answers never stops the daemon."""
    ticker.answer, ticker.location = (302, b""), location
    prices = HttpJsonPrice(url=f"http://127.0.0.1:{ticker.server_port}/", json_path="usd", refresh_s=30, max_age_s=600)
    with pytest.raises(PriceUnreadable):
        prices.refresh()


def test_a_service_that_is_away_is_unreadable_and_its_url_is_not_told() -> None:
    """The url may hold a key."""
    prices = HttpJsonPrice(url="http://127.0.0.1:1/?key=secret", json_path="usd", refresh_s=30, max_age_s=600)
    with pytest.raises(PriceUnreadable) as caught:
        prices.refresh()
    assert "secret" not in str(caught.value)


async def test_the_price_is_refreshed_in_the_background(ticker: Ticker) -> None:
    """A first failure is waited out: the price is there without anybody asking for it."""
    import trio

    prices = HttpJsonPrice(
        url=f"http://127.0.0.1:{ticker.server_port}/", json_path="usd", refresh_s=0.01, max_age_s=600
    )
    ticker.answer = (500, b"")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prices.run)
            await trio.sleep(0.02)
            assert prices.current() is None
            ticker.answer = (200, b'{"usd": 60000}')
            while prices.current() is None:  # noqa: ASYNC110 (the product has nobody to tell)
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
    assert prices.current() == SIXTY_THOUSAND
