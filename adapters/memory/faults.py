"""What can go wrong around a commit, on demand: each planned fault befalls one commit, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from daemon.domain.errors import CommitUnknown, Conflict, Unavailable


class CommitFault(Enum):
    """One commit's fate."""

    NONE = auto()
    """It goes well."""
    UNAVAILABLE = auto()
    """The database is away before anything is written: Unavailable."""
    CONFLICT = auto()
    """Something else moved first: Conflict, nothing written."""
    REPLY_LOST = auto()
    """Everything is written, but the caller is told CommitUnknown."""
    REQUEST_LOST = auto()
    """Nothing is written, and the caller is told CommitUnknown."""


class CommitFaults:
    """The faults that are planned, and a hook that sees every step of the store.

    `at_step` is called with "read", "commit" (before anything is written) and "committed" (after, before
    the caller knows); what it raises reaches the caller: that is how a test kills the daemon there.
    """

    def __init__(self) -> None:
        self.at_step: Callable[[str], None] = lambda _step: None
        self._planned: deque[CommitFault] = deque(maxlen=10_000)  # no test plans as many

    def plan(self, *faults: CommitFault) -> None:
        """The next commits meet these faults, one each."""
        self._planned.extend(faults)

    def heal(self) -> None:
        """Forgets what is planned; the hook stays."""
        self._planned.clear()

    def before_write(self) -> CommitFault:
        """Takes the next fault; raises it if it strikes before the write."""
        fault = self._planned.popleft() if self._planned else CommitFault.NONE
        if fault is CommitFault.UNAVAILABLE:
            raise Unavailable("memory store: away, as planned")
        if fault is CommitFault.CONFLICT:
            raise Conflict("memory store: conflict, as planned")
        if fault is CommitFault.REQUEST_LOST:
            raise CommitUnknown("memory store: request lost, as planned")
        return fault

    def after_write(self, fault: CommitFault) -> None:
        """Raises the fault if it strikes after the write."""
        if fault is CommitFault.REPLY_LOST:
            raise CommitUnknown("memory store: reply lost, as planned")
