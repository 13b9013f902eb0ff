"""Follows one bitcoind: every deposit reaches the inbox, from the block that the books have.

One task does everything in order, so that what it tells about the mempool always belongs to the block that it
told before: walk to the tip, credit what is deep enough, look at the mempool, look for scripts learnt late; then
wait for a hint or the next poll. ZMQ wakes it, RPC tells the truth: without ZMQ, or while it is silent, the same
round is made by polling.

| the node's answer about the cursor's block | what is done |
| --- | --- |
| in the best chain | the following blocks are connected |
| in another branch | back to the fork, block by block; then the new branch |
| in a branch above the tip, not invalid | waited out: the node came back from a crash and is still loading |
| unknown, the tip is lower | the same |
| unknown, the tip is as high | back to the fork by the hashes that the books keep |
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
import trio

from daemon.domain.chain import BlockRef, ChainCursor, Deposit
from daemon.domain.chain_events import ChainMoved, ConnectedBlock, DepositDue
from daemon.domain.errors import Misconfigured, NodeRefused, Unavailable
from daemon.domain.identifiers import Outpoint
from daemon.domain.ports import ChainHint, ChainInfo, ChainNode, Dealer, Deposits, HintsLost, Metrics, Scripts
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from daemon.domain.status import ChainStatus
from daemon.ingest.back_scan import BackScan
from daemon.ingest.chain_calls import ChainCalls
from daemon.ingest.chain_handover import MAX_LIST, ChainHandover
from daemon.ingest.chain_walk import ChainWalk, ReorgTooDeep
from daemon.ingest.clock import Clock
from daemon.ingest.handover import Inbox
from daemon.ingest.mempool import MempoolWatch
from daemon.ingest.pace import Pace
from daemon.posting.board import Board
from daemon.supervision import TaskState

HINT_BATCHES = 1_000
"""Batches of hints that may wait while the chain is walked; what does not fit is made up for by a look."""

MAX_HINTS = 10_000
"""Taken at once, before the tip is looked at again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLimits:
    """From the configuration: where to begin at the first start (None: the tip), how deep a reorg may be, how
    far to look back for a script that was learnt late, and whether other programs' addresses count."""

    start_height: int | None = None
    max_reorg_depth: int = 100
    back_scan_blocks: int = 144
    foreign_addresses: bool = False


