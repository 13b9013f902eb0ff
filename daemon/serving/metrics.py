"""What Prometheus reads: a registry of our own, so that tests and processes do not share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey
from daemon.domain.outcomes import DepositsChanged
from daemon.domain.ports import Dealer, PriceSource
from daemon.domain.reconciliation import ReconciliationStatus
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.posting.board import Board
from daemon.posting.poster import Backlog
from daemon.posting.turns import TurnsStatus
from daemon.serving.figures import Reading
from daemon.serving.hold_metrics import HoldMetrics
from daemon.serving.live_metrics import LiveCollector
from daemon.serving.money_metrics import MoneyCollector
from daemon.serving.price_metrics import PriceCollector
from daemon.serving.reconciliation_metrics import ReconciliationCollector
from daemon.serving.status import open_gaps
from daemon.serving.turns_metrics import TurnsCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COMMIT_BUCKETS_EVENTS = (1, 2, 5, 10, 25, 50, 100, 250)
"""Up to the bound of one commit."""

OUTCOMES: Final = (
    "posted",
    "posted_unpriced",
    "already_posted",
    "suspended",
    "part_of_opening",
    "gap",
    "loss",
    "cursor_moved",
    "adopted",
    "deposits_changed",
    "held",
    "noted",
    "stale",
    "assigned",
    "not_assigned",
)
"""`daemon.posting.poster.outcome_name`. They stand at 0 from the start: else the first suspense or gap of a process
would be no rise in Prometheus' eyes."""


