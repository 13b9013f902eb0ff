"""The posting loop over the memory store: whatever the database does, each event is booked once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from adapters.memory import CommitFault, MemoryStore
from daemon.domain.accounts import LIGHTNING, SUSPENSE
from daemon.domain.books import Changes, Facts, Known, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Conflict, InvariantViolation, LeaseLost
from daemon.domain.identifiers import NodePubkey, WalletId
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import InvoiceEnded, NodeEvent, NodeOpened, SuspenseAssigned
from daemon.domain.outcomes import DepositsChanged, Outcome
from daemon.domain.ports import Books
from daemon.posting.board import Board
from daemon.posting.poster import INBOX_BATCHES, MAX_BATCH, MAX_CONFLICTS, Backlog, Poster
from tests.samples import MORNING_MS, NODE, block_at, chain_moved, connected, hash_of, invoice, output, seen, settled

OPENED = NodeOpened(
    pubkey=NODE, name="lnd1", funds_msat=0, through_index=0, checkpoint_hash=None, opened_at_ms=MORNING_MS
)


class NoPrice:
    """A bank without a price."""

    def current(self) -> Price | None:
        """None."""
        return None


@dataclass
class Counts:
    """What was told to the metrics port."""

    batches: list[int] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    latencies: list[float | None] = field(default_factory=list)
    cursors: list[LndCursor] = field(default_factory=list)
    deposits: list[DepositsChanged] = field(default_factory=list)
    lost_msat: list[int] = field(default_factory=list)
    given_back: list[tuple[NodePubkey, str]] = field(default_factory=list)

    def settled(self, *, outcome: str, amount_sat: int, latency_s: float | None) -> None:
        """Kept."""
        self.outcomes.append(outcome)
        self.latencies.append(latency_s)

    def committed(self, *, events: int, duration_s: float) -> None:
        """Kept."""
        self.batches.append(events)

    def retried(self, *, cause: str) -> None:
        """Kept."""
        self.retries.append(cause)

    def cursor_moved(self, cursor: LndCursor) -> None:
        """Kept."""
        self.cursors.append(cursor)

    def node_connected(self, *, node: str, connected: bool) -> None:
        """Not posting's."""

    def leading(self, leading: bool) -> None:
        """Not posting's."""

    def deposits_changed(self, changed: DepositsChanged) -> None:
        """Kept."""
        self.deposits.append(changed)

    def htlc_lost(self, *, amount_msat: int) -> None:
        """Kept."""
        self.lost_msat.append(amount_msat)

    def hold_canceled(self, *, pubkey: NodePubkey, reason: str) -> None:
        """Kept."""
        self.given_back.append((pubkey, reason))

    def hints_lost(self, *, topic: str, missing: int) -> None:
        """Not posting's."""


class Hungry:
    """`Books` that conflict as long as one key does not come alone."""

    def __init__(self, books: Books, key: str) -> None:
        self._books = books
        self._key = key

    @property
    def writer_id(self) -> bytes:
        """The store's."""
        return self._books.writer_id

    def read_facts(self, wanted: Wanted) -> Facts:
        """The store's."""
        return self._books.read_facts(wanted)

    def commit(self, changes: Changes) -> None:
        """Conflicts, or commits."""
        if len(changes.keys) > 1 and any(record.key == self._key for record in changes.keys):
            raise Conflict("only alone")
        self._books.commit(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._books, name)


@dataclass
class Desk:
    """A poster on a memory store, whose node is opened empty."""

    store: MemoryStore = field(default_factory=MemoryStore)
    board: Board = field(default_factory=Board)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        fence = self.store.leases.acquire(holder="one", ttl_s=60)
        assert fence is not None
        self.fence = fence
        self.poster(self.store.books).commit([OPENED])

    def poster(self, books: Books, on_posted: Callable[[NodeEvent, Outcome], None] | None = None) -> Poster:
        """A poster under the fence."""
        return Poster(
            books=books,
            prices=NoPrice(),
            board=self.board,
            metrics=self.counts,
            fence=self.fence,
            now_ms=lambda: MORNING_MS,
            rng=random.Random(1),
            on_posted=on_posted,
        )

    async def post(self, *batches: Sequence[NodeEvent], books: Books | None = None) -> None:
        """Runs the loop over these batches, all of which wait when it starts, until the inbox is closed."""
        send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
        for batch in batches:
            send.send_nowait(batch)
        send.close()
        await self.poster(books or self.store.books).run(receive)

    def suspense_sat(self) -> int:
        """What came in: nobody expects the payments here."""
        assert self.store.ledger.balance((LIGHTNING, "BTC"))[0] == -self.store.ledger.balance((SUSPENSE, "BTC"))[0]
        return self.store.ledger.balance((SUSPENSE, "BTC"))[0]


