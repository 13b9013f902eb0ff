"""`ApiKeys` in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adapters.memory.state import Tables
from daemon.domain.api_keys import ApiKey
from daemon.domain.errors import AlreadyExists, BadInput


class MemoryApiKeys:
    """See `daemon.domain.ports.ApiKeys`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def insert(self, key: ApiKey) -> None:
        with self._tables.lock:
            if key.key_id in self._tables.api_keys:
                raise AlreadyExists(f"key_id: {key.key_id} is taken; make another key")
            self._tables.api_keys[key.key_id] = key

    def get(self, key_id: str) -> ApiKey | None:
        with self._tables.lock:
            return self._tables.api_keys.get(key_id)

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[ApiKey], str | None]:
        place = None if after is None else _place_from(after)
        with self._tables.lock:
            newest_first = sorted(self._tables.api_keys.values(), key=_place_of, reverse=True)
        found = [key for key in newest_first if place is None or _place_of(key) < place]
        page = found[:limit]
        return page, f"{page[-1].created_at_ms}:{page[-1].key_id}" if len(found) > limit else None

    def revoke(self, key_id: str, *, at_ms: int) -> ApiKey | None:
        with self._tables.lock:
            key = self._tables.api_keys.get(key_id)
            if key is not None and key.revoked_at_ms is None:
                key = self._tables.api_keys[key_id] = replace(key, revoked_at_ms=at_ms)
            return key

    def touch_last_used(self, key_id: str, *, at_ms: int) -> None:
        with self._tables.lock:
            key = self._tables.api_keys.get(key_id)
            if key is not None and (key.last_used_at_ms or 0) < at_ms:
                self._tables.api_keys[key_id] = replace(key, last_used_at_ms=at_ms)


def _place_of(key: ApiKey) -> tuple[int, str]:
    return key.created_at_ms, key.key_id


def _place_from(token: str) -> tuple[int, str]:
    at_ms, _, key_id = token.partition(":")
    if not at_ms.isdecimal():
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    return int(at_ms), key_id
