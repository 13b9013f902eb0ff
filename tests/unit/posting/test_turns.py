"""Posting in turn with another program: what is locked waits, everything else goes on, nothing is lost or doubled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from adapters.memory import MemoryStore
from adapters.memory.beside import MemoryBeside, MemoryRedis
from daemon.domain.accounts import SUSPENSE, wallet_account
from daemon.domain.books import Changes
from daemon.domain.chain_events import DepositDue
from daemon.domain.errors import Conflict, Unavailable
from daemon.domain.identifiers import NodePubkey, lightning_key
from daemon.domain.money import Currency
from daemon.domain.node_events import (
    InvoiceHeld,
    ListingCompleted,
    NodeEvent,
    NodeOpened,
    NodeRestored,
    SuspenseAssigned,
)
from daemon.domain.ports import Wallet
from daemon.posting import turns as turns_module
from daemon.posting.board import Board
from daemon.posting.poster import MAX_BATCH, MAX_CONFLICTS, Poster
from daemon.posting.turns import LOCK_TTL_MS, Turns
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, invoice, settled, txid_of
from tests.silent import SilentMetrics

OPENED = NodeOpened(
    pubkey=NODE, name="lnd1", funds_msat=0, through_index=0, checkpoint_hash=None, opened_at_ms=MORNING_MS
)
HOURS_MS = 3_600_000


def lock_of(name: str) -> str:
    return f"locks:paymenthash:{hash_of(name)}"


class BatchSizes(SilentMetrics):
    """Keeps the sizes of all commits."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def committed(self, *, events: int, duration_s: float) -> None:
        """One batch."""
        self.batches.append(events)


class Till:
    """A poster with turns over a store in memory, and Blink at the same Redis; calls of threads are made at once."""

    def __init__(self) -> None:
        self.store = MemoryStore(now_s=lambda: MORNING_MS / 1000)
        self.redis = MemoryRedis(trio.current_time)
        self.blink = MemoryBeside(self.redis)
        self.board = Board()
        self.metrics = BatchSizes()
        self.turns = Turns(MemoryBeside(self.redis), self.store.wallets, self.board, random.Random(1))
        fence = self.store.leases.acquire(holder="till", ttl_s=600)
        assert fence is not None
        self.poster = Poster(
            books=self.store.books,
            prices=self,
            board=self.board,
            metrics=self.metrics,
            fence=fence,
            now_ms=lambda: MORNING_MS,
            rng=random.Random(1),
            turns=self.turns,
        )
        self.send, self.inbox = trio.open_memory_channel[Sequence[NodeEvent]](16)

    def current(self) -> None:
        return None

    def start(self, nursery: trio.Nursery, *, locked: Sequence[str] = ()) -> None:
        """`locked` are payments that Blink holds from before the start."""
        if locked:
            self.blink.take([lock_of(name) for name in locked], ttl_ms=HOURS_MS)
        nursery.start_soon(self.poster.run, self.inbox)
        nursery.start_soon(self.turns.run, self.send)

    def wallet_with_invoice(self, name: str) -> Wallet:
        """One that the payment of this name is for."""
        wallet = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="one")
        self.store.invoices.insert(invoice(name, wallet.wallet_id, account_id=wallet.account_id))
        return wallet

    def balance(self, account: str = SUSPENSE) -> int:
        return self.store.ledger.balance((account, "BTC"))[0]

    async def has(self, amount_sat: int, account: str = SUSPENSE) -> None:
        await until(lambda: self.balance(account) == amount_sat)

    def settle_index(self, pubkey: NodePubkey) -> int | None:
        cursor = self.board.cursor(pubkey)
        return None if cursor is None else cursor.settle_index


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(600):
        while not condition():  # noqa: ASYNC110 (what is waited for is seen from outside only)
            await trio.sleep(0.05)


@contextmanager
def books_away(till: Till) -> Iterator[None]:
    """No commit gets through meanwhile."""

    def commit(_changes: Changes) -> None:
        raise Unavailable("MongoDB is away")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(till.store.books, "commit", commit)
        yield


