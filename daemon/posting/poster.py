"""The posting loop: takes what has arrived, reads, decides, and commits once (group commit).

One commit is in flight at a time, for a second writer of the head would only conflict. While it is, the
next batch is read and decided on top of it, if a full one waits already (ahead.py); a smaller one may still
grow. A batch that cannot be committed is read and decided again, from the store: what an unknown commit did
is found there. Nothing is dropped: the batch stays here until it is in the books.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from daemon.domain.books import Changes, Head, Known
from daemon.domain.chain_events import ChainEvent
from daemon.domain.errors import Conflict, InvariantViolation, LeaseLost, Unavailable
from daemon.domain.holds import ALREADY_PAID
from daemon.domain.node_events import CallersEvent, InvoiceEnded, InvoiceSettled, NodeEvent
from daemon.domain.outcomes import Assigned, DepositsChanged, LossBooked, Noted, Outcome, Posted, Suspended
from daemon.domain.ports import Books, Metrics, PriceSource
from daemon.matching.decide import decide, wanted_by
from daemon.matching.deposits import BLINKS_RULES, DepositRules
from daemon.matching.plan import Plan
from daemon.posting.ahead import can_look_ahead, facts_after, known_after
from daemon.posting.board import Board
from daemon.posting.late_deals import without_late_deals
from daemon.posting.money_log import log_money
from daemon.posting.seal import seal
from daemon.posting.turns import Turns

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
class Decided:
    """One batch that can be written; `changes` is None where nothing is to be."""

    plan: Plan
    changes: Changes | None
    duration_s: float


@dataclass(slots=True)
class Committed:
    """One batch that is in the books."""

    plan: Plan
    changes: Changes | None
    head: Head
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for posting. `oldest_s` is how long ago the oldest event that is not in the books yet was read from
    its node (settlements), or taken by posting (all others); 0 if there is none."""

    batches: int
    capacity_batches: int
    oldest_s: float


