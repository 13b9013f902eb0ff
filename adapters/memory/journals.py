"""`Journals` in memory: other programs' journals, complete and without a link."""

from __future__ import annotations

import time
from collections.abc import Sequence

from adapters.memory.state import FOREIGN_WRITER, LedgerJournal, Tables
from daemon.domain.identifiers import JournalId
from daemon.domain.node_events import ForeignJournalFound


class MemoryJournals:
    """See `daemon.domain.ports.Journals`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._hints_seen: int | None = None  # nobody listens

    def foreign_journals(self, *, after: JournalId | None, limit: int) -> Sequence[ForeignJournalFound]:
        tables = self._tables
        with tables.lock:
            found = [
                journal
                for journal_id, journal in tables.journals.items()
                if journal_id[8:18] == FOREIGN_WRITER
                and journal_id not in tables.links
                and (after is None or journal_id > after)
            ]
            found.sort(key=lambda journal: journal.journal_id)
            return [self._found(journal) for journal in found[:limit]]

    def newest_adopted(self) -> JournalId | None:
        tables = self._tables
        with tables.lock:
            return max((one for one in tables.links if one[8:18] == FOREIGN_WRITER), default=None)

    def wait_for_hint(self, timeout_s: float) -> bool:
        tables = self._tables
        deadline_s = time.monotonic() + timeout_s
        with tables.lock:
            if self._hints_seen is None:
                self._hints_seen = tables.hints
            while tables.hints == self._hints_seen:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                tables.hinted.wait(left_s)
            self._hints_seen = tables.hints
            return True

    def end_hints(self) -> None:
        self._hints_seen = None

    def _found(self, journal: LedgerJournal) -> ForeignJournalFound:
        return ForeignJournalFound(
            journal_id=journal.journal_id,
            datetime_ms=journal.datetime_ms,
            memo=journal.memo,
            legs=tuple(self._tables.legs[leg_id].leg for leg_id in sorted(journal.leg_ids)),
        )
