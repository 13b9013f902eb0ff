"""What a failed call means: the node is away (Unavailable), or it said no (NodeRefused).

LND answers most failures with code UNKNOWN and a text (node-interfaces.md A.0 Errors, A.4), so the texts
are part of its interface. Only a call that asks LND to change something can be refused: a read that fails
for a reason not known here is an outage that is waited out and shown, for LND that is shutting down answers
reads with many texts ("database not open", …).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
import grpc.aio

from daemon.domain.errors import NodeRefused, TellerdError, Unavailable

_OUTAGE_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)

_REMEDIES: Final = (
    ("wallet locked", "is locked: unlock it (lncli unlock)"),
    ("wallet not created", "has no wallet yet: create it (lncli create)"),
    ("in the process of starting up", "is starting"),
    ("waiting to start", "waits to start (another instance is the leader, or its database is not there)"),
    (
        "expected 1 macaroon",
        "got no macaroon: check macaroon_file",
    ),
    ("permission denied", "refuses the macaroon: its permissions do not cover this call; bake one that does"),
    ("cannot get macaroon", "refuses the macaroon: its root key was deleted; bake a new one"),
    ("verification failed", "refuses the macaroon: it is another node's; copy this node's to macaroon_file"),
    ("empty macaroon", "got an empty macaroon: check macaroon_file"),
    ("cannot determine data format", "cannot read the macaroon: check macaroon_file"),
    ("CERTIFICATE_VERIFY_FAILED", "shows another certificate: copy its tls.cert to tls_cert_file"),
    ("security handshaker", "cannot be asked: tls_cert_file is no PEM certificate; copy the node's tls.cert to it"),
    ("Connection refused", "does not listen: start it, or check its address"),
    ("ping timeout", "hangs: it does not answer keepalive"),
    ("Handshake read failed", "does not answer: it hangs, or it is no LND at this address"),
    ("Socket closed", "closed the connection"),
)
"""What LND or gRPC says, and what a person can do about it; the first that fits is taken."""

_SHUTTING_DOWN: Final = ("shutting down", "database not open", "context canceled", "not started", "is exiting")
"""Texts of an LND that is going down in the middle of a call."""

_MAX_TEXT: Final = 300
"""Characters of a node's own text in an error: the rest of a gRPC debug text helps nobody."""


def translated(error: grpc.RpcError | grpc.Call, *, node: str, call: str, may_refuse: bool = False) -> TellerdError:
    """The error to raise for a failed call. `may_refuse`: the call asks LND to change something."""
    code, text = status_of(error)
    for pattern, remedy in _REMEDIES:
        if pattern in text:
            return Unavailable(f"{node} {remedy} ({call})")
    shown = f"{call}: {code.name if code else 'no status'} {text[:_MAX_TEXT]}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"{node} did not answer in time ({call})")
    if code in _OUTAGE_CODES or not may_refuse or _contains(text, _SHUTTING_DOWN):
        return Unavailable(f"{node} cannot be asked: {shown}")
    return NodeRefused(f"{node} refused {shown}")


def status_of(error: grpc.RpcError | grpc.Call) -> tuple[grpc.StatusCode | None, str]:
    """Code and text of a failed call; grpcio's errors are calls, too, though its types do not say so (grpc.aio's
    are not)."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code(), error.details() or ""
    if not isinstance(error, grpc.Call):
        return None, str(error)
    return error.code(), error.details() or ""


def _contains(text: str, patterns: Iterable[str]) -> bool:
    return any(pattern in text for pattern in patterns)
