"""Blocks of the best chain in order, fetched and scanned ahead, with the outputs that pay wallets.

Three things go on at once: bitcoind reads the next blocks, this process scans one, MongoDB looks up the scripts
of the one before. Order and memory are bounded by the look-ahead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from daemon.domain.blocks import BlockOutput, MalformedBlock, ScannedBlock, Tx, parse_tx, scan
from daemon.domain.chain import BlockRef
from daemon.domain.chain_events import ConnectedBlock, WatchedOutput
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import BlockHash, Txid, WalletId
from daemon.domain.ports import ChainNode, WatchedScript
from daemon.ingest.chain_calls import ChainCalls

AHEAD: Final = 3
"""Blocks under way at once: one at bitcoind, one being scanned, one at MongoDB; some 10 MB each while they are."""

Owners = Callable[[Collection[bytes]], Sequence[WatchedScript]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingBlock:
    """A block, and the hash of the one that it was mined on."""

    connected: ConnectedBlock
    previous: BlockHash


@asynccontextmanager
async def scanned_blocks(
    node: ChainNode, calls: ChainCalls, owners: Owners, *, first: int, last: int
) -> AsyncIterator[AsyncIterator[FollowingBlock]]:
    """The blocks from height `first` to `last` as they are in the best chain now; ends early above the tip.

    A reorg meanwhile shows by `previous` that does not follow. Raises Unavailable and BlockPruned.
    """
    send, receive = trio.open_memory_channel[trio.MemoryReceiveChannel[FollowingBlock | None]](AHEAD - 1)

    async def fetch(height: int, slot: trio.MemorySendChannel[FollowingBlock | None]) -> None:
        # The slot stays open: were it closed by an error, its end would be noticed before the error itself.
        await slot.send(await calls.run(_fetch, node, owners, height))

    async def fetch_all(nursery: trio.Nursery) -> None:
        async with send:
            for height in range(first, last + 1):
                slot_send, slot_receive = trio.open_memory_channel[FollowingBlock | None](1)
                await send.send(slot_receive)
                nursery.start_soon(fetch, height, slot_send)

    async def in_order() -> AsyncGenerator[FollowingBlock, None]:
        async for slot in receive:
            block = await slot.receive()
            if block is None:
                return
            yield block

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch_all, nursery)
        async with aclosing(in_order()) as blocks:
            yield blocks
        nursery.cancel_scope.cancel("enough")


def _fetch(node: ChainNode, owners: Owners, height: int) -> FollowingBlock | None:
    block_hash = node.block_hash_at(height)
    if block_hash is None:
        return None
    scanned = scanned_block(node, block_hash)
    return FollowingBlock(
        connected=connect(BlockRef(height=height, hash=block_hash), scanned, owners),
        previous=scanned.header.previous_hash,
    )


def scanned_block(node: ChainNode, block_hash: BlockHash) -> ScannedBlock:
    """The block with this hash; blocks. Raises Unavailable and BlockPruned."""
    try:
        scanned = scan(node.block(block_hash))
    except MalformedBlock as problem:
        # Our own node's bytes: what a broken connection has garbled is right at the next try.
        raise Unavailable(f"bitcoind: block {block_hash}: {problem}") from problem
    if scanned.header.hash != block_hash:
        raise Unavailable(f"bitcoind gave block {scanned.header.hash} for {block_hash}")
    return scanned


def mempool_tx(node: ChainNode, txid: Txid) -> Tx | None:
    """A tx of the mempool, read; None if it is not there (any more). Unavailable as `scanned_block`."""
    raw = node.mempool_tx(txid)
    try:
        return None if raw is None else parse_tx(raw)
    except MalformedBlock as problem:
        raise Unavailable(f"bitcoind: tx {txid}: {problem}") from problem


def connect(block: BlockRef, scanned: ScannedBlock, owners: Owners) -> ConnectedBlock:
    """The block with the outputs that pay wallets; asks `owners` once."""
    watched = {one.script: one for one in owners(set(scanned.scripts))}
    outputs = (watched_output(output, watched[output.script]) for output in scanned.outputs_to(watched))
    return ConnectedBlock(block=block, outputs=tuple(outputs) if watched else ())


def watched_output(output: BlockOutput, owner: WatchedScript) -> WatchedOutput:
    """An output and the wallet that it pays."""
    return WatchedOutput(
        txid=output.txid,
        vout=output.vout,
        wallet_id=WalletId(owner.wallet_id),
        address=owner.address,
        amount_sat=output.value_sat,
        is_coinbase=output.is_coinbase,
        inputs=output.inputs,
    )
