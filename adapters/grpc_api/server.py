"""The gRPC server: synchronous, on a thread pool of our own (design.md section 2)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # ships no types

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    deposit_pb2,
    deposit_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    suspense_pb2,
    suspense_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
)
from adapters.grpc_api.admin import AdminServicer
from adapters.grpc_api.deposits import DepositServicer
from adapters.grpc_api.events import EventServicer
from adapters.grpc_api.guard import ApiMetrics, Guard
from adapters.grpc_api.invoices import InvoiceServicer
from adapters.grpc_api.ledger import LedgerServicer
from adapters.grpc_api.suspense import SuspenseServicer
from adapters.grpc_api.tls import ServerCertificate, TlsFiles
from adapters.grpc_api.wallets import WalletServicer
from daemon.domain.errors import InvariantViolation
from daemon.serving.api import Api
from daemon.serving.audit_trail import AuditTrail
from daemon.serving.keys import KeyCheck

THREADS = 48
"""24 for streams, which hold one each, and 24 for calls: these wait for MongoDB and the nodes most of the
time, and two cores are busy with some ten of them."""

MAX_STREAMS = 24
"""Half of the threads: however many streams are open, calls have the other half."""

MAX_CALLS = 512
"""Under way or waiting for a thread; at 2,000 calls a second a caller waits a quarter of a second. More are
turned away with RESOURCE_EXHAUSTED."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second daemon at this address must fail, not share it
    ("grpc.max_receive_message_length", 256 * 1024),  # the largest request is a filter of 1,000 wallet ids
    ("grpc.keepalive_time_ms", 30_000),  # a dead client's streams give their places back
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may check an idle stream this often
)

_SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (wallet_pb2, "WalletService"),
        (invoice_pb2, "InvoiceService"),
        (deposit_pb2, "DepositService"),
        (ledger_pb2, "LedgerService"),
        (event_pb2, "EventService"),
        (suspense_pb2, "SuspenseService"),
        (admin_pb2, "AdminService"),
    )
)

log = structlog.get_logger()


class GrpcServer:
    """A running server; `port` is where it really listens."""

    def __init__(
        self, server: grpc.Server, threads: ThreadPoolExecutor, servicer: health.HealthServicer, port: int
    ) -> None:
        self._server = server
        self._threads = threads
        self._health = servicer
        self.port = port

    def stop(self, *, grace_s: float) -> None:
        """Stops listening, lets calls under way end for `grace_s`, cancels the rest; blocks as long.

        The gate must have been told to drain before: health says so already, and streams end by themselves.
        """
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait(grace_s + 1.0)
        self._threads.shutdown(wait=False, cancel_futures=True)


def start_grpc(
    api: Api,
    *,
    address: str,
    metrics: ApiMetrics,
    on_broken: Callable[[InvariantViolation], None],
    max_streams: int = MAX_STREAMS,
    tls: TlsFiles | None = None,
    keys: KeyCheck | None = None,
    audit: AuditTrail | None = None,
) -> GrpcServer:
    """Listens at "host:port" and serves; port 0 lets the system choose. Raises OSError if it cannot listen, and
    Misconfigured if the TLS files cannot be used.

    `on_broken` is called in a server thread when a call finds a broken invariant: it must end the process. Without
    `tls` the connection is plain, without `keys` every caller may do everything: the configuration lets either
    happen on loopback only. Without `audit` nothing is recorded.
    """
    credentials = None if tls is None else ServerCertificate(tls).credentials()
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
    guard = Guard(gate=api.gate, metrics=metrics, max_streams=max_streams, on_broken=on_broken, keys=keys, audit=audit)
    server = grpc.server(threads, interceptors=[guard], options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    servicer = health.HealthServicer()
    wallet_pb2_grpc.add_WalletServiceServicer_to_server(WalletServicer(api), server)
    invoice_pb2_grpc.add_InvoiceServiceServicer_to_server(InvoiceServicer(api), server)
    deposit_pb2_grpc.add_DepositServiceServicer_to_server(DepositServicer(api), server)
    ledger_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(api), server)
    event_pb2_grpc.add_EventServiceServicer_to_server(EventServicer(api), server)
    suspense_pb2_grpc.add_SuspenseServiceServicer_to_server(SuspenseServicer(api), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(api), server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as problem:
        threads.shutdown(wait=False)
        raise OSError(f"cannot listen at {address}: {problem}") from None
    api.gate.on_change(lambda is_open: _show_health(servicer, is_open))
    server.start()
    log.info("grpc.listening", address=address, port=port, tls=tls is not None, keys=keys is not None)
    return GrpcServer(server, threads, servicer, port)


def _show_health(servicer: health.HealthServicer, is_open: bool) -> None:
    """A standby is alive, but serves nothing: callers should try the other daemon."""
    serving = health_pb2.HealthCheckResponse.SERVING
    status = serving if is_open else health_pb2.HealthCheckResponse.NOT_SERVING
    for service in ("", *_SERVICES):
        servicer.set(service, status)
