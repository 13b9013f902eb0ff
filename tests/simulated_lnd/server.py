"""The simulated node over gRPC with TLS; any macaroon will do, but one must come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd._pb import stateservice_pb2 as state_pb
from regtest.process import take_port
from tests.simulated_lnd.certificate import make_certificate
from tests.simulated_lnd.holds import SimulatedHolds, invoice_subserver
from tests.simulated_lnd.node import Ending, SimulatedNode

_THREADS = 32  # each stream holds one; tests open a few
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    # gRPC's C core turns calls away at random where more than 1,000 wait to be looked at; LND's Go server never does.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)
MACAROON = b"a macaroon, as far as the simulated node knows"


class SimulatedLnd:
    """A server around a node; `folder` holds its certificate and macaroon. The port stays over restarts."""

    def __init__(self, folder: Path, node: SimulatedNode | None = None, *, port: int = 0) -> None:
        self.node = node or SimulatedNode()
        self.holds = SimulatedHolds(self.node)
        self.folder = folder
        self.port = port or take_port()  # nobody else is given it while the server is down
        self.tls_cert_file = folder / "tls.cert"
        self.macaroon_file = folder / "tellerd.macaroon"
        self.macaroon_file.write_bytes(MACAROON)
        self.renew_certificate()
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def renew_certificate(self) -> None:
        """A new certificate, shown from the next start on."""
        self.tls_cert_file, self._key_file = make_certificate(self.folder)

    def start(self) -> Self:
        """Listens."""
        server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
        server.add_generic_rpc_handlers((_lightning(self.node), _state(self.node)))
        subserver = invoice_subserver(self.holds, lambda context: _check(self.node, context))
        server.add_generic_rpc_handlers((subserver,))
        pair = (self._key_file.read_bytes(), self.tls_cert_file.read_bytes())
        server.add_secure_port(self.address, grpc.ssl_server_credentials([pair]))
        server.start()
        self._server = server
        return self

    def stop(self, *, ending: str | None = "server is shutting down") -> None:
        """Goes away; streams end first as told (None: with OK, LND's clean shutdown)."""
        if self._server is not None:
            self.node.end_streams(ending)
            self.holds.end_streams()
            self._server.stop(grace=None).wait()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _lightning(node: SimulatedNode) -> grpc.GenericRpcHandler:
    unary: dict[str, tuple[type[Message], Callable[[Any, grpc.ServicerContext], Message]]] = {
        "GetInfo": (pb.GetInfoRequest, lambda _request, _context: node.info()),
        "AddInvoice": (pb.Invoice, lambda request, context: _add(node, request, context)),
        "LookupInvoice": (pb.PaymentHash, lambda request, context: _look_up(node, request, context)),
        "ListInvoices": (pb.ListInvoiceRequest, lambda request, _context: node.page(request)),
        "ChannelBalance": (pb.ChannelBalanceRequest, lambda _request, _context: node.channel_balance()),
        "LookupHtlcResolution": (
            pb.LookupHtlcResolutionRequest,
            lambda request, context: _look_up_htlc(node, request, context),
        ),
        "ListChannels": (pb.ListChannelsRequest, lambda _request, _context: node.channels()),
        **node.money.methods(),
    }

    def subscribe(request: pb.InvoiceSubscription, context: grpc.ServicerContext) -> Iterator[bytes]:
        _check(node, context)
        stream = node.subscribe(request.settle_index)
        context.add_callback(lambda: node.unsubscribe(stream))
        for message in stream.messages():
            if isinstance(message, Ending):
                if message.failure is not None:
                    context.abort(grpc.StatusCode.UNKNOWN, message.failure)
                return
            yield message

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: _unary(node, asked, answer) for name, (asked, answer) in unary.items()
    }
    handlers["SubscribeInvoices"] = grpc.unary_stream_rpc_method_handler(
        subscribe, request_deserializer=pb.InvoiceSubscription.FromString, response_serializer=None
    )
    return grpc.method_handlers_generic_handler("lnrpc.Lightning", handlers)


def _unary(
    node: SimulatedNode, asked: type[Message], answer: Callable[[Any, grpc.ServicerContext], Message]
) -> grpc.RpcMethodHandler[Any, Any]:
    def handle(request: Any, context: grpc.ServicerContext) -> Message:
        _check(node, context)
        return answer(request, context)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=asked.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _state(node: SimulatedNode) -> grpc.GenericRpcHandler:
    def get_state(_request: object, _context: object) -> state_pb.GetStateResponse:
        locked = node.fault is not None and "locked" in node.fault
        return state_pb.GetStateResponse(state=state_pb.LOCKED if locked else state_pb.SERVER_ACTIVE)

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        get_state,
        request_deserializer=state_pb.GetStateRequest.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler("lnrpc.State", {"GetState": handler})


def _check(node: SimulatedNode, context: grpc.ServicerContext) -> None:
    if not any(key == "macaroon" and value for key, value in context.invocation_metadata()):
        context.abort(grpc.StatusCode.UNKNOWN, "expected 1 macaroon, got 0")
    if node.fault is not None:
        context.abort(grpc.StatusCode.UNKNOWN, node.fault)


def _add(node: SimulatedNode, request: pb.Invoice, context: grpc.ServicerContext) -> pb.AddInvoiceResponse:
    if len(request.memo.encode()) > 639:
        context.abort(grpc.StatusCode.UNKNOWN, "memo too large: it must be at most 639 bytes")
    if len(request.r_preimage) != 32:
        context.abort(grpc.StatusCode.UNKNOWN, f"invalid preimage length of {len(request.r_preimage)}, want 32")
    added = node.add(request)
    if added is None:
        context.abort(grpc.StatusCode.UNKNOWN, "invoice with payment hash already exists")
    assert added is not None
    return pb.AddInvoiceResponse(r_hash=added.r_hash, payment_request=added.payment_request, add_index=added.add_index)


def _look_up(node: SimulatedNode, request: pb.PaymentHash, context: grpc.ServicerContext) -> pb.Invoice:
    found = node.find(request.r_hash)
    if found is None:
        context.abort(grpc.StatusCode.NOT_FOUND, "unable to locate invoice")
    assert found is not None
    return found


def _look_up_htlc(
    node: SimulatedNode, request: pb.LookupHtlcResolutionRequest, context: grpc.ServicerContext
) -> pb.LookupHtlcResolutionResponse:
    if not node.htlcs.keeps_outcomes:
        context.abort(grpc.StatusCode.UNAVAILABLE, "cannot lookup with flag --store-final-htlc-resolutions=false")
    found = node.htlcs.outcome(request)
    if found is None:
        context.abort(grpc.StatusCode.NOT_FOUND, "htlc unknown")
    assert found is not None
    return found
