"""What callers do with hold invoices, and what is to be seen of them."""

from __future__ import annotations

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo.collections import INVOICES
from regtest.tellerd import Client
from tests.e2e.bank import Bank

HELD = invoice_pb2.INVOICE_STATE_HELD
SETTLED = invoice_pb2.INVOICE_STATE_SETTLED
CANCELED = invoice_pb2.INVOICE_STATE_CANCELED
EXPIRED = invoice_pb2.INVOICE_STATE_EXPIRED

AUTO_CANCEL_BLOCKS = 18
"""So many blocks before an HTLC expires LND gives it back by itself (node-interfaces.md A.2)."""

MARGIN_BLOCKS = 40
WIDE_MARGIN = f"\n[holds]\nmargin_blocks = {MARGIN_BLOCKS}\n"
"""Decided 58 blocks before the HTLC expires: fewer blocks to mine."""

CALL_S = 60.0


def create(client: Client, wallet: str, amount_sat: int | None = 5_000, **fields: object) -> invoice_pb2.Invoice:
    """A hold invoice."""
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet, amount_sat=amount_sat, hold=True, **fields)  # type: ignore[arg-type]  # handed through
    return client.invoices.CreateInvoice(request, timeout=CALL_S).invoice


def settle(client: Client, payment_hash: str, preimage: bytes = b"") -> invoice_pb2.Invoice:
    """SettleInvoice."""
    request = invoice_pb2.SettleInvoiceRequest(payment_hash=payment_hash, preimage=preimage)
    return client.invoices.SettleInvoice(request, timeout=CALL_S).invoice


def cancel(client: Client, payment_hash: str, *, also_if_held: bool = False) -> invoice_pb2.Invoice:
    """CancelInvoice."""
    request = invoice_pb2.CancelInvoiceRequest(payment_hash=payment_hash, also_if_held=also_if_held)
    return client.invoices.CancelInvoice(request, timeout=CALL_S).invoice


def is_closed(bank: Bank, payment_hash: str) -> bool:
    """Whether the document is, without having been paid."""
    document = bank.db[INVOICES].find_one({"_id": payment_hash})
    assert document is not None
    return bool(document["processingCompleted"]) and not document["paid"]


def deadline_of(held: invoice_pb2.Invoice) -> int:
    """The height at which it is decided at the latest, under WIDE_MARGIN."""
    return held.expiry_height - AUTO_CANCEL_BLOCKS - MARGIN_BLOCKS
