"""Keeps one node's hold invoices: watches them, decides what is held, and asks the node to settle or to cancel.

Which invoices: those that have a document in `invoiceusers` for this node and whose preimage the node does not know,
whoever made them. At a start they are found by one listing of what is open or held; later ones are told by the API,
or found among the new documents, and each is watched before it can be paid. Where there is no place for more, only
what is held is watched; what the node says nothing of loses its place. ACCEPTED is a question: the decision is
`daemon.matching.holds`, taken at once and again every few seconds, for wallets, prices, releases and blocks come.

Nothing here credits. The credit is posting's, from the SETTLED event. What a kill leaves behind:

- Before the state was read or decided: held on the node, document open. The listing of the next start finds it.
- After a dollar quote was kept, before SettleInvoice: the same. Decided again; an expired quote is made anew.
- After SettleInvoice, before its answer or the credit: settled on the node, document open. The settle stream's
  backlog has it, from the cursor on.
- After CancelInvoice, before the commit that tells it: canceled on the node, document open. The listing does not have
  it, the sweep looks its document up: told and closed, with the reason "on_node".
- After that commit: told and closed, both or neither.

The node is always asked first, and the document is closed when the node has said CANCELED: a document that is closed
while its invoice can still be paid would hide the payment from every look. Asking twice is no error to LND, neither
for SettleInvoice nor for CancelInvoice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import structlog
import trio

from daemon.domain.books import Expectation, Facts, Wanted
from daemon.domain.holds import HoldRules
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceEnded, InvoiceHeld, InvoiceStateEvent
from daemon.domain.ports import (
    Books,
    HoldMetrics,
    HoldState,
    HoldWatch,
    InvoiceState,
    LightningNode,
    NodeInfo,
    OpenInvoice,
    OpenInvoices,
)
from daemon.domain.status import HoldStatus
from daemon.ingest.handover import Handover, Inbox
from daemon.ingest.held_payments import HeldPayments, Ready, without_prices
from daemon.ingest.lightning import utc_now
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.open_invoices import NEW_FOR
from daemon.ingest.pace import Pace
from daemon.ingest.unknown_holds import UnknownHolds
from daemon.matching.invoice_states import why_over
from daemon.posting.invoice_hints import HintInbox, InvoiceHints

PAGE: Final = 1000
"""Invoices in a page of the listing, and new documents in a look: 180 ms of LND's time (node-interfaces.md A.0)."""

