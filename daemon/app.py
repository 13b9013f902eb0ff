"""The composition root: what is built here, once, and its body is the supervision tree.

    services    HTTP, gRPC, heartbeat, prices, SIGHUP: from start to end, as leader and as standby
    leadership  wait for the lease, then:
      pipeline    lease renewal, posting, snapshot sweep
        intake      one follower, one look-up loop and one keeper of hold invoices per Lightning node, the follower of
                    the chain, adoption of other programs' journals and addresses, the comparison of books and nodes

Shutdown runs from the inside out: intake is cancelled, posting ends with what has arrived, the lease is
given back, the services end last. An outage is waited out where it happens; a lost lease ends the pipeline
and makes a standby of the process; anything else ends the process.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog
import trio

from adapters.grpc_api.server import GrpcServer, start_grpc
from adapters.grpc_api.tls import TlsFiles
from adapters.lnd.node import LndNode
from adapters.mongo import MongoStore
from adapters.prices.blink import BlinkPrice
from adapters.prices.fixed import FixedPrice
from adapters.prices.http_json import HttpJsonPrice
from adapters.prices.nothing import NoPrice
from adapters.redis import RedisBeside
from daemon import __version__, on_chain
from daemon.comparison import rounds
from daemon.config import Address, ApiConfig, Config, PricesConfig
from daemon.domain.errors import InvariantViolation, LeaseLost, Misconfigured, Unavailable
from daemon.domain.node_events import NodeEvent
from daemon.domain.reconciliation import ReconciliationStatus
from daemon.domain.status import HoldStatus, NodeStatus
from daemon.ingest.held_payments import without_prices
from daemon.ingest.holds import HoldKeeper
from daemon.ingest.journals import JournalFinder
from daemon.ingest.lightning import LightningFollower
from daemon.ingest.open_invoices import OpenInvoiceSweep
from daemon.notify import Notifier
from daemon.on_chain import Chain
from daemon.posting.board import Board
from daemon.posting.invoice_hints import InvoiceHints
from daemon.posting.leadership import Leadership
from daemon.posting.poster import INBOX_BATCHES, Poster
from daemon.posting.pricing import Pricing
from daemon.posting.requests import PostingRequests
from daemon.posting.turns import Turns, TurnsStatus
from daemon.reconciling.requests import ReconciliationRequests
from daemon.relay.feed import Feed
from daemon.rereading import reread_on_hangup
from daemon.serving.api import Api
from daemon.serving.audit_trail import AuditTrail
from daemon.serving.figures import FigureReader
from daemon.serving.gate import Gate
from daemon.serving.heartbeat import Heartbeat
from daemon.serving.http import HttpServer, start_http
from daemon.serving.keys import KeyCheck
from daemon.serving.metrics import PrometheusMetrics
from daemon.supervision import BACKOFF_S, TaskState, ignore_state, keep_running

SNAPSHOT_SWEEP_S = 2.0
"""How long another program's balance snapshot can hide a leg of ours, at the most (adapters.mongo.snapshots)."""

OPEN_RETRY_S = 1.0
"""Pause between tries to reach the database at start."""

HOLDS_BACKOFF_S = (0.25, 2.0)
"""Pauses before a node's hold invoices are watched again: payers wait, and a try costs one GetInfo."""

log = structlog.get_logger()

_Server = TypeVar("_Server")
Prices = FixedPrice | HttpJsonPrice | BlinkPrice | NoPrice
Inbox = trio.MemorySendChannel[Sequence[NodeEvent]]


@dataclass(kw_only=True)
class Teller:
    """Everything that is built once. `rng` only spreads pauses; it guards nothing."""

    config: Config
    store: MongoStore
    nodes: Sequence[LndNode]
    statuses: Sequence[NodeStatus]
    hold_statuses: Sequence[HoldStatus]
    hints: InvoiceHints
    prices: Prices
    board: Board
    gate: Gate
    metrics: PrometheusMetrics
    heartbeat: Heartbeat
    notifier: Notifier
    leadership: Leadership
    chain: Chain | None
    reconciliation: ReconciliationStatus
    reconciliation_requests: ReconciliationRequests
    posting_requests: PostingRequests
    beside: RedisBeside | None
    turns_status: TurnsStatus
    api: Api
    audit: AuditTrail
    rng: random.Random


