"""A complete pass over a node's invoices: every settlement that it has now is handed over.

LND cannot be asked by settle_index, so a pass goes through all invoices by add_index. What it proves:
settle indexes are given out inside the node's settle commit, one after another, so once index n was seen, all
settlements up to n are committed. A pass that begins then shows them all, whichever page they stand on, for
an invoice never changes its place in the list. Of indexes that were first seen during the pass nothing is
known: an invoice on a page that was read already may have settled with a smaller one. Therefore a pass closes
gaps up to the largest index known before it began, and no further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import InvoicePage
from daemon.ingest.handover import Handover
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace

PAGE: Final = 1000
"""Invoices in a page: 180 ms of LND's time (node-interfaces.md A.0)."""

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a pass has seen: how much, the largest settle_index, and two things that were asked for.

    `wanted_index` is the largest settle_index of `wanted_hash`, 0 if it did not stand there; `through_hash`
    the payment hash of the ordinary invoice with exactly the index `through_index`, None if there is none.
    """

    wanted_hash: PaymentHash | None = None
    through_index: int = 0
    wanted_index: int = 0
    through_hash: PaymentHash | None = None
    newest_index: int = 0
    last_add_index: int = 0
    invoices: int = 0

    def take(self, page: InvoicePage) -> None:
        """Takes note of a page."""
        self.invoices += len(page.invoices)
        for invoice in page.invoices:
            self.last_add_index = max(self.last_add_index, invoice.add_index)
            for event in invoice.settlements:
                self._take_settlement(event)

    def _take_settlement(self, event: InvoiceSettled) -> None:
        self.newest_index = max(self.newest_index, event.settle_index)
        if event.payment_hash == self.wanted_hash:
            self.wanted_index = max(self.wanted_index, event.settle_index)
        # A set of an AMP invoice cannot be looked up by its invoice's hash alone.
        if event.settle_index == self.through_index and event.settled_id == event.payment_hash:
            self.through_hash = event.payment_hash


class Listing:
    """Passes over one node's invoices.

    `on_other_node` is called when the node turns out to be another than `pubkey`; the page is not handed over.
    """

    def __init__(
        self,
        calls: NodeCalls,
        handover: Handover,
        *,
        pubkey: NodePubkey,
        pace: Pace,
        on_other_node: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._handover = handover
        self._pubkey = pubkey
        self._pace = pace
        self._on_other_node = on_other_node

    async def run(self, *, through_index: int = 0, wanted_hash: PaymentHash | None = None) -> Seen:
        """One complete pass; returns what stood in it."""
        seen = Seen(through_index=through_index, wanted_hash=wanted_hash)
        told_at = trio.current_time()
        offset = 0
        while True:
            page = await self._page(offset)
            await self._handover.settlements(_settlements(page))
            seen.take(page)
            if page.next_offset == 0:
                log.info("listing.complete", node=self._calls.node.name, invoices=seen.invoices)
                return seen
            offset = page.next_offset
            if trio.current_time() - told_at > self._pace.progress_s:
                told_at = trio.current_time()
                log.info("listing.running", node=self._calls.node.name, invoices=seen.invoices)
            await trio.sleep(self._pace.page_pause_s)

    async def newest(self, last_add_index: int) -> None:
        """The newest invoices only: the last `PAGE` up to `last_add_index`, and all after it.

        Hands over what has a larger index than all seen before.
        """
        offset = max(0, last_add_index - PAGE)
        while True:
            page = await self._page(offset)
            known_index = self._handover.newest_index
            await self._handover.settlements([e for e in _settlements(page) if e.settle_index > known_index])
            if page.next_offset == 0:
                return
            offset = page.next_offset

    async def _page(self, offset: int) -> InvoicePage:
        """A page, once it is sure whose it is: the address may answer for another node by now."""
        page = await self._calls.list_invoices(after_add_index=offset, limit=PAGE)
        info = await self._calls.get_info()
        if info.pubkey != self._pubkey or any(event.pubkey != self._pubkey for event in _settlements(page)):
            self._on_other_node()
            await trio.sleep_forever()
        return page


def _settlements(page: InvoicePage) -> list[InvoiceSettled]:
    return [event for invoice in page.invoices for event in invoice.settlements]
