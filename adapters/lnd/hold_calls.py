"""Calls of LND's invoice subserver: hold invoices are added, settled, canceled, and listed at a start.

LND says no with code UNKNOWN and a text (node-interfaces.md A.0 Errors): the texts that mean a state of the
invoice are answers, everything else is an outage or a refusal as in any call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import grpc

from adapters.lnd._pb import invoices_pb2 as invoices_pb
from adapters.lnd._pb import invoices_pb2_grpc
from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection, UnaryCall
from adapters.lnd.errors import status_of
from adapters.lnd.invoices import hold_state, is_hold
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import HoldPage, NewHoldInvoice, NodeAnswer

_ADD_ANSWERS: Final = {"invoice with payment hash already exists": NodeAnswer.DONE}

_SETTLE_ANSWERS: Final = {
    "invoice still open": NodeAnswer.OPEN,
    "invoice already canceled": NodeAnswer.CANCELED,
    "unable to locate invoice": NodeAnswer.UNKNOWN,
    "there are no existing invoices": NodeAnswer.UNKNOWN,
}

_CANCEL_ANSWERS: Final = {
    "invoice already settled": NodeAnswer.SETTLED,
    "htlc already settled": NodeAnswer.SETTLED,  # an AMP invoice of which one set is settled
    "unable to locate invoice": NodeAnswer.UNKNOWN,
    "there are no existing invoices": NodeAnswer.UNKNOWN,
}
"""Canceling twice and settling twice are OK to LND."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def add_hold_invoice(connection: Connection, invoice: NewHoldInvoice, *, timeout_s: float) -> None:
    """Adds it, unless the hash is taken. Raises NodeRefused, Unavailable."""
    request = invoices_pb.AddHoldInvoiceRequest(
        hash=bytes.fromhex(invoice.payment_hash),
        value_msat=invoice.value_msat,
        memo=invoice.memo,
        description_hash=invoice.description_hash,
        expiry=invoice.expiry_s,
    )
    _change(connection, "AddHoldInvoice", lambda stub: stub.AddHoldInvoice, request, timeout_s, _ADD_ANSWERS)


def settle_invoice(connection: Connection, preimage: bytes, *, timeout_s: float) -> NodeAnswer:
    """See `LightningNode.settle_invoice`."""
    request = invoices_pb.SettleInvoiceMsg(preimage=preimage)
    return _change(connection, "SettleInvoice", lambda stub: stub.SettleInvoice, request, timeout_s, _SETTLE_ANSWERS)


def cancel_invoice(connection: Connection, payment_hash: PaymentHash, *, timeout_s: float) -> NodeAnswer:
    """See `LightningNode.cancel_invoice`."""
    request = invoices_pb.CancelInvoiceMsg(payment_hash=bytes.fromhex(payment_hash))
    return _change(connection, "CancelInvoice", lambda stub: stub.CancelInvoice, request, timeout_s, _CANCEL_ANSWERS)


def pending_holds(connection: Connection, *, after_add_index: int, limit: int, timeout_s: float) -> HoldPage:
    """See `LightningNode.pending_holds`."""
    request = pb.ListInvoiceRequest(pending_only=True, index_offset=after_add_index, num_max_invoices=limit)
    answer = connection.call("ListInvoices", lambda stub: stub.ListInvoices, request, timeout_s=timeout_s)
    return HoldPage(
        holds=tuple(hold_state(invoice) for invoice in answer.invoices if is_hold(invoice)),
        next_offset=answer.last_index_offset,
    )


def probe_watch(connection: Connection, *, timeout_s: float) -> None:
    """Whether the stream of a hold invoice may be asked for. LND answers at once, and always with an error, for the
    hash that it is asked about is none. Raises NodeRefused if it may, Unavailable if not, or if the node is away."""
    wire = connection.wire()
    request = invoices_pb.SubscribeSingleInvoiceRequest(r_hash=b"\x00")
    try:
        for _ in wire.invoices.SubscribeSingleInvoice(request, timeout=timeout_s, metadata=wire.metadata):
            pass
    except grpc.RpcError as error:
        raise connection.failure(error, call="SubscribeSingleInvoice", may_refuse=True) from error
    raise Unavailable(f"{connection.name} ended a hold invoice's stream: it is shutting down")


def _change(
    connection: Connection,
    what: str,
    method: Callable[[invoices_pb2_grpc.InvoicesStub], UnaryCall[_Request, _Response]],
    request: _Request,
    timeout_s: float,
    answers: Mapping[str, NodeAnswer],
) -> NodeAnswer:
    wire = connection.wire()
    try:
        method(wire.invoices)(request, timeout=timeout_s, metadata=wire.metadata)
    except grpc.RpcError as error:
        _, text = status_of(error)
        for pattern, answer in answers.items():
            if pattern in text:
                return answer
        raise connection.failure(error, call=what, may_refuse=True) from error
    return NodeAnswer.DONE