_MAX_REMEMBERED: Final = 100_000
"""Hashes that were seen, some 10 MB; one that is forgotten is watched or told once more, which changes nothing."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class HoldKeeper:
    """The hold invoices of one node. `inbox` stays open: it is its owner's. `ready` prices what is held for dollar
    wallets."""

    node: LightningNode
    documents: OpenInvoices
    books: Books
    inbox: Inbox
    hints: InvoiceHints
    status: HoldStatus
    metrics: HoldMetrics
    rules: HoldRules = field(default_factory=HoldRules)
    ready: Ready = without_prices
    now: Callable[[], datetime] = utc_now
    pace: Pace = field(default_factory=Pace)
    _calls: NodeCalls = field(init=False)
    _database: trio.CapacityLimiter = field(init=False)
    _attached_before: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._calls = NodeCalls(self.node)
        self._database = trio.CapacityLimiter(2)  # documents: of listings, new ones, unknown ones

    async def run(self, healthy: Callable[[], None]) -> None:
        """Keeps them until the node or the database is unavailable; never returns. Raises Unavailable, alone or in a
        group."""
        try:
            while True:
                info = await self._calls.get_info()
                with self.hints.listen(info.pubkey) as hints:
                    await self._keep(info, hints, healthy)
        finally:
            self.status.clear()

    async def _keep(self, info: NodeInfo, hints: HintInbox, healthy: Callable[[], None]) -> None:
        """One connection; returns when another node answers at the address."""
        held = HeldPayments(
            node=self.node,
            books=self.books,
            pubkey=info.pubkey,
            version=info.version,
            height=info.block_height,
            rules=self.rules,
            ready=self.ready,
            metrics=self.metrics,
            now=self.now,
        )
        async with self.node.hold_watch() as watch, trio.open_nursery() as nursery:
            kept = _Kept(
                keeper=self,
                pubkey=info.pubkey,
                watch=watch,
                held=held,
                hints=hints,
                other_node=nursery.cancel_scope.cancel,
            )
            # All of it beside the listing: that can take a node with millions of invoices minutes.
            for task in (held.run, kept.read, kept.take_hints, kept.watch_new, kept.look, kept.end_silent):
                nursery.start_soon(task)
            began = trio.current_time()
            attached = await kept.attach()
            self.metrics.holds_attached(node=self.node.name, holds=attached, again=self._attached_before)
            self._attached_before = True
            duration_s = round(trio.current_time() - began, 2)
            log.info("holds.attached", node=self.node.name, holds=attached, duration_s=duration_s)
            healthy()
            nursery.start_soon(self._unknown(kept).run)

    def _unknown(self, kept: _Kept) -> UnknownHolds:
        return UnknownHolds(
            node=self.node.name,
            pubkey=kept.pubkey,
            calls=self._calls,
            books=self.books,
            database=self._database,
            status=self.status,
            watch=partial(kept.watch.watch, held=True),
            pace=self.pace,
        )


@dataclass(kw_only=True, slots=True)
class _Kept:
    """What runs while one connection stands. `other_node` ends it."""

    keeper: HoldKeeper
    pubkey: NodePubkey
    watch: HoldWatch
    held: HeldPayments
    hints: HintInbox
    other_node: Callable[[], None]
    _told: OrderedDict[PaymentHash, None] = field(default_factory=OrderedDict)
    _silent: dict[PaymentHash, float] = field(default_factory=dict)
    _handover: Handover = field(init=False)
    _too_many: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._handover = Handover(self.keeper.inbox)

    # --- which invoices -----------------------------------------------------------------------------

    async def attach(self) -> int:
        """Watches every hold invoice that is open or held and has a document here; returns how many."""
        calls, pace = self.keeper._calls, self.keeper.pace
        attached = offset = 0
        while True:
            page = await calls.pending_holds(after_add_index=offset, limit=PAGE)
            expectations = (await self._facts(page.holds)).expectations if page.holds else {}
            for hold in page.holds:
                expectation = expectations.get(hold.payment_hash)
                if expectation is not None and self._is_ours(expectation, hold):
                    attached += self._watch(hold.payment_hash, held=hold.state is InvoiceState.ACCEPTED)
            offset = page.next_offset
            if offset == 0:
                return attached
            await trio.sleep(pace.page_pause_s)

    async def _facts(self, holds: Sequence[HoldState]) -> Facts:
        wanted = Wanted(payment_hashes={hold.payment_hash for hold in holds})
        read = partial(self.keeper.books.read_facts, wanted)
        return await trio.to_thread.run_sync(read, limiter=self.keeper._database, abandon_on_cancel=True)

    def _is_ours(self, expectation: Expectation, hold: HoldState) -> bool:
        """What is held for an invoice that is over has to be given back; otherwise such a one is left alone."""
        is_held = hold.state is InvoiceState.ACCEPTED
        return expectation.pubkey in (None, self.pubkey) and (not expectation.is_over or is_held)

    def _watch(self, payment_hash: PaymentHash, *, held: bool = False) -> bool:
        watched = self.watch.watch(payment_hash, held=held)
        if not watched and not self._too_many:
            self._too_many = True
            log.error("holds.too_many", node=self.keeper.node.name, watched=self.watch.watched)
        return watched

    def _watch_unseen(self, payment_hash: PaymentHash) -> bool:
        """One that the node may not know (yet, or any more)."""
        before = self.watch.watched
        watched = self._watch(payment_hash)
        if self.watch.watched > before:
            self._silent[payment_hash] = trio.current_time()
        return watched

    async def end_silent(self) -> None:
        """Gives up places of those that the node has said nothing of: LND does not say that it knows none."""
        pause_s = self.keeper.pace.silent_watch_s
        while True:
            await trio.sleep(pause_s)
            given_up = [one for one, since in self._silent.items() if since + pause_s <= trio.current_time()]
            for payment_hash in given_up:
                del self._silent[payment_hash]
                self.watch.unwatch(payment_hash)

    async def watch_new(self) -> None:
        """New documents of other programs: whether an invoice is a hold one, its own stream tells."""
        keeper = self.keeper
        seen: OrderedDict[PaymentHash, None] = OrderedDict()
        while True:
            for document in await self._new_documents():
                payment_hash = document.payment_hash
                if payment_hash not in seen and not keeper.hints.is_ordinary(payment_hash):
                    self._watch_unseen(payment_hash)
                    _remember(seen, payment_hash)
            await trio.sleep(keeper.pace.new_documents_s)

    async def _new_documents(self) -> Sequence[OpenInvoice]:
        keeper = self.keeper
        read = partial(
            keeper.documents.open_invoices_since, pubkey=self.pubkey, since=keeper.now() - NEW_FOR, limit=PAGE
        )
        return await trio.to_thread.run_sync(read, limiter=keeper._database, abandon_on_cancel=True)

    async def take_hints(self) -> None:
        """What the API and the sweep say is worth a look."""
        while True:
            hinted = await self.hints.take()
            for payment_hash in hinted:
                if not self._watch_unseen(payment_hash):
                    await self._watch_if_held(payment_hash)
            self.held.decide_now(hinted)

    async def _watch_if_held(self, payment_hash: PaymentHash) -> None:
        """Where there is no place: only what has to be decided."""
        invoice = await self.keeper._calls.lookup_invoice(payment_hash)
        if invoice is not None and invoice.hold is not None and invoice.state is InvoiceState.ACCEPTED:
            self._watch(payment_hash, held=True)

    # --- what becomes of them -----------------------------------------------------------------------

    async def read(self) -> None:
        """Takes the states as they come."""
        async for batch in self.watch:
            told: list[InvoiceStateEvent] = []
            held: list[PaymentHash] = []
            for state in batch:
                self._silent.pop(state.payment_hash, None)
                match state.state:
                    case InvoiceState.ACCEPTED if state.is_hold:
                        held.append(state.payment_hash)
                        told.extend(self._take_held(state))
                    case InvoiceState.CANCELED:
                        told.append(self._take_canceled(state))
                    case InvoiceState.SETTLED:
                        self.held.forget(state.payment_hash)
                        self.hints.take_reason(state.payment_hash)
                    case _ if not state.is_hold:
                        self.watch.unwatch(state.payment_hash)
                    case _:
                        pass  # open, and watched on
            # Told before it is decided: in the feed a payment is held before it is settled.
            await self._handover.tell_all(told)
            self.held.decide_now(held)
            self._show()

    def _take_held(self, state: HoldState) -> list[InvoiceStateEvent]:
        self.held.put(state)
        if state.payment_hash in self._told:
            return []
        _remember(self._told, state.payment_hash)
        held = InvoiceHeld(
            pubkey=self.pubkey,
            payment_hash=state.payment_hash,
            received_msat=state.received_msat,
            expiry_height=state.expiry_height,
            held_at_ms=state.accepted_at_s * 1000,
        )
        return [held]

    def _take_canceled(self, state: HoldState) -> InvoiceEnded:
        reason = self.held.forget(state.payment_hash) or self.hints.take_reason(state.payment_hash)
        now_s = self.keeper.now().timestamp()
        expires_at_s = state.created_at_s + state.expiry_s
        return InvoiceEnded(
            pubkey=self.pubkey,
            payment_hash=state.payment_hash,
            reason=reason or why_over(held_msat=state.received_msat, expires_at_s=expires_at_s, now_s=now_s),
            returned_msat=state.received_msat,
            ended_at_ms=int(now_s * 1000),
        )

    async def look(self) -> None:
        """Everything that is held is decided again, at the height of now."""
        keeper = self.keeper
        while True:
            await trio.sleep(keeper.pace.hold_look_s)
            info = await keeper._calls.get_info()
            if info.pubkey != self.pubkey:
                self.other_node()
                return
            self.held.version, self.held.height = info.version, info.block_height
            self.held.decide_now()
            self._show()

    def _show(self) -> None:
        status = self.keeper.status
        status.watched = self.watch.watched
        status.held = self.held.count
        status.held_msat = self.held.held_msat
        status.nearest_deadline_blocks = self.held.nearest_deadline_blocks


def _remember(hashes: OrderedDict[PaymentHash, None], payment_hash: PaymentHash) -> None:
    hashes[payment_hash] = None
    if len(hashes) > _MAX_REMEMBERED:
        hashes.popitem(last=False)
