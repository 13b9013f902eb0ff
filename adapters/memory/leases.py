"""`Leases` in memory; the database server's time is the store's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from adapters.memory.state import LeaseDocument, Tables
from daemon.domain.ports import LeaseView


class MemoryLeases:
    """See `daemon.domain.ports.Leases`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def acquire(self, *, holder: str, ttl_s: float) -> int | None:
        tables = self._tables
        with tables.lock:
            now_s = tables.now_s()
            lease = tables.lease
            if lease is not None and lease.holder != holder and lease.expires_at_s > now_s:
                return None
            fence = tables.head.fence + 1
            tables.lease = LeaseDocument(holder=holder, fence=fence, expires_at_s=now_s + ttl_s)
            tables.head = replace(tables.head, fence=fence)
            return fence

    def renew(self, *, fence: int, ttl_s: float) -> bool:
        tables = self._tables
        with tables.lock:
            if tables.lease is None or tables.lease.fence != fence:
                return False
            tables.lease.expires_at_s = tables.now_s() + ttl_s
            return True

    def release(self, *, fence: int) -> None:
        tables = self._tables
        with tables.lock:
            if tables.lease is not None and tables.lease.fence == fence:
                tables.lease = None

    def current(self) -> LeaseView | None:
        with self._tables.lock:
            lease = self._tables.lease
            if lease is None:
                return None
            expires_at = datetime.fromtimestamp(lease.expires_at_s, tz=UTC)
            return LeaseView(holder=lease.holder, fence=lease.fence, expires_at=expires_at)
