"""LND's invoices as ours; pure.

Amounts are read from the `*_msat` fields only. An AMP invoice settles once per set: each set has its own
settle_index and amount in `amp_invoice_state`, while the top-level index is 0 or one set's, and the
top-level amount is the sum over all sets (node-interfaces.md A.0, A.1 AMP).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.custom_records import wallet_named
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import HtlcRef, InvoiceSettled
from daemon.domain.ports import HoldState, InvoiceState, NodeInvoice

_STATES: Final = {
    pb.Invoice.OPEN: InvoiceState.OPEN,
    pb.Invoice.SETTLED: InvoiceState.SETTLED,
    pb.Invoice.CANCELED: InvoiceState.CANCELED,
    pb.Invoice.ACCEPTED: InvoiceState.ACCEPTED,
}


def node_invoice(invoice: pb.Invoice, *, pubkey: NodePubkey, wallet_record: int | None = None) -> NodeInvoice:
    """An invoice as LND answered it. `wallet_record` as in `settlements`."""
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
        settlements=settlements(invoice, pubkey=pubkey, wallet_record=wallet_record),
        hold=hold_state(invoice) if is_hold(invoice) else None,
    )


def is_hold(invoice: pb.Invoice) -> bool:
    """Whether the node waits for somebody who knows the preimage: only then, and for AMP, it does not tell it."""
    return not invoice.r_preimage and not invoice.is_amp and bool(invoice.r_hash)


def hold_state(invoice: pb.Invoice, *, seen_at_ns: int = 0) -> HoldState:
    """What an invoice's own stream says of it."""
    held = [htlc for htlc in invoice.htlcs if htlc.state == pb.ACCEPTED]
    was_held = invoice.state in (pb.Invoice.ACCEPTED, pb.Invoice.CANCELED)
    return HoldState(
        payment_hash=PaymentHash(invoice.r_hash.hex()),
        state=_STATES[invoice.state],
        is_hold=is_hold(invoice),
        # A partial payment is OPEN with an accepted HTLC: nobody may take it yet (node-interfaces.md A.0).
        received_msat=invoice.amt_paid_msat if was_held else 0,
        expiry_height=min((htlc.expiry_height for htlc in held), default=0),
        accepted_at_s=max((htlc.accept_time for htlc in held), default=0),
        created_at_s=invoice.creation_date,
        expiry_s=invoice.expiry,
        seen_at_ns=seen_at_ns,
    )


def settlements(
    invoice: pb.Invoice,
    *,
    pubkey: NodePubkey,
    seen_at_ns: int = 0,
    live: bool = False,
    wallet_record: int | None = None,
) -> tuple[InvoiceSettled, ...]:
    """What has settled of an invoice: nothing, the invoice, or each settled set of an AMP invoice.

    `wallet_record` is the type of the custom record that names the wallet of a spontaneous payment, None if none does.
    """
    if invoice.is_amp or invoice.amp_invoice_state:
        return tuple(_settled_sets(invoice, pubkey, seen_at_ns, live, wallet_record))
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
            # A tuple of a list is made twice as fast as of a generator, and every settlement passes here.
            htlcs=tuple([_ref(htlc) for htlc in invoice.htlcs if htlc.state == pb.SETTLED]),
            seen_at_ns=seen_at_ns,
            wallet_named=wallet_named(invoice.htlcs, wallet_record) if invoice.is_keysend else None,
            live=live,
        ),
    )


def _ref(htlc: pb.InvoiceHTLC) -> HtlcRef:
    return HtlcRef(htlc.chan_id, htlc.htlc_index, htlc.amt_msat, htlc.resolve_time)


def _settled_sets(
    invoice: pb.Invoice, pubkey: NodePubkey, seen_at_ns: int, live: bool, wallet_record: int | None
) -> Iterator[InvoiceSettled]:
    for set_id, state in sorted(invoice.amp_invoice_state.items()):
        if state.state == pb.SETTLED:
            htlcs = [htlc for htlc in invoice.htlcs if _is_of_set(htlc, set_id)]
            yield InvoiceSettled(
                pubkey=pubkey,
                # A spontaneous AMP payment has no r_hash: nothing but the set id names it.
                payment_hash=PaymentHash(invoice.r_hash.hex() or set_id),
                settled_id=set_id,
                settle_index=state.settle_index,
                received_msat=state.amt_paid_msat,
                settled_at_ms=state.settle_time * 1000,
                memo=invoice.memo,
                htlcs=tuple([_ref(htlc) for htlc in htlcs]),
                seen_at_ns=seen_at_ns,
                wallet_named=None if invoice.r_hash else wallet_named(htlcs, wallet_record),
                live=live,
            )


def _is_of_set(htlc: pb.InvoiceHTLC, set_id: str) -> bool:
    return htlc.state == pb.SETTLED and htlc.amp.set_id.hex() == set_id