@dataclass(kw_only=True, slots=True)
class ChainFollower:
    """The chain of the configuration. `inbox` stays open: it is its owner's."""

    node: ChainNode
    network: str
    deposits: Deposits
    scripts: Scripts
    board: Board
    inbox: Inbox
    status: ChainStatus
    metrics: Metrics
    limits: ChainLimits
    dealer: Dealer
    """Who changes the sats of deposits to dollar wallets."""
    addresses_known: trio.Event | None = None
    """Set when all addresses that other programs wrote so far are known; None where they do not count."""
    clock: Clock = field(default_factory=Clock)
    pace: Pace = field(default_factory=Pace)
    _calls: ChainCalls = field(default_factory=ChainCalls)
    _handover: ChainHandover = field(init=False)

    def __post_init__(self) -> None:
        self._handover = ChainHandover(self.inbox, self.board)

    async def run(self, healthy: Callable[[], None]) -> None:
        """Follows until the node is unavailable; never returns.

        Raises Unavailable when the node is away or the chain cannot be followed for now (`daemon.supervision`
        starts it again), alone or in an exception group, Misconfigured if the node is on another network.
        """
        cause = ""
        try:
            await self._follow(healthy)
        except* (NodeRefused, ReorgTooDeep) as halts:
            cause = str(_first_of(halts))
        finally:
            self.status.connected = False
            if not self.status.halted:
                self.status.state = "stopped"
        # Reached only if nothing else went wrong beside it. Lightning goes on meanwhile.
        self.status.halted = True
        self.status.state = f"halted: {cause}"
        self.status.last_error = cause
        log.error("chain.halted", cause=cause)
        await trio.sleep(self.pace.halted_s)
        raise Unavailable(cause)

    def show(self, state: TaskState) -> None:
        """Puts what the supervisor says into the status."""
        if not state.healthy:
            if not self.status.halted:
                self.status.state = f"waiting {state.retry_in_s:.0f} s"
            self.status.last_error = state.problem

    async def _follow(self, healthy: Callable[[], None]) -> None:
        self.status.state = "connecting"
        # A connection that broke may have left events on their way: the books are asked when they have arrived.
        await self._handover.posted()
        info = await self._wait_downloaded()
        if self.addresses_known is not None:
            self.status.state = "waiting for the addresses of other programs"
            await self.addresses_known.wait()
        await self._calls.run(self.scripts.owners, ())  # what it keeps of them in memory is read now, once
        cursor = await self._calls.run(self.deposits.cursor) or await self._begin(info)
        if cursor.genesis != info.genesis:
            raise Misconfigured(
                f"the books follow the chain of block 0 {cursor.genesis}, bitcoind is on that of {info.genesis}: "
                "give the address of a node of the same chain, or another database"
            )
        self.board.publish(chain=cursor)
        self.status.cursor = cursor.block
        self.status.connected, self.status.connected_since = True, datetime.now(UTC)
        self.status.connections += 1
        log.info("chain.connected", height=cursor.block.height, tip=info.tip.height, version=info.version)
        async with self._hints() as hints:
            await _Rounds(self, cursor, hints, healthy).run()

    async def _wait_downloaded(self) -> ChainInfo:
        """Who the node is; waits while it is in initial download, for its tip is not the world's yet."""
        while True:
            info = await self._calls.run(self.node.info)
            if info.network != self.network:
                raise Misconfigured(
                    f"bitcoind is on {info.network}, tellerd is configured for {self.network}: "
                    f'set network = "{info.network}" or the address of another node'
                )
            self.status.tip = info.tip
            if not info.initial_download:
                return info
            self.status.state = f"bitcoind is in initial download: block {info.tip.height} of {info.headers}"
            log.info("chain.initial_download", height=info.tip.height, headers=info.headers)
            await trio.sleep(self.pace.initial_download_s)

    async def _begin(self, info: ChainInfo) -> ChainCursor:
        """The first cursor: the block before `start_height`, or the tip."""
        block = info.tip
        if self.limits.start_height is not None:
            height = max(0, self.limits.start_height - 1)
            block_hash = await self._calls.run(self.node.block_hash_at, height)
            if block_hash is None:
                raise Misconfigured(
                    f"bitcoind.start_height: {self.limits.start_height} is above the tip at {info.tip.height}: "
                    "leave it out to begin at the tip"
                )
            block = BlockRef(height=height, hash=block_hash)
        first = ChainMoved(
            genesis=info.genesis,
            base=None,
            fork=None,
            disconnected=(),
            connected=(ConnectedBlock(block=block, outputs=()),),
            moved_at_ms=self.clock.now_ms(),
        )
        await self._handover.tell([first])
        await self._handover.posted()
        log.info("chain.begun", height=block.height, hash=block.hash)
        return first.target

    @asynccontextmanager
    async def _hints(self) -> AsyncIterator[trio.MemoryReceiveChannel[Sequence[ChainHint]] | None]:
        """What the node pushes, kept while the chain is walked; None where nothing is configured."""
        subscription = self.node.hints()
        if subscription is None:
            self.status.hints = "off"
            yield None
            return
        send, receive = trio.open_memory_channel[Sequence[ChainHint]](HINT_BATCHES)
        self.status.hints = "silent"  # until the first one
        async with subscription as stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_hints, stream, send)
            yield receive
            nursery.cancel_scope.cancel("done")

    async def _keep_hints(
        self, stream: AsyncIterator[Sequence[ChainHint]], send: trio.MemorySendChannel[Sequence[ChainHint]]
    ) -> None:
        async for batch in stream:
            for hint in batch:
                if isinstance(hint, HintsLost):
                    self.metrics.hints_lost(topic=hint.topic, missing=hint.missing)
                else:
                    self.status.hints = "live"
            try:
                send.send_nowait(batch)
            except trio.WouldBlock:
                self.metrics.hints_lost(topic="queue", missing=len(batch))
                # What follows waits, and is lost, at the socket, which counts.
                await send.send([HintsLost("queue", len(batch))])


def _still_held(deposit: Deposit, deal: Deal | Unpriced | None) -> bool:
    """Whether the books know already that it waits for a price, and why."""
    return isinstance(deal, Unpriced) and deal.reason == deposit.held_reason


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