@pytest.fixture
def desk() -> Desk:
    """A poster's desk."""
    return Desk()


def payments(first: int, last: int) -> list[NodeEvent]:
    """Settlements of 1 sat each, with these indexes."""
    return [settled(f"payment-{index}", index, 1_000) for index in range(first, last + 1)]


async def test_what_waits_is_committed_at_once(desk: Desk) -> None:
    """Batches that have arrived become one commit."""
    await desk.post(payments(1, 2), payments(3, 3), payments(4, 6))
    assert desk.counts.batches == [6]
    assert desk.suspense_sat() == 6


async def test_a_commit_has_at_most_a_batch(desk: Desk) -> None:
    """What is longer is committed in pieces, in order; nothing is left over."""
    await desk.post(payments(1, 2 * MAX_BATCH + 100))
    assert desk.counts.batches == [MAX_BATCH, MAX_BATCH, 100]
    assert desk.suspense_sat() == 2 * MAX_BATCH + 100
    assert [cursor.settle_index for cursor in desk.counts.cursors] == [250, 500, 600]


async def test_whoever_waits_for_an_event_hears_of_it_when_it_is_in_the_books(desk: Desk) -> None:
    """An assignment, and the end of an invoice: those are asked for over the API."""
    heard: list[tuple[NodeEvent, str]] = []
    ended = InvoiceEnded(
        pubkey=NODE, payment_hash=hash_of("a"), reason="by_call", returned_msat=0, ended_at_ms=MORNING_MS
    )
    assigned = SuspenseAssigned(key="ln:nothing", wallet_id=WalletId("w"), by="ann", reason="why", at_ms=MORNING_MS)
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    send.send_nowait([ended, *payments(1, 2), assigned])
    send.close()
    poster = desk.poster(desk.store.books, lambda event, outcome: heard.append((event, type(outcome).__name__)))
    await poster.run(receive)
    assert heard == [(ended, "AlreadyPosted"), (assigned, "NotAssigned")]


async def test_a_held_payment_that_went_back_is_counted_and_logged_once(desk: Desk) -> None:
    """Whoever asked for it: the call, the keeper's stream and the sweep may all tell of it. One that held nothing is
    not counted; one whose invoice counts as paid is, though the feed has nothing of it."""
    wallet = desk.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="shop").wallet_id
    for name in ("held", "empty", "paid"):
        desk.store.invoices.insert(invoice(name, wallet))
    desk.store.another.mark_paid(hash_of("paid"))

    def ended(name: str, reason: str, returned_msat: int) -> InvoiceEnded:
        return InvoiceEnded(
            pubkey=NODE,
            payment_hash=hash_of(name),
            reason=reason,
            returned_msat=returned_msat,
            ended_at_ms=MORNING_MS,
        )

    with structlog.testing.capture_logs() as logs:
        await desk.post([ended("held", "by_call", 5_000), ended("empty", "by_call", 0)])
        await desk.post([ended("held", "by_call", 5_000), ended("held", "on_node", 5_000)])
        await desk.post([ended("paid", "already_paid", 7_000), ended("paid", "on_node", 7_000)])
    assert desk.counts.given_back == [(NODE, "by_call"), (NODE, "already_paid")]
    first, second = [line for line in logs if line["event"] == "hold.canceled"]
    assert first == {
        "event": "hold.canceled",
        "log_level": "info",
        "pubkey": NODE,
        "payment_hash": hash_of("held"),
        "returned_msat": 5_000,
        "reason": "by_call",
    }
    assert (second["payment_hash"], second["reason"]) == (hash_of("paid"), "already_paid")
    assert [row.type for row in desk.store.ledger.events(after_sequence=0, limit=10)][1:] == ["invoice.canceled"] * 2


class Watched:
    """`Books` that tell when they are read."""

    def __init__(self, books: Books, on_read: Callable[[], None]) -> None:
        self._books = books
        self._on_read = on_read

    def read_facts(self, wanted: Wanted) -> Facts:
        """The store's."""
        self._on_read()
        return self._books.read_facts(wanted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._books, name)


