"""`Suspense` in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adapters.memory.state import Tables
from daemon.domain.books import SuspenseEntry, SuspenseState
from daemon.domain.errors import BadInput


class MemorySuspense:
    """See `daemon.domain.ports.Suspense`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, key: str) -> SuspenseEntry | None:
        with self._tables.lock:
            entry = self._tables.suspense.get(key)
            return None if entry is None else replace(entry)

    def page(
        self, *, state: SuspenseState | None, after: str | None, limit: int
    ) -> tuple[Sequence[SuspenseEntry], str | None]:
        with self._tables.lock:
            entries = sorted(map(replace, self._tables.suspense.values()), key=_place_of, reverse=True)
        place = None if after is None else _place_from(after)
        found = [
            entry for entry in entries if state in (None, entry.state) and (place is None or _place_of(entry) < place)
        ]
        page = found[:limit]
        return page, f"{page[-1].received_at_ms}:{page[-1].key}" if len(found) > limit else None


def _place_of(entry: SuspenseEntry) -> tuple[int, str]:
    return entry.received_at_ms, entry.key


def _place_from(token: str) -> tuple[int, str]:
    at_ms, separator, key = token.partition(":")
    if not (separator and at_ms.isascii() and at_ms.isdecimal()):
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    return int(at_ms), key
