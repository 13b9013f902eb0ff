"""LND's invoices as ours; pure.

Amounts are read from the `*_msat` fields only. An AMP invoice settles once per set: each set has its own
settle_index and amount in `amp_invoice_state`, while the top-level index is 0 or one set's, and the
top-level amount is the sum over all sets (node-interfaces.md A.0, A.1 AMP).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import InvoiceState, NodeInvoice

_STATES: Final = {
    pb.Invoice.OPEN: InvoiceState.OPEN,
    pb.Invoice.SETTLED: InvoiceState.SETTLED,
    pb.Invoice.CANCELED: InvoiceState.CANCELED,
    pb.Invoice.ACCEPTED: InvoiceState.ACCEPTED,
}


def node_invoice(invoice: pb.Invoice, *, pubkey: NodePubkey) -> NodeInvoice:
    """An invoice as LND answered it."""
    return NodeInvoice(
        payment_hash=PaymentHash(invoice.r_hash.hex()),
        payment_request=invoice.payment_request,
        state=_STATES[invoice.state],
        add_index=invoice.add_index,
        value_msat=invoice.value_msat or invoice.value * 1000,
        memo=invoice.memo,
        description_hash=invoice.description_hash,
        created_at_s=invoice.creation_date,
        expiry_s=invoice.expiry,
        is_amp=invoice.is_amp,
        settlements=settlements(invoice, pubkey=pubkey),
    )


def settlements(invoice: pb.Invoice, *, pubkey: NodePubkey, seen_at_ns: int = 0) -> tuple[InvoiceSettled, ...]:
    """What has settled of an invoice: nothing, the invoice, or each settled set of an AMP invoice."""
    if invoice.is_amp or invoice.amp_invoice_state:
        return tuple(_settled_sets(invoice, pubkey, seen_at_ns))
    if invoice.state != pb.Invoice.SETTLED:
        return ()
    payment_hash = PaymentHash(invoice.r_hash.hex())
    return (
        InvoiceSettled(
            pubkey=pubkey,
            payment_hash=payment_hash,
            settled_id=payment_hash,
            settle_index=invoice.settle_index,
            received_msat=invoice.amt_paid_msat,
            settled_at_ms=invoice.settle_date * 1000,
            memo=invoice.memo,
            seen_at_ns=seen_at_ns,
        ),
    )


def _settled_sets(invoice: pb.Invoice, pubkey: NodePubkey, seen_at_ns: int) -> Iterator[InvoiceSettled]:
    for set_id, state in sorted(invoice.amp_invoice_state.items()):
        if state.state == pb.SETTLED:
            yield InvoiceSettled(
                pubkey=pubkey,
                # A spontaneous AMP payment has no r_hash: nothing but the set id names it.
                payment_hash=PaymentHash(invoice.r_hash.hex() or set_id),
                settled_id=set_id,
                settle_index=state.settle_index,
                received_msat=state.amt_paid_msat,
                settled_at_ms=state.settle_time * 1000,
                memo=invoice.memo,
                seen_at_ns=seen_at_ns,
            )
