"""`AuditLog` in memory."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.memory.state import Tables
from daemon.domain.audit_log import AuditEntry, is_entry_id
from daemon.domain.errors import BadInput


class MemoryAuditLog:
    """See `daemon.domain.ports.AuditLog`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def append(self, entries: Sequence[AuditEntry]) -> None:
        with self._tables.lock:
            for entry in entries:
                self._tables.audit.setdefault(entry.entry_id, entry)

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[AuditEntry], str | None]:
        if after is not None and not is_entry_id(after):
            raise BadInput(field="page_token", value=after, remedy="use next_page_token of the page before")
        with self._tables.lock:
            newest_first = sorted(self._tables.audit.values(), key=lambda entry: entry.entry_id, reverse=True)
        found = [entry for entry in newest_first if after is None or entry.entry_id < after]
        page = found[:limit]
        return page, page[-1].entry_id if len(found) > limit else None
