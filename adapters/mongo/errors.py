"""PyMongo's errors in tellerd's words: one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo import errors

from daemon.domain.errors import Conflict, Misconfigured, Unavailable

DUPLICATE_KEY = 11000
_OUTAGE_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        50,  # MaxTimeMSExpired
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        14031,  # OutOfDiskSpace: nothing was written, and a person can make room
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
    }
)

_ENDED_CODES = frozenset(
    {
        225,  # TransactionTooOld
        237,  # CursorKilled
        251,  # NoSuchTransaction
        11601,  # Interrupted
    }
)
"""What a transaction meets whose session was ended on the server: by a successor, or by the time limit."""

_REFUSED = {
    13: "the user of mongo.url may not do this; give it readWrite on the database, and clusterMonitor",
    18: "the user or the password of mongo.url is refused; mend it",
}
"""Unauthorized and AuthenticationFailed: waiting does not help."""


def is_outage(error: errors.PyMongoError) -> bool:
    """Whether the same call may succeed once the server is back."""
    if isinstance(error, errors.ConnectionFailure | errors.ExecutionTimeout | errors.WTimeoutError):
        return True
    return isinstance(error, errors.OperationFailure) and error.code in _OUTAGE_CODES


def is_lost_race(error: errors.PyMongoError) -> bool:
    """Whether a transaction was aborted because of another one, or ended by a successor: nothing was written."""
    if error.has_error_label("TransientTransactionError"):
        return True
    return isinstance(error, errors.OperationFailure) and error.code in _ENDED_CODES


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turns an outage into Unavailable, a lost race of a transaction into Conflict, a refused user into
    Misconfigured; the rest passes."""
    try:
        yield
    except errors.PyMongoError as error:
        if is_outage(error):
            raise Unavailable(f"MongoDB, {what}: {_first_line(error)}") from error
        if is_lost_race(error):
            raise Conflict(f"MongoDB, {what}: {_first_line(error)}") from error
        if isinstance(error, errors.OperationFailure) and error.code in _REFUSED:
            raise Misconfigured(f"MongoDB, {what}: {_REFUSED[error.code]}") from error
        raise


def _first_line(error: errors.PyMongoError) -> str:
    # The rest of PyMongo's text is a topology dump; hosts in it are no secret, but nobody reads it.
    text = str(error)
    for rest in (", Timeout:", ", full error", " (configured timeouts"):
        text = text.split(rest)[0]
    return text[:300]
