"""The server's certificate, read anew when its files change: no restart, and calls under way go on.

Files are looked at when a client connects, so nothing has to be told. What a connection was opened with stays
with it until it ends.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from daemon.domain.errors import Misconfigured

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the certificate with its chain, its key without a password, and, where clients must show
    certificates of their own, the authorities that these are signed by."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def paths(self) -> tuple[Path, ...]:
        """All there are."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class _Pem:
    certificate: bytes
    key: bytes
    client_ca: bytes | None

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class ServerCertificate:
    """What the server shows. Reading it for the first time raises Misconfigured if it cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._signature()
        try:
            self._first = _read(files)
        except (OSError, ValueError) as problem:
            raise Misconfigured(f"api.tls_cert_file, api.tls_key_file, api.client_ca_file: {problem}") from None

    def credentials(self) -> grpc.ServerCredentials:
        """For the server's port. With a client_ca a client without a certificate is refused."""
        return grpc.dynamic_ssl_server_credentials(
            self._first.for_grpc(),
            self._if_changed,  # type: ignore[arg-type]  # None is documented, the types do not know it
            require_client_authentication=self._files.client_ca is not None,
        )

    def _if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks at each new connection, in threads of its own; None: as before. Must not raise.

        Certificate and key are replaced one after the other. While they do not belong together the old ones stay;
        that is logged once for each state of the files, not for each client.
        """
        with self._lock:
            signature = self._signature()
            if signature == self._seen:
                return None
            self._seen = signature
            try:
                pem = _read(self._files)
            except (OSError, ValueError) as problem:
                log.error(
                    "tls.not_reloaded", problem=str(problem), remedy="mend the files; the old ones are still used"
                )
                return None
            log.info("tls.reloaded", certificate=str(self._files.certificate))
            return pem.for_grpc()

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        """What changes when a file does; taken before reading, so that no later change is missed."""
        return tuple(_signature_of(path) for path in self._files.paths())


def _signature_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(files: TlsFiles) -> _Pem:
    """The files' content, checked: gRPC itself would take anything, and fail each client's handshake.

    Raises OSError, and ValueError with a text that has none of their content.
    """
    pem = _content(files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password="")  # without, it would ask a terminal
    except ssl.SSLError as problem:
        reason = problem.reason or "not PEM"
        raise ValueError(
            f"{files.certificate} and {files.key} are no certificate and its key in PEM, without a password: {reason}"
        ) from None
    if pem.client_ca is not None:
        try:
            context.load_verify_locations(cadata=pem.client_ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise ValueError(f"{files.client_ca} holds no certificates in PEM") from None
    if _content(files) != pem:
        raise ValueError("the files changed while they were read")
    return pem


def _content(files: TlsFiles) -> _Pem:
    return _Pem(
        certificate=files.certificate.read_bytes(),
        key=files.key.read_bytes(),
        client_ca=None if files.client_ca is None else files.client_ca.read_bytes(),
    )
