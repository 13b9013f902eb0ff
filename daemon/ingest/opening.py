"""What a node held before tellerd's first start, read in a quiet moment.

The opening balance is the node's funds less what is booked, so everything settled before the funds were read
must have been handed over before, and nothing that settled after. A moment is quiet if the funds' token is
the same at two looks, no incoming HTLC pays a settled invoice, and no settlement arrived from before the
first look until a while after the second: then no commitment moved in between, what settled before has had
its event, and its money is in the funds. HTLCs that wait for days on a routing node do not disturb. The marks from
where forwards, payments and txs count are read between the looks, too.

Between the looks the newest invoices are listed once more: the stream that stands since before the first
listing is not proven to have stood at once (adapters/lnd/stream.py). What it may have missed stands among
them, if it is a newly made invoice; an old one that settled in just those milliseconds has a smaller index
than the next settlement, and then belongs to the opening by its index, whenever it is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
import trio

from daemon.domain.identifiers import PaymentHash
from daemon.domain.movements import MovementMarks
from daemon.domain.ports import InvoiceState
from daemon.ingest.handover import Handover
from daemon.ingest.listing import Listing
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.pace import Pace

MAX_INCOMING: Final = 2_000
"""Each is looked up, at over 1,000 a second; a node with more in flight has moments with fewer."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The funds, from where on other movements count, and the largest settle_index they include."""

    funds_msat: int
    movements: MovementMarks
    through_index: int
    checkpoint_hash: PaymentHash | None


async def wait_quiet(
    calls: NodeCalls,
    listing: Listing,
    handover: Handover,
    *,
    last_add_index: int,
    pace: Pace,
    now: Callable[[], datetime],
) -> Opening:
    """Tries until a moment is quiet; credits flow meanwhile. Says so while it takes long."""
    told_at = trio.current_time()
    while True:
        now_ns = int(now().timestamp() * 1000) * 1_000_000
        busy = await _look(calls, listing, handover, last_add_index=last_add_index, pace=pace, now_ns=now_ns)
        if isinstance(busy, Opening):
            return busy
        if trio.current_time() - told_at >= pace.progress_s:
            told_at = trio.current_time()
            log.info("opening.waiting", node=calls.node.name, why=busy)
        await trio.sleep(pace.quiet_retry_s)


async def _look(
    calls: NodeCalls, listing: Listing, handover: Handover, *, last_add_index: int, pace: Pace, now_ns: int
) -> Opening | str:
    """The opening, or why this moment is not quiet."""
    settlements_seen = handover.settlements_seen
    height = (await calls.get_info()).block_height
    first = await calls.funds()
    await trio.sleep(pace.quiet_s)
    await listing.newest(last_add_index)
    movements, forwarded = await calls.movements(first, height=height, now_ns=now_ns)
    second = await calls.funds()
    await trio.sleep(pace.quiet_s)
    if len(second.incoming_hashes) > MAX_INCOMING:
        return f"{len(second.incoming_hashes)} incoming HTLCs"
    if second.quiet_token != first.quiet_token:
        return "payments move the channels"
    if forwarded.intersection(second.incoming_htlcs):
        return "a payment that went through is not resolved yet"
    if handover.settlements_seen != settlements_seen:
        return "settlements arrive"
    for payment_hash in second.incoming_hashes:
        invoice = await calls.lookup_invoice(payment_hash)
        if invoice is not None and invoice.state is InvoiceState.SETTLED:
            return f"the HTLC of settled invoice {payment_hash} is not resolved yet"
    return Opening(
        funds_msat=second.funds_msat,
        movements=movements,
        through_index=handover.newest_index,
        checkpoint_hash=handover.newest_hash,
    )