async def run(config: Config, load: Callable[[], Config]) -> None:
    """Runs until SIGTERM or SIGINT; `load` reads the configuration again at SIGHUP, and raises ConfigError.

    Raises what broke, in an exception group; see `daemon.domain.errors`.
    """
    with ExitStack() as resources:
        teller = _build(config, resources)
        async with trio.open_nursery() as services:
            http = _listening("http.listen", config.http.listen, partial(_serve_http, teller))
            resources.callback(http.stop)
            services.start_soon(teller.heartbeat.run)
            services.start_soon(reread_on_hangup, config, load)
            if isinstance(teller.prices, HttpJsonPrice | BlinkPrice):
                services.start_soon(teller.prices.run)
            await _open_store(teller)
            broken = _Broken()
            services.start_soon(broken.watch)
            serve_grpc = partial(
                start_grpc,
                teller.api,
                address=str(config.api.listen),
                metrics=teller.metrics,
                on_broken=broken.report,
                max_streams=config.api.max_streams,
                tls=tls_files(config.api),
                keys=KeyCheck(teller.store.api_keys) if config.api.keys else None,
                audit=teller.audit,
            )
            grpc_server = _listening("api.listen", config.api.listen, serve_grpc)
            resources.callback(grpc_server.stop, grace_s=0)
            await _lead_until_stopped(teller, grpc_server)
            services.cancel_scope.cancel("stopped")


def _build(config: Config, resources: ExitStack) -> Teller:
    rng = random.Random()  # noqa: S311 (spreads pauses, guards nothing)
    store = MongoStore.connect(config.mongo.url.get_secret_value(), config.mongo.database)
    resources.callback(store.close)
    nodes = [
        LndNode(
            name=node.name,
            address=str(node.address),
            tls_cert_file=node.tls_cert_file,
            macaroon_file=node.macaroon_file,
            wallet_record=config.spontaneous.wallet_record,
        )
        for node in config.lnd
    ]
    for node in nodes:
        resources.callback(node.close)
    notifier = Notifier.from_environment(os.environ, pid=os.getpid())
    resources.callback(notifier.close)
    board, gate, heartbeat = Board(), Gate(), Heartbeat(on_beat=notifier.alive)
    statuses = [NodeStatus(name=node.name) for node in nodes]
    chain = on_chain.build(config, store, resources)
    feed = Feed(store.ledger, board)
    metrics = PrometheusMetrics(board=board, version=__version__, blink_metrics=config.http.blink_metrics)
    metrics.show_nodes(statuses)
    hold_statuses, hints = [HoldStatus(name=node.name) for node in nodes], InvoiceHints()
    metrics.holds.show(hold_statuses)
    metrics.show_feed(feed.lags)
    reconciliation, requests = ReconciliationStatus(), ReconciliationRequests()
    posting_requests = PostingRequests()
    beside, turns_status = _beside(config, resources), TurnsStatus()
    if beside is not None:
        metrics.show_turns(turns_status)
    metrics.show_reconciliation(reconciliation)
    audit = AuditTrail(store.audit_log, on_lost=metrics.audit_lost)
    resources.callback(audit.close)
    if chain is not None:
        metrics.show_chain(chain.status)
    prices = make_prices(config.prices)
    if is_fixed_on_mainnet(config):
        log.warning("price.fixed", network=config.network, remedy='set prices.source = "http" or "blink"')
    if isinstance(prices, BlinkPrice):
        resources.callback(prices.close)
    metrics.show_prices(prices, prices)
    # The holder tells two lives of one process id apart, and people where the leader runs.
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    return Teller(
        config=config,
        store=store,
        nodes=nodes,
        statuses=statuses,
        hold_statuses=hold_statuses,
        hints=hints,
        prices=prices,
        board=board,
        gate=gate,
        metrics=metrics,
        heartbeat=heartbeat,
        notifier=notifier,
        leadership=Leadership(store.leases, holder=holder, ttl_s=config.posting.lease_ttl_s, rng=rng),
        chain=chain,
        reconciliation=reconciliation,
        reconciliation_requests=requests,
        posting_requests=posting_requests,
        beside=beside,
        turns_status=turns_status,
        api=Api(
            network=config.network,
            version=__version__,
            started_at=datetime.now(UTC),
            gate=gate,
            board=board,
            wallets=store.wallets,
            invoices=store.invoices,
            ledger=store.ledger,
            leases=store.leases,
            api_keys=store.api_keys,
            audit_log=store.audit_log,
            gaps=store.gaps,
            suspense=store.suspense,
            decider=posting_requests,
            reconciler=requests,
            reconciliation=reconciliation,
            store=store,
            feed=feed,
            nodes=nodes,
            node_statuses=statuses,
            on_chain=chain.api if chain is not None else None,
            hints=hints,
            pricing=_pricing(config.prices, prices, store, metrics),
        ),
        audit=audit,
        rng=rng,
    )


