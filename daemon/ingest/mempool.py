"""What the mempool holds for wallets: seen as it comes, and looked at whole where hints do not suffice.

A hint says that a tx came or went; a look at the whole mempool, taken while the tip is the cursor's block, says
what is there. A detected deposit that is not there, and in no block, is gone: bitcoind tells nobody about a tx
that was double-spent on another branch (node-interfaces.md B.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from daemon.domain.blocks import MalformedBlock, Tx, parse_tx
from daemon.domain.chain import BlockRef, Deposit
from daemon.domain.chain_events import GoneTx, OutputsSeen, TxsGone, WatchedOutput
from daemon.domain.identifiers import Outpoint, Txid, txid_of
from daemon.domain.ports import ChainHint, ChainNode, Deposits, HintsLost, MempoolSnapshot, RawTx, TxAdded, TxRemoved
from daemon.ingest.chain_calls import ChainCalls
from daemon.ingest.chain_handover import ChainHandover
from daemon.ingest.clock import Clock
from daemon.ingest.scanned_blocks import Owners, mempool_tx, watched_output

CHUNK: Final = 250
"""Txs asked for, and matched with one query, at once: some 0.2 s of one thread."""

MAX_EXAMINED: Final = 2_000_000
"""Txids remembered, some 200 MB at the very most; a mempool has rarely a tenth. Beyond it all is forgotten and
looked at again."""

PAGE: Final = 1_000
"""Detected deposits read at once."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class MempoolWatch:
    """The mempool of one node."""

    node: ChainNode
    calls: ChainCalls
    owners: Owners
    deposits: Deposits
    handover: ChainHandover
    clock: Clock
    hinted: bool = False
    """Whether a hint came since the last look."""
    unhinted: int = 0
    """Txs that the last look found and no hint had announced."""
    _examined: set[Txid] = field(default_factory=set)
    _waiting: set[Txid] = field(default_factory=set)
    """Txids of detected deposits, as far as known here: one that is removed calls for a look."""
    _must_look: bool = True

    @property
    def must_look(self) -> bool:
        """Whether something happened that only a look at the whole mempool explains."""
        return self._must_look

    def look_soon(self) -> None:
        """The next look must not wait for its time."""
        self._must_look = True

    async def take_hints(self, hints: Sequence[ChainHint]) -> None:
        """Hands over what the hinted txs pay to wallets."""
        self.hinted = True
        added: dict[Txid, None] = {}
        for hint in hints:
            match hint:
                case TxAdded():
                    added[Txid(str(hint))] = None
                case TxRemoved() if Txid(str(hint)) in self._waiting:
                    self._must_look = True
                case HintsLost():
                    self._must_look = True
                case _:
                    pass  # a changed tip is seen by the walk, a raw tx below
        await self._examine_raw([hint.raw for hint in hints if isinstance(hint, RawTx)])
        await self._examine([txid for txid in added if txid not in self._examined])

    async def look(self, cursor: BlockRef) -> bool:
        """Looks at the whole mempool: hands over what is new and what is gone.

        False if the tip is not the cursor's block, or did not stay: then nothing can be said yet; and while the node
        still reads its mempool from its disk: then nothing can be said of what is missing.
        """
        snapshot = await self._snapshot_at(cursor)
        if snapshot is None:
            return False
        if not snapshot.is_complete:
            await self._examine([txid for txid in snapshot.txids if txid not in self._examined])
            return False
        self._must_look = False
        new = [txid for txid in snapshot.txids if txid not in self._examined]
        self.unhinted, self.hinted = (0 if self.hinted else len(new)), False
        self._examined &= snapshot.txids
        await self._examine(new)
        await self._drop_gone(cursor, snapshot)
        return True

    async def _snapshot_at(self, cursor: BlockRef) -> MempoolSnapshot | None:
        # What was told before must be in the books: a deposit that just came into a block is not gone.
        await self.handover.posted()
        if await self.calls.run(self.node.tip) != cursor:
            return None
        snapshot = await self.calls.run(self.node.mempool)
        return snapshot if await self.calls.run(self.node.tip) == cursor else None

    async def _examine_raw(self, raws: Sequence[bytes]) -> None:
        """Txs that were pushed: bitcoind pushes those of blocks, too, so the few that pay a wallet are asked for."""
        for start in range(0, len(raws), CHUNK):
            outputs = await self.calls.run(self._matched_raw, raws[start : start + CHUNK])
            await self._tell_seen(outputs)

    async def _examine(self, txids: Sequence[Txid]) -> None:
        told_at = trio.current_time()
        for start in range(0, len(txids), CHUNK):
            chunk = txids[start : start + CHUNK]
            found, outputs = await self.calls.run(self._matched, chunk)
            await self._tell_seen(outputs)
            if len(self._examined) > MAX_EXAMINED:
                self._examined.clear()
            # Not those that were gone already: they may come back.
            self._examined.update(found)
            if trio.current_time() - told_at > 10.0:
                told_at = trio.current_time()
                log.info("mempool.progress", done=start + len(chunk), txs=len(txids))

    def _matched(self, txids: Sequence[Txid]) -> tuple[list[Txid], list[WatchedOutput]]:
        """Those of them that are still there, and what they pay to wallets."""
        txs = [tx for txid in txids if (tx := mempool_tx(self.node, txid)) is not None]
        return [tx.txid for tx in txs], self._match(txs)

    def _matched_raw(self, raws: Sequence[bytes]) -> list[WatchedOutput]:
        new = [tx for tx in _parsed(raws) if tx.txid not in self._examined and not tx.is_coinbase]
        return [output for output in self._match(new) if self.node.is_in_mempool(output.txid)]

    def _match(self, txs: Sequence[Tx]) -> list[WatchedOutput]:
        outputs = [output for tx in txs for output in tx.outputs]
        if not outputs:
            return []
        watched = {one.script: one for one in self.owners({output.script for output in outputs})}
        return [watched_output(output, watched[output.script]) for output in outputs if output.script in watched]

    async def _tell_seen(self, outputs: Sequence[WatchedOutput]) -> None:
        if not outputs:
            return
        self._waiting.update(output.txid for output in outputs)
        await self.handover.tell([OutputsSeen(outputs=tuple(outputs), seen_at_ms=self.clock.now_ms())])

    async def _drop_gone(self, cursor: BlockRef, snapshot: MempoolSnapshot) -> None:
        """Detected deposits whose txs are in no block and not in the mempool."""
        await self.handover.posted()
        self._waiting.clear()
        after: Outpoint | None = None
        while page := await self.calls.run(self.deposits.detected, after=after, limit=PAGE):
            after = page[-1].outpoint
            self._waiting.update(deposit.txid for deposit in page)
            missing = {deposit.txid: deposit for deposit in page if deposit.txid not in snapshot.txids}
            gone = [tx for one in missing.values() if (tx := await self.calls.run(self._explain, one)) is not None]
            if gone:
                await self.handover.tell([TxsGone(base=cursor, txs=tuple(gone), gone_at_ms=self.clock.now_ms())])

    def _explain(self, deposit: Deposit) -> GoneTx | None:
        """Why a tx is gone; None if it is back already."""
        if self.node.is_in_mempool(deposit.txid):
            return None
        if replaced_by := self.node.mempool_spender(deposit.inputs):
            return GoneTx(txid=deposit.txid, reason="replaced", replaced_by=replaced_by)
        if deposit.inputs and all(map(self._is_there, deposit.inputs)):
            return GoneTx(txid=deposit.txid, reason="evicted")
        return GoneTx(txid=deposit.txid, reason="double_spent" if deposit.inputs else "coinbase_lost")

    def _is_there(self, outpoint: Outpoint) -> bool:
        return self.node.is_unspent(outpoint) or self.node.is_in_mempool(txid_of(outpoint))


def _parsed(raws: Sequence[bytes]) -> Iterator[Tx]:
    for raw in raws:
        try:
            yield parse_tx(raw)
        except MalformedBlock as problem:
            log.warning("mempool.malformed_hint", cause=str(problem))
