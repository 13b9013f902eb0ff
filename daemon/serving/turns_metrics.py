"""Metrics of posting in turn with Blink's processes; nothing without [redis]."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.posting.turns import TurnsStatus


class TurnsCollector(Collector):
    """Shows `status` at each scrape."""

    def __init__(self) -> None:
        self.status: TurnsStatus | None = None

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        status = self.status
        if status is None:
            return
        yield GaugeMetricFamily(
            "tellerd_redis_connected", "0 while posting waits for Redis, else 1.", value=int(status.connected)
        )
        yield GaugeMetricFamily(
            "tellerd_locks_waiting", "Events that wait for their turn, or for one that does.", value=status.waiting
        )
        yield CounterMetricFamily(
            "tellerd_locks_refused", "How often a settlement's lock was another's.", value=status.refused
        )
        yield CounterMetricFamily(
            "tellerd_announcements_lost", "Facts that Redis' subscribers were not told of.", value=status.unannounced
        )
