"""Looks up the invoices that wait for a payment: the stream alone is not enough (design.md section 4).

LND may settle without an event that reaches us, and another program may write its document after the money
came. Every open document is looked up at the start and in turn, a new one soon; what the node calls settled
is handed over like any other settlement.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog
import trio

from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import InvoiceState, LightningNode, OpenInvoice, OpenInvoices
from daemon.ingest.handover import Handover, Inbox
from daemon.ingest.lightning import utc_now
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace
from daemon.posting.board import Board

PAGE: Final = 50
"""Documents read, looked up and handed over together: one second's worth of look-ups."""

NEW_FOR: Final = timedelta(seconds=15)
"""How long a document counts as new: its time is another program's clock, and may be off by some seconds."""

_MAX_REMEMBERED: Final = 100_000
"""Hashes that need no look-up again, some 10 MB; one that is forgotten is looked up once more."""

log = structlog.get_logger()


class _Remembered:
    """A bounded set of hashes; the oldest are forgotten."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[PaymentHash, None] = OrderedDict()

    def __contains__(self, payment_hash: PaymentHash) -> bool:
        return payment_hash in self._hashes

    def add(self, payment_hash: PaymentHash) -> None:
        self._hashes[payment_hash] = None
        if len(self._hashes) > _MAX_REMEMBERED:
            self._hashes.popitem(last=False)


@dataclass(kw_only=True, slots=True)
class OpenInvoiceSweep:
    """The open documents of one node. `inbox` stays open: it is its owner's."""

    node: LightningNode
    documents: OpenInvoices
    board: Board
    inbox: Inbox
    now: Callable[[], datetime] = utc_now
    pace: Pace = field(default_factory=Pace)
    _calls: NodeCalls = field(init=False)
    _documents_thread: trio.CapacityLimiter = field(init=False)
    _canceled: _Remembered = field(init=False)

    def __post_init__(self) -> None:
        self._calls = NodeCalls(self.node)
        self._documents_thread = trio.CapacityLimiter(2)  # the sweep and the look for new ones
        self._canceled = _Remembered()  # final in LND; their documents may stay unpaid for ever

    async def run(self, healthy: Callable[[], None]) -> None:
        """Looks up until the node or the database is unavailable; never returns. Raises Unavailable."""
        handover = Handover(self.inbox)
        while True:
            pubkey = (await self._calls.get_info()).pubkey
            healthy()
            if not await self._is_opened(pubkey):
                continue
            async with trio.open_nursery() as nursery:
                other_node = nursery.cancel_scope.cancel
                nursery.start_soon(self._sweep_all, pubkey, handover, other_node)
                nursery.start_soon(self._watch_new, pubkey, handover, other_node)

    async def _is_opened(self, pubkey: NodePubkey) -> bool:
        """Waits for the node's opening, up to the time of a sweep; another node may answer by then.

        Before it the follower's listing finds what is settled, in an order that the opening can count on.
        """
        with trio.move_on_after(self.pace.sweep_s):
            while (cursor := self.board.cursor(pubkey)) is None or not cursor.opened:
                await self.board.wait_changed()
            return True
        return False

    async def _sweep_all(self, pubkey: NodePubkey, handover: Handover, other_node: Callable[[], None]) -> None:
        while True:
            after: PaymentHash | None = None
            while documents := await self._read(self._page_after(pubkey, after)):
                after = documents[-1].payment_hash
                waiting = [one.payment_hash for one in documents if one.payment_hash not in self._canceled]
                await self._look_up(waiting, pubkey, handover, other_node)
            await trio.sleep(self.pace.sweep_s)

    async def _watch_new(self, pubkey: NodePubkey, handover: Handover, other_node: Callable[[], None]) -> None:
        done = _Remembered()
        while True:
            documents = await self._read(self._page_since(pubkey, self.now() - NEW_FOR))
            new = [one.payment_hash for one in documents if one.payment_hash not in done]
            await self._look_up(new, pubkey, handover, other_node)
            for payment_hash in new:
                done.add(payment_hash)
            await trio.sleep(self.pace.new_documents_s)

    def _page_after(self, pubkey: NodePubkey, after: PaymentHash | None) -> Callable[[], Sequence[OpenInvoice]]:
        return lambda: self.documents.open_invoices(pubkey=pubkey, after=after, limit=PAGE)

    def _page_since(self, pubkey: NodePubkey, since: datetime) -> Callable[[], Sequence[OpenInvoice]]:
        return lambda: self.documents.open_invoices_since(pubkey=pubkey, since=since, limit=PAGE)

    async def _read(self, query: Callable[[], Sequence[OpenInvoice]]) -> Sequence[OpenInvoice]:
        return await trio.to_thread.run_sync(query, limiter=self._documents_thread, abandon_on_cancel=True)

    async def _look_up(
        self,
        payment_hashes: Iterable[PaymentHash],
        pubkey: NodePubkey,
        handover: Handover,
        other_node: Callable[[], None],
    ) -> None:
        """Looks up a page, no faster than the pace, and hands over what has settled."""
        settled: list[InvoiceSettled] = []
        looked_up = False
        for payment_hash in payment_hashes:
            looked_up = True
            invoice = await self._calls.lookup_invoice(payment_hash)
            if invoice is not None:
                settled.extend(invoice.settlements)
                if invoice.state is InvoiceState.CANCELED:
                    self._canceled.add(payment_hash)
            await trio.sleep(1.0 / self.pace.lookups_per_s)
        if not looked_up:
            return
        # The address may answer for another node by now; then nobody can say whose answers these are.
        if (await self._calls.get_info()).pubkey != pubkey or any(event.pubkey != pubkey for event in settled):
            other_node()
            await trio.sleep_forever()
        if settled:
            log.info("lookup.settled", node=self.node.name, settlements=len(settled))
            await handover.settlements(settled)
