"""Hold invoices of the simulated node: the invoice subserver with LND's answers, and the single streams.

Thousands of single streams stand without a thread each: grpc's non-blocking handlers, as its own health service
uses them, are given a function to send with, and whichever thread changes an invoice calls it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import Message

from adapters.lnd._pb import invoices_pb2 as invoices_pb
from adapters.lnd._pb import lightning_pb2 as pb
from tests.simulated_lnd.node import SimulatedNode

Send = Callable[[bytes | None], None]
"""Sends a message of a stream; None ends it with OK."""

_OPENERS = 4  # threads that begin streams; none is held


class SimulatedHolds:
    """The single streams of a node, and what the outside world does to its hold invoices."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._lock = threading.RLock()
        self._streams: dict[bytes, list[tuple[grpc.ServicerContext, Send]]] = {}
        # Streams whose client went away. gRPC tells so in the thread that every `send` waits for: no lock there.
        self._gone: deque[tuple[bytes, grpc.ServicerContext]] = deque()
        self.opened = 0
        """Streams begun since the start."""
        self.settle_calls: list[tuple[bytes, int]] = []
        """Preimage and monotonic time in ns of each SettleInvoice."""
        self._paid_at_ns: dict[bytes, int] = {}
        self._delays_ms: list[float] = []

    # --- what the server asks -----------------------------------------------------------------------

    def add(self, request: invoices_pb.AddHoldInvoiceRequest, context: grpc.ServicerContext) -> Message:
        """AddHoldInvoice."""
        _check_length(request.hash, context)
        asked = pb.Invoice(
            r_hash=request.hash,
            value_msat=request.value_msat or request.value * 1000,
            memo=request.memo,
            description_hash=request.description_hash,
            expiry=request.expiry,
        )
        added = self._node.add_hold(asked)
        if added is None:
            context.abort(grpc.StatusCode.UNKNOWN, "invoice with payment hash already exists")
        assert added is not None
        self._tell(added)
        return invoices_pb.AddHoldInvoiceResp(payment_request=added.payment_request, add_index=added.add_index)

    def settle(self, request: invoices_pb.SettleInvoiceMsg, context: grpc.ServicerContext) -> Message:
        """SettleInvoice."""
        now_ns = time.monotonic_ns()
        self.settle_calls.append((request.preimage, now_ns))
        r_hash = hashlib.sha256(request.preimage).digest()
        if r_hash in self._paid_at_ns:
            self._delays_ms.append((now_ns - self._paid_at_ns.pop(r_hash)) / 1e6)
        invoice = self._find(r_hash, context)
        if invoice.state == pb.Invoice.OPEN:
            context.abort(grpc.StatusCode.UNKNOWN, "invoice still open")
        if invoice.state == pb.Invoice.CANCELED:
            context.abort(grpc.StatusCode.UNKNOWN, "invoice already canceled")
        if invoice.state == pb.Invoice.ACCEPTED:
            self._node.settle_held(invoice.r_hash, request.preimage)
            self._tell(invoice)
        return invoices_pb.SettleInvoiceResp()

    def cancel(self, request: invoices_pb.CancelInvoiceMsg, context: grpc.ServicerContext) -> Message:
        """CancelInvoice."""
        invoice = self._find(request.payment_hash, context)
        if invoice.state == pb.Invoice.SETTLED:
            context.abort(grpc.StatusCode.UNKNOWN, "invoice already settled")
        self.cancel_by_node(invoice.r_hash)
        return invoices_pb.CancelInvoiceResp()

    def subscribe(
        self, request: invoices_pb.SubscribeSingleInvoiceRequest, context: grpc.ServicerContext, send: Send
    ) -> None:
        """SubscribeSingleInvoice: the present state, if there is one, then each change."""
        _check_length(request.r_hash, context)
        with self._lock:
            self.opened += 1
            self._streams.setdefault(request.r_hash, []).append((context, send))
            context.add_callback(lambda: self._gone.append((request.r_hash, context)))
            invoice = self._node.find(request.r_hash)
            if invoice is not None:
                self._tell(invoice, only=context)

    # --- the outside world --------------------------------------------------------------------------

    @property
    def streams(self) -> int:
        """Single streams that stand now."""
        with self._lock:
            self._forget_gone()
            return sum(len(streams) for streams in self._streams.values())

    @property
    def waiting(self) -> int:
        """HTLCs that were not settled or canceled by call yet."""
        return len(self._paid_at_ns)

    def take_delays_ms(self) -> list[float]:
        """From each HTLC to its SettleInvoice, in the order of the calls; forgets them."""
        taken, self._delays_ms = self._delays_ms, []
        return taken

    def pay(self, r_hash: bytes, received_msat: int | None = None, *, expiry_height: int = 0) -> None:
        """A payer's HTLC arrives and is held; it expires 80 blocks from now unless told otherwise."""
        with self._lock:
            self._paid_at_ns[r_hash] = time.monotonic_ns()
            self._tell(self._node.accept(r_hash, received_msat, expiry_height=expiry_height))

    def cancel_by_node(self, r_hash: bytes) -> None:
        """The node itself cancels: by call, at the invoice's expiry, or near the HTLC's."""
        with self._lock:
            self._paid_at_ns.pop(r_hash, None)
            self._node.cancel(r_hash)
            invoice = self._node.find(r_hash)
            assert invoice is not None
            self._tell(invoice)

    def end_streams(self) -> None:
        """Ends every single stream with OK, as LND's clean shutdown does."""
        with self._lock:
            self._forget_gone()
            for streams in self._streams.values():
                for _, send in streams:
                    send(None)
            self._streams.clear()

    # --- inside -------------------------------------------------------------------------------------

    def _find(self, r_hash: bytes, context: grpc.ServicerContext) -> pb.Invoice:
        found = self._node.find(r_hash)
        if found is None:
            context.abort(grpc.StatusCode.UNKNOWN, "unable to locate invoice")
        assert found is not None
        return found

    def _tell(self, invoice: pb.Invoice, *, only: grpc.ServicerContext | None = None) -> None:
        with self._lock:
            self._forget_gone()
            message = invoice.SerializeToString()
            is_final = invoice.state in (pb.Invoice.SETTLED, pb.Invoice.CANCELED)
            for context, send in list(self._streams.get(invoice.r_hash, ())):
                if only is None or context is only:
                    send(message)
                    if is_final:
                        send(None)
                        self._forget(invoice.r_hash, context)

    def _forget_gone(self) -> None:
        while self._gone:
            self._forget(*self._gone.popleft())

    def _forget(self, r_hash: bytes, context: grpc.ServicerContext) -> None:
        left = [one for one in self._streams.get(r_hash, ()) if one[0] is not context]
        if left:
            self._streams[r_hash] = left
        else:
            self._streams.pop(r_hash, None)


