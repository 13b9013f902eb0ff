"""The full check of one Lightning node: every invoice that it calls settled against what is booked for it.

It finds money that came again to a settled invoice, which no node tells (node-interfaces.md A.0), and settlements that
are in no books at all. Both are handed to posting, which decides as if the node had told them; nothing is booked here.
The intake goes on meanwhile, so what does not fit at first sight is looked at once more before it is handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from daemon.domain.books import Facts, SuspenseState, Wanted
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import NodePubkey, lightning_key
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.node_events import HtlcLost, InvoiceSettled, NodeEvent
from daemon.domain.ports import Books, HtlcResolution, IncomingHtlcs, InvoicePage, LightningNode
from daemon.matching.amp import is_set_of_invoice

PAGE: Final = 1000
"""Invoices in a page: 180 ms of LND's time (node-interfaces.md A.0), and one query of a thousand keys."""

PAUSE_S: Final = 0.2
"""Between pages, so that payments come first: a million invoices take some seven minutes."""

PATIENCE_S: Final = 3.0
"""Before the second look: a settlement is in the books within milliseconds of its event, or waits for a listing."""

LOOKUPS_PER_S: Final = 100.0
"""Of single HTLCs: under a tenth of what LND can answer."""

_THREADS: Final = 1
"""One page at a time."""

_Answer = TypeVar("_Answer")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicesChecked:
    """How many invoices were compared; to how many money had come again, how many were in no books, and how many HTLCs
    of those were lost: all of them handed to posting. `unfinished` says why the rest could not be compared."""

    invoices: int
    repeats: int = 0
    unbooked: int = 0
    losses: int = 0
    unfinished: tuple[str, ...] = ()


class _Unfinished(Exception):
    """The node cannot be compared further now; the reason is for people."""


@dataclass(slots=True, kw_only=True)
class _Counts:
    invoices: int = 0
    repeats: int = 0
    unbooked: int = 0
    losses: int = 0