async def test_the_backlog_tells_how_long_the_oldest_event_waits(desk: Desk) -> None:
    """From reading it from the node, where that is known; nothing waits before and after."""
    waiting: list[Backlog] = []
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    poster = desk.poster(Watched(desk.store.books, lambda: waiting.append(poster.backlog(receive))))
    nothing = Backlog(batches=0, capacity_batches=INBOX_BATCHES, oldest_s=0.0)
    assert poster.backlog(receive) == nothing
    read_ns = time.monotonic_ns() - 90 * 10**9
    send.send_nowait([replace(settled("old", 1, 1_000), seen_at_ns=read_ns), *payments(2, 2 * MAX_BATCH)])
    send.send_nowait(payments(501, 502))
    send.close()
    await poster.run(receive)
    # The second read looks ahead, while the first batch is not in the books yet.
    assert [one.batches for one in waiting] == [1, 1, 0]
    assert 90.0 <= waiting[0].oldest_s <= waiting[1].oldest_s <= (time.monotonic_ns() - read_ns) / 1e9
    assert 0.0 < waiting[2].oldest_s < 60.0
    assert poster.backlog(receive) == nothing


async def test_full_batches_are_not_made_fuller(desk: Desk) -> None:
    """What waits is taken until a batch is full; the rest waits for the next commit, with what comes meanwhile."""
    full = MAX_BATCH - 1
    await desk.post(payments(1, full), payments(full + 1, full + 3), payments(full + 4, full + 6))
    assert desk.counts.batches == [MAX_BATCH, 5]


async def test_low_load_does_not_wait_for_a_batch_to_fill(desk: Desk, autojump_clock: MockClock) -> None:
    """A single event is committed without any time passing."""
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.poster(desk.store.books).run, receive)
        for number in range(1, 4):
            await send.send(payments(number, number))
            await desk.board.wait_changed()
            assert desk.suspense_sat() == number
        assert trio.current_time() == 0.0
        send.close()
    assert desk.counts.batches == [1, 1, 1]


async def test_the_board_shows_what_was_committed(desk: Desk) -> None:
    """Cursor and feed sequence, after the commit."""
    await desk.post(payments(1, 3))
    cursor = desk.board.cursor(NODE)
    assert cursor is not None
    assert cursor.settle_index == 3
    assert desk.board.sequence == desk.store.ledger.head().sequence == 4


async def test_the_board_counts_chain_events_once(desk: Desk, autojump_clock: MockClock) -> None:
    """Whatever its commit went through, an event is counted when it is in the books, and Lightning's never."""
    block = block_at(1)
    begun = chain_moved(None, connected(block))
    desk.store.faults.plan(CommitFault.REPLY_LOST, CommitFault.UNAVAILABLE, CommitFault.CONFLICT)
    desk.store.faults.at_step = lambda step: counted.append(desk.board.chain_events) if step == "committed" else None
    counted: list[int] = []
    await desk.post([begun, seen(output("a")), *payments(1, 2)], [seen(output("b"))])
    assert desk.board.chain_events == 3
    assert counted == [0] * len(counted), "counted before it was in the books"
    assert desk.board.chain is not None
    assert desk.board.chain.block == block


async def test_what_became_of_deposits_is_counted(desk: Desk) -> None:
    """Each chain event's changes reach the metrics."""
    await desk.post([chain_moved(None, connected(block_at(1)))], [seen(output("a"), output("b"))])
    assert [changed.detected for changed in desk.counts.deposits] == [0, 2]


async def test_a_repeat_writes_nothing(desk: Desk) -> None:
    """Events whose keys exist need no commit; they are counted as posted already."""
    steps: list[str] = []
    await desk.post(payments(1, 2))
    head = desk.store.ledger.head()
    desk.store.faults.at_step = steps.append
    await desk.post(payments(1, 2))
    assert steps == ["read"]
    assert desk.store.ledger.head() == head
    assert desk.counts.outcomes == ["suspended", "suspended", "already_posted", "already_posted"]


async def test_a_conflict_is_decided_again(desk: Desk, autojump_clock: MockClock) -> None:
    """A few conflicts cost a few short pauses; the batch stays whole."""
    desk.store.faults.plan(*[CommitFault.CONFLICT] * MAX_CONFLICTS)
    await desk.post(payments(1, 4))
    assert desk.counts.retries == ["conflict"] * MAX_CONFLICTS
    assert desk.counts.batches == [4]
    assert desk.suspense_sat() == 4
    assert 0 < trio.current_time() < 1


async def test_a_batch_that_keeps_conflicting_is_split(desk: Desk, autojump_clock: MockClock) -> None:
    """After one more conflict than is allowed its halves are committed, in order."""
    desk.store.faults.plan(*[CommitFault.CONFLICT] * (MAX_CONFLICTS + 1))
    await desk.post(payments(1, 5))
    assert desk.counts.batches == [2, 3]
    assert desk.suspense_sat() == 5