class PrometheusMetrics:
    """Implements `daemon.domain.ports.Metrics`, and counts what the API does.

    Labels are bounded: outcomes, causes, configured nodes, methods of our own services, status codes.
    """

    def __init__(self, *, board: Board, version: str, blink_metrics: bool = False) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("tellerd_build", "The running version.", registry=registry).info({"version": version})
        self._outcomes = Counter(
            "tellerd_outcomes",
            "Node events decided and committed; posted_unpriced: credited without a dollar value.",
            ["outcome"],
            registry=registry,
        )
        self._received = Counter("tellerd_received_satoshis", "What they brought in.", ["outcome"], registry=registry)
        self._latency = Histogram(
            "tellerd_settlement_latency_seconds",
            "From reading a settlement from the node to its commit.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._commit_events = Histogram(
            "tellerd_commit_events",
            "Node events in one commit.",
            buckets=_COMMIT_BUCKETS_EVENTS,
            registry=registry,
        )
        self._commit_duration = Histogram(
            "tellerd_commit_duration_seconds",
            "Reading, deciding and committing one batch.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._retries = Counter(
            "tellerd_commit_retries", "Commits tried again, by cause.", ["cause"], registry=registry
        )
        for outcome in OUTCOMES:
            self._outcomes.labels(outcome)
        for outcome in ("posted", "posted_unpriced", "suspended"):
            self._received.labels(outcome)
        for cause in ("conflict", "unavailable"):
            self._retries.labels(cause)
        self._losses = Counter(
            "tellerd_htlc_losses",
            "HTLCs of settled invoices that were failed back, booked to the gap account.",
            registry=registry,
        )
        self._lost = Counter("tellerd_htlc_losses_millisatoshis", "What they were.", registry=registry)
        self._leader = Gauge("tellerd_leader", "1 while this process holds the lease.", registry=registry)
        self._node_gauges(registry)
        self._chain_counters(registry)
        Gauge(
            "tellerd_feed_sequence", "The newest event this process has committed or read.", registry=registry
        ).set_function(lambda: board.sequence)
        self._api(registry)
        self._live = LiveCollector(board)
        self.holds = HoldMetrics(registry)
        self._money = MoneyCollector(blink=blink_metrics)
        self._reconciliation = ReconciliationCollector(blink=blink_metrics)
        self._prices = PriceCollector(registry)
        self._turns = TurnsCollector()
        registry.register(self._turns)
        registry.register(self._prices)
        registry.register(self._live)
        registry.register(self._money)
        registry.register(self._reconciliation)

    def _api(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "tellerd_api_calls",
            "gRPC calls that ended, by method and status code.",
            ["method", "code"],
            registry=registry,
        )
        self._call_duration = Histogram(
            "tellerd_api_call_duration_seconds",
            "How long calls took, streams left out.",
            ["method"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._streams = Gauge("tellerd_api_streams", "Open gRPC streams, by method.", ["method"], registry=registry)
        self._audit_lost = Counter(
            "tellerd_audit_entries_lost", "Calls that the audit log does not have.", registry=registry
        )

    def _node_gauges(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, what: str) -> Gauge:
            return Gauge(name, what, ["node"], registry=registry)

        self._connected = gauge("tellerd_node_connected", "1 while the node's settlements are followed.")
        self._settle_index = gauge("tellerd_settle_index", "Every settlement up to it is in the books.")
        self._open_gaps = gauge("tellerd_open_gaps", "Settle indexes above it that are not explained yet.")
        self._remainder = gauge(
            "tellerd_remainder_millisatoshis", "What receipts left over below one satoshi, 0 to 999."
        )

    def _chain_counters(self, registry: CollectorRegistry) -> None:
        self._deposits = Counter(
            "tellerd_deposits", "Deposits that came into a state; reversed: by a reorg.", ["state"], registry=registry
        )
        self._deposit_amounts = Counter(
            "tellerd_deposit_satoshis",
            "What settled deposits brought in, fees and dust with it, and what reorgs took back.",
            ["state"],
            registry=registry,
        )
        self._overdrawn = Counter(
            "tellerd_wallets_overdrawn", "Reversals that took a wallet below zero.", registry=registry
        )
        self._hints_lost = Counter(
            "tellerd_zmq_messages_lost",
            "Messages of bitcoind that did not arrive, by topic; made up for by RPC.",
            ["topic"],
            registry=registry,
        )
        for state in ("detected", "confirmed", "settled", "dropped", "reversed"):
            self._deposits.labels(state)
        for state in ("settled", "reversed"):
            self._deposit_amounts.labels(state)
        for topic in ("sequence", "rawtx", "rawblock", "queue"):
            self._hints_lost.labels(topic)

    def show_nodes(self, statuses: Sequence[NodeStatus]) -> None:
        """Adds how often each node was reached, and how far the books are behind it."""
        self._live.nodes = statuses
        for status in statuses:
            self._connected.labels(status.name)

    def show_feed(self, lags: Callable[[], Sequence[int]]) -> None:
        """Adds the feed's subscribers; `lags` is called at each scrape."""
        self._live.lags = lags

    def show_posting(self, backlog: Callable[[], Backlog] | None) -> None:
        """Adds what waits for posting, called at each scrape; None takes it away: nothing is posted here."""
        self._live.backlog = backlog

    def show_figures(self, reading: Reading | None) -> None:
        """Shows what the database says; None takes it away."""
        self._money.show(reading)

    def show_reconciliation(self, status: ReconciliationStatus) -> None:
        """Adds the last comparison of books and nodes, read at each scrape."""
        self._reconciliation.status = status

    def show_prices(self, prices: PriceSource, dealer: Dealer) -> None:
        """Adds the price and its age, looked at at each scrape."""
        self._prices.prices, self._prices.dealer = prices, dealer

    def show_turns(self, status: TurnsStatus) -> None:
        """Adds how posting waits for other programs."""
        self._turns.status = status

    def quoted(self, outcome: str) -> None:
        """A quote for an invoice of a dollar wallet was asked for: "made", or why there is no price."""
        self._prices.quoted(outcome)

    def show_chain(self, status: ChainStatus) -> None:
        """Adds the gauges of the chain, read from its status at each scrape."""
        self._live.chain = status

        def gauge(name: str, what: str, read: Callable[[], float]) -> None:
            Gauge(name, what, registry=self._registry).set_function(read)

        gauge("tellerd_chain_connected", "1 while bitcoind is followed.", lambda: status.connected)
        gauge("tellerd_chain_halted", "1 while only a person can mend it: see the log.", lambda: status.halted)
        gauge(
            "tellerd_chain_catch_up_blocks_per_second",
            "How fast a long way to the tip goes; 0 at the tip.",
            lambda: status.catch_up_blocks_per_s,
        )
        gauge("tellerd_zmq_live", "1 while bitcoind's messages arrive.", lambda: status.hints == "live")

    def settled(self, *, outcome: str, amount_sat: int, latency_s: float | None) -> None:
        """One node event was decided and committed."""
        self._outcomes.labels(outcome).inc()
        if amount_sat:
            self._received.labels(outcome).inc(amount_sat)
        if latency_s is not None:
            self._latency.observe(latency_s)

    def committed(self, *, events: int, duration_s: float) -> None:
        """One commit."""
        self._commit_events.observe(events)
        self._commit_duration.observe(duration_s)

    def retried(self, *, cause: str) -> None:
        """A commit was tried again."""
        self._retries.labels(cause).inc()

    def node_connected(self, *, node: str, connected: bool) -> None:
        """A node's stream stands or fell."""
        self._connected.labels(node).set(connected)

    def cursor_moved(self, cursor: LndCursor) -> None:
        """A node's cursor after a commit; before the node is opened it has no name and is not shown."""
        if cursor.name:
            self._settle_index.labels(cursor.name).set(cursor.settle_index)
            self._open_gaps.labels(cursor.name).set(open_gaps(cursor))
            self._remainder.labels(cursor.name).set(cursor.remainder_msat)

    def leading(self, leading: bool) -> None:
        """Whether this process holds the lease."""
        self._leader.set(leading)
        self._reconciliation.leads = leading

    def deposits_changed(self, changed: DepositsChanged) -> None:
        """One chain event was decided and committed."""
        for state in ("detected", "confirmed", "settled", "dropped", "reversed"):
            if number := getattr(changed, state):
                self._deposits.labels(state).inc(number)
        if changed.settled_sat:
            self._deposit_amounts.labels("settled").inc(changed.settled_sat)
        if changed.reversed_sat:
            self._deposit_amounts.labels("reversed").inc(changed.reversed_sat)
        if changed.overdrawn:
            self._overdrawn.inc(changed.overdrawn)

    def htlc_lost(self, *, amount_msat: int) -> None:
        """An HTLC that a node calls settled was failed back; the loss is booked."""
        self._losses.inc()
        self._lost.inc(amount_msat)

    def hold_canceled(self, *, pubkey: NodePubkey, reason: str) -> None:
        """A payment that a node held has gone back; a node that was not reached yet has no name."""
        node = next((status.name for status in self._live.nodes if status.pubkey == pubkey), pubkey)
        self.holds.hold_canceled(node=node, reason=reason)

    def hints_lost(self, *, topic: str, missing: int) -> None:
        """bitcoind pushed messages that did not arrive."""
        self._hints_lost.labels(topic).inc(missing)

    def call_ended(self, *, method: str, code: str, duration_s: float | None) -> None:
        """A gRPC call ended; `duration_s` is None for streams."""
        self._calls.labels(method, code).inc()
        if duration_s is not None:
            self._call_duration.labels(method).observe(duration_s)

    def stream_opened(self, method: str) -> None:
        """A gRPC stream began."""
        self._streams.labels(method).inc()

    def stream_ended(self, method: str) -> None:
        """It ended."""
        self._streams.labels(method).dec()

    def audit_lost(self, entries: int) -> None:
        """Calls that could not be written to the audit log."""
        self._audit_lost.inc(entries)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
