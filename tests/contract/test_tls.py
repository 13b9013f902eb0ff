"""TLS over a real gRPC connection: certificates that change while calls are under way, and clients' own."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from structlog.testing import capture_logs

from adapters.grpc_api._pb.tellerd.v1 import event_pb2, event_pb2_grpc
from adapters.grpc_api.server import start_grpc
from adapters.grpc_api.tls import TlsFiles
from daemon.domain.errors import Misconfigured
from tests.certificates import Certificate, self_signed, signed_by, with_password
from tests.unit.serving.bank_in_memory import Bank, open_bank

CALL_S = 20.0
"""Never reached when all is well."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A server with TLS, and the files that it reads."""

    bank: Bank
    files: TlsFiles
    address: tuple[str, int]

    def shown(self) -> str:
        """The certificate that a new connection sees, PEM."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(self.address, timeout=CALL_S) as plain, context.wrap_socket(plain) as secured:
            certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None
        return ssl.DER_cert_to_PEM_cert(certificate)

    def channel(self, trusted: Certificate, client: Certificate | None = None) -> grpc.Channel:
        """A connection of its own, never one that is open already."""
        credentials = grpc.ssl_channel_credentials(
            trusted.certificate.read_bytes(),
            None if client is None else client.key.read_bytes(),
            None if client is None else client.certificate.read_bytes(),
        )
        return grpc.secure_channel(self._target(), credentials, options=[("grpc.use_local_subchannel_pool", 1)])

    def plain_channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self._target())

    def _target(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"


@contextmanager
def listening(certificate: Certificate, client_ca: Certificate | None = None) -> Iterator[Listener]:
    bank = open_bank()
    bank.open_books()
    files = TlsFiles(
        certificate=certificate.certificate,
        key=certificate.key,
        client_ca=None if client_ca is None else client_ca.certificate,
    )
    server = start_grpc(bank.api, address="127.0.0.1:0", metrics=bank.metrics, on_broken=bank.broken.append, tls=files)
    try:
        yield Listener(bank, files, ("127.0.0.1", server.port))
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)


def answers(channel: grpc.Channel) -> bool:
    """Whether a call comes through; False if the connection cannot be made."""
    with channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        except grpc.RpcError as error:
            if code_of(error) != grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


def code_of(error: Any) -> grpc.StatusCode:
    """grpcio's errors are calls, too, though its types do not say so."""
    code: grpc.StatusCode = error.code()
    return code


def copied(made: Certificate, folder: Path) -> Certificate:
    """The same in files of its own."""
    folder.mkdir()
    return Certificate(
        Path(shutil.copy(made.certificate, folder / "copy.cert")), Path(shutil.copy(made.key, folder / "copy.key"))
    )


def put_in_place(new: Certificate, used: Certificate) -> None:
    """As tools that fetch certificates do it: one file after the other."""
    shutil.copy(new.certificate, used.certificate)
    shutil.copy(new.key, used.key)


@pytest.fixture
def first(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "first")


@pytest.fixture
def second(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "second")


@pytest.fixture
def used(first: Certificate, tmp_path: Path) -> Certificate:
    """What the server reads: at its start the first one."""
    return copied(first, tmp_path / "used")


def test_a_new_certificate_is_shown_without_a_restart(
    first: Certificate, second: Certificate, used: Certificate
) -> None:
    """New connections see it and only it; a stream that is under way goes on."""
    with listening(used) as listener, listener.channel(first) as connected:
        assert listener.shown() == first.certificate.read_text()
        feed = event_pb2_grpc.EventServiceStub(connected).Subscribe(event_pb2.SubscribeRequest(), timeout=CALL_S)
        assert next(feed).event.type == "books.opened"
        with capture_logs() as logged:
            put_in_place(second, used)
            assert listener.shown() == listener.shown() == second.certificate.read_text()
            assert answers(listener.channel(second))
            assert not answers(listener.channel(first))
        assert [line["event"] for line in logged] == ["tls.reloaded"]
        listener.bank.post(listener.bank.node.keysend(1_000_000))
        assert next(feed).event.type == "suspense.received"
        feed.cancel()


def test_files_that_cannot_be_used_leave_the_old_certificate(
    first: Certificate, second: Certificate, used: Certificate
) -> None:
    """Half-way replaced, cut off, gone: clients see the old one, the log says it once each, then the new one counts."""
    with listening(used) as listener, capture_logs() as logged:
        old = first.certificate.read_text()
        spoils: tuple[Callable[[], object], ...] = (
            lambda: shutil.copy(second.certificate, used.certificate),
            lambda: used.key.write_text(second.key.read_text()[:50]),
            used.key.unlink,
            lambda: used.certificate.write_text(""),
        )
        for number, spoil in enumerate(spoils, start=1):
            spoil()
            assert [listener.shown(), listener.shown()] == [old, old]
            assert [line["event"] for line in logged] == ["tls.not_reloaded"] * number
        assert answers(listener.channel(first))
        put_in_place(second, used)
        assert listener.shown() == second.certificate.read_text()
        assert [line["event"] for line in logged][4:] == ["tls.reloaded"]
    secret = "".join(second.key.read_text().splitlines()[1:-1])
    assert secret[:20] not in repr(logged)


def test_without_tls_nothing_is_answered(first: Certificate) -> None:
    """A client that speaks plainly is not let in, nor one that trusts another authority."""
    with listening(first) as listener:
        assert not answers(listener.plain_channel())
        assert answers(listener.channel(first))


def test_a_client_needs_a_certificate_that_the_authority_signed(tmp_path: Path, first: Certificate) -> None:
    """Without one, or with one of another authority, there is no connection; the authority can be replaced, too."""
    authority, another = self_signed(tmp_path, "authority"), self_signed(tmp_path, "another")
    ours, theirs = signed_by(authority, tmp_path, "ours"), signed_by(another, tmp_path, "theirs")
    trusted = copied(authority, tmp_path / "trusted")
    with listening(first, client_ca=trusted) as listener:
        assert not answers(listener.channel(first))
        assert not answers(listener.channel(first, theirs))
        assert answers(listener.channel(first, ours))
        put_in_place(another, trusted)
        assert not answers(listener.channel(first, ours))
        assert answers(listener.channel(first, theirs))


def test_a_start_with_unusable_files_names_them(tmp_path: Path, first: Certificate, second: Certificate) -> None:
    """Before anything listens; a key with a password does not make the daemon ask for it, and no content is shown."""
    empty = tmp_path / "empty"
    empty.write_text("")
    protected = copied(first, tmp_path / "protected")
    with_password(protected.key, "hunter2")
    cases = (
        (Certificate(first.certificate, second.key), None, "KEY_VALUES_MISMATCH"),
        (Certificate(empty, first.key), None, "in PEM"),
        (Certificate(first.certificate, empty), None, "in PEM"),
        (protected, None, "without a password"),
        (Certificate(tmp_path / "gone", first.key), None, "No such file"),
        (first, Certificate(empty, empty), "no certificates in PEM"),
        (first, Certificate(first.key, first.key), "no certificates in PEM"),
    )
    for served, client_ca, said in cases:
        with pytest.raises(Misconfigured, match=r"^api\.tls_cert_file.*") as refused, listening(served, client_ca):
            pass
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
        assert "PRIVATE" not in str(refused.value)