async def test_one_event_does_not_block_the_rest(desk: Desk, autojump_clock: MockClock) -> None:
    """A batch in which one event conflicts is split until that event stands alone; all are booked once."""
    events = payments(1, 8)
    odd = settled("payment-6", 6, 1_000)
    books = Hungry(desk.store.books, f"ln:{NODE}:{odd.payment_hash}")
    await desk.post(events, books=books)
    assert desk.counts.batches == [4, 1, 1, 2]
    assert desk.suspense_sat() == 8


async def test_an_event_that_conflicts_alone_stops_the_process(desk: Desk, autojump_clock: MockClock) -> None:
    """Nobody else writes its documents again and again: something is broken, and nothing is written."""
    desk.store.faults.plan(*[CommitFault.CONFLICT] * 100)
    with pytest.raises(InvariantViolation, match="conflicts again and again"):
        await desk.post(payments(1, 2))
    assert desk.counts.batches == []
    assert desk.suspense_sat() == 0


async def test_an_outage_is_waited_out(desk: Desk, autojump_clock: MockClock) -> None:
    """Pauses double up to five seconds, with jitter; the batch is kept and booked when the database is back."""
    desk.store.faults.plan(*[CommitFault.UNAVAILABLE] * 10)
    with structlog.testing.capture_logs() as logs:
        await desk.post(payments(1, 3))
    waits = [log["retry_in_s"] for log in logs if log["event"] == "commit.waiting"]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert sum(waits) / 2 <= trio.current_time() < sum(waits)
    assert desk.counts.retries == ["unavailable"] * 10
    assert desk.counts.batches == [3]
    assert desk.suspense_sat() == 3


@pytest.mark.parametrize("fault", [CommitFault.REPLY_LOST, CommitFault.REQUEST_LOST])
async def test_an_unknown_commit_is_resolved_by_reading_again(
    desk: Desk, fault: CommitFault, autojump_clock: MockClock
) -> None:
    """Whether it was written or not: booked once, and the cursor and the board are right."""
    desk.store.faults.plan(fault, fault, fault)
    await desk.post(payments(1, 3))
    assert desk.suspense_sat() == 3
    assert desk.store.ledger.head().sequence == desk.board.sequence == 4
    cursor = desk.board.cursor(NODE)
    assert cursor is not None
    assert cursor.settle_index == 3


async def test_another_leader_ends_the_loop(desk: Desk) -> None:
    """A raised fence is LeaseLost, before anything is written."""
    steps: list[str] = []
    desk.store.leases.acquire(holder="one", ttl_s=60)
    desk.store.faults.at_step = steps.append
    with pytest.raises(LeaseLost):
        await desk.post(payments(1, 3))
    assert steps == ["read"]
    assert desk.suspense_sat() == 0


async def test_a_lost_lease_does_not_break_the_senders(desk: Desk) -> None:
    """A follower that waits for room is cancelled by its owner, not broken: the inbox stays open."""
    desk.store.leases.acquire(holder="one", ttl_s=60)
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](1)
    ended: list[str] = []

    async def follow() -> None:
        try:
            while True:
                await send.send(payments(1, MAX_BATCH))
        except trio.BrokenResourceError:
            ended.append("broken")
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    with pytest.RaisesGroup(LeaseLost):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            nursery.start_soon(desk.poster(desk.store.books).run, receive)
    assert ended == ["cancelled"]


async def test_a_leader_that_is_replaced_before_its_commit_writes_nothing(desk: Desk) -> None:
    """The fence is checked by the commit itself, not only by the read before it."""

    def replace_leader(step: str) -> None:
        if step == "commit":
            desk.store.leases.acquire(holder="one", ttl_s=60)

    desk.store.faults.at_step = replace_leader
    with pytest.raises(LeaseLost):
        await desk.post(payments(1, 3))
    assert desk.suspense_sat() == 0


async def test_the_loop_drains_what_was_sent_before_the_end(desk: Desk) -> None:
    """Who closes the inbox still gets everything posted that is in it."""
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.poster(desk.store.books).run, receive)
        await wait_all_tasks_blocked()
        for number in range(1, 4):
            send.send_nowait(payments(number, number))
        send.close()
    assert desk.suspense_sat() == 3


async def test_latency_is_measured_from_the_node_to_the_commit(desk: Desk) -> None:
    """Where the event bears the time at which it was read, and nowhere else."""
    measured, unmeasured = settled("a", 1, 1_000), settled("b", 2, 1_000)
    measured.seen_at_ns = 1
    await desk.post([measured, unmeasured])
    latency_s, none = desk.counts.latencies
    assert latency_s is not None
    assert latency_s > 0
    assert none is None


