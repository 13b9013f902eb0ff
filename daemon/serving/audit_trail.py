"""The record of calls that may change something: written beside them, by a thread of its own.

A call never waits for its entry, and never fails for it: the trail is for people who look back, not a condition for
money to move. What is lost (a database away for too long, a process killed within its last moments) is counted.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from daemon.domain.api_keys import Scope
from daemon.domain.audit_log import AuditEntry, entry_id
from daemon.domain.errors import Unavailable
from daemon.domain.ports import AuditLog
from daemon.serving import paging
from daemon.serving.keys import Caller
from daemon.serving.scopes import scope_of

MAX_WAITING: Final = 10_000
"""Entries, some 5 MB: at a hundred calls a second a database may be away for a hundred seconds."""

BATCH: Final = 500
"""Entries written at once: a few milliseconds."""

RETRY_S: Final = 1.0
"""Between tries while the database is away: nobody waits for it."""

CLOSE_S: Final = 3.0
"""How long the end of the process waits for what is not written yet."""

_TOKEN_KIND = "audit"  # noqa: S105 (names a list, is no secret)

log = structlog.get_logger()


def is_audited(method: str) -> bool:
    """Whether calls of `package.Service/Method` are recorded: all but those that any reader may make."""
    return scope_of(method) is not Scope.READ


def list_audit_log(entries: AuditLog, *, page_size: int, page_token: str) -> tuple[Sequence[AuditEntry], str]:
    """A page of entries, newest first, and the next page's token. Raises BadInput, Unavailable."""
    limit = paging.page_size(page_size)
    page, next_after = entries.page(after=paging.read_token(_TOKEN_KIND, page_token), limit=limit)
    return page, paging.make_token(_TOKEN_KIND, next_after)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class AuditTrail:
    """Takes entries from any thread; `on_lost` is told how many were not written."""

    def __init__(
        self,
        entries: AuditLog,
        *,
        on_lost: Callable[[int], None],
        now_ms: Callable[[], int] = _unix_ms,
        retry_s: float = RETRY_S,
    ) -> None:
        self._entries = entries
        self._on_lost = on_lost
        self._now_ms = now_ms
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._waiting: deque[AuditEntry] = deque(maxlen=MAX_WAITING)
        self._writing = 0
        self._lost = 0
        self._ending = False
        self._thread: threading.Thread | None = None

    def note(self, *, method: str, caller: Caller, peer: str, code: str, subjects: Mapping[str, str]) -> None:
        """Records a call that has ended; returns at once, raises nothing."""
        at_ms = self._now_ms()
        entry = AuditEntry(
            entry_id=entry_id(at_ms, secrets.token_bytes(6)),
            at_ms=at_ms,
            method=method,
            key_id=caller.key_id,
            key_name=caller.name,
            peer=peer,
            code=code,
            subjects=subjects,
        )
        with self._changed:
            if self._ending or len(self._waiting) == MAX_WAITING:
                self._lose(1)
                return
            self._waiting.append(entry)
            if self._thread is None:
                # A daemon thread: a database that hangs must not hold up the end of the process.
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait_written(self, timeout_s: float) -> bool:
        """Blocks until nothing waits; False when the time is up before."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout_s)

    def close(self) -> None:
        """Writes what waits, for at most CLOSE_S; what is left then is lost."""
        self.wait_written(CLOSE_S)
        with self._changed:
            self._ending = True
            if left := len(self._waiting) + self._writing:
                self._waiting.clear()
                self._lose(left)
                log.warning("audit.lost", entries=left, cause="the process ends and the database has not taken them")
            self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._write(batch)
            with self._changed:
                self._writing, lost, self._lost = 0, self._lost, 0
                self._changed.notify_all()
            if lost:
                log.warning("audit.lost", entries=lost, cause=f"more than {MAX_WAITING} waited, or were not writable")

    def _next_batch(self) -> list[AuditEntry]:
        """Blocks until there is one; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._writing = len(batch)
            return batch

    def _write(self, batch: Sequence[AuditEntry]) -> None:
        is_told = False
        while True:
            try:
                self._entries.append(batch)
            except Unavailable as outage:
                if not is_told:
                    log.warning("audit.waiting", cause=str(outage))
                is_told = True
                if self._wait_ending(self._retry_s):
                    return
            except Exception:  # no entry is worth more than the ones after it
                log.exception("audit.not_written", entries=len(batch))
                with self._changed:
                    self._lose(len(batch))
                return
            else:
                return

    def _wait_ending(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._ending, timeout_s)

    def _lose(self, entries: int) -> None:
        self._lost += entries
        self._on_lost(entries)
