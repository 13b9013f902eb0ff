"""Finds the addresses that other programs write into wallets; the chain's follower looks for their payments.

A hint says which wallets changed, the sweep over all wallets says what there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
import trio

from daemon.domain.ports import ForeignAddresses
from daemon.ingest.pace import Pace

PAGE: Final = 1_000
"""Wallets gone over at once: some 20 ms of MongoDB's time."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class ForeignAddressFinder:
    """The wallets of one database."""

    addresses: ForeignAddresses
    pace: Pace = field(default_factory=Pace)
    known: trio.Event = field(default_factory=trio.Event)
    """Set after the first sweep."""
    _thread: trio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._thread = trio.CapacityLimiter(1)  # it sweeps or waits, never both

    async def run(self, healthy: Callable[[], None]) -> None:
        """Finds until the database is unavailable; never returns. Raises Unavailable."""
        while True:
            await self._sweep()
            self.known.set()
            healthy()
            swept_at = trio.current_time()
            while trio.current_time() - swept_at < self.pace.wallets_s:
                # Not abandoned: it ends by itself within its second, and two waiting threads would be one too many.
                self._tell(await trio.to_thread.run_sync(self._take_hinted, limiter=self._thread))

    async def _sweep(self) -> None:
        after: str | None = None
        while True:
            page = partial(self.addresses.sweep, after=after, limit=PAGE)
            new, after = await trio.to_thread.run_sync(page, limiter=self._thread, abandon_on_cancel=True)
            self._tell(new)
            if after is None:
                return
            await trio.sleep(self.pace.page_pause_s)

    def _take_hinted(self) -> int:
        return self.addresses.take_hinted(self.pace.journals_s)

    def _tell(self, new: int) -> None:
        if new:
            log.info("addresses.found", scripts=new)
