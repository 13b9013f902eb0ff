"""Looks for payments to scripts that were learnt late: in the mempool, and back over a bounded number of blocks.

Another program gives out an address and writes it into the wallet afterwards; a payment may have come in between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from daemon.domain.chain import BlockRef
from daemon.domain.chain_events import OutputsFound, OutputsSeen, WatchedOutput
from daemon.domain.errors import BlockPruned
from daemon.domain.identifiers import Txid
from daemon.domain.ports import ChainNode, Scripts, WatchedScript
from daemon.ingest.chain_calls import ChainCalls
from daemon.ingest.chain_handover import ChainHandover
from daemon.ingest.clock import Clock
from daemon.ingest.scanned_blocks import connect, mempool_tx, scanned_block, watched_output

MAX_SCRIPTS: Final = 10_000
"""Looked for at once, in memory: 2 MB."""

MAX_MEMPOOL: Final = 20_000
"""Txs of the mempool that are read once more for it, some 10 s; in a fuller one a payment is found by its block."""

_CHUNK: Final = 250
_EVENT_BLOCKS: Final = 50
"""Blocks told of at once."""

log = structlog.get_logger()


@dataclass(kw_only=True, slots=True)
class BackScan:
    """The scripts that wait for it."""

    node: ChainNode
    calls: ChainCalls
    scripts: Scripts
    handover: ChainHandover
    clock: Clock
    blocks: int
    """How far back: what is older is not found."""

    async def run(self, cursor: BlockRef) -> None:
        """Looks for all scripts that wait; `cursor` is the block that the books are at."""
        while waiting := await self.calls.run(self.scripts.unscanned, limit=MAX_SCRIPTS):
            watched = {one.script: one for one in waiting}
            log.info("backscan.begin", scripts=len(watched), from_height=cursor.height, blocks=self.blocks)
            await self._scan_blocks(cursor, watched)
            await self._scan_mempool(watched)
            await self.handover.posted()
            await self.calls.run(self.scripts.mark_scanned, list(watched))

    async def _scan_blocks(self, cursor: BlockRef, watched: Mapping[bytes, WatchedScript]) -> None:
        """From the cursor's block back, never below block 0, nor below what a pruned node still has."""

        def owners(scripts: Collection[bytes]) -> Sequence[WatchedScript]:
            return [watched[script] for script in scripts if script in watched]

        block, found = cursor, []
        for _ in range(min(self.blocks, cursor.height)):
            try:
                scanned = await self.calls.run(scanned_block, self.node, block.hash)
            except BlockPruned:
                log.warning("backscan.pruned", height=block.height)
                break
            connected = connect(block, scanned, owners)
            if connected.outputs:
                found.append(connected)
            block = BlockRef(height=block.height - 1, hash=scanned.header.previous_hash)
        for start in range(0, len(found), _EVENT_BLOCKS):
            blocks = tuple(found[start : start + _EVENT_BLOCKS])
            await self.handover.tell([OutputsFound(base=cursor, blocks=blocks, found_at_ms=self.clock.now_ms())])

    async def _scan_mempool(self, watched: Mapping[bytes, WatchedScript]) -> None:
        txids = sorted((await self.calls.run(self.node.mempool)).txids)
        if len(txids) > MAX_MEMPOOL:
            log.info("backscan.mempool_too_large", txs=len(txids))
            return
        for start in range(0, len(txids), _CHUNK):
            outputs = await self.calls.run(self._matched, txids[start : start + _CHUNK], watched)
            if outputs:
                await self.handover.tell([OutputsSeen(outputs=tuple(outputs), seen_at_ms=self.clock.now_ms())])

    def _matched(self, txids: Sequence[Txid], watched: Mapping[bytes, WatchedScript]) -> list[WatchedOutput]:
        txs = (tx for txid in txids if (tx := mempool_tx(self.node, txid)) is not None)
        outputs = (output for tx in txs for output in tx.outputs)
        return [watched_output(output, watched[output.script]) for output in outputs if output.script in watched]
