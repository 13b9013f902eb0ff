"""Whether the money of settled invoices has stayed: the HTLCs of every settlement are followed to their end.

SETTLED is LND's word, written before the peer has let go of the money; an LND that is killed can forget its HTLC and
fail it back afterwards (node-interfaces.md A.0). So each settlement waits here until all its HTLCs are final:

| its HTLCs are | proven by |
| --- | --- |
| gone from open channels, and were settled while this stream stood | that alone: the LND that settled them lives |
| gone, but from before this connection, or their channel closes | a look-up each |
| still in a channel | nothing yet: next time |

What is final moves a mark, `LndCursor.htlc_checked_through`; a stream begins at the mark, so that what was not proven
when a connection broke comes again with its HTLCs. The mark rises only over indexes that this connection has seen:
where one is missing, a complete listing tells whether it exists (lightning.py, `_close_gaps`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from daemon.domain.identifiers import NodePubkey
from daemon.domain.node_events import (
    HtlcLost,
    HtlcRef,
    HtlcsChecked,
    HtlcsUnprovable,
    HtlcUnproven,
    InvoiceSettled,
    NodeEvent,
)
from daemon.domain.ports import HtlcResolution, IncomingHtlcs
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace

MAX_WAITING: Final = 50_000
"""Settlements that wait for their proof, some 40 MB: ten seconds of 5,000 a second. What comes beyond is left out, and
read again by a new connection when those before it are proven."""

log = structlog.get_logger()


class Unproven:
    """Settlements above the mark in order of their indexes; pure.

    `through` is the contiguous end of what was seen: the mark cannot pass it, for what is missing may have HTLCs.
    """

    def __init__(self, mark: int) -> None:
        self.waiting: dict[int, InvoiceSettled] = {}
        self.through = mark
        self._above: set[int] = set()
        self._left_out: int | None = None

    def take(self, event: InvoiceSettled) -> None:
        """A settlement that was handed over, maybe not for the first time."""
        index = event.settle_index
        if index <= self.through or index in self._above or (self._left_out is not None and index >= self._left_out):
            return
        if event.htlcs:
            self.waiting[index] = event
        self._above.add(index)
        while self.through + 1 in self._above:
            self.through += 1
            self._above.discard(self.through)
        if len(self.waiting) > MAX_WAITING or len(self._above) > MAX_WAITING:
            self._leave_out_half()

    def close_through(self, index: int) -> None:
        """A complete pass has told every settlement up to `index`: what is missing does not exist."""
        if self._left_out is not None:
            index = min(index, self._left_out - 1)
        self.through = max(self.through, index)
        self._above = {one for one in self._above if one > self.through}
        while self.through + 1 in self._above:
            self.through += 1
            self._above.discard(self.through)

    def prove(self, index: int) -> None:
        """This settlement's HTLCs are final."""
        self.waiting.pop(index, None)

    @property
    def mark(self) -> int:
        """Everything up to it was seen, and is final."""
        return min(self.through, min(self.waiting, default=self.through + 1) - 1)

    @property
    def hole(self) -> int | None:
        """The first index that was not seen although a larger one was."""
        ends_at = self.through + 1
        return ends_at if self._above or (self._left_out is not None and ends_at < self._left_out) else None

    @property
    def is_left_behind(self) -> bool:
        """Whether everything below what was left out is proven: it must be read again."""
        return self._left_out is not None and self.mark == self._left_out - 1

    def _leave_out_half(self) -> None:
        """The higher half: what is kept must be what the mark can pass."""
        known = sorted(self.waiting.keys() | self._above)
        self._left_out = left_out = known[len(known) // 2]
        self.waiting = {index: event for index, event in self.waiting.items() if index < left_out}
        self._above = {index for index in self._above if index < left_out}
        self.through = min(self.through, left_out - 1)


@dataclass(kw_only=True, slots=True)
class HtlcProofs:
    """The proofs of one connection. Nothing is taken before `begin`."""

    calls: NodeCalls
    pubkey: NodePubkey
    pace: Pace
    now_ms: Callable[[], int]
    tell: Callable[[NodeEvent], Awaitable[None]]
    """Hands an event over, behind all settlements that were taken."""
    read_again: Callable[[], None]
    """Ends the connection, so that the next one begins at the mark."""
    outcomes_kept: bool = True
    """Whether the node can say how an HTLC ended."""
    _unproven: Unproven | None = None
    _told: int = 0
    _silent_since: dict[int, float] = field(default_factory=dict)
    """Since when the node says nothing of a settlement's HTLCs although none is in a channel."""
    _ask_again_at: dict[int, float] = field(default_factory=dict)

    def begin(self, mark: int) -> None:
        """From now on settlements above this index wait for their proof."""
        self._unproven, self._told = Unproven(mark), mark
        self._silent_since.clear()
        self._ask_again_at.clear()

    def take(self, events: Iterable[InvoiceSettled]) -> None:
        """These were handed over."""
        if (unproven := self._unproven) is not None:
            for event in events:
                unproven.take(event)

    def hole(self) -> int | None:
        """An index that has to be looked for by a listing, if it stays missing."""
        return None if self._unproven is None else self._unproven.hole

    def close_through(self, index: int) -> None:
        """A complete pass that began after `index` was known has been handed over."""
        if self._unproven is not None:
            self._unproven.close_through(index)

    async def run(self) -> None:
        """Proves what waits, now and then; never returns. Raises Unavailable."""
        pause_s = self.pace.first_proof_s
        while True:
            await trio.sleep(pause_s)
            pause_s = self.pace.proof_s
            if (unproven := self._unproven) is None:
                continue
            if unproven.waiting:
                await self._prove(unproven)
            if unproven.mark > self._told:
                self._told = unproven.mark
                await self.tell(HtlcsChecked(pubkey=self.pubkey, through_index=self._told))
            if unproven.is_left_behind:
                log.info("htlcs.read_again", node=self.calls.node.name, after_settle_index=self._told)
                self.read_again()

    async def _prove(self, unproven: Unproven) -> None:
        due = sorted(unproven.waiting.items())  # settled before the node is asked for what is pending
        node = await self.calls.incoming_htlcs()
        unprovable: list[InvoiceSettled] = []
        for index, event in due:
            if any((htlc.chan_id, htlc.htlc_index) in node.pending for htlc in event.htlcs):
                self._silent_since.pop(index, None)
            elif event.live and _in_open_channels(event, node):
                unproven.prove(index)
            elif not self.outcomes_kept:
                unproven.prove(index)
                unprovable.append(event)
            elif trio.current_time() >= self._ask_again_at.get(index, 0.0) and await self._ask(event):
                unproven.prove(index)
                self._silent_since.pop(index, None)
                self._ask_again_at.pop(index, None)
        if unprovable:
            await self._tell_unprovable(unprovable)

    async def _ask(self, event: InvoiceSettled) -> bool:
        """Whether all HTLCs of a settlement are final, or given up; losses are told."""
        silent: list[HtlcRef] = []
        for htlc in event.htlcs:
            resolution = await self.calls.htlc_resolution(htlc.chan_id, htlc.htlc_index)
            await trio.sleep(1.0 / self.pace.htlc_lookups_per_s)
            if resolution is None:
                silent.append(htlc)
            elif resolution is HtlcResolution.FAILED:
                await self._tell_lost(event, htlc)
        index, now = event.settle_index, trio.current_time()
        if not silent:
            return True
        if now - self._silent_since.setdefault(index, now) < self.pace.htlc_unproven_s:
            self._ask_again_at[index] = now + self.pace.htlc_retry_s
            return False
        for htlc in silent:
            log.warning("htlc.unproven", node=self.calls.node.name, chan_id=htlc.chan_id, htlc_index=htlc.htlc_index)
            unproven = HtlcUnproven(
                pubkey=self.pubkey, payment_hash=event.payment_hash, htlc=htlc, seen_at_ms=self.now_ms()
            )
            await self.tell(unproven)
        return True

    async def _tell_lost(self, event: InvoiceSettled, htlc: HtlcRef) -> None:
        """Told again where another HTLC of the same settlement is not final yet: posting books it once."""
        await self.tell(
            HtlcLost(
                pubkey=self.pubkey,
                payment_hash=event.payment_hash,
                settled_id=event.settled_id,
                settle_index=event.settle_index,
                htlc=htlc,
                seen_at_ms=self.now_ms(),
            )
        )

    async def _tell_unprovable(self, events: list[InvoiceSettled]) -> None:
        htlcs = [htlc for event in events for htlc in event.htlcs]
        log.warning("htlcs.unprovable", node=self.calls.node.name, htlcs=len(htlcs))
        await self.tell(
            HtlcsUnprovable(
                pubkey=self.pubkey,
                through_index=events[-1].settle_index,
                htlcs=len(htlcs),
                amount_msat=sum(htlc.amt_msat for htlc in htlcs),
                seen_at_ms=self.now_ms(),
            )
        )


def _in_open_channels(event: InvoiceSettled, node: IncomingHtlcs) -> bool:
    return all(htlc.chan_id in node.open_channels for htlc in event.htlcs)
