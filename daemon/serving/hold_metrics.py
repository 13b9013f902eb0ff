"""Metrics of hold invoices: what waits now, how fast it is taken, and what was given back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.domain.holds import CANCEL_REASONS
from daemon.domain.status import HoldStatus

_DELAY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 60.0)
"""From an answer at once to one of a dealer or a node that hardly answers."""


class HoldMetrics(Collector):
    """Implements `daemon.domain.ports.HoldMetrics`; `statuses` are set once, before anybody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.statuses: Sequence[HoldStatus] = ()
        self._attached_again = Counter(
            "tellerd_holds_reattached",
            "Hold invoices that were watched again after an outage.",
            ["node"],
            registry=registry,
        )
        self._delay = Histogram(
            "tellerd_hold_settle_delay_seconds",
            "From seeing a held payment to the node's answer to SettleInvoice; only of those that could be taken when "
            "they came: none that had to wait for a release, a preimage, a wallet or a price.",
            ["node"],
            buckets=_DELAY_BUCKETS_S,
            registry=registry,
        )
        self._canceled = Counter(
            "tellerd_holds_canceled",
            "Held payments that went back to their payers, whoever asked for it, by reason.",
            ["node", "reason"],
            registry=registry,
        )
        registry.register(self)

    def show(self, statuses: Sequence[HoldStatus]) -> None:
        """Adds the nodes' gauges; their counters stand at 0 from now on."""
        self.statuses = statuses
        for status in statuses:
            self._attached_again.labels(status.name)
            self._delay.labels(status.name)

    def holds_attached(self, *, node: str, holds: int, again: bool) -> None:
        """After a start, or again after an outage."""
        if again:
            self._attached_again.labels(node).inc(holds)

    def hold_settled(self, *, node: str, delay_s: float | None) -> None:
        """A held payment was taken that could be taken when it came."""
        if delay_s is not None:
            self._delay.labels(node).observe(delay_s)

    def hold_canceled(self, *, node: str, reason: str) -> None:
        """A held payment has gone back."""
        self._canceled.labels(node, reason if reason in CANCEL_REASONS else "other").inc()

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        watched = _gauge("tellerd_holds_watched", "Open hold invoices that are watched.")
        held = _gauge("tellerd_holds_held", "Payments that are held and not decided yet.")
        held_msat = _gauge("tellerd_holds_held_millisatoshis", "What they come to.")
        deadline = _gauge(
            "tellerd_hold_deadline_blocks",
            "Blocks until the first of them is decided whatever is missing; absent while nothing is held.",
        )
        unknown = _gauge(
            "tellerd_holds_unknown",
            "Payments that the node holds and nobody here expects; absent until they were counted.",
        )
        for status in self.statuses:
            watched.add_metric([status.name], status.watched)
            held.add_metric([status.name], status.held)
            held_msat.add_metric([status.name], status.held_msat)
            if status.nearest_deadline_blocks is not None:
                deadline.add_metric([status.name], status.nearest_deadline_blocks)
            if status.unknown is not None:
                unknown.add_metric([status.name], status.unknown)
        yield from (watched, held, held_msat, deadline, unknown)


def _gauge(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, labels=["node"])
