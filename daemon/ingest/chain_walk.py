"""How the books follow the node's best chain: forward block by block, back to the fork when it took another branch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from daemon.domain.chain import BlockRef, ChainCursor
from daemon.domain.chain_events import ChainMoved, ConnectedBlock
from daemon.domain.errors import InvariantViolation, TellerdError, Unavailable
from daemon.domain.identifiers import BlockHash
from daemon.domain.ports import ChainNode, HeaderInfo
from daemon.domain.status import ChainStatus
from daemon.ingest.chain_calls import ChainCalls
from daemon.ingest.chain_handover import ChainHandover
from daemon.ingest.clock import Clock
from daemon.ingest.pace import Pace
from daemon.ingest.scanned_blocks import Owners, scanned_blocks

STEP_BLOCKS: Final = 1_000
"""Blocks connected before what they confirmed is credited: half a minute of catching up."""

MOVE_BLOCKS: Final = 100
"""Blocks in one move: a crash repeats no more."""

MOVE_OUTPUTS: Final = 250
"""Outputs for wallets in one move, as in any commit; a single block may have more, at most some 25,000 (a
limit of its size): seconds of one commit, and a transaction that MongoDB's cache must hold (0.5 GB refused
15,000)."""

MOVE_S: Final = 2.0
"""A move that is not full is told after this: what a slow catch-up has found is not kept back."""

log = structlog.get_logger()


class ReorgTooDeep(TellerdError):
    """The chain left a branch that is longer than the configuration allows: a person must look first."""


@dataclass(kw_only=True, slots=True)
class ChainWalk:
    """Walks from the cursor towards the node's tip."""

    node: ChainNode
    calls: ChainCalls
    handover: ChainHandover
    clock: Clock
    owners: Owners
    stored_cursor: Callable[[], ChainCursor | None]
    status: ChainStatus
    max_reorg_depth: int
    pace: Pace
    _progress: _Progress = field(init=False)

    def __post_init__(self) -> None:
        self._progress = _Progress(self.status, self.pace.progress_s)

    async def step(self, cursor: ChainCursor) -> ChainCursor | None:
        """Goes on as far as one step reaches, and hands over how; returns where it stands, None at the tip.

        Raises Unavailable while the node cannot say what became of the cursor's block, ReorgTooDeep.
        """
        tip = await self.calls.run(self.node.tip)
        self.status.tip, self.status.cursor = tip, cursor.block
        if tip == cursor.block:
            self._progress.end()
            return None
        header = await self.calls.run(self.node.header, cursor.block.hash)
        if header is not None and header.in_best_chain:
            return await self._connect(cursor, tip)
        await self._refuse_while_loading(cursor.block, tip, known=header is not None)
        lost, fork = await (self._branch_above_fork(header) if header is not None else self._forgotten_branch(cursor))
        log.warning("chain.reorg", depth=len(lost), fork=fork.height, lost=cursor.block.hash)
        return await self._tell(cursor, fork=fork, disconnected=tuple(lost), connected=())

    async def _header(self, block_hash: BlockHash) -> HeaderInfo:
        header = await self.calls.run(self.node.header, block_hash)
        if header is None:
            raise Unavailable(f"bitcoind does not know block {block_hash}, which the books have: waiting for it")
        return header

    async def _refuse_while_loading(self, newest: BlockRef, tip: BlockRef, *, known: bool) -> None:
        """A node takes the branch with most work: it has left ours only for one that is no shorter, or because it
        holds ours for invalid. Otherwise it has been killed, and its tip comes back to us block by block."""
        if tip.height >= newest.height or (known and await self.calls.run(self.node.is_invalid, newest)):
            return
        what = "is still loading" if known else f"does not know {newest.hash}, which it had not kept"
        raise Unavailable(
            f"bitcoind is at block {tip.height}, below block {newest.height} that the books have, and {what}: waiting"
        )

    async def _branch_above_fork(self, header: HeaderInfo) -> tuple[list[BlockRef], BlockRef]:
        """The blocks that the best chain has left, the newest first, and the one where it did."""
        lost = [header.block]
        while not (header := await self._header(_previous(header))).in_best_chain:
            lost.append(header.block)
            self._refuse_too_deep(lost)
        return lost, header.block

    async def _forgotten_branch(self, cursor: ChainCursor) -> tuple[list[BlockRef], BlockRef]:
        """The same where the node does not know our newest block, although its chain is as high: it was killed
        before it had kept the block, and the world has gone on without it. The books know the hashes below."""
        await self.handover.posted()
        stored = await self.calls.run(self.stored_cursor)
        lost = [cursor.block]
        for block_hash in stored.recent if stored is not None else ():
            block = BlockRef(height=cursor.block.height - len(lost), hash=block_hash)
            if await self.calls.run(self.node.block_hash_at, block.height) == block_hash:
                return lost, block
            lost.append(block)
            self._refuse_too_deep(lost)
        raise ReorgTooDeep(
            f"bitcoind knows none of the last {len(lost)} blocks that the books have: is it the right one?"
        )

    def _refuse_too_deep(self, lost: list[BlockRef]) -> None:
        if len(lost) > self.max_reorg_depth:
            raise ReorgTooDeep(
                f"the chain left a branch of more than {self.max_reorg_depth} blocks, from {lost[0].height} down: "
                "look at bitcoind, then raise bitcoind.max_reorg_depth and start tellerd again"
            )

    async def _connect(self, cursor: ChainCursor, tip: BlockRef) -> ChainCursor:
        first, last = cursor.block.height + 1, min(tip.height, cursor.block.height + STEP_BLOCKS)
        pending: list[ConnectedBlock] = []
        newest, began = cursor.block, trio.current_time()
        async with scanned_blocks(self.node, self.calls, self.owners, first=first, last=last) as blocks:
            async for block in blocks:
                if block.previous != newest.hash:
                    break  # the node took another branch meanwhile: the next step looks
                pending.append(block.connected)
                newest = block.connected.block
                if _is_full(pending) or trio.current_time() - began > MOVE_S:
                    cursor = await self._tell(cursor, connected=tuple(pending))
                    pending, began = [], trio.current_time()
                    self._progress.show(done=newest, tip=tip)
        return await self._tell(cursor, connected=tuple(pending)) if pending else cursor

    async def _tell(
        self,
        cursor: ChainCursor,
        *,
        connected: tuple[ConnectedBlock, ...],
        fork: BlockRef | None = None,
        disconnected: tuple[BlockRef, ...] = (),
    ) -> ChainCursor:
        move = ChainMoved(
            genesis=cursor.genesis,
            base=cursor.block,
            fork=fork,
            disconnected=disconnected,
            connected=connected,
            moved_at_ms=self.clock.now_ms(),
        )
        await self.handover.tell([move])
        self.status.cursor = move.target.block
        return move.target