def _beside(config: Config, resources: ExitStack) -> RedisBeside | None:
    """Blink's Redis; None without [redis]."""
    if config.redis is None:
        return None
    beside = RedisBeside.connect(config.redis.url.get_secret_value())
    resources.callback(beside.close)
    return beside


def make_prices(config: PricesConfig | None) -> Prices:
    """The price source of the configuration."""
    if config is None:
        return NoPrice()
    if config.source == "http" and config.url and config.json_path:
        return HttpJsonPrice(
            url=config.url,
            json_path=config.json_path,
            refresh_s=config.refresh_s,
            max_age_s=config.max_age_s,
            max_jump_percent=config.max_jump_percent,
        )
    if config.source == "blink":
        return BlinkPrice(
            price_address=None if config.price_address is None else str(config.price_address),
            dealer_address=None if config.dealer_address is None else str(config.dealer_address),
            refresh_s=config.refresh_s,
            max_age_s=config.max_age_s,
            max_jump_percent=config.max_jump_percent,
        )
    if config.usd_per_btc is None:
        raise InvariantViolation("prices: the configuration let a source without its keys through")
    return FixedPrice(config.usd_per_btc)


def is_fixed_on_mainnet(config: Config) -> bool:
    """Whether dollars have a price that no market moves, while the bitcoin are real."""
    return config.network == "mainnet" and config.prices is not None and config.prices.source == "fixed"


def _pricing(
    config: PricesConfig | None, prices: Prices, store: MongoStore, metrics: PrometheusMetrics
) -> Pricing | None:
    """Who quotes dollars; None without [prices]."""
    if config is None:
        return None
    return Pricing(dealer=prices, quotes=store.quotes, quote_s=config.quote_s, on_quote=metrics.quoted)


def _serve_http(teller: Teller) -> HttpServer:
    listen = teller.config.http.listen
    return start_http(
        teller.api, heartbeat=teller.heartbeat, metrics=teller.metrics, host=listen.host, port=listen.port
    )


def tls_files(config: ApiConfig) -> TlsFiles | None:
    """Where the API's certificate is; None without TLS."""
    if config.tls_cert_file is None or config.tls_key_file is None:
        return None
    return TlsFiles(certificate=config.tls_cert_file, key=config.tls_key_file, client_ca=config.client_ca_file)


def _listening(key: str, address: Address, start: Callable[[], _Server]) -> _Server:
    try:
        return start()
    except OSError as problem:
        raise Misconfigured(
            f"{key}: cannot listen at {address}: {problem}; end what listens there, or give another address"
        ) from problem


async def _open_store(teller: Teller) -> None:
    """Waits for the database; initialises it if the configuration says so."""

    def open_once() -> None:
        if teller.config.mongo.init:
            for made in teller.store.init():
                log.info("mongo.made", what=made)
        teller.store.open()

    while True:
        try:
            await trio.to_thread.run_sync(open_once)
        except Unavailable as outage:
            log.warning("mongo.waiting", cause=str(outage))
            await trio.sleep(OPEN_RETRY_S)
        else:
            return


async def _lead_until_stopped(teller: Teller, grpc_server: GrpcServer) -> None:
    """Standby and leader in turns, until a signal; then the drain, bounded by `posting.drain_s`."""
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_on_signal, stopping, teller, grpc_server)
        while not stopping.is_set():
            teller.gate.stand_by()
            teller.notifier.ready("standby")
            fence = await _wait_lease(teller, stopping)
            if fence is not None:
                await _lead_once(teller, fence, stopping)


