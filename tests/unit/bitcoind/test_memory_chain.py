"""What the memory chain tells in reorgs and crashes: bitcoind's order and bitcoind's silences (node-interfaces B.8)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
import trio

from adapters.memory.chain_node import MemoryChain
from daemon.domain.blocks import scan
from daemon.domain.errors import BlockPruned, Unavailable
from daemon.domain.ports import ChainHint, HintsLost, RawTx, TipChanged, TxAdded, TxRemoved

SCRIPT = b"\x00\x14" + bytes(20)


async def told(chain: MemoryChain, *doings: object) -> list[ChainHint]:
    """What is told of the doings, without raw txs."""
    hints = chain.hints()
    assert hints is not None
    seen: list[ChainHint] = []
    async with hints as stream:
        for doing in doings:
            assert callable(doing)
            doing()
        with trio.move_on_after(0.01):
            async for batch in stream:
                seen.extend(hint for hint in batch if not isinstance(hint, RawTx))
    return seen


def kinds(hints: Sequence[ChainHint]) -> list[type]:
    """In order, repetitions once."""
    return [kind for kind, _ in groupby(map(type, hints))]


async def test_a_tx_double_spent_by_the_new_branch_is_in_no_hint() -> None:
    """As at bitcoind; but it is neither in the chain nor in the mempool, and its input is spent by a block."""
    chain = MemoryChain()
    coin = chain.coin()
    lost = chain.payment((SCRIPT, 1_000), spends=[coin])
    rival = chain.payment((SCRIPT, 999), spends=[coin])
    back = chain.payment((SCRIPT, 5))
    both = chain.payment((SCRIPT, 7))
    stale = chain.mine(lost, back, both)
    hints = await told(chain, lambda: chain.reorganise(1, [rival, both], []))
    assert kinds(hints) == [TipChanged, TxAdded, TipChanged]
    assert [str(hint) for hint in hints if isinstance(hint, TxAdded)] == [back.txid]
    assert chain.mempool().txids == {back.txid}
    assert not chain.is_unspent(coin)
    header = chain.header(stale.hash)
    assert header is not None
    assert not header.in_best_chain
    assert chain.tip().height == stale.height + 1


async def test_replaced_and_evicted_txs_take_their_descendants_along() -> None:
    """R before A; an evicted one can be sent again."""
    chain = MemoryChain()
    coin = chain.coin()
    first = chain.payment((SCRIPT, 1_000), spends=[coin])
    child = chain.payment((SCRIPT, 900), spends=[first.outpoint(0)])
    second = chain.payment((SCRIPT, 990), spends=[coin])
    chain.submit(first)
    chain.submit(child)
    hints = await told(chain, lambda: chain.submit(second), lambda: chain.evict(second.txid))
    assert kinds(hints) == [TxRemoved, TxAdded, TxRemoved]
    assert {str(hint) for hint in hints[:2]} == {first.txid, child.txid}
    assert chain.mempool().txids == frozenset()
    with pytest.raises(ValueError, match="spends what is not there"):
        chain.submit(child)
    assert chain.is_in_mempool(chain.submit(second))


async def test_a_conflicting_tx_leaves_before_its_block_is_told() -> None:
    """A double-spend by a block (generateblock)."""
    chain = MemoryChain()
    coin = chain.coin()
    waiting = chain.payment((SCRIPT, 1_000), spends=[coin])
    chain.submit(waiting)
    hints = await told(chain, lambda: chain.mine(chain.payment((SCRIPT, 1), spends=[coin])))
    assert kinds(hints) == [TxRemoved, TipChanged]
    assert not chain.is_in_mempool(waiting.txid)


async def test_a_crash_is_told_as_a_restart_only() -> None:
    """The tip falls without a hint; the blocks that return are told."""
    chain = MemoryChain()
    chain.mine_empty(2)
    newest = chain.tip()
    hints = await told(chain, lambda: chain.crash(forget=2))
    assert hints == [HintsLost("connection", 0)]
    assert (chain.tip().height, chain.header(newest.hash)) == (0, None)
    assert await told(chain, chain.return_blocks) == [TipChanged(), TipChanged()]
    assert chain.tip() == newest


async def test_lost_hints_are_told_with_the_next_one() -> None:
    """With how many they were, raw txs included."""
    chain = MemoryChain()
    chain.hints_lost = True
    assert await told(chain, chain.mine) == []
    chain.hints_lost = False
    assert await told(chain, chain.mine) == [HintsLost("sequence", 2), TipChanged()]


def test_every_kind_of_block_parses() -> None:
    """With witness and without, long scripts and many txs; the txids are those of the parser."""
    chain = MemoryChain()
    txs = [
        chain.payment(*((SCRIPT + bytes(n), n) for n in range(300))),
        *(chain.payment((SCRIPT, 1)) for _ in range(7)),
    ]
    block = scan(chain.block(chain.mine(*txs).hash))
    assert block.tx_count == len(txs) + 1
    found = block.outputs_to({SCRIPT})
    assert [output.txid for output in found] == [tx.txid for tx in txs]
    assert [output.inputs for output in found] == [tx.inputs for tx in txs]
    assert scan(chain.block(chain.info().genesis)).tx_count == 1


def test_trouble_is_raised() -> None:
    """Away: every call; pruned: the block only."""
    chain = MemoryChain()
    low = chain.mine()
    chain.mine()
    chain.prune(2)
    with pytest.raises(BlockPruned):
        chain.block(low.hash)
    assert chain.info().prune_height == 2
    chain.go_away()
    with pytest.raises(Unavailable, match="connection refused"):
        chain.tip()
    chain.come_back()
    assert chain.tip().height == 2
