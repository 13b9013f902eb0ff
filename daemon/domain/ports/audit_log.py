"""Who called what: the record of the API's calls that may change something, `teller_audit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemon.domain.audit_log import AuditEntry


class AuditLog(Protocol):
    """Entries are only ever added."""

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """Writes those that are not there yet: a repeat after an error writes nothing twice. Raises Unavailable."""
        ...

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[AuditEntry], str | None]:
        """Entries, newest first, and the token of the next page, None after the last; majority read concern.
        BadInput for a token not ours; raises Unavailable."""
        ...
