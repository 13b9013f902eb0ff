"""The posting loop: takes what has arrived, reads, decides, and commits once (group commit).

One commit is in flight at a time, for a second writer of the head would only conflict. A batch that
cannot be committed is read and decided again, from the store: what an unknown commit did is found
there. Nothing is dropped: the batch stays here until it is in the books.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from daemon.domain.books import Changes, Head
from daemon.domain.errors import Conflict, InvariantViolation, LeaseLost, Unavailable
from daemon.domain.node_events import InvoiceSettled, NodeEvent
from daemon.domain.outcomes import Outcome, Posted, Suspended
from daemon.domain.ports import Books, Metrics, PriceSource
from daemon.matching.decide import decide, wanted_by
from daemon.matching.plan import Plan
from daemon.posting.board import Board
from daemon.posting.seal import seal

MAX_BATCH = 250
"""Events in one commit. Beyond it a batch gains little per event, but a conflict repeats more, and one
commit of this size stays far below MongoDB's 16 MB oplog entry and 60 s transaction limit."""

INBOX_BATCHES = 16
"""Batches that may wait for posting; more and the followers wait, and with them the node's stream."""

MAX_CONFLICTS = 5
"""Times that a whole batch is decided again after a conflict before it is split in two; a single event
that conflicts as often without another writer is a broken invariant."""

_CONFLICT_PAUSE_S = 0.02
"""Added to the pause with every conflict: a few times what another program's write to a document takes."""

_BACKOFF_S = (0.05, 5.0)
"""First and longest pause while the database is away; a primary is elected within about 10 s."""

log = structlog.get_logger()


@dataclass(slots=True)
class Committed:
    """One batch that is in the books."""

    plan: Plan
    head: Head
    duration_s: float


class Poster:
    """Posts batches under one fence."""

    def __init__(
        self,
        *,
        books: Books,
        prices: PriceSource,
        board: Board,
        metrics: Metrics,
        fence: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random,
    ) -> None:
        self._books = books
        self._prices = prices
        self._board = board
        self._metrics = metrics
        self._fence = fence
        self._now_ms = now_ms
        self._rng = rng
        self._thread = trio.CapacityLimiter(1)  # commits are one after another by design

    async def run(self, inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]) -> None:
        """Posts until the inbox is closed. Raises LeaseLost when another daemon leads."""
        # The inbox stays open when posting fails: its senders are cancelled, not broken.
        async for first in inbox:
            batch = _take_arrived(list(first), inbox)
            for start in range(0, len(batch), MAX_BATCH):
                await self._post(batch[start : start + MAX_BATCH])

    async def _post(self, batch: Sequence[NodeEvent]) -> None:
        conflicts = 0
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                committed = await trio.to_thread.run_sync(self.commit, batch, limiter=self._thread)
            except Conflict as conflict:
                conflicts += 1
                self._metrics.retried(cause="conflict")
                if conflicts > MAX_CONFLICTS:
                    await self._post_halves(batch, conflict)
                    return
                await trio.sleep(self._rng.uniform(0.0, conflicts * _CONFLICT_PAUSE_S))
            except Unavailable as outage:
                self._metrics.retried(cause="unavailable")
                log.warning("commit.waiting", cause=str(outage), retry_in_s=round(pause_s, 2))
                await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _BACKOFF_S[1])
            else:
                self._tell(committed, batch)
                return

    async def _post_halves(self, batch: Sequence[NodeEvent], conflict: Conflict) -> None:
        """One event that keeps conflicting must not hold up the rest."""
        if len(batch) == 1:
            raise InvariantViolation(f"one event conflicts again and again: {conflict}")
        middle = len(batch) // 2
        await self._post(batch[:middle])
        await self._post(batch[middle:])

    def commit(self, batch: Sequence[NodeEvent]) -> Committed:
        """Reads, decides and commits one batch; blocks. Errors as `Books.commit`."""
        started = time.perf_counter()
        facts = self._books.read_facts(wanted_by(batch))
        if facts.head.fence != self._fence:
            raise LeaseLost(f"the head has fence {facts.head.fence}, ours is {self._fence}")
        plan = decide(batch, facts, price=self._prices.current())
        head = facts.head
        if not plan.writes_nothing():
            changes: Changes = seal(plan, now_ms=self._now_ms(), writer_id=self._books.writer_id)
            self._books.commit(changes)
            head = changes.after
        return Committed(plan, head, time.perf_counter() - started)

    def _tell(self, committed: Committed, batch: Sequence[NodeEvent]) -> None:
        cursors = committed.plan.cursors.values()
        self._board.publish(cursors=cursors, sequence=committed.head.sequence)
        self._metrics.committed(events=len(batch), duration_s=committed.duration_s)
        for cursor in cursors:
            self._metrics.cursor_moved(cursor)
        now_ns = time.monotonic_ns()
        for event, outcome in zip(batch, committed.plan.outcomes, strict=True):
            self._count(event, outcome, now_ns)

    def _count(self, event: NodeEvent, outcome: Outcome, now_ns: int) -> None:
        latency_s = None
        if isinstance(event, InvoiceSettled) and event.seen_at_ns:
            latency_s = (now_ns - event.seen_at_ns) / 1e9
        amount_sat = outcome.amount_sat if isinstance(outcome, Posted | Suspended) else 0
        self._metrics.settled(outcome=outcome_name(outcome), amount_sat=amount_sat, latency_s=latency_s)
        if isinstance(outcome, Suspended):
            log.warning("suspense.received", key=outcome.key, amount_sat=amount_sat, reason=outcome.reason)


def outcome_name(outcome: Outcome) -> str:
    """The outcome as a metric label; a credit without a dollar value has a name of its own."""
    if isinstance(outcome, Posted):
        return "posted" if outcome.priced else "posted_unpriced"
    return {
        "AlreadyPosted": "already_posted",
        "Suspended": "suspended",
        "PartOfOpening": "part_of_opening",
        "GapFound": "gap",
        "CursorMoved": "cursor_moved",
        "Adopted": "adopted",
    }[type(outcome).__name__]


def _take_arrived(batch: list[NodeEvent], inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]) -> list[NodeEvent]:
    """Adds what waits already, up to a batch: low load does not wait for one to fill."""
    while len(batch) < MAX_BATCH:
        try:
            batch.extend(inbox.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return batch
