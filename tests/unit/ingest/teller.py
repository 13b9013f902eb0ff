"""A daemon's intake and posting on a store and a node in memory, as daemon.app composes them, but faster."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from adapters.memory import MemoryLightningNode, MemoryStore
from adapters.prices.nothing import NoPrice
from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.books import Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey, PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled, NodeEvent
from daemon.domain.ports import InvoicePage, NewInvoice, NodeFunds, NodeInfo, NodeInvoice
from daemon.domain.status import NodeStatus
from daemon.ingest.handover import Inbox
from daemon.ingest.journals import JournalFinder
from daemon.ingest.lightning import LightningFollower
from daemon.ingest.open_invoices import OpenInvoiceSweep
from daemon.ingest.pace import Pace
from daemon.posting.board import Board
from daemon.posting.invoice_hints import InvoiceHints
from daemon.posting.poster import Poster
from daemon.supervision import keep_running
from tests.samples import hash_of, invoice, preimage_of
from tests.silent import SilentMetrics

FAST = Pace(
    quiet_s=0.01,
    quiet_retry_s=0.01,
    gap_look_s=0.005,
    gap_age_s=0.02,
    page_pause_s=0.0,
    sweep_s=0.02,
    new_documents_s=0.01,
    lookups_per_s=10_000.0,
    proof_s=0.01,
    first_proof_s=0.01,
    htlc_lookups_per_s=10_000.0,
    htlc_retry_s=0.01,
    htlc_unproven_s=0.05,
    hold_look_s=0.02,
    unknown_holds_s=0.02,
    journals_s=0.02,
    journals_hinted_s=0.001,
)
PATIENCE_S = 60.0  # how long a test waits for what must come; it decides nothing else


class WatchedNode(MemoryLightningNode):
    """Remembers what it was asked; `on_page`, `on_funds` and `on_subscribe` let something happen just then."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # handed through as they are
        self.subscribed_after: list[int] = []
        self.pages = 0
        self.lookups: list[PaymentHash] = []
        self.network = "regtest"
        self.on_page: Callable[[], None] = lambda: None
        self.on_subscribe: Callable[[], None] = lambda: None
        self.on_funds: Callable[[], None] = lambda: None
        self.funds_asked = 0
        self.infos_asked = 0

    def get_info(self) -> NodeInfo:
        info = super().get_info()
        self.infos_asked += 1
        return NodeInfo(
            pubkey=info.pubkey,
            network=self.network,
            version=info.version,
            synced_to_chain=info.synced_to_chain,
            block_height=info.block_height,
            stores_final_htlc_resolutions=info.stores_final_htlc_resolutions,
        )

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        page = super().list_invoices(after_add_index=after_add_index, limit=limit)
        self.pages += 1
        self.on_page()
        return page

    def funds(self) -> NodeFunds:
        funds = super().funds()
        self.funds_asked += 1
        self.on_funds()
        return funds

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        self.lookups.append(payment_hash)
        return super().lookup_invoice(payment_hash)

    @asynccontextmanager
    async def settlements(self, *, after_settle_index: int) -> AsyncIterator[AsyncIterator[Sequence[InvoiceSettled]]]:
        self.subscribed_after.append(after_settle_index)
        self.on_subscribe()
        async with super().settlements(after_settle_index=after_settle_index) as stream:
            yield stream

    def add(self, name: str, value_msat: int) -> PaymentHash:
        """An open invoice with this name's preimage."""
        asked = NewInvoice(
            preimage=preimage_of(name), value_msat=value_msat, memo=name, description_hash=b"", expiry_s=3600
        )
        return self.add_invoice(asked).payment_hash


class Metrics(SilentMetrics):
    """Keeps what ingest counts."""

    def __init__(self) -> None:
        self.connected: list[bool] = []
        self.canceled: list[str] = []

    def node_connected(self, *, node: str, connected: bool) -> None:
        """Whether the stream stands."""
        self.connected.append(connected)

    def hold_canceled(self, *, pubkey: NodePubkey, reason: str) -> None:
        """Given back."""
        self.canceled.append(reason)