@pytest.fixture
async def till(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> Till:
    """Threads would let the clock of the test leap: what they do is done in place."""

    async def in_place(call: object, *args: object, **_options: object) -> object:
        await trio.lowlevel.checkpoint()
        return call(*args)  # type: ignore[operator]  # a function, as trio's own says

    monkeypatch.setattr(trio.to_thread, "run_sync", in_place)
    return Till()


async def test_only_what_another_holds_waits_and_only_as_long(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """The rest of its batch is in the books at once; it itself when the lock is free, once."""
    till.start(nursery, locked=["b"])
    await till.send.send([OPENED, settled("a", 1, 1_000), settled("b", 2, 20_000), settled("c", 3, 300_000)])
    await till.has(301)
    await trio.sleep(60)
    assert till.balance() == 301
    assert till.turns.status.waiting == 1
    assert till.turns.status.refused > 3
    till.blink.release([lock_of("b")])
    await till.has(321)
    assert (till.turns.status.waiting, till.redis.locks) == (0, {})
    assert till.settle_index(NODE) == 3
    nursery.cancel_scope.cancel()


async def test_what_a_node_says_of_all_its_settlements_waits_with_them(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Else a listing would count as complete whose payment is in no books; another node's goes on."""
    other = replace(OPENED, pubkey=OTHER_NODE, name="lnd2")
    till.start(nursery, locked=["b"])
    listed = ListingCompleted(pubkey=NODE, through_index=9, checkpoint_hash=None)
    await till.send.send([OPENED, other, settled("b", 9, 20_000), listed, replace(listed, pubkey=OTHER_NODE)])
    await until(lambda: till.settle_index(OTHER_NODE) == 9)
    await trio.sleep(30)
    assert (till.settle_index(NODE), till.turns.status.waiting) == (0, 2)
    till.blink.release([lock_of("b")])
    await till.has(20)
    await until(lambda: till.settle_index(NODE) == 9)
    nursery.cancel_scope.cancel()


async def test_what_settles_after_an_opening_that_waits_waits_with_it(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """The opening's funds do not have it: booked before, it would be taken off the opening balance."""
    wallet = till.wallet_with_invoice("c")
    till.start(nursery, locked=["b"])
    opened = replace(OPENED, funds_msat=20_000, through_index=1)
    await till.send.send([settled("b", 1, 20_000), opened, settled("c", 2, 300_000), settled("d", 3, 4_000_000)])
    await trio.sleep(30)
    till.blink.release([lock_of("b")])
    await till.has(300, wallet_account(wallet.wallet_id))
    await until(lambda: till.settle_index(NODE) == 3)
    cursor = till.board.cursor(NODE)
    assert cursor is not None
    assert (cursor.booked_msat, till.balance()) == (4_320_000, 4_000)
    nursery.cancel_scope.cancel()


async def test_statements_of_a_node_keep_their_order(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """A listing that was told first is booked first, also when one that came later is ready sooner."""
    till.start(nursery, locked=["b"])
    listed = ListingCompleted(pubkey=NODE, through_index=5, checkpoint_hash=None)
    await till.send.send([OPENED, settled("b", 1, 20_000), listed])
    await trio.sleep(30)  # by now they wait for seconds at a time
    restored = NodeRestored(pubkey=NODE, newest_index=1)
    await till.send.send([restored])
    till.blink.release([lock_of("b")])
    await till.has(20)
    await until(lambda: till.turns.status.waiting == 0)
    assert till.settle_index(NODE) == 0  # of the new epoch, which nothing has completed
    nursery.cancel_scope.cancel()


async def test_what_is_held_is_told_at_once(autojump_clock: MockClock, till: Till, nursery: trio.Nursery) -> None:
    """A lock on another payment is no reason to wait: it says nothing of settlements."""
    till.wallet_with_invoice("h")
    till.start(nursery, locked=["b"])
    held = InvoiceHeld(
        pubkey=NODE, payment_hash=hash_of("h"), received_msat=1_000, expiry_height=200, held_at_ms=MORNING_MS
    )
    await till.send.send([OPENED, settled("b", 1, 20_000), held])
    await until(lambda: "invoice.held" in [one.type for one in till.store.ledger.events(after_sequence=0, limit=10)])
    assert till.turns.status.waiting == 1
    nursery.cancel_scope.cancel()


async def test_what_is_told_again_while_it_waits_waits_once(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """A gap is listed again every few seconds as long as it stands: a lock of minutes must not fill the bound."""
    till.start(nursery, locked=["b"])
    await till.send.send([OPENED])
    for again in range(20):
        listed = ListingCompleted(pubkey=NODE, through_index=9, checkpoint_hash=None)
        await till.send.send([replace(settled("b", 9, 20_000), seen_at_ns=again + 1), listed])
        await trio.sleep(1)
    assert till.turns.status.waiting == 2
    till.blink.release([lock_of("b")])
    await till.has(20)
    await until(lambda: till.settle_index(NODE) == 9)
    assert till.turns.status.waiting == 0
    nursery.cancel_scope.cancel()


async def test_money_that_came_again_is_no_repeat_of_what_waits(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """The same invoice, but more of it."""
    till.start(nursery, locked=["b"])
    await till.send.send([OPENED, settled("b", 1, 20_000), settled("b", 1, 50_000)])
    await trio.sleep(10)
    assert till.turns.status.waiting == 2
    till.blink.release([lock_of("b")])
    await till.has(50)
    nursery.cancel_scope.cancel()


async def test_a_lock_that_was_lost_is_waited_for_before_the_commit_is_tried_again(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Redis was restarted while MongoDB was away: another program is at this payment now."""
    till.start(nursery)
    with books_away(till):
        await till.send.send([OPENED, settled("a", 1, 1_000)])
        await trio.sleep(5)
        till.redis.locks.clear()
        assert till.blink.take([lock_of("a")], ttl_ms=HOURS_MS) == {lock_of("a")}
    await trio.sleep(60)
    assert till.balance() == 0
    till.blink.release([lock_of("a")])
    await till.has(1)
    await until(lambda: till.redis.locks == {})
    nursery.cancel_scope.cancel()


async def test_a_batch_that_is_split_is_tried_again_under_its_locks_only(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last conflict is with another program that has the lock by now."""
    commit, conflicts = till.store.books.commit, 0

    def conflict_first(changes: Changes) -> None:
        nonlocal conflicts
        conflicts += 1
        if conflicts > MAX_CONFLICTS + 1:
            commit(changes)
            return
        if conflicts == MAX_CONFLICTS + 1:
            till.redis.locks.clear()
            till.blink.take([lock_of("a")], ttl_ms=HOURS_MS)
        raise Conflict("the document was written meanwhile")

    monkeypatch.setattr(till.store.books, "commit", conflict_first)
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000)])
    await until(lambda: conflicts > MAX_CONFLICTS)
    await trio.sleep(60)
    assert till.balance() == 0
    till.blink.release([lock_of("a")])
    await till.has(1)
    nursery.cancel_scope.cancel()


async def test_who_leads_no_more_neither_waits_nor_misses_redis(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """A standby's metrics must not alarm for what it met as leader."""
    till.start(nursery, locked=["b"])
    await till.send.send([OPENED, settled("b", 1, 20_000)])
    await until(lambda: till.turns.status.waiting == 1)
    till.redis.away = "connection refused"
    await until(lambda: not till.turns.status.connected)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await until(lambda: till.turns.status.connected)
    assert (till.turns.status.waiting, till.turns.status.refused > 0) == (0, True)


async def test_a_lock_that_was_left_behind_ends_and_the_payment_is_posted(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Of a process that was killed: nobody has to do anything."""
    till.blink.take([lock_of("a")], ttl_ms=LOCK_TTL_MS)
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000)])
    await till.has(1)
    assert trio.current_time() >= LOCK_TTL_MS / 1000
    nursery.cancel_scope.cancel()


async def test_posting_waits_while_redis_is_away(autojump_clock: MockClock, till: Till, nursery: trio.Nursery) -> None:
    """Nothing is posted without its lock, and nothing is lost; the metric says so."""
    till.redis.away = "connection refused"
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000)])
    await trio.sleep(100)
    assert (till.balance(), till.turns.status.connected) == (0, False)
    till.redis.away = ""
    await till.has(1)
    assert till.turns.status.connected
    nursery.cancel_scope.cancel()


async def test_a_due_deposit_is_counted_as_looked_at_and_not_kept(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Whoever follows the chain must not wait for Blink: it finds the deposit due again."""
    till.blink.take([f"locks:onchaintxhash:{txid_of('a')}:0"], ttl_ms=HOURS_MS)
    till.start(nursery)
    await till.send.send([DepositDue(txid=txid_of("a"), vout=0, due_at_ms=MORNING_MS)])
    await until(lambda: till.board.chain_events == 1)
    assert (till.turns.status.waiting, till.turns.status.refused) == (0, 1)
    nursery.cancel_scope.cancel()


async def test_listeners_hear_of_a_payment_as_from_blink(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Channels and payloads of blink-contract.md 3.7; of money in suspense nobody hears."""
    wallet = till.wallet_with_invoice("a")
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000), settled("b", 2, 1_000)])
    await till.has(1, wallet_account(wallet.wallet_id))
    await until(lambda: len(till.redis.announced) == 2)
    paid = {"paymentHash": hash_of("a"), "status": "Paid"}
    assert [(one.channel, one.payload) for one in till.redis.announced] == [
        (f"LN_PAYMENT_STATUS_{hash_of('a')}", paid),
        (f"ACCOUNT_UPDATE_{wallet.account_id}", {"invoice": {"walletId": wallet.wallet_id, **paid}}),
    ]
    nursery.cancel_scope.cancel()


async def test_redis_going_away_after_the_commit_changes_nothing_in_the_books(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody was told of is counted; the next batch waits for Redis, and its lock is found to be ours."""
    commit = till.store.books.commit

    def commit_and_lose_redis(changes: Changes) -> None:
        commit(changes)
        till.redis.away = "gone"

    monkeypatch.setattr(till.store.books, "commit", commit_and_lose_redis)
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000)])
    await till.has(1)
    await till.send.send([settled("a", 1, 3_000)])
    await trio.sleep(10)
    assert (till.balance(), till.turns.status.unannounced > 0) == (1, True)
    monkeypatch.setattr(till.store.books, "commit", commit)
    till.redis.away = ""
    await till.has(3)
    nursery.cancel_scope.cancel()


async def test_more_waiting_events_than_the_bound_hold_up_the_rest(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and nothing is stuck: they go on when the locks are free."""
    monkeypatch.setattr(turns_module, "MAX_REFUSED", 3)
    names = [f"n{number}" for number in range(5)]
    till.start(nursery, locked=names)
    await till.send.send([OPENED])
    for index, name in enumerate(names, 1):
        await till.send.send([settled(name, index, 1_000)])
        await trio.sleep(1)
    await till.send.send([settled("free", 9, 700_000)])
    await trio.sleep(60)
    assert (till.turns.status.waiting, till.balance()) == (3, 0)
    till.blink.release([lock_of("n0")])
    await till.has(701)  # there is room: the next batch is taken
    till.blink.release([lock_of(name) for name in names])
    await till.has(705)
    nursery.cancel_scope.cancel()


async def test_what_all_others_wait_for_is_not_stuck_behind_them(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ready while posting waits for Redis with more than may wait for their turn: it is tried all the same."""
    monkeypatch.setattr(turns_module, "MAX_REFUSED", 3)
    till.start(nursery, locked=["b"])
    await till.send.send([settled("b", 1, 20_000), replace(OPENED, funds_msat=20_000, through_index=1)])
    await until(lambda: till.turns.status.waiting == 2)
    till.redis.away = "connection refused"
    for index in range(2, 6):
        await till.send.send([settled(f"after {index}", index, 1_000)])
    await trio.sleep(30)
    till.redis.away = ""
    await trio.sleep(30)
    till.blink.release([lock_of("b")])
    await till.has(4)
    assert till.settle_index(NODE) == 5
    nursery.cancel_scope.cancel()


async def test_what_waited_beyond_the_bound_comes_in_batches_of_the_usual_size(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are free at once: a commit has its bound."""
    monkeypatch.setattr(turns_module, "MAX_REFUSED", MAX_BATCH + 1)
    names = [f"n{number}" for number in range(2 * MAX_BATCH)]
    till.start(nursery, locked=names)
    await till.send.send([OPENED])
    await till.send.send([settled(name, index, 1_000) for index, name in enumerate(names, 1)])
    await until(lambda: till.turns.status.waiting > MAX_BATCH + 1)
    await till.send.send([settled("free", 2 * MAX_BATCH + 1, 1_000)])
    await trio.sleep(60)
    till.redis.away = "connection refused"
    await trio.sleep(60)  # by now all of them are to be tried again
    till.redis.locks.clear()
    till.redis.away = ""
    await till.has(2 * MAX_BATCH + 1)
    assert max(till.metrics.batches) == MAX_BATCH
    nursery.cancel_scope.cancel()


async def test_a_lock_is_kept_while_its_commit_takes_long(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Longer than the lock lives by itself, as while MongoDB is away: another program must not come in between."""
    till.start(nursery)
    with books_away(till):
        await till.send.send([OPENED, settled("a", 1, 1_000)])
        await trio.sleep(3 * LOCK_TTL_MS / 1000)
        assert till.blink.take([lock_of("a")], ttl_ms=HOURS_MS) == frozenset()
    await till.has(1)
    await trio.sleep(1)
    assert till.blink.take([lock_of("a")], ttl_ms=HOURS_MS) == {lock_of("a")}
    nursery.cancel_scope.cancel()


async def test_an_assignment_waits_for_the_lock_on_its_payment(
    autojump_clock: MockClock, till: Till, nursery: trio.Nursery
) -> None:
    """Blink may be about to credit the same payment."""
    wallet = till.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="one").wallet_id
    till.start(nursery)
    await till.send.send([OPENED, settled("a", 1, 1_000)])
    await till.has(1)
    await trio.sleep(1)
    till.blink.take([lock_of("a")], ttl_ms=HOURS_MS)
    asked = SuspenseAssigned(
        key=lightning_key(NODE, hash_of("a")),
        wallet_id=wallet,
        by="ann",
        reason="why",
        at_ms=MORNING_MS,
        payment_hash=hash_of("a"),
    )
    await till.send.send([asked])
    await trio.sleep(60)
    assert till.balance() == 1
    till.blink.release([lock_of("a")])
    await till.has(1, wallet_account(wallet))
    nursery.cancel_scope.cancel()
