"""Looks for what a node holds and nobody watches. Open hold invoices that have a document here are watched anyhow.

| held for an invoice | what is done |
| --- | --- |
| whose document is over: another program has closed it while it was open on its node | watched, to be given back |
| without a document, or with another node's | counted, and told once |

The second tellerd leaves alone, for whoever made the invoice decides (`daemon.matching.holds`), and LND gives it back
near its end. An operator should see it all the same: it may be a document that was never written.

It is looked for among the HTLCs of the node's channels, which are one call; what no open document here names is looked
up. Listing what is open instead would cost the node a second for every 5,000 (node-interfaces.md A.0). What is held in
a channel that closes is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
import trio

from daemon.domain.books import Expectation, Wanted
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.ports import Books, HoldState, InvoiceState
from daemon.domain.status import HoldStatus
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace

PAGE: Final = 1000
"""Hashes whose documents are read together; a channel has 483 incoming HTLCs at the most (BOLT 2)."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class UnknownHolds:
    """Of one connection; `node` is the node's name. `run` writes `status.unknown` and nothing else.

    `watch` is told of what is held for a document that is over, again with each look.
    """

    node: str
    pubkey: NodePubkey
    calls: NodeCalls
    books: Books
    database: trio.CapacityLimiter
    status: HoldStatus
    watch: Callable[[PaymentHash], object]
    pace: Pace
    _told: frozenset[PaymentHash] = field(default_factory=frozenset)

    async def run(self) -> None:
        """Looks again and again, for ever. Raises Unavailable."""
        while True:
            unknown = await self._look()
            self.status.unknown = len(unknown)
            self._tell(unknown)
            await trio.sleep(self.pace.unknown_holds_s)

    async def _look(self) -> list[HoldState]:
        hashes = sorted((await self.calls.incoming_htlcs()).final_hashes)
        unknown: list[HoldState] = []
        for start in range(0, len(hashes), PAGE):
            page = hashes[start : start + PAGE]
            ours = await self._ours(page)
            for payment_hash in page:
                if payment_hash in ours and not ours[payment_hash].is_over:
                    continue
                invoice = await self.calls.lookup_invoice(payment_hash)
                # An ordinary invoice's HTLC is on its way, a part of a payment waits for the others: nothing is held.
                if invoice is not None and invoice.state is InvoiceState.ACCEPTED and invoice.hold is not None:
                    if payment_hash in ours:
                        self.watch(payment_hash)
                    else:
                        unknown.append(invoice.hold)
                await trio.sleep(1.0 / self.pace.lookups_per_s)
        return unknown

    async def _ours(self, hashes: Sequence[PaymentHash]) -> dict[PaymentHash, Expectation]:
        """The documents of this node among these, open or over."""
        read = partial(self.books.read_facts, Wanted(payment_hashes=set(hashes)))
        facts = await trio.to_thread.run_sync(read, limiter=self.database, abandon_on_cancel=True)
        return {one.payment_hash: one for one in facts.expectations.values() if one.pubkey in (None, self.pubkey)}

    def _tell(self, unknown: Sequence[HoldState]) -> None:
        """Each once, as long as it is held."""
        for hold in unknown:
            if hold.payment_hash not in self._told:
                log.warning(
                    "hold.unknown",
                    node=self.node,
                    payment_hash=hold.payment_hash,
                    received_msat=hold.received_msat,
                    expiry_height=hold.expiry_height,
                )
        self._told = frozenset(hold.payment_hash for hold in unknown)