@dataclass
class Counted:
    """`Books` that count reads and commits."""

    books: Books
    steps: list[str] = field(default_factory=list)
    known: list[Known | None] = field(default_factory=list)

    def read_facts(self, wanted: Wanted) -> Facts:
        """The store's."""
        self.steps.append("read")
        self.known.append(wanted.known)
        return self.books.read_facts(wanted)

    def commit(self, changes: Changes) -> None:
        """The store's."""
        self.steps.append("commit")
        self.books.commit(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.books, name)


def test_the_head_is_read_once(desk: Desk) -> None:
    """What its own commit left, the next batch need not read: neither the head nor the node's cursor.

    The opening was the first in the feed.
    """
    books = Counted(desk.store.books)
    poster = desk.poster(books)
    for index in (1, 2, 3):
        poster.commit(payments(index, index))
    first, *others = books.known
    assert first is None
    assert [known and (known.head.sequence, known.cursors[NODE].settle_index) for known in others] == [(2, 1), (3, 2)]
    poster.commit([OPENED])
    assert books.known[-1] is None, "an opening is decided on all cursors"


async def test_the_head_is_read_again_after_a_failed_commit(desk: Desk, autojump_clock: MockClock) -> None:
    """Whoever posted in between: the batch is decided on what the store has."""
    books = Counted(desk.store.books)
    send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
    poster = desk.poster(books)
    poster.commit(payments(1, 1))
    desk.poster(desk.store.books).commit(payments(2, 2))
    send.send_nowait(payments(3, 3))
    send.close()
    await poster.run(receive)
    assert [known and known.head.sequence for known in books.known] == [None, 2, None]
    assert desk.counts.retries == ["conflict"]
    assert desk.suspense_sat() == 3


async def test_a_full_batch_that_waits_is_read_once(desk: Desk) -> None:
    """What was decided ahead is committed as it stands: one read and one commit for each batch."""
    books = Counted(desk.store.books)
    await desk.post(payments(1, 3 * MAX_BATCH), books=books)
    assert sorted(books.steps) == ["commit"] * 3 + ["read"] * 3
    assert desk.counts.batches == [MAX_BATCH] * 3
    assert desk.counts.retries == []
    assert desk.suspense_sat() == 3 * MAX_BATCH


async def test_what_comes_again_in_the_next_batch_is_booked_once(desk: Desk) -> None:
    """The batch that is decided ahead sees what the one before it is committing."""
    again = payments(1, MAX_BATCH)
    await desk.post(payments(1, MAX_BATCH), again, payments(MAX_BATCH + 1, 2 * MAX_BATCH))
    assert desk.counts.batches == [MAX_BATCH] * 3
    assert desk.counts.outcomes.count("already_posted") == MAX_BATCH
    assert desk.suspense_sat() == 2 * MAX_BATCH
    cursor = desk.board.cursor(NODE)
    assert cursor is not None
    assert cursor.settle_index == 2 * MAX_BATCH


@pytest.mark.parametrize(
    "fault", [CommitFault.CONFLICT, CommitFault.UNAVAILABLE, CommitFault.REPLY_LOST, CommitFault.REQUEST_LOST]
)
async def test_what_was_decided_ahead_of_a_failed_commit_is_decided_again(
    desk: Desk, fault: CommitFault, autojump_clock: MockClock
) -> None:
    """Whatever became of the commit that it was decided on: all is booked once, the feed has no gap."""
    desk.store.faults.plan(fault, CommitFault.NONE, fault)
    await desk.post(payments(1, 3 * MAX_BATCH))
    assert desk.suspense_sat() == 3 * MAX_BATCH
    assert desk.store.ledger.head().sequence == desk.board.sequence == 1 + 3 * MAX_BATCH
    events = desk.store.ledger.events(after_sequence=0, limit=10 * MAX_BATCH)
    assert [event.sequence for event in events] == list(range(1, 2 + 3 * MAX_BATCH))


async def test_a_leader_that_is_replaced_while_it_looks_ahead_ends_the_loop(desk: Desk) -> None:
    """LeaseLost is raised as it is, not in a group, and neither batch is written."""

    def replace_leader(step: str) -> None:
        if step == "commit":
            desk.store.leases.acquire(holder="one", ttl_s=60)

    desk.store.faults.at_step = replace_leader
    with pytest.raises(LeaseLost):
        await desk.post(payments(1, 2 * MAX_BATCH))
    assert desk.suspense_sat() == 0
