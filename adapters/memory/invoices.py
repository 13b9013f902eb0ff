"""`Invoices` and `OpenInvoices` in memory: the `invoiceusers` documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from adapters.memory.ledger import payload_of
from adapters.memory.state import InvoiceDocument, Tables
from daemon.domain.errors import AlreadyExists
from daemon.domain.holds import Release
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId
from daemon.domain.outbox import INVOICE_CANCELED, INVOICE_EXPIRED, INVOICE_HELD, INVOICE_SETTLED
from daemon.domain.ports import OpenInvoice, StoredInvoice


class MemoryInvoices:
    """See `daemon.domain.ports.Invoices`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def insert(self, invoice: StoredInvoice) -> None:
        tables = self._tables
        with tables.lock:
            if invoice.payment_hash in tables.invoices:
                raise AlreadyExists(f"an invoice with payment hash {invoice.payment_hash} exists")
            if self.get_by_external_id(invoice.account_id, invoice.external_id) is not None:
                raise AlreadyExists(f"the account has used external_id {invoice.external_id!r} before")
            tables.invoices[invoice.payment_hash] = InvoiceDocument(invoice=invoice, cents=invoice.cents)

    def set_payment_request(self, payment_hash: PaymentHash, payment_request: str) -> None:
        with self._tables.lock:
            document = self._tables.invoices.get(payment_hash)
            if document is not None:
                document.invoice = replace(document.invoice, payment_request=payment_request)

    def release(self, payment_hash: PaymentHash, preimage: str | None) -> None:
        with self._tables.lock:
            document = self._tables.invoices.get(payment_hash)
            if document is not None:
                known = document.invoice.preimage if preimage is None else preimage
                document.invoice = replace(document.invoice, release=Release.AUTOMATIC, preimage=known)

    def get(self, payment_hash: PaymentHash) -> StoredInvoice | None:
        with self._tables.lock:
            document = self._tables.invoices.get(payment_hash)
            return document.invoice if document else None

    def get_by_external_id(self, account_id: AccountId, external_id: str) -> StoredInvoice | None:
        with self._tables.lock:
            for document in self._tables.invoices.values():
                if (document.invoice.account_id, document.invoice.external_id) == (account_id, external_id):
                    return document.invoice
            return None

    def page(self, *, wallet_id: WalletId, after: str | None, limit: int) -> tuple[Sequence[StoredInvoice], str | None]:
        with self._tables.lock:
            of_wallet = [
                document.invoice
                for document in self._tables.invoices.values()
                if document.invoice.wallet_id == wallet_id
            ]
        of_wallet.sort(key=_page_token, reverse=True)
        rest = [invoice for invoice in of_wallet if after is None or _page_token(invoice) < after]
        page = rest[:limit]
        return page, _page_token(page[-1]) if len(rest) > limit else None

    def states_told(self, invoice: StoredInvoice) -> Mapping[str, Mapping[str, Any]]:
        with self._tables.lock:
            return {
                row.event.type: payload_of(row)
                for row in self._tables.outbox
                if row.event.type in (INVOICE_HELD, INVOICE_CANCELED, INVOICE_EXPIRED)
                and row.event.payload["payment_hash"] == invoice.payment_hash
                and invoice.pubkey in ("", row.event.payload["node"])
            }

    def settlement(self, payment_hash: PaymentHash) -> Mapping[str, Any] | None:
        with self._tables.lock:
            for row in self._tables.outbox:
                if row.event.type == INVOICE_SETTLED and row.event.payload["payment_hash"] == payment_hash:
                    return payload_of(row)
            return None


class MemoryOpenInvoices:
    """See `daemon.domain.ports.OpenInvoices`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def open_invoices(self, *, pubkey: NodePubkey, after: PaymentHash | None, limit: int) -> Sequence[OpenInvoice]:
        rest = [invoice for invoice in self._open(pubkey) if after is None or invoice.payment_hash > after]
        rest.sort(key=lambda invoice: invoice.payment_hash)
        return [_open_invoice(invoice) for invoice in rest[:limit]]

    def open_invoices_since(self, *, pubkey: NodePubkey, since: datetime, limit: int) -> Sequence[OpenInvoice]:
        young = [invoice for invoice in self._open(pubkey) if invoice.created_at >= since]
        young.sort(key=lambda invoice: invoice.created_at, reverse=True)
        return [_open_invoice(invoice) for invoice in young[:limit]]

    def _open(self, pubkey: NodePubkey) -> list[StoredInvoice]:
        with self._tables.lock:
            return [
                document.invoice
                for document in self._tables.invoices.values()
                if document.invoice.pubkey == pubkey and not document.invoice.paid and not document.invoice.completed
            ]


def _open_invoice(invoice: StoredInvoice) -> OpenInvoice:
    return OpenInvoice(
        payment_hash=invoice.payment_hash, pubkey=invoice.pubkey, payment_request=invoice.payment_request
    )


def _page_token(invoice: StoredInvoice) -> str:
    """Sorts as the time of creation does, then by hash."""
    return f"{int(invoice.created_at.timestamp() * 1000):015d}:{invoice.payment_hash}"
