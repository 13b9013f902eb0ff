"""Metrics of dollars: how old the price is, and how many quotes were given or refused."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.domain.ports import Dealer, PriceSource
from daemon.domain.quotes import UnpricedReason

QUOTE_OUTCOMES: Final = ("made", *(reason.value for reason in UnpricedReason))


class PriceCollector(Collector):
    """Looks at the price at each scrape; without a source, or before its first price, there are no gauges."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.prices: PriceSource | None = None
        self.dealer: Dealer | None = None
        self._quotes = Counter(
            "tellerd_quotes",
            "Quotes asked for by invoices of dollar wallets: made, or why there was no price.",
            ["outcome"],
            registry=registry,
        )
        for outcome in QUOTE_OUTCOMES:
            self._quotes.labels(outcome)

    def quoted(self, outcome: str) -> None:
        """A quote was asked for; for any thread."""
        self._quotes.labels(outcome).inc()

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        age_s = None if self.dealer is None else self.dealer.age_s()
        if age_s is not None:
            yield GaugeMetricFamily(
                "tellerd_price_age_seconds", "Since the newest price was asked for, used or too old.", value=age_s
            )
        price = None if self.prices is None else self.prices.current()
        if price is not None:
            yield GaugeMetricFamily(
                "tellerd_price_dollars_per_bitcoin", "The price in use.", value=float(Decimal(price.usd_per_btc))
            )
