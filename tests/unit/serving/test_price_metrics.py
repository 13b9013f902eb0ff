"""Metrics of the price: its age also when it is too old to be used, and quotes by outcome from zero."""

from __future__ import annotations

from decimal import Decimal

from adapters.prices.http_json import HttpJsonPrice
from daemon.domain.money import Price
from daemon.posting.board import Board
from daemon.serving.metrics import PrometheusMetrics
from daemon.serving.price_metrics import QUOTE_OUTCOMES


class Read(HttpJsonPrice):
    """Reads what a test says."""

    def _read(self) -> Price:
        return Price.from_usd_per_btc(Decimal("60000.50"))


def lines(metrics: PrometheusMetrics) -> list[str]:
    """The samples of prices and quotes."""
    page = metrics.page().decode().splitlines()
    return [line for line in page if line.startswith(("tellerd_price", "tellerd_quotes_total"))]


def test_the_age_goes_on_when_the_price_is_gone() -> None:
    """Before the first price neither is there; an old one is no price, and its age is what an alert needs."""
    now = [0.0]
    prices = Read(url="http://127.0.0.1:1/", json_path="a", refresh_s=30, max_age_s=600, clock=lambda: now[0])
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.show_prices(prices, prices)
    none_yet = [f'tellerd_quotes_total{{outcome="{outcome}"}} 0.0' for outcome in QUOTE_OUTCOMES]
    assert lines(metrics) == none_yet
    prices.refresh()
    now[0] = 600.0
    shown = [line for line in lines(metrics) if "quotes" not in line]
    assert shown == ["tellerd_price_age_seconds 600.0", "tellerd_price_dollars_per_bitcoin 60000.5"]
    now[0] = 601.0
    assert [line for line in lines(metrics) if "quotes" not in line] == ["tellerd_price_age_seconds 601.0"]


def test_each_quote_is_counted_by_its_outcome() -> None:
    """Made, or why not."""
    metrics = PrometheusMetrics(board=Board(), version="0")
    for outcome in ("made", "made", "dealer_away"):
        metrics.quoted(outcome)
    assert 'tellerd_quotes_total{outcome="made"} 2.0' in lines(metrics)
    assert 'tellerd_quotes_total{outcome="dealer_away"} 1.0' in lines(metrics)
    assert 'tellerd_quotes_total{outcome="price_stale"} 0.0' in lines(metrics)
