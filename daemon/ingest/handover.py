"""The way of one node's events into the inbox of posting, and what has been seen on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from daemon.domain.identifiers import PaymentHash
from daemon.domain.node_events import InvoiceSettled, NodeEvent

MAX_LIST: Final = 500
"""Events handed over at once: two commits' worth, so that a long backlog waits here and not in posting."""

Inbox = trio.MemorySendChannel[Sequence[NodeEvent]]


class Handover:
    """Hands over in the order of the calls, in lists of bounded length; waits while posting has enough to do.

    `newest_index` is the largest settle_index that was handed over, or is about to be, since the connection
    was made; `newest_hash` the payment hash of the ordinary invoice that has it, if it is one. `on_settlements` is
    called with settlements when they have been handed over.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.on_settlements: Callable[[Sequence[InvoiceSettled]], None] = lambda _events: None
        self._in_order = trio.Lock()
        self.newest_index = 0
        self.newest_hash: PaymentHash | None = None
        self.settlements_seen = 0

    async def settlements(self, events: Sequence[InvoiceSettled]) -> None:
        """Hands over settlements."""
        self.settlements_seen += len(events)
        for event in events:
            if event.settle_index > self.newest_index:
                self.newest_index = event.settle_index
                # A set of an AMP invoice cannot be looked up by its invoice's hash alone.
                self.newest_hash = event.payment_hash if event.settled_id == event.payment_hash else None
        await self._send(events)
        self.on_settlements(events)

    async def tell(self, event: NodeEvent) -> None:
        """Hands over one event, behind all that was given before."""
        await self._send([event])

    async def tell_all(self, events: Sequence[NodeEvent]) -> None:
        """Hands over these, in order."""
        await self._send(events)

    async def _send(self, events: Sequence[NodeEvent]) -> None:
        async with self._in_order:
            for start in range(0, len(events), MAX_LIST):
                await self._inbox.send(events[start : start + MAX_LIST])
