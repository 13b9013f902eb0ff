"""A Lightning node's calls from Trio: each on a worker thread, a few at a time.

They change nothing at the node, so a call whose caller is cancelled is left to its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from daemon.domain.identifiers import PaymentHash
from daemon.domain.movements import MovementMarks
from daemon.domain.ports import (
    HoldPage,
    HtlcResolution,
    IncomingHtlcs,
    InvoicePage,
    LightningNode,
    NodeFunds,
    NodeInfo,
    NodeInvoice,
)
from daemon.ingest.marks import forwarded_htlcs, read_marks

_MAX_CALLS: Final = 4
"""Of one node at once: a page, a few look-ups. More would only take the node's time from payments."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class NodeCalls:
    """The reading part of `LightningNode`, awaitable."""

    node: LightningNode
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_MAX_CALLS))

    async def get_info(self) -> NodeInfo:
        """See `LightningNode.get_info`."""
        return await self._run(self.node.get_info)

    async def funds(self) -> NodeFunds:
        """See `LightningNode.funds`."""
        return await self._run(self.node.funds)

    async def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """See `LightningNode.lookup_invoice`."""
        return await self._run(lambda: self.node.lookup_invoice(payment_hash))

    async def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        """See `LightningNode.list_invoices`."""
        return await self._run(lambda: self.node.list_invoices(after_add_index=after_add_index, limit=limit))

    async def movements(
        self, funds: NodeFunds, *, height: int, now_ns: int
    ) -> tuple[MovementMarks, frozenset[tuple[int, int]]]:
        """The marks that belong to these funds, and the incoming HTLCs of payments that went through."""

        def read() -> tuple[MovementMarks, frozenset[tuple[int, int]]]:
            marks = read_marks(self.node, funds, height=height, now_ns=now_ns)
            return marks, forwarded_htlcs(self.node, now_ns=now_ns) if funds.incoming_htlcs else frozenset()

        return await self._run(read)

    async def incoming_htlcs(self) -> IncomingHtlcs:
        """See `LightningNode.incoming_htlcs`."""
        return await self._run(self.node.incoming_htlcs)

    async def htlc_resolution(self, chan_id: int, htlc_index: int) -> HtlcResolution | None:
        """See `LightningNode.htlc_resolution`."""
        return await self._run(lambda: self.node.htlc_resolution(chan_id, htlc_index))

    async def pending_holds(self, *, after_add_index: int, limit: int) -> HoldPage:
        """See `LightningNode.pending_holds`."""
        return await self._run(lambda: self.node.pending_holds(after_add_index=after_add_index, limit=limit))

    async def _run(self, call: Callable[[], _Answer]) -> _Answer:
        return await trio.to_thread.run_sync(call, limiter=self.limiter, abandon_on_cancel=True)
