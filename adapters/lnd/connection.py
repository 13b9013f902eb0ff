"""The gRPC connection to one LND: its certificate, its macaroon, and how a dead peer is noticed.

Certificate and macaroon are read again after a failed call, and the connection is built anew where they
have changed: LND makes a new certificate at a start, an operator may bake a new macaroon, and neither
should need a restart of tellerd.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

import grpc
import grpc.aio
import grpc.experimental

from adapters.lnd._pb import invoices_pb2_grpc, lightning_pb2_grpc
from adapters.lnd.errors import status_of, translated
from daemon.domain.errors import TellerdError, Unavailable

_MAX_MESSAGE_BYTES: Final = 200 * 1024 * 1024
"""LND's own bound for what it accepts; grpcio's 4 MiB is less than one page of a thousand large invoices."""

_COMMON_OPTIONS: Final = (
    # A hung LND (SIGSTOP) is noticed 10 s + 5 s after its last sign of life. Without ping_timeout_ms it is
    # 10 s + 60 s, whatever keepalive_timeout_ms says; pings more often than every 10 s, or without an active
    # call, make LND close the connection (node-interfaces.md A.0, Transport).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # The supervisor does the long waiting; gRPC itself must not sit out two minutes after LND is back.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A node is reached directly; a rebuilt connection must not inherit the old one's broken transport.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_OPTIONS: Final = (
    *_COMMON_OPTIONS,
    # The thread that reads the settle stream waits for gRPC itself. By default a second thread does and hands
    # each message over: two more switches of threads for every settlement, a fifth of what reading one costs.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

Metadata = tuple[tuple[str, str], ...]


class UnaryCall(Protocol[_Request, _Response]):
    """A method of a stub that takes one message and gives one."""

    def __call__(
        self, request: _Request, timeout: float | None = None, metadata: Metadata | None = None
    ) -> _Response: ...


@dataclass(frozen=True, slots=True)
class Wire:
    """One built connection; `metadata` carries the macaroon and must never be logged."""

    channel: grpc.Channel
    lightning: lightning_pb2_grpc.LightningStub
    invoices: invoices_pb2_grpc.InvoicesStub
    metadata: Metadata = field(repr=False)
    secrets: tuple[bytes, bytes] = field(repr=False)


class Connection:
    """Builds the wire when it is first needed, and again when certificate or macaroon have changed.

    Thread-safe. Raises Unavailable where a file cannot be read: it may be put right while tellerd runs.
    """

    def __init__(self, *, name: str, address: str, tls_cert_file: Path, macaroon_file: Path) -> None:
        self.name = name
        self._address = address
        self._tls_cert_file = tls_cert_file
        self._macaroon_file = macaroon_file
        self._lock = threading.Lock()
        self._wire: Wire | None = None

    def wire(self) -> Wire:
        """The connection as it is now; gRPC connects by itself with the first call."""
        with self._lock:
            if self._wire is None:
                self._wire = self._build(self._read_secrets())
            return self._wire

    def open_async(self) -> tuple[grpc.aio.Channel, Metadata]:
        """A connection of its own for the event loop that this is called in, which closes it; and the macaroon."""
        certificate, macaroon = self._read_secrets()
        credentials = grpc.ssl_channel_credentials(root_certificates=certificate)
        channel = grpc.aio.secure_channel(self._address, credentials, options=_COMMON_OPTIONS)
        return channel, (("macaroon", macaroon.hex()),)

    def call(
        self,
        what: str,
        method: Callable[[lightning_pb2_grpc.LightningStub], UnaryCall[_Request, _Response]],
        request: _Request,
        *,
        timeout_s: float,
    ) -> _Response:
        """One call that changes nothing at the node. Raises Unavailable."""
        wire = self.wire()
        try:
            return method(wire.lightning)(request, timeout=timeout_s, metadata=wire.metadata)
        except grpc.RpcError as error:
            raise self.failure(error, call=what) from error

    def call_or_none(
        self,
        what: str,
        method: Callable[[lightning_pb2_grpc.LightningStub], UnaryCall[_Request, _Response]],
        request: _Request,
        *,
        timeout_s: float,
        none_if: Callable[[grpc.StatusCode | None, str], bool],
        may_refuse: bool = False,
    ) -> _Response | None:
        """One call; None where the node fails it with what `none_if` knows.

        Raises Unavailable; NodeRefused only if `may_refuse`: the call asks the node to change something.
        """
        wire = self.wire()
        try:
            return method(wire.lightning)(request, timeout=timeout_s, metadata=wire.metadata)
        except grpc.RpcError as error:
            if none_if(*status_of(error)):
                return None
            raise self.failure(error, call=what, may_refuse=may_refuse) from error

    def failure(self, error: grpc.RpcError | grpc.Call, *, call: str, may_refuse: bool = False) -> TellerdError:
        """The error to raise for a failed call; before that, the files are looked at again."""
        self.renew()
        return translated(error, node=self.name, call=call, may_refuse=may_refuse)

    def renew(self) -> None:
        """Drops the connection if certificate or macaroon are others than those it was built with."""
        with self._lock:
            if self._wire is None or self._wire.secrets == self._read_secrets():
                return
            dropped, self._wire = self._wire, None
        dropped.channel.close()

    def close(self) -> None:
        """Ends every call that is under way."""
        with self._lock:
            dropped, self._wire = self._wire, None
        if dropped is not None:
            dropped.channel.close()

    def _read_secrets(self) -> tuple[bytes, bytes]:
        return self._read(self._tls_cert_file, "tls_cert_file"), self._read(self._macaroon_file, "macaroon_file")

    def _read(self, path: Path, setting: str) -> bytes:
        try:
            return path.read_bytes()
        except OSError as problem:
            reason = f"{setting} {path} cannot be read ({problem.strerror})"
            raise Unavailable(f"{self.name}: {reason}; copy it from the node") from problem

    def _build(self, secrets: tuple[bytes, bytes]) -> Wire:
        certificate, macaroon = secrets
        credentials = grpc.ssl_channel_credentials(root_certificates=certificate)
        channel = grpc.secure_channel(self._address, credentials, options=_OPTIONS)
        return Wire(
            channel,
            lightning_pb2_grpc.LightningStub(channel),
            invoices_pb2_grpc.InvoicesStub(channel),
            (("macaroon", macaroon.hex()),),
            secrets,
        )
