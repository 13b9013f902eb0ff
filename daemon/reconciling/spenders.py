"""Which tx spends a coin of ours: its inputs are looked for in the blocks, from the newest down to the coin's own.

gettxout says only that a coin is gone, and without txospenderindex (Bitcoin Core 31) no node can be asked by what.
The mempool need not be asked: gettxout is asked without it, so a coin is spent when a block spends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from daemon.domain.blocks import MalformedBlock, scan
from daemon.domain.coins import SpentCoin
from daemon.domain.errors import BlockPruned, Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid
from daemon.domain.ports import ChainNode
from daemon.reconciling.bitcoind_calls import BitcoindCalls

MAX_BLOCKS: Final = 144
"""Read in one look, a day's: some 3 s of full blocks. What is older is found by the looks that follow."""


async def search(node: ChainNode, calls: BitcoindCalls, coins: Iterable[SpentCoin]) -> list[SpentCoin]:
    """The coins, with their spenders, or with the height that the search has come to. Raises BitcoindAway.

    All are looked for in one walk. A block that the node has pruned ends it: those below are gone, too.
    """
    known = {coin.outpoint: coin for coin in coins}
    for _ in range(MAX_BLOCKS):
        height = max((coin.height for coin in known.values() if coin.is_searched_for), default=None)
        if height is None:
            break
        sought = {one for one, coin in known.items() if coin.is_searched_for and coin.height == height}
        try:
            block_hash, spenders = await calls.ask(_spenders_at, node, height, sought)
        except BlockPruned:
            return [coin.sought_from(-1) if coin.is_searched_for else coin for coin in known.values()]
        for outpoint in sought:
            if spender := spenders.get(outpoint):
                known[outpoint] = replace(known[outpoint], spender=spender, block_hash=block_hash)
            else:
                known[outpoint] = replace(known[outpoint], height=height - 1)
    return list(known.values())


def _spenders_at(
    node: ChainNode, height: int, sought: Collection[Outpoint]
) -> tuple[BlockHash, Mapping[Outpoint, Txid]]:
    block_hash = node.block_hash_at(height)
    if block_hash is None:
        raise Unavailable(f"bitcoind has no block at height {height} any more")
    try:
        return block_hash, scan(node.block(block_hash)).spenders_of(sought)
    except MalformedBlock as problem:
        raise Unavailable(f"bitcoind: block {block_hash}: {problem}") from problem