class Poster:
    """Posts batches under one fence; with `logs_money` there is a log line for each fact that moved money."""

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
        rules: DepositRules = BLINKS_RULES,
        logs_money: bool = False,
        on_posted: Callable[[NodeEvent, Outcome], None] | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`on_posted` hears of each event that somebody waits for, when it is in the books. With `turns` each batch is
        posted in turn with other programs, and none is decided ahead."""
        self._books = books
        self._prices = prices
        self._board = board
        self._metrics = metrics
        self._fence = fence
        self._now_ms = now_ms
        self._rng = rng
        self._rules = rules
        self._logs_money = logs_money
        self._on_posted = on_posted
        self._turns = turns
        self._known: Known | None = None
        self._oldest_ns: int | None = None
        self._thread = trio.CapacityLimiter(1)  # commits are one after another by design
        self._ahead_thread = trio.CapacityLimiter(1)  # and looks one batch ahead

    async def run(self, inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]) -> None:
        """Posts until the inbox is closed. Raises LeaseLost when another daemon leads."""
        # The inbox is its owner's: closed here, a failure would break the senders that wait for room.
        try:
            async for first in inbox:
                await self._post_arrived(list(first), inbox)
        finally:
            if self._turns is not None:
                self._turns.status.rest()

    async def _post_arrived(
        self, arrived: list[NodeEvent], inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]
    ) -> None:
        """Batch by batch, until nothing waits that has arrived; also an empty one, by which `turns` wakes posting."""
        decided: Decided | None = None
        taken_ns = time.monotonic_ns()
        while True:
            _take_arrived(arrived, inbox)
            batch = arrived[:MAX_BATCH]
            del arrived[:MAX_BATCH]
            self._oldest_ns, taken_ns = _oldest_ns(batch, taken_ns), time.monotonic_ns()
            if self._turns is None:
                decided = await self._post(batch, decided, arrived[:MAX_BATCH])
            else:
                await self._turns.post(batch, self._post)
            if not arrived:
                break
        self._oldest_ns = None

    def backlog(self, inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]) -> Backlog:
        """What waits now, in `inbox` and here; for any thread. First come is first posted, so that the oldest is
        always here, not in the inbox."""
        queue, oldest_ns = inbox.statistics(), self._oldest_ns
        return Backlog(
            batches=queue.current_buffer_used,
            capacity_batches=int(queue.max_buffer_size),
            oldest_s=0.0 if oldest_ns is None else max(0.0, (time.monotonic_ns() - oldest_ns) / 1e9),
        )

    async def _post(
        self, batch: Sequence[NodeEvent], decided: Decided | None = None, following: Sequence[NodeEvent] = ()
    ) -> Decided | None:
        """Returns when the batch is in the books; what was decided of the following one meanwhile, if anything."""
        conflicts = 0
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                if len(following) == MAX_BATCH and can_look_ahead(following):
                    committed, ahead = await self._commit_looking_ahead(batch, decided, following)
                else:
                    ahead = None
                    committed = await trio.to_thread.run_sync(self.commit, batch, decided, limiter=self._thread)
            except Conflict as conflict:
                conflicts += 1
                self._metrics.retried(cause="conflict")
                if conflicts > MAX_CONFLICTS:
                    await self._post_halves(batch, conflict)
                    return None
                await trio.sleep(self._rng.uniform(0.0, conflicts * _CONFLICT_PAUSE_S))
            except Unavailable as outage:
                self._metrics.retried(cause="unavailable")
                log.warning("commit.waiting", cause=str(outage), retry_in_s=round(pause_s, 2))
                await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _BACKOFF_S[1])
            else:
                self._tell(committed, batch)
                return ahead
            # What was decided rests on a commit, or on facts, that may be no more: from the store again.
            decided = None
            if self._turns is not None:
                await self._turns.confirm()

    async def _commit_looking_ahead(
        self, batch: Sequence[NodeEvent], decided: Decided | None, following: Sequence[NodeEvent]
    ) -> tuple[Committed, Decided | None]:
        if decided is None:
            decided = await trio.to_thread.run_sync(self.decide, batch, limiter=self._thread)
        before = decided.changes
        ahead: Decided | None = None

        async def look_ahead() -> None:
            nonlocal ahead
            try:
                ahead = await trio.to_thread.run_sync(self.decide, following, before, limiter=self._ahead_thread)
            except (Conflict, Unavailable, LeaseLost) as failure:
                # It meets this again when its turn comes, or it was nothing.
                log.info("commit.not_decided_ahead", cause=str(failure))

        committed: Committed | None = None
        failed: Conflict | Unavailable | LeaseLost | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_ahead)
            try:
                committed = await trio.to_thread.run_sync(self.commit, batch, decided, limiter=self._thread)
            except (Conflict, Unavailable, LeaseLost) as failure:
                failed = failure  # raised outside: the nursery would wrap it in a group
        if committed is None:
            raise failed or InvariantViolation("a commit that neither succeeded nor failed")
        return committed, ahead

    async def _post_halves(self, batch: Sequence[NodeEvent], conflict: Conflict) -> None:
        """One event that keeps conflicting must not hold up the rest."""
        if len(batch) == 1:
            raise InvariantViolation(f"one event conflicts again and again: {conflict}")
        middle = len(batch) // 2
        if self._turns is not None:
            await self._turns.confirm()
        await self._post(batch[:middle])
        await self._post(batch[middle:])

    def commit(self, batch: Sequence[NodeEvent], decided: Decided | None = None) -> Committed:
        """Reads and decides one batch, unless that is done, and commits it; blocks. Errors as `Books.commit`."""
        decided = decided or self.decide(batch)
        changes = decided.changes
        started = time.perf_counter()
        if changes is not None:
            known, self._known = self._known, None  # a commit that fails leaves nothing that is known
            self._books.commit(changes)
            self._known = known_after(known, changes)
        head = decided.plan.facts.head if changes is None else changes.after
        return Committed(decided.plan, changes, head, decided.duration_s + time.perf_counter() - started)

    def decide(self, batch: Sequence[NodeEvent], before: Changes | None = None) -> Decided:
        """Reads and decides one batch, on top of a commit that is under way; blocks. Errors as `Books.read_facts`."""
        started = time.perf_counter()
        wanted = wanted_by(batch)
        # A move must begin at the books' cursor: a head that another leader has raised must be seen before it.
        if not (wanted.opening or wanted.chain):
            wanted.known = self._known if before is None else known_after(self._known, before)
        facts = self._books.read_facts(wanted)
        if facts.head.fence != self._fence:
            raise LeaseLost(f"the head has fence {facts.head.fence}, ours is {self._fence}")
        if before is not None:
            facts = facts_after(facts, before)
        events = without_late_deals(batch, now_ns=time.monotonic_ns())
        plan = decide(events, facts, price=self._prices.current(), rules=self._rules)
        changes = None
        if not plan.writes_nothing():
            changes = seal(plan, now_ms=self._now_ms(), writer_id=self._books.writer_id)
        return Decided(plan, changes, time.perf_counter() - started)

    def _tell(self, committed: Committed, batch: Sequence[NodeEvent]) -> None:
        cursors = committed.plan.cursors.values()
        self._board.publish(
            cursors=cursors,
            sequence=committed.head.sequence,
            chain=committed.plan.chain_cursor(),
            chain_events=sum(isinstance(event, ChainEvent) for event in batch),
        )
        self._metrics.committed(events=len(batch), duration_s=committed.duration_s)
        for cursor in cursors:
            self._metrics.cursor_moved(cursor)
        now_ns = time.monotonic_ns()
        for event, outcome in zip(batch, committed.plan.outcomes, strict=True):
            self._count(event, outcome, now_ns)
            if self._on_posted is not None and isinstance(event, CallersEvent):
                self._on_posted(event, outcome)
        if self._turns is not None and committed.changes is not None:
            self._turns.committed(committed.changes)
        if self._logs_money and committed.changes is not None:
            log_money(committed.changes)

    def _count(self, event: NodeEvent, outcome: Outcome, now_ns: int) -> None:
        latency_s = None
        if isinstance(event, InvoiceSettled) and event.seen_at_ns:
            latency_s = (now_ns - event.seen_at_ns) / 1e9
        amount_sat = outcome.amount_sat if isinstance(outcome, Posted | Suspended) else 0
        if isinstance(outcome, DepositsChanged):
            self._metrics.deposits_changed(outcome)
        if isinstance(outcome, LossBooked):
            self._metrics.htlc_lost(amount_msat=outcome.amount_msat)
            log.error("htlc.lost", key=outcome.key, amount_msat=outcome.amount_msat)
        if isinstance(event, InvoiceEnded) and event.returned_msat and _is_news(event, outcome):
            self._metrics.hold_canceled(pubkey=event.pubkey, reason=event.reason)
            log.info(
                "hold.canceled",
                pubkey=event.pubkey,
                payment_hash=event.payment_hash,
                returned_msat=event.returned_msat,
                reason=event.reason,
            )
        self._metrics.settled(outcome=outcome_name(outcome), amount_sat=amount_sat, latency_s=latency_s)
        if isinstance(outcome, Suspended):
            log.warning("suspense.received", key=outcome.key, amount_sat=amount_sat, reason=outcome.reason)
        if isinstance(outcome, Assigned) and not outcome.again:
            entry, last = outcome.entry, outcome.entry.trail[-1]
            log.info(
                "suspense.assigned", key=entry.key, amount_sat=entry.amount_sat, wallet_id=last.wallet_id, by=last.by
            )


def outcome_name(outcome: Outcome) -> str:
    """The outcome as a metric label; a credit without a dollar value has a name of its own."""
    if isinstance(outcome, Posted):
        return "posted" if outcome.priced else "posted_unpriced"
    return {
        "AlreadyPosted": "already_posted",
        "Suspended": "suspended",
        "PartOfOpening": "part_of_opening",
        "GapFound": "gap",
        "LossBooked": "loss",
        "CursorMoved": "cursor_moved",
        "Adopted": "adopted",
        "DepositsChanged": "deposits_changed",
        "Held": "held",
        "Noted": "noted",
        "Stale": "stale",
        "Assigned": "assigned",
        "NotAssigned": "not_assigned",
    }[type(outcome).__name__]


def _is_news(ended: InvoiceEnded, outcome: Outcome) -> bool:
    """Whether it is heard of for the first time: told now; or the end of an invoice that counts as paid, of which
    nothing is told, and which its keeper gives this reason once."""
    return isinstance(outcome, Noted) or ended.reason == ALREADY_PAID


def _oldest_ns(batch: Sequence[NodeEvent], taken_ns: int) -> int:
    """When the first of them was read from its node, where that is known, and taken else."""
    read = (event.seen_at_ns for event in batch if isinstance(event, InvoiceSettled) and event.seen_at_ns)
    return min(taken_ns, min(read, default=taken_ns))


def _take_arrived(arrived: list[NodeEvent], inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]]) -> None:
    """Adds what waits already, up to two batches: low load does not wait for one to fill."""
    while len(arrived) < 2 * MAX_BATCH:
        try:
            arrived.extend(inbox.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
