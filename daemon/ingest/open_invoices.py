"""Looks up the invoices that wait for a payment: the stream alone is not enough (design.md section 4).

LND may settle without an event that reaches us, and another program may write its document after the money
came. Every open document is looked up at the start and in turn, a new one soon; what the node calls settled
is handed over like any other settlement, what it calls canceled is told and closed.
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
from daemon.domain.node_events import InvoiceEnded, InvoiceSettled
from daemon.domain.payment_requests import decode_payment_request
from daemon.domain.ports import InvoiceState, LightningNode, NodeInvoice, OpenInvoice, OpenInvoices
from daemon.ingest.handover import Handover, Inbox
from daemon.ingest.lightning import utc_now
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace
from daemon.matching.invoice_states import EXPIRED, why_over
from daemon.posting.board import Board
from daemon.posting.invoice_hints import InvoiceHints

PAGE: Final = 50
"""Documents read, looked up and handed over together: one second's worth of look-ups."""

NEW_FOR: Final = timedelta(seconds=15)
"""How long a document counts as new: its time is another program's clock, and may be off by some seconds."""

FORGOTTEN_AFTER_S: Final = 3600
"""After its expiry an invoice that its node does not know is over: clocks may differ, and what is held it knows."""

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
    hints: InvoiceHints = field(default_factory=InvoiceHints)
    """Told of hold invoices that are found open: whoever keeps them missed them."""
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
                waiting = [one for one in documents if one.payment_hash not in self._canceled]
                await self._look_up(waiting, pubkey, handover, other_node)
            await trio.sleep(self.pace.sweep_s)

    async def _watch_new(self, pubkey: NodePubkey, handover: Handover, other_node: Callable[[], None]) -> None:
        done = _Remembered()
        while True:
            documents = await self._read(self._page_since(pubkey, self.now() - NEW_FOR))
            new = [one for one in documents if one.payment_hash not in done]
            await self._look_up(new, pubkey, handover, other_node)
            for one in new:
                done.add(one.payment_hash)
            await trio.sleep(self.pace.new_documents_s)

    def _page_after(self, pubkey: NodePubkey, after: PaymentHash | None) -> Callable[[], Sequence[OpenInvoice]]:
        return lambda: self.documents.open_invoices(pubkey=pubkey, after=after, limit=PAGE)

    def _page_since(self, pubkey: NodePubkey, since: datetime) -> Callable[[], Sequence[OpenInvoice]]:
        return lambda: self.documents.open_invoices_since(pubkey=pubkey, since=since, limit=PAGE)

    async def _read(self, query: Callable[[], Sequence[OpenInvoice]]) -> Sequence[OpenInvoice]:
        return await trio.to_thread.run_sync(query, limiter=self._documents_thread, abandon_on_cancel=True)

    async def _look_up(
        self,
        documents: Iterable[OpenInvoice],
        pubkey: NodePubkey,
        handover: Handover,
        other_node: Callable[[], None],
    ) -> None:
        """Looks up a page, no faster than the pace, and hands over what has settled."""
        settled: list[InvoiceSettled] = []
        over: list[InvoiceEnded] = []
        holds: list[PaymentHash] = []
        looked_up = False
        for document in documents:
            looked_up, payment_hash = True, document.payment_hash
            invoice = await self._calls.lookup_invoice(payment_hash)
            if invoice is None:
                over.extend(self._forgotten(document))
            else:
                settled.extend(invoice.settlements)
                if invoice.state is InvoiceState.CANCELED:
                    over.append(self._ended(invoice, pubkey))
                elif invoice.hold is not None:
                    holds.append(payment_hash)
            await trio.sleep(1.0 / self.pace.lookups_per_s)
        if not looked_up:
            return
        # The address may answer for another node by now; then nobody can say whose answers these are.
        if (await self._calls.get_info()).pubkey != pubkey or any(event.pubkey != pubkey for event in settled):
            other_node()
            await trio.sleep_forever()
        for payment_hash in holds:
            self.hints.look(pubkey, payment_hash)
        if over:
            await handover.tell_all(over)
            for one in over:  # not before: what an outage keeps from being told has to be asked for again
                self._canceled.add(one.payment_hash)
        if settled:
            log.info("lookup.settled", node=self.node.name, settlements=len(settled))
            await handover.settlements(settled)

    def _forgotten(self, document: OpenInvoice) -> list[InvoiceEnded]:
        """A node may delete what it has canceled (--gc-canceled-invoices-on-the-fly, as Blink's do): one that it does
        not know, and that nobody could have paid for some time, has expired. A younger one may be about to be made."""
        try:
            terms = decode_payment_request(document.payment_request or "")
        except ValueError:
            return []
        now_s = self.now().timestamp()
        if now_s < terms.expires_at_s + FORGOTTEN_AFTER_S:
            return []
        ended = InvoiceEnded(
            pubkey=document.pubkey,
            payment_hash=document.payment_hash,
            reason=EXPIRED,
            returned_msat=0,
            ended_at_ms=int(now_s * 1000),
        )
        return [ended]

    def _ended(self, invoice: NodeInvoice, pubkey: NodePubkey) -> InvoiceEnded:
        """The node's word that it can never be paid any more: only now its document may be closed."""
        now_s = self.now().timestamp()
        held_msat = 0 if invoice.hold is None else invoice.hold.received_msat
        expires_at_s = invoice.created_at_s + invoice.expiry_s
        return InvoiceEnded(
            pubkey=pubkey,
            payment_hash=invoice.payment_hash,
            reason=why_over(held_msat=held_msat, expires_at_s=expires_at_s, now_s=now_s),
            returned_msat=held_msat,
            ended_at_ms=int(now_s * 1000),
        )
