"""A daemon as `daemon.app` puts it together, on the memory fakes: lease, posting, followers, sweeps, adoption."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from adapters.memory import MemoryLightningNode, MemoryStore
from adapters.prices.nothing import NoPrice
from daemon.domain.errors import LeaseLost
from daemon.domain.identifiers import JournalId
from daemon.domain.node_events import ForeignJournalFound, NodeEvent
from daemon.domain.ports import ChainNode
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.ingest.chain import ChainFollower, ChainLimits
from daemon.ingest.clock import Clock
from daemon.ingest.journals import JournalFinder
from daemon.ingest.lightning import LightningFollower
from daemon.ingest.open_invoices import OpenInvoiceSweep
from daemon.ingest.pace import Pace
from daemon.posting.board import Board
from daemon.posting.leadership import Leadership
from daemon.posting.poster import INBOX_BATCHES, Poster
from daemon.supervision import keep_running
from tests.silent import SilentMetrics

PACE = Pace(sweep_s=8.0, journals_hinted_s=1.0, lookups_per_s=500.0)
"""Slow loops turn faster, so that a seed ends soon; nothing else is changed."""


class Killed(BaseException):
    """SIGKILL."""


@dataclass
class UnhintedJournals:
    """Journals without hints, which may be lost: waiting for one would stop the simulated clock."""

    store: MemoryStore

    def foreign_journals(self, *, after: JournalId | None, limit: int) -> Sequence[ForeignJournalFound]:
        return self.store.journals.foreign_journals(after=after, limit=limit)

    def newest_adopted(self) -> JournalId | None:
        return self.store.journals.newest_adopted()

    def wait_for_hint(self, timeout_s: float) -> bool:
        return False

    def end_hints(self) -> None:
        pass


@dataclass
class Host:
    """One machine that starts its daemon again whenever it has died."""

    name: str
    store: MemoryStore
    nodes: Sequence[MemoryLightningNode]
    now_s: Callable[[], float]
    rng: random.Random
    chain: ChainNode | None = None
    lives: int = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            self.lives += 1
            try:
                await self._live(Board(), f"{self.name}.{self.lives}")
            except* (Killed, LeaseLost):
                pass
            await trio.sleep(self.rng.uniform(0.1, 2.0))

    async def _live(self, board: Board, holder: str) -> None:
        leadership = Leadership(self.store.leases, holder=holder, rng=self.rng)
        fence = await leadership.wait_acquired()
        inbox_send, inbox_recv = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
        poster = Poster(
            books=self.store.books,
            prices=NoPrice(),
            board=board,
            metrics=SilentMetrics(),
            fence=fence,
            now_ms=lambda: int(self.now_s() * 1000),
            rng=self.rng,
        )
        async with trio.open_nursery() as pipeline, inbox_send:
            pipeline.start_soon(leadership.keep, fence)
            pipeline.start_soon(poster.run, inbox_recv)
            self._start_intake(pipeline, board, inbox_send)
            await trio.sleep_forever()

    def _start_intake(
        self, nursery: trio.Nursery, board: Board, inbox: trio.MemorySendChannel[Sequence[NodeEvent]]
    ) -> None:
        def now() -> datetime:
            return datetime.fromtimestamp(self.now_s(), tz=UTC)

        def supervise(task: Callable[[Callable[[], None]], object], name: str) -> None:
            async def keep() -> None:
                await keep_running(task, name=name, rng=self.rng)  # type: ignore[arg-type]  # object stands for any awaitable

            nursery.start_soon(keep)

        finder = JournalFinder(journals=UnhintedJournals(self.store), inbox=inbox, now=now, pace=PACE)
        for node in self.nodes:
            follower = LightningFollower(
                node=node,
                network="regtest",
                books=self.store.books,
                board=board,
                inbox=inbox,
                status=NodeStatus(name=node.name),
                metrics=SilentMetrics(),
                adopted=finder.adopted,
                now=now,
                pace=PACE,
            )
            sweep = OpenInvoiceSweep(
                node=node, documents=self.store.open_invoices, board=board, inbox=inbox, now=now, pace=PACE
            )
            supervise(follower.run, f"follow {node.name}")
            supervise(sweep.run, f"open invoices of {node.name}")
        supervise(finder.run, "journals")
        if self.chain is not None:
            supervise(self._chain_follower(self.chain, board, inbox).run, "chain")

    def _chain_follower(
        self, chain: ChainNode, board: Board, inbox: trio.MemorySendChannel[Sequence[NodeEvent]]
    ) -> ChainFollower:
        return ChainFollower(
            node=chain,
            network="regtest",
            deposits=self.store.deposits,
            scripts=self.store.scripts,
            board=board,
            inbox=inbox,
            status=ChainStatus(),
            metrics=SilentMetrics(),
            limits=ChainLimits(foreign_addresses=True),
            dealer=NoPrice(),
            clock=Clock(now_ms=lambda: int(self.now_s() * 1000)),
            pace=PACE,
        )
