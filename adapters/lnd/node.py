"""`LightningNode` for a real LND."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from adapters.lnd import hold_calls, htlc_calls, money_calls
from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection
from adapters.lnd.holds import hold_watch
from adapters.lnd.invoices import node_invoice
from adapters.lnd.stream import settle_stream
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.movements import ClosedChannel, Forward, SentPayment, WalletTx
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import (
    HoldPage,
    HoldWatch,
    HtlcResolution,
    IncomingHtlcs,
    InvoicePage,
    NewHoldInvoice,
    NewInvoice,
    NodeAnswer,
    NodeFunds,
    NodeInfo,
    NodeInvoice,
)

MAX_PAGE: Final = 1000
"""Invoices in one page: 180 ms of LND's time on bbolt (node-interfaces.md A.0), one or two megabytes."""


_ALREADY_EXISTS: Final = "invoice with payment hash already exists"
"""What AddInvoice says to a preimage that was used before; the code is UNKNOWN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that a call may take."""

    call_s: float = 10.0
    """A write of LND's takes milliseconds; just after a start AddInvoice blocks about a second."""
    info_s: float = 30.0
    """GetInfo takes 22 s when bitcoind is away, and then answers (node-interfaces.md A.0)."""
    page_s: float = 60.0
    """Large SQL databases list slowly (LND issue 9716)."""


