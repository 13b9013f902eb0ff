"""The families of errors; outcomes are values (`daemon.domain.outcomes`), these are exceptions.

`Unavailable` is raised by adapters only and waited out with backoff by the supervisor. `Conflict`
means that what was decided on is no longer so: read again, decide again. `LeaseLost` ends this
process's turn as leader. `InvariantViolation` is never caught: better stopped than wrong.
"""

from __future__ import annotations


class TellerdError(Exception):
    """Base of every error that tellerd raises on purpose."""


class Unavailable(TellerdError):
    """A node or the database cannot be reached now; the same call may succeed later."""


class CommitUnknown(Unavailable):
    """A commit was sent and its outcome is not known; the head tells, once it can be read."""


class Conflict(TellerdError):
    """Another writer changed what this commit was decided on; nothing was written."""


class LeaseLost(TellerdError):
    """Another daemon holds the lease; nothing was written."""


class InvariantViolation(TellerdError):
    """The books, or what they rest on, are not as they must be; the process stops."""


class BadInput(TellerdError):
    """A caller's value cannot be accepted; names the field, the value and the remedy."""

    def __init__(self, *, field: str, value: object, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > 120:  # a hostile value must not fill logs and error messages
            shown = shown[:117] + "..."
        super().__init__(f"{field}: {shown} cannot be accepted; {remedy}")
        self.field = field


class BadSecret(BadInput):
    """A caller's secret is not the right one; names the field and the remedy, never the value."""

    def __init__(self, *, field: str, problem: str, remedy: str) -> None:
        TellerdError.__init__(self, f"{field}: it {problem}; {remedy}")
        self.field = field


class OutOfRange(BadInput):
    """A position that has not been reached: it may be right later, or in another database."""


class NotSupported(TellerdError):
    """What the caller asks for comes in a later release."""


class NotFound(TellerdError):
    """What the caller names does not exist."""


class AlreadyExists(TellerdError):
    """The external_id was used before with other arguments."""


class NodeRefused(TellerdError):
    """A node answered with a refusal that repeating will not change."""


class Misconfigured(TellerdError):
    """What the configuration says and what is found there cannot both be right; names the remedy."""


class BlockPruned(NodeRefused):
    """The node has thrown this block away: it must be downloaded again before the chain can be followed."""