@dataclass(kw_only=True, slots=True)
class InvoiceCheck:
    """One node's. `pause_s`, `patience_s` and `lookups_per_s` as above; a test goes faster."""

    node: LightningNode
    books: Books
    inbox: trio.MemorySendChannel[Sequence[NodeEvent]]
    """Posting's; it stays open: it is its owner's."""
    now_ms: Callable[[], int]
    pause_s: float = PAUSE_S
    patience_s: float = PATIENCE_S
    lookups_per_s: float = LOOKUPS_PER_S
    _thread: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_THREADS))

    async def run(self) -> InvoicesChecked:
        """One pass. Raises Unavailable if the books are away; a node that is ends the pass as unfinished."""
        counts = _Counts()
        unfinished: tuple[str, ...] = ()
        try:
            await self._pass(counts)
        except _Unfinished as stop:
            log.warning("invoices.check_unfinished", node=self.node.name, invoices=counts.invoices, cause=str(stop))
            unfinished = (f"{self.node.name}: {stop}",)
        return InvoicesChecked(
            invoices=counts.invoices,
            repeats=counts.repeats,
            unbooked=counts.unbooked,
            losses=counts.losses,
            unfinished=unfinished,
        )

    async def _pass(self, counts: _Counts) -> None:
        info = await self._ask(self.node.get_info)
        opening_index = await self._opening_index(info.pubkey)
        offset = 0
        while True:
            page = await self._page(info.pubkey, offset)
            await self._compare(page, opening_index, info.stores_final_htlc_resolutions, counts)
            counts.invoices += len(page.invoices)
            if page.next_offset == 0:
                return
            offset = page.next_offset
            await trio.sleep(self.pause_s)

    async def _opening_index(self, pubkey: NodePubkey) -> int:
        facts = await self._read(Wanted(pubkeys={pubkey}))
        cursor = facts.cursors.get(pubkey)
        if cursor is None or cursor.opening_index is None:
            raise _Unfinished("it is not opened yet")
        return cursor.opening_index

    async def _page(self, pubkey: NodePubkey, offset: int) -> InvoicePage:
        """A page, once it is sure whose it is: the address may answer for another node by now."""
        page = await self._ask(lambda: self.node.list_invoices(after_add_index=offset, limit=PAGE))
        if (await self._ask(self.node.get_info)).pubkey != pubkey:
            raise _Unfinished("another node answers at its address")
        return page

    async def _compare(self, page: InvoicePage, opening_index: int, outcomes_kept: bool, counts: _Counts) -> None:
        # What settled before the opening is part of it, unless a document waits: those are looked up all the time.
        settled = {
            lightning_key(event.pubkey, event.settled_id): event
            for invoice in page.invoices
            for event in invoice.settlements
            if not 0 < event.settle_index <= opening_index
        }
        of_amp = {event.payment_hash for event in settled.values() if is_set_of_invoice(event)}
        suspects = _not_as_booked(settled, await self._read(Wanted(keys=set(settled), payment_hashes=of_amp)))
        if not suspects:
            return
        await trio.sleep(self.patience_s)
        hashes = {event.payment_hash for event in suspects.values()}
        facts = await self._read(Wanted(keys=set(suspects), payment_hashes=hashes))
        suspects = _not_as_booked(suspects, facts)
        node = await self._ask(self.node.incoming_htlcs) if suspects else None
        for key, event in suspects.items():
            if node is not None and not _is_pending(event, node):
                await self._hand_over(key, event, facts, outcomes_kept, counts)

    async def _hand_over(
        self, key: str, event: InvoiceSettled, facts: Facts, outcomes_kept: bool, counts: _Counts
    ) -> None:
        """With what has become of its HTLCs: of money that came again the settle stream tells nothing."""
        lost = await self._losses(event) if outcomes_kept else []
        await self.inbox.send([event, *lost])
        counts.losses += len(lost)
        if key not in facts.booked and not facts.is_booked_elsewhere(event.pubkey, event.payment_hash):
            counts.unbooked += 1
            log.warning("invoices.unbooked", node=self.node.name, payment_hash=event.payment_hash)
        elif key not in facts.booked or event.received_msat > facts.received.get(key, event.received_msat):
            counts.repeats += 1
            log.info("invoices.paid_again", node=self.node.name, payment_hash=event.payment_hash)

    async def _losses(self, event: InvoiceSettled) -> list[HtlcLost]:
        lost = []
        for htlc in event.htlcs:
            resolution = await self._ask(partial(self.node.htlc_resolution, htlc.chan_id, htlc.htlc_index))
            await trio.sleep(1.0 / self.lookups_per_s)
            if resolution is HtlcResolution.FAILED:
                lost.append(
                    HtlcLost(
                        pubkey=event.pubkey,
                        payment_hash=event.payment_hash,
                        settled_id=event.settled_id,
                        settle_index=event.settle_index,
                        htlc=htlc,
                        seen_at_ms=self.now_ms(),
                    )
                )
        return lost

    async def _read(self, wanted: Wanted) -> Facts:
        return await trio.to_thread.run_sync(
            self.books.read_facts, wanted, limiter=self._thread, abandon_on_cancel=True
        )

    async def _ask(self, call: Callable[[], _Answer]) -> _Answer:
        """Asks the node. An outage of it is no reason to raise: the other nodes can still be checked."""
        try:
            return await trio.to_thread.run_sync(call, limiter=self._thread, abandon_on_cancel=True)
        except Unavailable as outage:
            raise _Unfinished(str(outage)) from outage


def _not_as_booked(settled: Mapping[str, InvoiceSettled], facts: Facts) -> dict[str, InvoiceSettled]:
    """Those that are not booked, or not with all that has arrived, or of which a record does not say how much; and what
    waits in suspense though it is awaited by now."""
    return {key: event for key, event in settled.items() if not _is_as_booked(key, event, facts)}


def _is_as_booked(key: str, event: InvoiceSettled, facts: Facts) -> bool:
    if key in facts.booked:
        return event.received_msat <= facts.received.get(key, -1) and not _is_awaited(key, event, facts)
    if not facts.is_booked_elsewhere(event.pubkey, event.payment_hash):
        return False
    return event.received_msat // MSAT_PER_SAT <= facts.booked_elsewhere_sat.get(event.payment_hash, -1)


def _is_awaited(key: str, event: InvoiceSettled, facts: Facts) -> bool:
    """Whether this set of an AMP invoice waits in suspense, and its document has come since. Nobody looks the invoice
    up any more if a later set was faster than the look-up, and had the document marked paid."""
    waiting = facts.suspense.get(key)
    is_waiting = waiting is not None and waiting.state is SuspenseState.WAITING
    return is_waiting and is_set_of_invoice(event) and event.payment_hash in facts.expectations


def _is_pending(event: InvoiceSettled, node: IncomingHtlcs) -> bool:
    """Whether some of it is not final yet: the next pass looks at it again."""
    return any((htlc.chan_id, htlc.htlc_index) in node.pending for htlc in event.htlcs)