class Teller:
    """One store, one node; `follow`, `sweep` and `find_journals` run a stage for as long as a test needs it."""

    def __init__(self, node: WatchedNode | None = None) -> None:
        self.node = node or WatchedNode(funds_msat=0)
        self.store = MemoryStore()
        self.status = NodeStatus(name=self.node.name)
        self.others: list[NodeStatus] = []
        self.metrics = Metrics()
        self.board = Board()
        self.handed_over: list[NodeEvent] = []
        self._fence = self.store.leases.acquire(holder="test", ttl_s=3600.0) or 0
        self.wallet = self.store.wallets.create(
            account_id=None, currency=Currency.BTC, external_id="wallet-1"
        ).wallet_id

    # --- what stands in the books -------------------------------------------------------------------

    def cursor(self, pubkey: NodePubkey | None = None) -> LndCursor | None:
        """The node's cursor as the store has it."""
        pubkey = pubkey or self.node.pubkey
        return self.store.books.read_facts(Wanted(pubkeys={pubkey})).cursors.get(pubkey)

    def proven_through(self, index: int) -> bool:
        """Whether every HTLC up to this settle_index is proven."""
        return (cursor := self.cursor()) is not None and cursor.htlc_checked_through >= index

    def balance(self, account: str) -> int:
        """Credit less debit, in sat."""
        return self.store.ledger.balance((account, "BTC"))[0]

    @property
    def credited_sat(self) -> int:
        """What the wallet has."""
        return self.balance(wallet_account(WalletId(self.wallet)))

    def books_equal_node(self) -> bool:
        """To the msat: what the cursor says is booked, and to the sat: what the asset account holds."""
        cursor = self.cursor()
        if cursor is None or not cursor.opened:
            return False
        funds_msat = self.node.funds().funds_msat
        return (
            cursor.booked_msat == funds_msat and -self.balance(LIGHTNING) * 1000 + cursor.remainder_msat == funds_msat
        )

    def expect(self, name: str, *, pubkey: NodePubkey | None = None) -> None:
        """Another program writes a document for the invoice with this name."""
        document = invoice(name, self.wallet, pubkey=pubkey or self.node.pubkey)
        self.store.another.insert_invoice(document)

    def expected_invoice(self, name: str, value_msat: int = 1_000_000) -> PaymentHash:
        """An open invoice on the node, and its document."""
        payment_hash = self.node.add(name, value_msat)
        assert payment_hash == hash_of(name)
        self.expect(name)
        return payment_hash

    # --- stages -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[None]:
        """The follower under supervision, and posting."""

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            follower = self.follower(inbox)
            nursery.start_soon(
                partial(
                    keep_running,
                    follower.run,
                    name="follow",
                    rng=random.Random(1),
                    on_state=follower.show,
                    backoff_s=(0.005, 0.02),
                )
            )

        async with self._posting(start):
            yield

    def follower(self, inbox: Inbox) -> LightningFollower:
        """As the composition root builds it; there is nothing of other programs to adopt."""
        adopted = trio.Event()
        adopted.set()
        return LightningFollower(
            node=self.node,
            network="regtest",
            books=self.store.books,
            board=self.board,
            inbox=inbox,
            status=self.status,
            others=self.others,
            metrics=self.metrics,
            adopted=adopted,
            pace=FAST,
        )

    @asynccontextmanager
    async def sweep(self, hints: InvoiceHints | None = None) -> AsyncIterator[None]:
        """The look-ups of open invoices, and posting."""

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            sweep = OpenInvoiceSweep(
                node=self.node,
                documents=self.store.open_invoices,
                board=self.board,
                inbox=inbox,
                hints=hints or InvoiceHints(),
                pace=FAST,
            )
            nursery.start_soon(partial(keep_running, sweep.run, name="sweep", rng=random.Random(1)))

        async with self._posting(start):
            yield

    @asynccontextmanager
    async def find_journals(self) -> AsyncIterator[None]:
        """The search for other programs' journals, and posting."""

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            finder = JournalFinder(journals=self.store.journals, inbox=inbox, pace=FAST)
            nursery.start_soon(partial(keep_running, finder.run, name="journals", rng=random.Random(1)))

        async with self._posting(start):
            yield

    @asynccontextmanager
    async def staged(self, start: Callable[[trio.Nursery, Inbox], None]) -> AsyncIterator[None]:
        """Whatever `start` starts, and posting."""
        async with self._posting(start):
            yield

    @asynccontextmanager
    async def _posting(
        self,
        start: Callable[[trio.Nursery, Inbox], None],
    ) -> AsyncIterator[None]:
        send, recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
        poster_send, poster_recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
        poster = Poster(
            books=self.store.books,
            prices=NoPrice(),
            board=self.board,
            metrics=self.metrics,
            fence=self._fence,
            rng=random.Random(1),
        )

        async def record() -> None:
            async with poster_send:
                async for events in recv:
                    self.handed_over.extend(events)
                    await poster_send.send(events)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poster.run, poster_recv)
            nursery.start_soon(record)
            start(nursery, send)
            yield
            nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], bool], what: str = "") -> None:
    """Waits until it holds; fails loudly if it never does."""
    with trio.move_on_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 what is waited for happens in threads, too
            await trio.sleep(0.002)
    assert condition(), what or "did not come true in time"


def wait_until(condition: Callable[[], bool]) -> None:
    """The same for a node's thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.001)


class Once:
    """Calls a function the first time only, whichever thread comes."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._lock = threading.Lock()
        self._done = False

    def __call__(self) -> None:
        with self._lock:
            if self._done:
                return
            self._done = True
        self._action()