async def _wait_lease(teller: Teller, stopping: trio.Event) -> int | None:
    """The standby's wait; None if the process is to end first."""
    fence = None
    async with trio.open_nursery() as waiting:
        waiting.start_soon(_cancel_on, stopping, waiting.cancel_scope)
        fence = await teller.leadership.wait_acquired()
        waiting.cancel_scope.cancel("acquired")
    return fence


async def _lead_once(teller: Teller, fence: int, stopping: trio.Event) -> None:
    """One turn as leader; returns when the lease is lost, or when everything is drained."""
    try:
        await _run_pipeline(teller, fence, stopping)
    except* LeaseLost as lost:
        log.warning("lease.lost", cause="; ".join(str(one) for one in lost.exceptions))
    finally:
        teller.gate.stand_by()
        teller.metrics.leading(False)
        teller.metrics.show_posting(None)
    await teller.leadership.give_back(fence)


async def _run_pipeline(teller: Teller, fence: int, stopping: trio.Event) -> None:
    inbox_send, inbox_recv = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    turns = _turns(teller)
    poster = Poster(
        books=teller.store.books,
        prices=teller.prices,
        board=teller.board,
        metrics=teller.metrics,
        fence=fence,
        rng=teller.rng,
        rules=teller.config.deposits.rules(),
        logs_money=teller.config.log.money,
        on_posted=teller.posting_requests.answer,
        turns=turns,
    )
    teller.metrics.show_posting(lambda: poster.backlog(inbox_recv))
    with teller.posting_requests.open():
        await _post_until(teller, poster, turns, fence, stopping, inbox_send, inbox_recv)


def _turns(teller: Teller) -> Turns | None:
    """Posting in turn with Blink's processes; None without [redis]."""
    if teller.beside is None:
        return None
    return Turns(teller.beside, teller.store.wallets, teller.board, teller.rng, teller.turns_status)


async def _post_until(
    teller: Teller,
    poster: Poster,
    turns: Turns | None,
    fence: int,
    stopping: trio.Event,
    inbox_send: Inbox,
    inbox_recv: trio.MemoryReceiveChannel[Sequence[NodeEvent]],
) -> None:
    async with trio.open_nursery() as pipeline:
        pipeline.start_soon(teller.leadership.keep, fence)
        pipeline.start_soon(_sweep_snapshots, teller)
        pipeline.start_soon(_figure_reader(teller).run)
        async with trio.open_nursery() as posting:
            posting.start_soon(poster.run, inbox_recv)
            async with inbox_send, trio.open_nursery() as intake:
                intake.start_soon(_cancel_on, stopping, intake.cancel_scope)
                _start_intake(teller, intake, inbox_send)
                if turns is not None:
                    intake.start_soon(turns.run, inbox_send)
                teller.gate.lead()
                teller.notifier.ready("leading")
                teller.metrics.leading(True)
            posting.cancel_scope.deadline = trio.current_time() + teller.config.posting.drain_s
        pipeline.cancel_scope.cancel("drained")


def _figure_reader(teller: Teller) -> FigureReader:
    return FigureReader(
        figures=teller.store.figures,
        gaps=teller.store.gaps,
        deposits=None if teller.chain is None else teller.store.deposits,
        prices=teller.prices,
        show=teller.metrics.show_figures,
    )


