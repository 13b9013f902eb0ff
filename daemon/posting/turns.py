"""Beside Blink's own processes: settlements are committed while their locks are held, and told as Blink tells them.

What a lock protects is Blink's trigger at work on the same receipt: between its look at the books and its journal it
would not see ours. It does not protect our books: what makes each credit happen once are the keys in MongoDB.

    batch -> locks of its settlements, one round trip -> commit what could be locked -> give back, announce
                  |
                  v
    another holds it: that event waits its turn, and with it what its node says about all settlements so far
    (a listing is complete, HTLCs are checked), in the order in which it was said; everything else goes on, but for
    settlements behind an opening that waits, whose funds do not have them. A due deposit is not kept waiting:
    whoever follows the chain finds it due again.

Redis away: posting waits, for what is committed without a lock might be credited twice by Blink. Locks are prolonged
while their commit takes long, and a commit is tried again only under all of them: Redis may have been restarted, and
another program be at work. What a crash leaves behind ends after LOCK_TTL_MS.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import structlog
import trio

from daemon.domain.books import Changes
from daemon.domain.chain_events import ChainEvent, DepositDue
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.node_events import InvoiceSettled, InvoiceStateEvent, NodeEvent, NodeOpened, SuspenseAssigned
from daemon.domain.ports import Wallets
from daemon.domain.ports.locks import Beside
from daemon.posting.announcements import announcements
from daemon.posting.board import Board

T = TypeVar("T")

LOCK_TTL_MS: Final = 30_000
"""A commit takes milliseconds, and its locks are prolonged; after a crash nobody waits longer than this."""

_PROLONG_S: Final = LOCK_TTL_MS / 1000 / 3

MAX_REFUSED: Final = 1_000
"""Events that may wait for their turn before the next batch is taken. Blink holds a lock for seconds, and its workers
are a handful; if more wait, posting waits for them first."""

_MAX_READY: Final = 250
"""Tried again in one batch: as many as posting commits at once."""

_TURN_S: Final = (0.25, 5.0)
"""First and longest pause before a lock is tried again; Blink itself tries every 0.6 s. Whatever is ready within the
same quarter of a second is tried together, in one round trip."""

_BACKOFF_S: Final = (0.1, 5.0)
"""First and longest pause while Redis is away."""

_MAX_ACCOUNTS: Final = 200_000
"""Wallets whose account is remembered, which never changes: some 40 MB."""

log = structlog.get_logger()


@dataclass(slots=True)
class TurnsStatus:
    """For metrics; written by posting, read by any thread."""

    connected: bool = True
    refused: int = 0
    """How often a lock was another's."""
    waiting: int = 0
    """Events that wait for their turn now."""
    unannounced: int = 0
    """Messages that could not be sent."""

    def rest(self) -> None:
        """Nobody posts now: what waited is read from the nodes again, and nobody asks for Redis."""
        self.connected, self.waiting = True, 0


@dataclass(slots=True)
class _Refused:
    """An event that waits."""

    event: NodeEvent
    pause_s: float
    ready_at_s: float


@dataclass(slots=True)
class _Batch:
    """What may be committed now, under these locks."""

    events: list[NodeEvent] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)


