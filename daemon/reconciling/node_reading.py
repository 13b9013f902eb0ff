"""One Lightning node, read in a steady moment: what it holds, and what has moved it since the marks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from daemon.domain.errors import NodeRefused, TellerdError, Unavailable
from daemon.domain.identifiers import NodePubkey, lightning_key
from daemon.domain.movements import MovementMarks, SentPayment
from daemon.domain.ports import InvoiceState, LightningNode, NodeFunds
from daemon.domain.reconciliation import Item, ItemKind
from daemon.ingest.marks import BACK_NS, MAX_FORWARDS
from daemon.matching.node_review import NodeReading

PAGE: Final = 1_000
"""Payments asked for at once: half a megabyte."""

MAX_PAYMENTS: Final = 10_000
"""New ones in one reading; where there are more, the next goes on with them."""

MAX_OPEN: Final = 500
"""Payments in flight that are asked for one by one, a millisecond each; a channel carries 483 HTLCs."""

MAX_INCOMING: Final = 2_000
"""Incoming HTLCs that are looked up, at over 1,000 a second; a node with more in flight has moments with fewer."""

_Answer = TypeVar("_Answer")


class LndAway(TellerdError):
    """A node does not answer, or refuses; the reason is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """HTLCs that are not resolved although what they pay for is: in the books, and not with the node yet."""

    items: tuple[Item, ...] = ()
    complete: bool = True


def asked(call: Callable[[], _Answer]) -> _Answer:
    """The answer of a call that asks nodes alone; raises LndAway where it fails."""
    try:
        return call()
    except (Unavailable, NodeRefused) as problem:
        raise LndAway(str(problem)) from problem


def read_node(node: LightningNode, pubkey: NodePubkey, marks: MovementMarks) -> NodeReading:
    """Blocks, a dozen calls; raises LndAway."""
    info = asked(node.get_info)
    if info.pubkey != pubkey:
        raise LndAway(f"{node.name}: another node answers at its address")
    first = asked(node.funds)
    forwards = asked(lambda: node.forwards(after_ns=marks.forwards_ns, limit=MAX_FORWARDS))
    payments = asked(lambda: _payments(node, marks))
    txs = asked(lambda: node.wallet_txs(from_height=marks.height + 1))
    closed = asked(node.closed_channels)
    second = asked(node.funds)
    return NodeReading(
        funds=second,
        height=info.block_height,
        steady=first.quiet_token == second.quiet_token,
        forwards=forwards,
        payments=payments,
        txs=txs,
        closed=closed,
        complete=len(forwards) < MAX_FORWARDS and len(payments) < MAX_PAYMENTS,
    )


def _payments(node: LightningNode, marks: MovementMarks) -> Sequence[SentPayment]:
    """Those that were in flight at the marks, as far as the node knows them still, and what came after."""
    found: list[SentPayment] = []
    for index, payment_hash in marks.payments_open[:MAX_OPEN]:
        # A payment that is tried again gets another index, and then is not found under its own.
        same = [one for one in node.payments(after_index=index - 1, limit=1) if one.payment_hash == payment_hash]
        found += [one for one in same if one.index == index]
    after_index = marks.payments_index
    while len(found) < MAX_PAYMENTS:
        page = node.payments(after_index=after_index, limit=PAGE)
        found += page
        if len(page) < PAGE:
            break
        after_index = page[-1].index
    return found


def read_in_flight(
    node: LightningNode,
    pubkey: NodePubkey,
    funds: NodeFunds,
    *,
    forwards_ns: int,
    booked: Callable[[Collection[str]], Collection[str]],
) -> InFlight:
    """Incoming HTLCs that pay booked invoices, or that belong to payments that went through. Blocks; raises LndAway,
    and what `booked` raises."""
    if not (funds.incoming_htlcs or funds.incoming_hashes):
        return InFlight()
    if len(funds.incoming_hashes) > MAX_INCOMING:
        return InFlight(complete=False)
    pending = frozenset(funds.incoming_htlcs)
    forwards = asked(lambda: node.forwards(after_ns=forwards_ns - BACK_NS, limit=MAX_FORWARDS))
    items = [
        Item(
            kind=ItemKind.IN_FLIGHT,
            reference=f"{one.incoming_htlc[0]}:{one.incoming_htlc[1]}",
            amount_msat=-one.received_msat,
        )
        for one in forwards
        if one.incoming_htlc is not None and one.incoming_htlc in pending and one.at_ns <= forwards_ns
    ]
    settled = {}
    for payment_hash in dict.fromkeys(funds.incoming_hashes):
        invoice = asked(lambda payment_hash=payment_hash: node.lookup_invoice(payment_hash))  # type: ignore[misc]  # a lambda with a default
        if invoice is not None and invoice.state is InvoiceState.SETTLED:
            settled.update({lightning_key(pubkey, event.settled_id): event for event in invoice.settlements})
    for key in sorted(booked(settled.keys())):
        event = settled[key]
        amount_msat = sum(htlc.amt_msat for htlc in event.htlcs if (htlc.chan_id, htlc.htlc_index) in pending)
        if amount_msat:
            items.append(Item(kind=ItemKind.IN_FLIGHT, reference=event.payment_hash, amount_msat=-amount_msat))
    return InFlight(items=tuple(items))
