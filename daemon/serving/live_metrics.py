"""Metrics of the running daemon that are looked at when Prometheus asks: how far nodes, posting and subscribers are.

Nothing here blocks: it reads what others keep in memory. What does not exist now (posting on a standby, a node that
was not reached yet) has no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.domain.status import ChainStatus, NodeStatus
from daemon.posting.board import Board
from daemon.posting.poster import Backlog


class LiveCollector(Collector):
    """`nodes` are set once, before anybody asks; `backlog` comes and goes with the lease."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.nodes: Sequence[NodeStatus] = ()
        self.chain: ChainStatus | None = None
        self.lags: Callable[[], Sequence[int]] = tuple
        self.backlog: Callable[[], Backlog] | None = None

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        yield self._connections()
        yield self._settle_lag()
        if self.chain is not None:
            yield from _heights(self.chain)
        yield from self._posting()
        yield from self._subscribers()

    def _connections(self) -> Metric:
        connections = CounterMetricFamily(
            "tellerd_node_connections", "Times that a node was reached: more than one are reconnects.", labels=["node"]
        )
        for status in self.nodes:
            connections.add_metric([status.name], status.connections)
        if self.chain is not None:
            connections.add_metric([self.chain.name], self.chain.connections)
        return connections

    def _settle_lag(self) -> Metric:
        lag = GaugeMetricFamily(
            "tellerd_settle_index_lag",
            "How far the books are behind the newest settle index that the node has told.",
            labels=["node"],
        )
        for status in self.nodes:
            cursor = None if status.pubkey is None else self._board.cursor(status.pubkey)
            if cursor is not None and cursor.opened:
                newest = max(status.told_settle_index, cursor.newest_index())
                lag.add_metric([status.name], newest - cursor.settle_index)
        return lag

    def _posting(self) -> Iterator[Metric]:
        backlog = None if self.backlog is None else self.backlog()
        if backlog is not None:
            yield GaugeMetricFamily("tellerd_inbox_batches", "Batches that wait for posting.", value=backlog.batches)
            yield GaugeMetricFamily(
                "tellerd_inbox_capacity_batches",
                "At so many the followers wait, and the nodes' streams with them.",
                value=backlog.capacity_batches,
            )
            yield GaugeMetricFamily(
                "tellerd_oldest_unposted_seconds",
                "Age of the oldest event that is not in the books; 0 if none waits.",
                value=backlog.oldest_s,
            )

    def _subscribers(self) -> Iterator[Metric]:
        lags = self.lags()
        yield GaugeMetricFamily("tellerd_feed_subscribers", "Subscribers of the feed.", value=len(lags))
        if lags:
            yield GaugeMetricFamily(
                "tellerd_feed_subscriber_lag_events", "Events that the slowest has not taken yet.", value=max(lags)
            )


def _heights(chain: ChainStatus) -> Iterator[Metric]:
    """What is not known yet is not 0: a standby is not at the tip."""
    if chain.cursor is not None:
        yield GaugeMetricFamily("tellerd_chain_height", "The last block in the books.", value=chain.cursor.height)
    if chain.tip is not None:
        yield GaugeMetricFamily("tellerd_chain_tip", "bitcoind's newest block.", value=chain.tip.height)
    if chain.blocks_behind is not None:
        yield GaugeMetricFamily(
            "tellerd_chain_blocks_behind", "Blocks that are not in the books yet.", value=chain.blocks_behind
        )
