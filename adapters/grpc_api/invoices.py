"""InvoiceService."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2, invoice_pb2_grpc
from adapters.grpc_api.values import currency_to_proto, timestamp
from daemon.domain.errors import BadInput
from daemon.serving import holds, invoices
from daemon.serving.api import Api
from daemon.serving.invoices import InvoiceRequest, InvoiceState, InvoiceView

_STATES = {
    InvoiceState.OPEN: invoice_pb2.INVOICE_STATE_OPEN,
    InvoiceState.SETTLED: invoice_pb2.INVOICE_STATE_SETTLED,
    InvoiceState.CLOSED: invoice_pb2.INVOICE_STATE_CLOSED,
    InvoiceState.HELD: invoice_pb2.INVOICE_STATE_HELD,
    InvoiceState.CANCELED: invoice_pb2.INVOICE_STATE_CANCELED,
    InvoiceState.EXPIRED: invoice_pb2.INVOICE_STATE_EXPIRED,
}


class InvoiceServicer(invoice_pb2_grpc.InvoiceServiceServicer):
    """See protos/tellerd/v1/invoice.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def CreateInvoice(
        self, request: invoice_pb2.CreateInvoiceRequest, context: grpc.ServicerContext
    ) -> invoice_pb2.CreateInvoiceResponse:
        """An invoice, once per external_id."""
        invoice = invoices.create_invoice(self._api, request_from_proto(request))
        return invoice_pb2.CreateInvoiceResponse(invoice=invoice_to_proto(invoice))

    def GetInvoice(
        self, request: invoice_pb2.GetInvoiceRequest, context: grpc.ServicerContext
    ) -> invoice_pb2.GetInvoiceResponse:
        """One invoice."""
        invoice = invoices.get_invoice(
            self._api,
            payment_hash=request.payment_hash,
            wallet_id=request.wallet_id,
            external_id=request.external_id,
        )
        return invoice_pb2.GetInvoiceResponse(invoice=invoice_to_proto(invoice))

    def ListInvoices(
        self, request: invoice_pb2.ListInvoicesRequest, context: grpc.ServicerContext
    ) -> invoice_pb2.ListInvoicesResponse:
        """A page of a wallet's invoices."""
        page, token = invoices.list_invoices(
            self._api,
            wallet_id=request.wallet_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return invoice_pb2.ListInvoicesResponse(
            invoices=[invoice_to_proto(invoice) for invoice in page], next_page_token=token
        )

    def SettleInvoice(
        self, request: invoice_pb2.SettleInvoiceRequest, context: grpc.ServicerContext
    ) -> invoice_pb2.SettleInvoiceResponse:
        """Takes what a hold invoice holds."""
        settled = holds.release(self._api, request.payment_hash, request.preimage)
        return invoice_pb2.SettleInvoiceResponse(invoice=self._now(settled))

    def CancelInvoice(
        self, request: invoice_pb2.CancelInvoiceRequest, context: grpc.ServicerContext
    ) -> invoice_pb2.CancelInvoiceResponse:
        """Makes an invoice unpayable."""
        canceled = holds.cancel(self._api, request.payment_hash, also_if_held=request.also_if_held)
        return invoice_pb2.CancelInvoiceResponse(invoice=self._now(canceled))

    def _now(self, payment_hash: str) -> invoice_pb2.Invoice:
        return invoice_to_proto(
            invoices.get_invoice(self._api, payment_hash=payment_hash, wallet_id="", external_id="")
        )

    def WatchInvoice(
        self, request: invoice_pb2.WatchInvoiceRequest, context: grpc.ServicerContext
    ) -> Iterator[invoice_pb2.WatchInvoiceResponse]:
        """The invoice now and after each change, until it is over."""
        for invoice in invoices.watch_invoice(self._api, request.payment_hash, context.is_active):
            yield invoice_pb2.WatchInvoiceResponse(invoice=invoice_to_proto(invoice))


def request_from_proto(request: invoice_pb2.CreateInvoiceRequest) -> InvoiceRequest:
    """What is asked for."""
    if request.WhichOneof("description") == "description_hash" and not request.description_hash:
        raise BadInput(field="description_hash", value="", remedy="give a SHA-256, 32 bytes")
    return InvoiceRequest(
        wallet_id=request.wallet_id,
        amount_sat=request.amount_sat if request.HasField("amount_sat") else None,
        amount_cents=request.amount_cents if request.HasField("amount_cents") else None,
        memo=request.memo,
        description_hash=request.description_hash,
        expiry_s=request.expiry_s,
        external_id=request.external_id,
        node=request.node,
        hold=request.hold,
        payment_hash=request.payment_hash,
    )


def invoice_to_proto(invoice: InvoiceView) -> invoice_pb2.Invoice:
    """The invoice's message."""
    stored = invoice.stored
    return invoice_pb2.Invoice(
        payment_hash=stored.payment_hash,
        wallet_id=stored.wallet_id,
        account_id=stored.account_id,
        external_id=stored.external_id,
        node=stored.pubkey,
        payment_request=stored.payment_request or "",
        state=_STATES[invoice.state],
        currency=currency_to_proto(stored.currency.value),
        amount_sat=invoice.amount_sat,
        received_sat=invoice.received_sat,
        memo=invoice.memo,
        created_at=timestamp(stored.created_at),
        expires_at=timestamp(invoice.expires_at),
        hold=stored.release is not None,
        held_msat=invoice.held_msat,
        expiry_height=invoice.expiry_height,
        cancel_reason=invoice.cancel_reason,
        settled_at=timestamp(invoice.settled_at),
        amount_cents=stored.cents,
        received_cents=invoice.received_cents,
    )