@dataclass(slots=True)
class _Rounds:
    """The rounds of one connection."""

    follower: ChainFollower
    cursor: ChainCursor
    hints: trio.MemoryReceiveChannel[Sequence[ChainHint]] | None
    healthy: Callable[[], None]
    _walk: ChainWalk = field(init=False)
    _mempool: MempoolWatch = field(init=False)
    _back_scan: BackScan = field(init=False)
    _looked_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        own = self.follower
        self._walk = ChainWalk(
            node=own.node,
            calls=own._calls,
            handover=own._handover,
            clock=own.clock,
            owners=own.scripts.owners,
            stored_cursor=own.deposits.cursor,
            status=own.status,
            max_reorg_depth=own.limits.max_reorg_depth,
            pace=own.pace,
        )
        self._mempool = MempoolWatch(
            node=own.node,
            calls=own._calls,
            handover=own._handover,
            clock=own.clock,
            owners=own.scripts.owners,
            deposits=own.deposits,
        )
        self._back_scan = BackScan(
            node=own.node,
            calls=own._calls,
            handover=own._handover,
            clock=own.clock,
            scripts=own.scripts,
            blocks=own.limits.back_scan_blocks,
        )

    async def run(self) -> None:
        while True:
            await self._to_tip()
            if self.follower.limits.foreign_addresses:
                await self._back_scan.run(self.cursor.block)
            await self._look()
            self.follower.status.state = "live"
            self.follower.status.halted = False
            self.healthy()
            await self._wait()

    async def _to_tip(self) -> None:
        """Follows the chain until nothing is to be done at the node's tip, and credits what is deep enough."""
        while (moved := await self._walk.step(self.cursor)) is not None:
            self.cursor = moved
            self._mempool.look_soon()
            await self._credit_due()
        await self._credit_due()

    async def _credit_due(self) -> None:
        own = self.follower
        await own._handover.posted()
        after: Outpoint | None = None
        while page := await own._calls.run(
            own.deposits.due, height=self.cursor.block.height, after=after, limit=MAX_LIST
        ):
            after = page[-1].outpoint
            deals, asked_at_ns = await self._deals(page)
            now_ms = own.clock.now_ms()
            await own._handover.tell(
                [
                    DepositDue(
                        txid=one.txid,
                        vout=one.vout,
                        due_at_ms=now_ms,
                        deal=deals.get(one.outpoint),
                        asked_at_ns=asked_at_ns.get(one.outpoint, 0),
                    )
                    for one in page
                    if not _still_held(one, deals.get(one.outpoint))
                ]
            )

    async def _deals(self, page: Sequence[Deposit]) -> tuple[dict[Outpoint, Deal | Unpriced], dict[Outpoint, int]]:
        """What the dealer gives now for deposits of dollar wallets, and when each was asked for: a slow dealer's
        page may take longer than his first price holds. Where he has no price at all, the rest of the page is not
        asked for: each of them waits for the next round, and not for a dealer who is away."""
        own = self.follower
        in_dollars = await own._calls.run(own.deposits.in_dollars, {deposit.wallet_id for deposit in page})
        deals: dict[Outpoint, Deal | Unpriced] = {}
        asked_at_ns: dict[Outpoint, int] = {}
        last: Deal | Unpriced | None = None
        for deposit in page if in_dollars else ():
            if deposit.wallet_id in in_dollars:
                if not isinstance(last, Unpriced) or last.reason is UnpricedReason.REFUSED:
                    before_ns = time.monotonic_ns()
                    last = await own._calls.run(own.dealer.cents_for, amount_sat=deposit.amount_sat)
                    asked_at_ns[deposit.outpoint] = before_ns
                deals[deposit.outpoint] = last
        return deals, asked_at_ns

    async def _look(self) -> None:
        """Looks at the whole mempool when something calls for it, or its time has come."""
        own = self.follower
        live = own.status.hints == "live"
        period_s = own.pace.mempool_hinted_s if live else own.pace.mempool_s
        if not self._mempool.must_look and trio.current_time() - self._looked_at < period_s:
            return
        if await self._mempool.look(self.cursor.block):
            self._looked_at = trio.current_time()
            if live and self._mempool.unhinted:
                own.status.hints = "silent"
                log.warning("chain.hints_silent", unannounced_txs=self._mempool.unhinted)

    async def _wait(self) -> None:
        """Until hints come, or the next poll; what has come is looked at."""
        pause_s = self.follower.pace.tip_s
        if self.hints is None:
            await trio.sleep(pause_s)
            return
        arrived: list[ChainHint] = []
        with trio.move_on_after(pause_s):
            arrived.extend(await self.hints.receive())
        while len(arrived) < MAX_HINTS:
            try:
                arrived.extend(self.hints.receive_nowait())
            except trio.WouldBlock:
                break
        if arrived:
            await self._mempool.take_hints(arrived)