async def _cancel_on(stopping: trio.Event, scope: trio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel("stopping")


def _start_intake(teller: Teller, intake: trio.Nursery, inbox: Inbox) -> None:
    finder = JournalFinder(journals=teller.store.journals, inbox=inbox)
    for node, status in zip(teller.nodes, teller.statuses, strict=True):
        follower = LightningFollower(
            node=node,
            network=teller.config.network,
            books=teller.store.books,
            board=teller.board,
            inbox=inbox,
            status=status,
            others=[other for other in teller.statuses if other is not status],
            metrics=teller.metrics,
            adopted=finder.adopted,
        )
        sweep = OpenInvoiceSweep(
            node=node, documents=teller.store.open_invoices, board=teller.board, inbox=inbox, hints=teller.hints
        )
        _supervise(teller, intake, follower.run, name=f"follow {node.name}", on_state=follower.show)
        _supervise(teller, intake, sweep.run, name=f"open invoices of {node.name}")
    for node, hold_status in zip(teller.nodes, teller.hold_statuses, strict=True):
        keeper = _hold_keeper(teller, node, hold_status, inbox)
        _supervise(teller, intake, keeper.run, name=f"hold invoices of {node.name}", backoff_s=HOLDS_BACKOFF_S)
    _supervise(teller, intake, finder.run, name="journals of other programs")
    intake.start_soon(teller.posting_requests.run, inbox)
    if teller.chain is not None:
        _start_chain(teller, teller.chain, intake, inbox)
    compare = rounds(
        teller.config.reconciliation,
        store=teller.store,
        nodes=teller.nodes,
        chain=teller.chain,
        inbox=inbox,
        status=teller.reconciliation,
        requests=teller.reconciliation_requests,
    )
    _supervise(teller, intake, compare.run, name="compare books and nodes")


def _hold_keeper(teller: Teller, node: LndNode, status: HoldStatus, inbox: Inbox) -> HoldKeeper:
    pricing = teller.api.pricing
    return HoldKeeper(
        node=node,
        documents=teller.store.open_invoices,
        books=teller.store.books,
        inbox=inbox,
        hints=teller.hints,
        status=status,
        metrics=teller.metrics.holds,
        rules=teller.config.holds.rules(),
        ready=without_prices if pricing is None else pricing.ready,
    )


def _start_chain(teller: Teller, chain: Chain, intake: trio.Nursery, inbox: Inbox) -> None:
    finder = on_chain.finder(chain)
    if finder is not None:
        _supervise(teller, intake, finder.run, name="addresses of other programs")
    follower = on_chain.follower(
        chain,
        store=teller.store,
        board=teller.board,
        inbox=inbox,
        metrics=teller.metrics,
        finder=finder,
        dealer=teller.prices,
    )
    _supervise(teller, intake, follower.run, name="follow bitcoind", on_state=follower.show)


def _supervise(
    teller: Teller,
    nursery: trio.Nursery,
    task: Callable[[Callable[[], None]], Awaitable[None]],
    *,
    name: str,
    on_state: Callable[[TaskState], None] = ignore_state,
    backoff_s: tuple[float, float] = BACKOFF_S,
) -> None:
    running = partial(keep_running, task, name=name, rng=teller.rng, on_state=on_state, backoff_s=backoff_s)
    nursery.start_soon(running, name=name)


async def _sweep_snapshots(teller: Teller) -> None:
    """Deletes balance snapshots of other programs that hide a leg of ours; an outage is waited out."""
    thread = trio.CapacityLimiter(1)
    while True:
        try:
            deleted = await trio.to_thread.run_sync(
                teller.store.books.sweep_snapshots, limiter=thread, abandon_on_cancel=True
            )
        except Unavailable as outage:
            log.warning("snapshots.waiting", cause=str(outage))
        else:
            if deleted:
                log.info("snapshots.deleted", snapshots=deleted)
        await trio.sleep(SNAPSHOT_SWEEP_S)


async def _on_signal(stopping: trio.Event, teller: Teller, grpc_server: GrpcServer) -> None:
    """SIGTERM and SIGINT: refuse new calls, let calls under way end, then drain; a second one is not waited for."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("process.stopping", signal=signal.Signals(number).name)
            teller.notifier.stopping()
            teller.gate.drain()
            stopping.set()
            # Calls under way end while posting drains: they need the database and the nodes, not the pipeline.
            await trio.to_thread.run_sync(partial(grpc_server.stop, grace_s=teller.config.posting.drain_s))
            return


class _Broken:
    """A broken invariant that an API thread found ends the process like any other."""

    def __init__(self) -> None:
        self._found = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._violation: InvariantViolation | None = None

    def report(self, violation: InvariantViolation) -> None:
        """Called from a thread."""
        self._violation = violation
        self._token.run_sync_soon(self._found.set)

    async def watch(self) -> None:
        """Raises the violation when one is reported."""
        await self._found.wait()
        if self._violation is not None:
            raise self._violation