def _previous(header: HeaderInfo) -> BlockHash:
    if header.previous is None:
        raise InvariantViolation(f"block {header.block.hash} has no block before it, and is in no best chain")
    return header.previous


def _is_full(blocks: list[ConnectedBlock]) -> bool:
    return len(blocks) >= MOVE_BLOCKS or sum(len(block.outputs) for block in blocks) >= MOVE_OUTPUTS


@dataclass(slots=True)
class _Progress:
    """Says how a long catch-up goes: blocks done, to do, and the rate."""

    status: ChainStatus
    every_s: float
    _since: float | None = None
    _from_height: int = 0
    _told_at: float = 0.0

    def show(self, *, done: BlockRef, tip: BlockRef) -> None:
        now = trio.current_time()
        if self._since is None:
            self._since, self._from_height, self._told_at = now, done.height, now - self.every_s  # tells at once
            return
        blocks = done.height - self._from_height
        self.status.catch_up_blocks_per_s = int(blocks / max(now - self._since, 0.001))
        self.status.state = f"catching up: block {done.height} of {tip.height}"
        if now - self._told_at >= self.every_s:
            self._told_at = now
            log.info(
                "chain.catching_up",
                done=blocks,
                to_do=tip.height - done.height,
                blocks_per_s=self.status.catch_up_blocks_per_s,
            )

    def end(self) -> None:
        self._since = None
        self.status.catch_up_blocks_per_s = 0