class Turns:
    """Posts batches in turn with other programs. All but `status` is for the Trio thread."""

    def __init__(
        self, beside: Beside, wallets: Wallets, board: Board, rng: random.Random, status: TurnsStatus | None = None
    ) -> None:
        """`status` lives on when another turn as leader has begun."""
        self.status = status or TurnsStatus()
        self._beside = beside
        self._wallets = wallets
        self._board = board
        self._rng = rng
        self._refused: list[_Refused] = []
        self._changed = trio.Event()
        self._told: list[Changes] = []
        self._locks: Sequence[str] = ()
        self._accounts: dict[WalletId, AccountId | None] = {}
        self._thread = trio.CapacityLimiter(1)

    async def post(self, events: Sequence[NodeEvent], commit: Callable[[Sequence[NodeEvent]], Awaitable[Any]]) -> None:
        """Commits what has waited and is ready, then those of the events whose turn it is; the others wait."""
        await self._post(self._ready(), commit)
        while len(self._refused) >= MAX_REFUSED:
            await self._until_ready()
            await self._post(self._ready(), commit)
        await self._post(events, commit)

    async def _post(self, events: Sequence[NodeEvent], commit: Callable[[Sequence[NodeEvent]], Awaitable[Any]]) -> None:
        batch = await self._admit(events)
        self._locks = batch.locks
        if batch.events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._prolong, batch.locks)
                await commit(batch.events)
                nursery.cancel_scope.cancel("committed")
        await self._give_back(batch.locks)

    async def confirm(self) -> None:
        """Posting asks before it tries a batch again: returns when all its locks are ours. Those that were lost and
        that another program has now are waited for; all the others are ours meanwhile, and in nobody's way."""
        pause_s = _TURN_S[0]
        while self._locks and (lost := await self._lost()):
            log.warning("lock.lost", locks=lost, retry_in_s=round(pause_s, 2))
            await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _TURN_S[1])

    async def _lost(self) -> int:
        """How many of the batch's locks another program has."""
        names = self._locks
        return len(names) - len(await self._reached(partial(self._beside.take, names, ttl_ms=LOCK_TTL_MS)))

    def committed(self, changes: Changes) -> None:
        """Posting tells what `post` has committed: it is announced when the locks are given back."""
        self._told.append(changes)

    async def run(self, inbox: trio.MemorySendChannel[Sequence[NodeEvent]]) -> None:
        """Wakes posting by an empty list whenever something that waits is ready, until it is cancelled; what waits then
        is in no books, and is read from its node again."""
        while True:
            await self._until_ready()
            changed = self._changed
            await inbox.send([])
            await changed.wait()

    def _ready(self) -> list[NodeEvent]:
        now_s = trio.current_time()
        return [one.event for one in self._refused if one.ready_at_s <= now_s][:_MAX_READY]

    async def _until_ready(self) -> None:
        """Until something is."""
        while not self._ready():
            with trio.move_on_at(min((one.ready_at_s for one in self._refused), default=math.inf)):
                await self._changed.wait()

    async def _admit(self, events: Sequence[NodeEvent]) -> _Batch:
        """Takes what locks it can get. Events stay in order."""
        names = list(dict.fromkeys(name for event in events if (name := _lock_of(event)) is not None))
        taken: frozenset[str] = frozenset()
        if names:
            taken = await self._reached(partial(self._beside.take, names, ttl_ms=LOCK_TTL_MS))
        batch = _Batch(locks=[name for name in names if name in taken])
        unkept = 0
        for event in events:
            name = _lock_of(event)
            if (name is None or name in taken) and not self._is_behind(event):
                self._admitted(event)
                batch.events.append(event)
            elif isinstance(event, DepositDue):
                unkept += 1
                self.status.refused += 1
            else:
                self._refuse(event, is_locked=name is not None and name not in taken)
        if unkept:
            self._board.publish(chain_events=unkept)
        self._show()
        return batch

    def _is_behind(self, event: NodeEvent) -> bool:
        """Whether something of its node waits that was told before it and must be in the books before it."""
        for one in self._refused:
            if one.event == event:
                return False  # the others were told later
            if _must_precede(one.event, event):
                return True
        return False

    def _admitted(self, event: NodeEvent) -> None:
        if self._refused:
            self._refused = [one for one in self._refused if one.event != event]

    def _refuse(self, event: NodeEvent, *, is_locked: bool) -> None:
        known = next((one for one in self._refused if one.event == event), None)
        if known is None:
            known = _Refused(event, _TURN_S[0], 0.0)
            self._refused.append(known)
            if is_locked:
                log.info("lock.waiting", lock=_lock_of(event))
        elif known.event is event:
            known.pause_s = min(2 * known.pause_s, _TURN_S[1])
        else:
            return  # told again, as a gap is listed again: the first one's turn comes
        ready_at_s = trio.current_time() + known.pause_s * self._rng.uniform(0.5, 1.0)
        known.ready_at_s = math.ceil(ready_at_s / _TURN_S[0]) * _TURN_S[0]
        self.status.refused += is_locked

    def _show(self) -> None:
        self.status.waiting = len(self._refused)
        self._changed.set()
        self._changed = trio.Event()

    async def _prolong(self, names: Sequence[str]) -> None:
        """While a commit takes long; an outage of Redis is no reason to break it off."""
        while names:
            await trio.sleep(_PROLONG_S)
            try:
                taken = await self._run(partial(self._beside.take, names, ttl_ms=LOCK_TTL_MS))
            except Unavailable as outage:
                log.warning("lock.not_prolonged", cause=str(outage))
            else:
                if len(taken) < len(names):
                    log.warning("lock.lost", locks=len(names) - len(taken))

    async def _give_back(self, names: Sequence[str]) -> None:
        """Best effort, as Blink's own: locks end by themselves, and messages are hints."""
        told, self._told = self._told, []
        if not (names or told):
            return
        try:
            await self._run(partial(self._release_and_announce, names, told))
        except Unavailable as outage:
            self.status.unannounced += sum(len(changes.outbox) for changes in told)
            log.warning("lock.not_given_back", cause=str(outage), locks=len(names))

    def _release_and_announce(self, names: Sequence[str], told: Sequence[Changes]) -> None:
        self._beside.release(names)
        for changes in told:
            events = (row.event for row in changes.outbox)
            self._beside.announce(list(announcements(events, changes.pending, self._account_of)))

    def _account_of(self, wallet_id: WalletId) -> AccountId | None:
        if wallet_id not in self._accounts:
            if len(self._accounts) >= _MAX_ACCOUNTS:
                self._accounts.clear()
            wallet = self._wallets.get(wallet_id)
            self._accounts[wallet_id] = None if wallet is None else wallet.account_id
        return self._accounts[wallet_id]

    async def _reached(self, call: Callable[[], T]) -> T:
        """The call's answer, however long Redis is away."""
        pause_s = _BACKOFF_S[0]
        while True:
            try:
                answer = await self._run(call)
            except Unavailable as outage:
                self.status.connected = False
                log.error("redis.waiting", cause=str(outage), retry_in_s=round(pause_s, 2))
                await trio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _BACKOFF_S[1])
            else:
                self.status.connected = True
                return answer

    async def _run(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._thread)


def _must_precede(earlier: NodeEvent, later: NodeEvent) -> bool:
    """Whether of two events of one node the later one counts on the earlier one. What a node says rests on all that
    it said before; a settlement on the opening alone, and what is held or canceled on nothing."""
    alone = (ChainEvent, InvoiceStateEvent)
    pubkey = None if isinstance(later, alone) else getattr(later, "pubkey", None)
    if pubkey is None or getattr(earlier, "pubkey", None) != pubkey:
        return False
    return isinstance(earlier, NodeOpened) or not isinstance(later, InvoiceSettled)


def _lock_of(event: NodeEvent) -> str | None:
    """The name of Blink's lock on what the event would credit (blink-contract.md 3.3, 3.4)."""
    if isinstance(event, InvoiceSettled):
        return f"locks:paymenthash:{event.payment_hash}"
    if isinstance(event, DepositDue):
        return f"locks:onchaintxhash:{event.txid}:{event.vout}"
    if isinstance(event, SuspenseAssigned) and event.outpoint:
        return f"locks:onchaintxhash:{event.outpoint}"
    if isinstance(event, SuspenseAssigned) and event.payment_hash:
        return f"locks:paymenthash:{event.payment_hash}"
    return None
