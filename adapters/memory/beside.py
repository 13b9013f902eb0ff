"""`Beside` in memory: one server that several programs share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daemon.domain.errors import Unavailable
from daemon.domain.ports.locks import Announcement


@dataclass
class MemoryRedis:
    """The server: locks by name, as (holder, when it ends), and all that was announced."""

    now_s: Callable[[], float]
    locks: dict[str, tuple[object, float]] = field(default_factory=dict)
    announced: list[Announcement] = field(default_factory=list)
    away: str = ""
    guard: threading.Lock = field(default_factory=threading.Lock)


class MemoryBeside:
    """See `daemon.domain.ports.Beside`; each one is another program."""

    def __init__(self, server: MemoryRedis) -> None:
        self._server = server

    def take(self, names: Sequence[str], *, ttl_ms: int) -> frozenset[str]:
        server = self._reached()
        with server.guard:
            now_s = server.now_s()
            taken = set()
            for name in names:
                holder, ends_s = server.locks.get(name, (self, 0.0))
                if holder is self or ends_s <= now_s:
                    server.locks[name] = (self, now_s + ttl_ms / 1000)
                    taken.add(name)
            return frozenset(taken)

    def release(self, names: Sequence[str]) -> None:
        server = self._reached()
        with server.guard:
            for name in names:
                if server.locks.get(name, (None, 0.0))[0] is self:
                    del server.locks[name]

    def announce(self, messages: Sequence[Announcement]) -> None:
        server = self._reached()
        with server.guard:
            server.announced.extend(messages)

    def _reached(self) -> MemoryRedis:
        if self._server.away:
            raise Unavailable(self._server.away)
        return self._server
