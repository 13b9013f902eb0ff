"""A Lightning node's calls from Trio: each on a worker thread, a few at a time.

They change nothing at the node, so a call whose caller is cancelled is left to its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import InvoicePage, LightningNode, NodeFunds, NodeInfo, NodeInvoice

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

    async def _run(self, call: Callable[[], _Answer]) -> _Answer:
        return await trio.to_thread.run_sync(call, limiter=self.limiter, abandon_on_cancel=True)
