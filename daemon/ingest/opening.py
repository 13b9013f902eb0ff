"""What a node held before tellerd's first start, read in a quiet moment.

The opening balance is the node's funds less what is booked, so everything settled before the funds were read
must have been handed over before, and nothing that settled after. A moment is quiet if the funds' token is
the same at two looks, no HTLC is in flight, and no settlement arrived from before the first look until a
while after the second: then no commitment moved in between, and what settled before has had its event.

Between the looks the newest invoices are listed once more: the stream that stands since before the first
listing is not proven to have stood at once (adapters/lnd/stream.py). What it may have missed stands among
them, if it is a newly made invoice; an old one that settled in just those milliseconds has a smaller index
than the next settlement, and then belongs to the opening by its index, whenever it is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import trio

from daemon.domain.identifiers import PaymentHash
from daemon.ingest.handover import Handover
from daemon.ingest.listing import Listing
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The funds, and the largest settle_index they include."""

    funds_msat: int
    through_index: int
    checkpoint_hash: PaymentHash | None


async def wait_quiet(
    calls: NodeCalls, listing: Listing, handover: Handover, *, last_add_index: int, pace: Pace
) -> Opening:
    """Tries until a moment is quiet; credits flow meanwhile. Says so while it takes long."""
    told_at = trio.current_time()
    while True:
        busy = await _look(calls, listing, handover, last_add_index=last_add_index, pace=pace)
        if isinstance(busy, Opening):
            return busy
        if trio.current_time() - told_at >= pace.progress_s:
            told_at = trio.current_time()
            log.info("opening.waiting", node=calls.node.name, why=busy)
        await trio.sleep(pace.quiet_retry_s)


async def _look(
    calls: NodeCalls, listing: Listing, handover: Handover, *, last_add_index: int, pace: Pace
) -> Opening | str:
    """The opening, or why this moment is not quiet."""
    settlements_seen = handover.settlements_seen
    first = await calls.funds()
    await trio.sleep(pace.quiet_s)
    await listing.newest(last_add_index)
    second = await calls.funds()
    await trio.sleep(pace.quiet_s)
    if second.htlcs_in_flight:
        return f"{second.htlcs_in_flight} HTLCs in flight"
    if second.quiet_token != first.quiet_token:
        return "payments move the channels"
    if handover.settlements_seen != settlements_seen:
        return "settlements arrive"
    return Opening(
        funds_msat=second.funds_msat, through_index=handover.newest_index, checkpoint_hash=handover.newest_hash
    )