def _check_length(r_hash: bytes, context: grpc.ServicerContext) -> None:
    if len(r_hash) != 32:
        context.abort(grpc.StatusCode.UNKNOWN, f"invalid hash length of {len(r_hash)}, want 32")


def invoice_subserver(holds: SimulatedHolds, check: Callable[[grpc.ServicerContext], None]) -> grpc.GenericRpcHandler:
    """`invoicesrpc.Invoices`; `check` looks at macaroon and faults first."""
    unary: dict[str, tuple[type[Message], Callable[[Any, grpc.ServicerContext], Message]]] = {
        "AddHoldInvoice": (invoices_pb.AddHoldInvoiceRequest, holds.add),
        "SettleInvoice": (invoices_pb.SettleInvoiceMsg, holds.settle),
        "CancelInvoice": (invoices_pb.CancelInvoiceMsg, holds.cancel),
    }

    def checked(answer: Callable[[Any, grpc.ServicerContext], Message]) -> Callable[[Any, Any], Message]:
        def handle(request: Any, context: grpc.ServicerContext) -> Message:
            check(context)
            return answer(request, context)

        return handle

    def subscribe(request: Any, context: grpc.ServicerContext, send: Send) -> None:
        check(context)
        holds.subscribe(request, context, send)

    subscribe.experimental_non_blocking = True  # type: ignore[attr-defined]  # grpc's way to ask for it
    subscribe.experimental_thread_pool = ThreadPoolExecutor(_OPENERS)  # type: ignore[attr-defined]  # as above
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(
            checked(answer),
            request_deserializer=asked.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, (asked, answer) in unary.items()
    }
    handlers["SubscribeSingleInvoice"] = grpc.unary_stream_rpc_method_handler(
        subscribe,
        request_deserializer=invoices_pb.SubscribeSingleInvoiceRequest.FromString,
        response_serializer=None,
    )
    return grpc.method_handlers_generic_handler("invoicesrpc.Invoices", handlers)
