"""Finds the journals that other programs wrote into the book, for adoption (design.md section 3).

The sweep by `_id` says what there is; where other programs write, a hint says when to look. ObjectIds begin with
the writer's clock, so a journal may appear below one that was found already: each sweep goes back `OVERLAP_S` behind
the beginning of the sweep before it, in our time, and one a minute `WIDE_OVERLAP_S`, for a writer whose clock is late.
The first sweep goes back as far behind the last adopted journal; what is further behind is found by the complete sweep
of the day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
import trio

from daemon.domain.identifiers import JournalId
from daemon.domain.node_events import ForeignJournalFound
from daemon.domain.ports import Journals
from daemon.ingest.handover import Inbox
from daemon.ingest.lightning import utc_now
from daemon.ingest.pace import Pace

PAGE: Final = 500
"""Journals read and handed over at once: two commits' worth."""

OVERLAP_S: Final = 30.0
"""Clocks of one data centre differ by less than a second."""

WIDE_OVERLAP_S: Final = 600.0
"""Ten minutes: an unsynchronized clock is off by minutes."""

_WIDE_S: Final = 60.0
"""Between sweeps over the wide overlap."""

_COMPLETE_S: Final = 86_400.0
"""Between complete sweeps, for a writer whose clock is off by more than the overlap: a day, because each
reads the `_id` of every journal there is."""

HINTED_FOR_S: Final = 600.0
"""How long hints are listened for after another program's journal. They have a price: for them the server reads every
commit of ours (in one trial 6 to 8 % of the settlements a second). A bank alone in its book does without, and finds a
first journal of another program a second later."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class JournalFinder:
    """The journals of one book. `inbox` stays open: it is its owner's."""

    journals: Journals
    inbox: Inbox
    now: Callable[[], datetime] = utc_now
    pace: Pace = field(default_factory=Pace)
    adopted: trio.Event = field(default_factory=trio.Event)
    """Set after the first sweep."""
    _thread: trio.CapacityLimiter = field(init=False)
    _hinted_until: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self._thread = trio.CapacityLimiter(1)  # it sweeps or waits, never both

    async def run(self, healthy: Callable[[], None]) -> None:
        """Hands over what it finds until the database is unavailable; never returns. Raises Unavailable."""
        after = await self._after_last_adopted()
        complete_at = wide_at = trio.current_time()
        while True:
            began = self.now()
            await self._sweep(after)
            self.adopted.set()
            healthy()
            after = smallest_id(began.timestamp() - OVERLAP_S)
            if trio.current_time() - wide_at > _WIDE_S:
                after, wide_at = smallest_id(began.timestamp() - WIDE_OVERLAP_S), trio.current_time()
            if trio.current_time() - complete_at > _COMPLETE_S:
                after, complete_at = None, trio.current_time()
            await self._wait_due()

    async def _after_last_adopted(self) -> JournalId | None:
        """Where the sweep begins: what was adopted before this start need not be looked at again."""
        newest = await trio.to_thread.run_sync(
            self.journals.newest_adopted, limiter=self._thread, abandon_on_cancel=True
        )
        return smallest_id(int(newest[:8], 16) - WIDE_OVERLAP_S) if newest else None

    async def _sweep(self, after: JournalId | None) -> None:
        while found := await self._page(after):
            log.info("journals.found", journals=len(found))
            self._hinted_until = trio.current_time() + HINTED_FOR_S
            await self.inbox.send(found)
            after = found[-1].journal_id

    async def _page(self, after: JournalId | None) -> Sequence[ForeignJournalFound]:
        return await trio.to_thread.run_sync(
            lambda: self.journals.foreign_journals(after=after, limit=PAGE),
            limiter=self._thread,
            abandon_on_cancel=True,
        )

    async def _wait_due(self) -> None:
        """Until a sweep is due: after `journals_s`, or sooner where a hint comes."""
        if trio.current_time() > self._hinted_until:
            await trio.to_thread.run_sync(self.journals.end_hints, limiter=self._thread)
            await trio.sleep(self.pace.journals_s)
            return
        await trio.sleep(self.pace.journals_hinted_s)
        # Not abandoned: it ends by itself within its second, and two waiting threads would be one too many.
        await trio.to_thread.run_sync(self.journals.wait_for_hint, self.pace.journals_s, limiter=self._thread)


def smallest_id(unix_s: float) -> JournalId:
    """The smallest ObjectId of a second: four bytes of Unix time, then eight of zero."""
    return JournalId(f"{max(0, int(unix_s)):08x}" + "00" * 8)
