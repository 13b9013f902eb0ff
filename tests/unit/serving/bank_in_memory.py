"""The API over the memory adapters, with a clock that tests set and a ledger that really posts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from adapters.memory import MemoryLightningNode, MemoryStore
from adapters.prices.fixed import FixedPrice
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled, NodeEvent, NodeOpened
from daemon.domain.outcomes import Outcome
from daemon.domain.payment_requests import PaymentRequest, encode_unsigned
from daemon.domain.ports import NewHoldInvoice, NewInvoice, NodeInvoice, StoreInfo, Wallet
from daemon.domain.reconciliation import Reconciled, ReconciliationAsked, ReconciliationStatus
from daemon.domain.status import NodeStatus
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from daemon.relay.feed import Feed
from daemon.serving.api import Api
from daemon.serving.gate import Gate
from daemon.serving.metrics import PrometheusMetrics

START = datetime(2026, 11, 21, 9, 0, 0, 123456, tzinfo=UTC)
ALICE_PUBKEY = "02" + "aa" * 32
BOB_PUBKEY = "03" + "bb" * 32


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def unix_s(self) -> float:
        return self.now.timestamp()

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class Node(MemoryLightningNode):
    """A node in memory whose payment requests can be read, as every payer's software reads them."""

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        return self._readable(super().add_invoice(invoice))

    def add_hold_invoice(self, invoice: NewHoldInvoice) -> NodeInvoice:
        return self._readable(super().add_hold_invoice(invoice))

    @staticmethod
    def _readable(made: NodeInvoice) -> NodeInvoice:
        terms = PaymentRequest(
            payment_hash=made.payment_hash,
            amount_msat=made.value_msat,
            memo=made.memo,
            description_hash=made.description_hash,
            created_at_s=made.created_at_s,
            expiry_s=made.expiry_s,
        )
        return replace(made, payment_request=encode_unsigned(terms))


class Probe:
    """The database, in reach or not."""

    database = "tellerd"

    def __init__(self) -> None:
        self.away: str | None = None

    def probe(self) -> StoreInfo:
        if self.away is not None:
            raise Unavailable(self.away)
        return StoreInfo(replica_set="rs0", version="6.0.5")


class Rounds:
    """What compares books and nodes, for callers: answers what a test says, None: never in time."""

    def __init__(self) -> None:
        self.result: Reconciled | None = None
        self.away: str | None = None
        self.asked: list[tuple[bool, float]] = []

    def ask(self, asked: ReconciliationAsked, *, timeout_s: float) -> Reconciled | None:
        self.asked.append((asked.full, timeout_s))
        if self.away is not None:
            raise Unavailable(self.away)
        return self.result


class Posting:
    """`daemon.posting.requests.PostingRequests` without a loop: posted on the caller's own thread."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self.timeouts_s: list[float] = []

    def ask(self, event: NodeEvent, *, timeout_s: float) -> Outcome | None:
        self.timeouts_s.append(timeout_s)
        if timeout_s == 0:
            return None
        (outcome,) = self._poster.commit([event]).plan.outcomes
        return outcome


@dataclass(slots=True)
class Bank:
    """Everything behind the API; `api` is what is tested, the rest is the world around it."""

    clock: Clock
    store: MemoryStore
    nodes: list[Node]
    statuses: list[NodeStatus]
    probe: Probe
    board: Board
    metrics: PrometheusMetrics
    poster: Poster
    api: Api
    rounds: Rounds
    broken: list[BaseException] = field(default_factory=list)

    @property
    def node(self) -> Node:
        return self.nodes[0]

    def wallet(self, external_id: str = "shop") -> Wallet:
        return self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id=external_id)

    def pay(self, payment_hash: str, received_msat: int | None = None) -> InvoiceSettled:
        """A payer pays, and the books have it."""
        event = self.node.settle(PaymentHash(payment_hash), received_msat)
        self.post(event)
        return event

    def post(self, *events: NodeEvent) -> None:
        committed = self.poster.commit(list(events))
        self.board.publish(cursors=committed.plan.cursors.values(), sequence=committed.head.sequence)

    def open_books(self, funds_msat: int = 0) -> None:
        """The node's first listing is complete: from now on nothing belongs to the opening."""
        self.post(
            NodeOpened(
                pubkey=self.node.pubkey,
                name=self.node.name,
                funds_msat=funds_msat,
                through_index=0,
                checkpoint_hash=None,
                opened_at_ms=int(self.clock.unix_s() * 1000),
            )
        )


def open_bank(*, leading: bool = True, preimages: Callable[[], bytes] | None = None) -> Bank:
    """A bank with two nodes, both followed, leading unless told otherwise."""
    clock, store, board, probe = Clock(), MemoryStore(), Board(), Probe()
    nodes = [
        Node(name="alice", pubkey=ALICE_PUBKEY, now_s=clock.unix_s),
        Node(name="bob", pubkey=BOB_PUBKEY, now_s=clock.unix_s),
    ]
    statuses = [NodeStatus(name=node.name, pubkey=node.pubkey, connected=True, state="live") for node in nodes]
    metrics = PrometheusMetrics(board=board, version="0.1.0")
    fence = store.leases.acquire(holder="host:1", ttl_s=5.0)
    assert fence is not None
    poster = Poster(
        books=store.books,
        prices=FixedPrice(Decimal("60000.00")),
        board=board,
        metrics=metrics,
        fence=fence,
        rng=random.Random(1),
    )
    counter, reconciler = _counted_preimages(), Rounds()
    api = Api(
        network="regtest",
        version="0.1.0",
        started_at=START,
        gate=Gate(),
        board=board,
        wallets=store.wallets,
        invoices=store.invoices,
        ledger=store.ledger,
        leases=store.leases,
        api_keys=store.api_keys,
        audit_log=store.audit_log,
        gaps=store.gaps,
        suspense=store.suspense,
        decider=Posting(poster),
        reconciler=reconciler,
        reconciliation=ReconciliationStatus(),
        store=probe,
        feed=Feed(store.ledger, board, poll_s=0.05),
        nodes=nodes,
        node_statuses=statuses,
        answer_wait_s=0.2,
        now=clock,
        new_preimage=preimages or (lambda: next(counter)),
    )
    if leading:
        api.gate.lead()
    return Bank(clock, store, nodes, statuses, probe, board, metrics, poster, api, reconciler)


def _counted_preimages() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield number.to_bytes(32, "big")
