"""A bitcoind that was just started has not all that it had: nothing is concluded from what is missing."""

from __future__ import annotations

from dataclasses import replace

import trio
from trio.testing import MockClock

from daemon.domain.chain import DepositState
from daemon.domain.identifiers import BlockHash
from daemon.domain.ports import HeaderInfo, MempoolSnapshot
from daemon.ingest.chain import ChainLimits
from tests.unit.ingest.chain_teller import CREDITED_SAT, ChainTeller, SpiedChain, until


class _Starting(SpiedChain):
    """It knows all headers, and connects one more of its blocks whenever it is asked for a header: its tip moves on
    while somebody walks below it. Its mempool comes back from the disk later."""

    def __init__(self) -> None:
        super().__init__()
        self._to_load: list[BlockHash] = []
        self.stalled = False
        self.mempool_on_disk = False

    def forget_tip(self, blocks: int) -> None:
        """It was killed, and starts so many blocks lower."""
        lost = [self._disconnect().hash for _ in range(blocks)]
        self._to_load = lost

    def header(self, block_hash: BlockHash) -> HeaderInfo | None:
        found = super().header(block_hash)
        if self._to_load and not self.stalled:
            self._connect(self._blocks[self._to_load.pop()])
        return found

    def mempool(self) -> MempoolSnapshot:
        whole = super().mempool()
        return replace(whole, txids=frozenset(), is_complete=False) if self.mempool_on_disk else whole


async def test_a_tip_that_rises_while_it_is_looked_at_is_no_reorg(autojump_clock: MockClock) -> None:
    """The blocks come back between one question and the next: nothing is taken back."""
    teller = ChainTeller(node := _Starting())
    async with teller.follow():
        await teller.live()
        node.mine(paid := teller.payment())
        node.mine_empty(5)
        await until(lambda: teller.credited_sat == CREDITED_SAT)
        await teller.live()
        tip = node.tip()
        node.forget_tip(6)
        await until(lambda: SpiedChain.tip(node) == tip)
        await teller.live()
        assert teller.state(paid) is DepositState.SETTLED
        assert not any(move.disconnected for move in teller.moves)


async def test_a_tip_lower_than_any_reorg_is_no_halt(autojump_clock: MockClock) -> None:
    """More blocks than a reorg may have are not loaded yet: waited out like a few."""
    teller = ChainTeller(node := _Starting())
    teller.limits = ChainLimits(max_reorg_depth=2)
    async with teller.follow():
        await teller.live()
        node.mine_empty(6)
        await teller.live()
        node.stalled = True
        node.forget_tip(6)
        await until(lambda: "still loading" in teller.status.last_error)
        await trio.sleep(300)
        assert not teller.status.halted
        node.stalled = False
        await teller.live()


async def test_a_mempool_that_is_not_loaded_yet_drops_nothing(autojump_clock: MockClock) -> None:
    """A detected deposit that is not in it may still come; when all is loaded and it is not there, it is gone."""
    teller = ChainTeller(node := _Starting())
    async with teller.follow():
        await teller.live()
        paid = teller.pay()
        await until(lambda: teller.state(paid) is DepositState.DETECTED)
        node.mempool_on_disk = True
        node.restart()
        looks = node.asked["mempool"]
        await until(lambda: node.asked["mempool"] > looks + 10)
        assert teller.state(paid) is DepositState.DETECTED
        node._remove([paid])
        node.mempool_on_disk = False
        await until(lambda: teller.state(paid) is DepositState.DROPPED)
