"""Which gRPC status an error becomes: the one place that decides it."""

from __future__ import annotations

import grpc

from daemon.domain.errors import (
    AlreadyExists,
    BadInput,
    Conflict,
    NodeRefused,
    NotFound,
    NotSupported,
    OutOfRange,
    TellerdError,
    Unavailable,
)
from daemon.serving.api import NotConfigured
from daemon.serving.deposits import DerivationsDiffer
from daemon.serving.gate import Closed
from daemon.serving.holds import WrongState
from daemon.serving.invoice_terms import NoPrice
from daemon.serving.keys import Forbidden, Unauthenticated
from daemon.serving.reconciliation import NotInTime
from daemon.serving.suspense import NotAssignable
from daemon.serving.wallets import AccountBarred

_CODES: tuple[tuple[type[TellerdError], grpc.StatusCode], ...] = (
    (OutOfRange, grpc.StatusCode.OUT_OF_RANGE),
    (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (NotSupported, grpc.StatusCode.UNIMPLEMENTED),
    (WrongState, grpc.StatusCode.FAILED_PRECONDITION),
    (NotConfigured, grpc.StatusCode.FAILED_PRECONDITION),
    (DerivationsDiffer, grpc.StatusCode.FAILED_PRECONDITION),
    (Conflict, grpc.StatusCode.ABORTED),
    (NodeRefused, grpc.StatusCode.FAILED_PRECONDITION),
    (NotAssignable, grpc.StatusCode.FAILED_PRECONDITION),
    (AccountBarred, grpc.StatusCode.FAILED_PRECONDITION),
    (NoPrice, grpc.StatusCode.UNAVAILABLE),
    (Closed, grpc.StatusCode.UNAVAILABLE),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (NotInTime, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
)
"""The first that fits counts."""


def code_of(error: TellerdError) -> grpc.StatusCode | None:
    """The status that tells a caller about this error; None for one that is no caller's business."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)