class LndNode:
    """See `daemon.domain.ports.LightningNode`. Thread-safe; connects with the first call."""

    def __init__(
        self,
        *,
        name: str,
        address: str,
        tls_cert_file: Path,
        macaroon_file: Path,
        deadlines: Deadlines | None = None,
        wallet_record: int | None = None,
    ) -> None:
        """`wallet_record` is the type of the custom record by which a spontaneous payment names its wallet."""
        self._name = name
        self._wallet_record = wallet_record
        self._deadlines = deadlines or Deadlines()
        self._connection = Connection(
            name=name, address=address, tls_cert_file=tls_cert_file, macaroon_file=macaroon_file
        )
        self._pubkey: NodePubkey | None = None

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Ends every call that is under way; a later call connects again."""
        self._connection.close()

    def get_info(self) -> NodeInfo:
        info = self._connection.call(
            "GetInfo", lambda stub: stub.GetInfo, pb.GetInfoRequest(), timeout_s=self._deadlines.info_s
        )
        if not info.chains:
            raise Unavailable(f"{self._name} does not say which network it is on")
        self._pubkey = NodePubkey(info.identity_pubkey)
        return NodeInfo(
            pubkey=self._pubkey,
            network=info.chains[0].network,
            version=info.version,
            synced_to_chain=info.synced_to_chain,
            block_height=info.block_height,
            stores_final_htlc_resolutions=info.store_final_htlc_resolutions,
        )

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        request = pb.Invoice(
            r_preimage=invoice.preimage,
            value_msat=invoice.value_msat,
            memo=invoice.memo,
            description_hash=invoice.description_hash,
            expiry=invoice.expiry_s,
        )
        self._connection.call_or_none(
            "AddInvoice",
            lambda stub: stub.AddInvoice,
            request,
            timeout_s=self._deadlines.call_s,
            none_if=lambda _code, text: _ALREADY_EXISTS in text,
            may_refuse=True,
        )
        payment_hash = PaymentHash(hashlib.sha256(invoice.preimage).hexdigest())
        # LND's answer lacks the creation time; and one that existed already may differ from what was asked.
        added = self.lookup_invoice(payment_hash)
        if added is None:
            raise Unavailable(f"{self._name} does not find the invoice {payment_hash} that it has just added")
        return added

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        pubkey = self._known_pubkey()
        answer = self._connection.call_or_none(
            "LookupInvoice",
            lambda stub: stub.LookupInvoice,
            pb.PaymentHash(r_hash=bytes.fromhex(payment_hash)),
            timeout_s=self._deadlines.call_s,
            none_if=lambda code, _text: code is grpc.StatusCode.NOT_FOUND,
        )
        return None if answer is None else self._ours(answer, pubkey)

    def add_hold_invoice(self, invoice: NewHoldInvoice) -> NodeInvoice:
        hold_calls.add_hold_invoice(self._connection, invoice, timeout_s=self._deadlines.call_s)
        # As for add_invoice: what there is now may be another's than what was asked for.
        added = self.lookup_invoice(invoice.payment_hash)
        if added is None:
            raise Unavailable(f"{self._name} does not find the invoice {invoice.payment_hash} that it has just added")
        return added

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        return hold_calls.settle_invoice(self._connection, preimage, timeout_s=self._deadlines.call_s)

    def cancel_invoice(self, payment_hash: PaymentHash) -> NodeAnswer:
        return hold_calls.cancel_invoice(self._connection, payment_hash, timeout_s=self._deadlines.call_s)

    def pending_holds(self, *, after_add_index: int, limit: int) -> HoldPage:
        return hold_calls.pending_holds(
            self._connection,
            after_add_index=after_add_index,
            limit=min(limit, MAX_PAGE),
            timeout_s=self._deadlines.page_s,
        )

    def probe_hold_watch(self) -> None:
        """Whether `hold_watch` may be asked for: NodeRefused if so, else Unavailable. Not of the port: for `check`."""
        hold_calls.probe_watch(self._connection, timeout_s=self._deadlines.call_s)

    def hold_watch(self) -> AbstractAsyncContextManager[HoldWatch]:
        return hold_watch(self._connection)

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        pubkey = self._known_pubkey()
        answer = self._connection.call(
            "ListInvoices",
            lambda stub: stub.ListInvoices,
            pb.ListInvoiceRequest(index_offset=after_add_index, num_max_invoices=min(limit, MAX_PAGE)),
            timeout_s=self._deadlines.page_s,
        )
        return InvoicePage(
            invoices=tuple(self._ours(one, pubkey) for one in answer.invoices),
            # LND tells the end by an empty page, whose offset is 0 (node-interfaces.md A.1 ListInvoices).
            next_offset=answer.last_index_offset,
        )

    def funds(self) -> NodeFunds:
        return money_calls.funds(self._connection, timeout_s=self._deadlines.call_s)

    def forwards(self, *, after_ns: int, limit: int) -> Sequence[Forward]:
        return money_calls.forwards(self._connection, after_ns=after_ns, limit=limit, timeout_s=self._deadlines.page_s)

    def payments(self, *, after_index: int, limit: int) -> Sequence[SentPayment]:
        return money_calls.payments(
            self._connection, after_index=after_index, limit=min(limit, MAX_PAGE), timeout_s=self._deadlines.page_s
        )

    def newest_payments(self, *, limit: int) -> Sequence[SentPayment]:
        return money_calls.newest_payments(
            self._connection, limit=min(limit, MAX_PAGE), timeout_s=self._deadlines.page_s
        )

    def wallet_txs(self, *, from_height: int) -> Sequence[WalletTx]:
        return money_calls.wallet_txs(self._connection, from_height=from_height, timeout_s=self._deadlines.page_s)

    def closed_channels(self) -> Sequence[ClosedChannel]:
        return money_calls.closed_channels(self._connection, timeout_s=self._deadlines.page_s)

    def incoming_htlcs(self) -> IncomingHtlcs:
        return htlc_calls.incoming_htlcs(self._connection, timeout_s=self._deadlines.call_s)

    def htlc_resolution(self, chan_id: int, htlc_index: int) -> HtlcResolution | None:
        return htlc_calls.htlc_resolution(self._connection, chan_id, htlc_index, timeout_s=self._deadlines.call_s)

    def settlements(
        self, *, after_settle_index: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[InvoiceSettled]]]:
        return settle_stream(
            self._connection,
            after_settle_index=after_settle_index,
            info_timeout_s=self._deadlines.info_s,
            wallet_record=self._wallet_record,
        )

    def _ours(self, invoice: pb.Invoice, pubkey: NodePubkey) -> NodeInvoice:
        return node_invoice(invoice, pubkey=pubkey, wallet_record=self._wallet_record)

    def _known_pubkey(self) -> NodePubkey:
        """Whose invoices an answer holds: the node as it was before the call; the caller asks again after it."""
        return self._pubkey or self.get_info().pubkey
