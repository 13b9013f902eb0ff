"""How the books follow the best chain: catch-up, the fork search, and where it must wait or stop."""

from __future__ import annotations

from itertools import chain

import pytest
import trio
from trio.testing import MockClock

from adapters.memory import CommitFault
from daemon.domain.accounts import ON_CHAIN
from daemon.domain.chain import BlockRef, DepositState
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import BlockHash
from daemon.ingest import chain_walk
from daemon.ingest.chain import ChainLimits
from tests.unit.ingest.chain_teller import AMOUNT_SAT, CREDITED_SAT, ChainTeller, SpiedChain, script_of, until


async def live_then_down(teller: ChainTeller) -> None:
    """A first start at the tip, then the daemon is down."""
    async with teller.follow():
        await teller.live()
    teller.handed_over.clear()


def connected_heights(teller: ChainTeller) -> list[list[int]]:
    """The blocks of each move."""
    return [[one.block.height for one in move.connected] for move in teller.moves]


class TestCatchingUp:
    """The books are far behind the tip."""

    async def test_it_goes_in_moves_of_bounded_length(self, autojump_clock: MockClock) -> None:
        """Every block once and in order; no move holds more than MOVE_BLOCKS."""
        teller = ChainTeller()
        await live_then_down(teller)
        first = teller.payment()
        teller.chain.mine(first)
        teller.chain.mine_empty(2 * chain_walk.MOVE_BLOCKS + 20)
        async with teller.follow():
            await teller.live()
            assert teller.state(first) is DepositState.SETTLED
        heights = connected_heights(teller)
        assert [len(move) for move in heights] == [chain_walk.MOVE_BLOCKS, chain_walk.MOVE_BLOCKS, 21]
        assert list(chain.from_iterable(heights)) == list(range(6, 6 + 221))
        assert teller.chain.asked["block"] == 221, "blocks were fetched twice"

    async def test_a_move_ends_when_it_has_many_outputs(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Outputs for wallets bound a commit, wherever the blocks' borders are."""
        monkeypatch.setattr(chain_walk, "MOVE_OUTPUTS", 3)
        teller = ChainTeller()
        await live_then_down(teller)
        for _ in range(6):
            teller.chain.mine(teller.payment(), teller.payment())
        async with teller.follow():
            await teller.live()
        assert connected_heights(teller) == [[6, 7], [8, 9], [10, 11]]

    async def test_what_a_slow_walk_has_found_is_told(self, autojump_clock: MockClock) -> None:
        """After MOVE_S a move is told though it is not full."""
        teller = ChainTeller()
        await live_then_down(teller)
        teller.chain.mine_empty(5)
        asked: list[int] = []

        def slow(height: int) -> None:
            asked.append(height)
            if height == 9:
                autojump_clock.jump(chain_walk.MOVE_S + 1)

        teller.chain.before["block_hash_at"] = slow
        async with teller.follow():
            await teller.live()
        assert len(connected_heights(teller)) > 1
        assert list(chain.from_iterable(connected_heights(teller))) == [6, 7, 8, 9, 10]

    async def test_what_it_confirmed_is_credited_after_each_step(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A credit does not wait for the end of a long catch-up."""
        monkeypatch.setattr(chain_walk, "STEP_BLOCKS", 5)
        teller = ChainTeller()
        await live_then_down(teller)
        paid = teller.payment()
        teller.chain.mine(paid)
        teller.chain.mine_empty(20)
        stop = trio.Event()

        def hang(height: int) -> None:
            if height == 12:
                stop.set()
                raise Unavailable("stuck at block 12")

        teller.chain.before["block_hash_at"] = hang
        async with teller.follow():
            await stop.wait()
            await trio.sleep(1)
            assert teller.state(paid) is DepositState.SETTLED
            assert teller.cursor is not None
            assert teller.cursor.height == 10

    async def test_a_reorg_in_the_middle_of_a_walk(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A block that does not follow ends the step; then the fork is looked for, and each output counts once."""
        monkeypatch.setattr(chain_walk, "MOVE_BLOCKS", 4)
        teller = ChainTeller()
        await live_then_down(teller)
        paid = [teller.payment() for _ in range(10)]
        for tx in paid:
            teller.chain.mine(tx)

        def reorganise(height: int) -> None:
            if height == 12:
                del teller.chain.before["block_hash_at"]
                teller.chain.reorganise(7, *[[tx] for tx in reversed(paid[3:])], [], [])

        teller.chain.before["block_hash_at"] = reorganise
        async with teller.follow():
            await teller.live()
            await until(lambda: all(teller.state(tx) is DepositState.SETTLED for tx in paid))
        assert [teller.deposit(tx).block.height for tx in paid] == [6, 7, 8, 15, 14, 13, 12, 11, 10, 9]  # type: ignore[union-attr]  # all are in blocks
        assert teller.credited_sat == len(paid) * CREDITED_SAT
        assert any(move.disconnected for move in teller.moves), "the reorg came too early to be one"

    async def test_a_walk_that_is_cut_off_waits_for_what_it_told(self, autojump_clock: MockClock) -> None:
        """bitcoind fails while posting is held up: the follower that comes again asks the books only when they
        have all that the former one told; nothing is told twice or lost."""
        teller = ChainTeller()
        await live_then_down(teller)
        paid = teller.payment()
        teller.chain.mine(paid)
        teller.chain.mine_empty(chain_walk.MOVE_BLOCKS * 3)
        failed = trio.Event()

        def fail(height: int) -> None:
            if height == 6 + 2 * chain_walk.MOVE_BLOCKS + 1 and not failed.is_set():
                failed.set()
                raise Unavailable("away")

        teller.chain.before["block_hash_at"] = fail
        teller.deliver = trio.Event()
        async with teller.follow():
            await trio.sleep(30)
            assert failed.is_set()
            assert teller.status.state == "connecting"
            teller.deliver.set()
            await teller.live()
            assert teller.state(paid) is DepositState.SETTLED
        assert list(chain.from_iterable(connected_heights(teller))) == list(range(6, 6 + 301))

    async def test_a_commit_without_an_answer_holds_up_nothing(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Several moves in one commit whose reply was lost: decided again, they find themselves in the books."""
        monkeypatch.setattr(chain_walk, "MOVE_BLOCKS", 2)
        teller = ChainTeller()
        await live_then_down(teller)
        for _ in range(9):
            teller.chain.mine(teller.payment())
        # While the first commit waits, all that may be told is told; the one after it takes what has arrived.
        teller.store.faults.plan(CommitFault.UNAVAILABLE, CommitFault.NONE, *[CommitFault.REPLY_LOST] * 3)
        async with teller.follow():
            await teller.live()
            teller.chain.mine_empty()
            await until(lambda: teller.credited_sat == 9 * CREDITED_SAT)
        assert teller.store.ledger.balance((ON_CHAIN, "BTC"))[0] == -9 * AMOUNT_SAT

    async def test_a_garbled_block_is_asked_for_again(self, autojump_clock: MockClock) -> None:
        """Bytes that are no block are an outage, not an end."""
        teller = ChainTeller(node := _Garbling())
        async with teller.follow():
            await teller.live()
            node.garble = 2
            node.mine(paid := teller.payment())
            await teller.live()
            assert teller.state(paid) is DepositState.CONFIRMED
        assert ["malformed" in state.problem for state in teller.states] == [True, True]

    async def test_progress_is_shown(self, autojump_clock: MockClock) -> None:
        """While it lasts the status has the rate, the block and the tip; at the tip the rate is 0 again."""
        teller = ChainTeller()
        await live_then_down(teller)
        teller.chain.mine_empty(500)
        shown: set[tuple[str, bool]] = set()

        def look(_height: int) -> None:
            shown.add((teller.status.state, teller.status.catch_up_blocks_per_s > 0))

        teller.chain.before["block_hash_at"] = look
        async with teller.follow():
            await teller.live()
        assert ("catching up: block 305 of 505", True) in shown
        assert teller.status.catch_up_blocks_per_s == 0
        assert teller.status.blocks_behind == 0


class _Garbling(SpiedChain):
    """Gives the first half of a block, `garble` times."""

    garble = 0

    def block(self, block_hash: BlockHash) -> bytes:
        raw = super().block(block_hash)
        if self.garble:
            self.garble -= 1
            return raw[: len(raw) // 2]
        return raw


class TestReorgs:
    """The cursor's block leaves the best chain."""

    async def test_a_settled_deposit_is_taken_back_and_given_again(self, autojump_clock: MockClock) -> None:
        """One move goes back over what was lost; the new branch follows."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment())
            teller.chain.mine_empty(2)
            await until(lambda: teller.credited_sat == CREDITED_SAT)
            lost = teller.chain.tip()
            teller.chain.reorganise(3, [], [], [], [])
            await until(lambda: teller.credited_sat == 0)
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            back = next(move for move in teller.moves if move.disconnected)
            assert [block.height for block in back.disconnected] == [8, 7, 6]
            assert back.disconnected[0] == lost
            assert back.fork is not None
            assert back.fork.height == 5
            teller.chain.mine()
            teller.chain.mine_empty()
            await until(lambda: teller.credited_sat == CREDITED_SAT)

    async def test_an_invalid_block_is_left_though_nothing_follows(self, autojump_clock: MockClock) -> None:
        """A lower tip is believed when the node says that the cursor's block is invalid."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment())
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            teller.chain.invalidate(1)
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            assert teller.cursor == teller.chain.tip()

    async def test_a_lower_tip_is_waited_out(self, autojump_clock: MockClock) -> None:
        """The same tip without that word is a node that is still loading: nothing is taken back."""
        teller = ChainTeller(node := _Lowered())
        async with teller.follow():
            await teller.live()
            node.mine(paid := teller.payment())
            node.mine_empty(2)
            await until(lambda: teller.credited_sat == CREDITED_SAT)
            node.lower(3)
            await trio.sleep(300)
            assert teller.credited_sat == CREDITED_SAT
            assert teller.state(paid) is DepositState.SETTLED
            assert "still loading" in teller.status.last_error
            assert not any(move.disconnected for move in teller.moves)
            node.reconsider()
            await teller.live()

    async def test_a_forgotten_block_is_waited_for(self, autojump_clock: MockClock) -> None:
        """After kill -9 the node does not know the cursor's block: neither a reorg nor another chain."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment())
            teller.chain.mine_empty(2)
            await until(lambda: teller.credited_sat == CREDITED_SAT)
            teller.chain.crash(forget=3)
            asked = teller.chain.asked["header"]
            await trio.sleep(300)
            assert "does not know" in teller.status.last_error
            assert teller.chain.asked["header"] - asked < 60, "a busy loop"
            teller.chain.return_blocks()
            await teller.live()
            assert teller.state(paid) is DepositState.SETTLED
        assert teller.credited_sat == CREDITED_SAT
        assert not any(move.disconnected for move in teller.moves)

    @pytest.mark.parametrize("zmq", [True, False])
    async def test_a_reorg_that_is_too_deep_halts(self, zmq: bool, autojump_clock: MockClock) -> None:
        """It shows, nothing is undone, and it is tried again: a raised limit or a node that came back helps."""
        teller = ChainTeller(zmq=zmq)
        teller.limits = ChainLimits(max_reorg_depth=3)
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment())
            teller.chain.mine_empty(3)
            await until(lambda: teller.credited_sat == CREDITED_SAT)
            teller.chain.reorganise(4, [], [], [], [], [])
            await until(lambda: teller.status.halted)
            asked = teller.chain.asked["tip"]
            await trio.sleep(400)
            assert teller.status.halted
            assert teller.status.state.startswith("halted: the chain left a branch of more than 3 blocks")
            assert not teller.status.connected
            assert teller.credited_sat == CREDITED_SAT
            assert 3 <= teller.chain.asked["tip"] - asked <= 10, "it must try again, about once a minute"
        teller.limits = ChainLimits(max_reorg_depth=4)
        async with teller.follow():
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            assert teller.credited_sat == 0
            await until(lambda: not teller.status.halted)

    async def test_a_reorg_of_the_greatest_depth_is_followed(self, autojump_clock: MockClock) -> None:
        """The limit itself is allowed."""
        teller = ChainTeller()
        teller.limits = ChainLimits(max_reorg_depth=3)
        async with teller.follow():
            await teller.live()
            teller.chain.mine_empty(3)
            await teller.live()
            teller.chain.reorganise(3, [], [], [], [])
            await teller.live()
            assert not teller.states

    @pytest.mark.parametrize("zmq", [True, False])
    async def test_a_pruned_block_halts(self, zmq: bool, autojump_clock: MockClock) -> None:
        """A needed block that is gone cannot be guessed; once it is there again the walk goes on."""
        teller = ChainTeller(zmq=zmq)
        await live_then_down(teller)
        teller.chain.mine(paid := teller.payment())
        teller.chain.mine_empty(10)
        teller.chain.prune(below_height=9)
        async with teller.follow():
            await until(lambda: teller.status.halted)
            await trio.sleep(200)
            assert "has pruned block" in teller.status.state
            assert teller.cursor == BlockRef(height=5, hash=teller.cursor.hash if teller.cursor else BlockHash(""))
            teller.chain.prune(below_height=0)
            await teller.live()
            assert teller.state(paid) is DepositState.SETTLED


class _Lowered(SpiedChain):
    """Comes back with a lower tip, and knows the blocks above it."""

    def lower(self, blocks: int) -> None:
        """The blocks are there, but not in the best chain for now."""
        self.above = [self._disconnect() for _ in range(blocks)][::-1]

    def reconsider(self) -> None:
        """They are connected again."""
        for block in self.above:
            self._connect(block)


async def test_one_tx_may_pay_an_address_twice_and_several_addresses(autojump_clock: MockClock) -> None:
    """Each output is a deposit of its own."""
    teller = ChainTeller()
    other = teller.give(1)
    async with teller.follow():
        await teller.live()
        tx = teller.chain.payment(
            (teller.script, AMOUNT_SAT), (script_of(99), 7), (teller.script, AMOUNT_SAT), (other, AMOUNT_SAT)
        )
        teller.chain.mine(tx)
        teller.chain.mine_empty()
        await until(lambda: teller.credited_sat == 3 * CREDITED_SAT)


async def test_more_than_a_page_is_credited(autojump_clock: MockClock) -> None:
    """A block with more deposits than one list of due ones holds: all are credited, once."""
    teller = ChainTeller()
    async with teller.follow():
        await teller.live()
        teller.chain.mine(*[teller.payment() for _ in range(620)])
        teller.chain.mine_empty()
        await until(lambda: teller.credited_sat == 620 * CREDITED_SAT)
        await trio.sleep(10)
    assert teller.credited_sat == 620 * CREDITED_SAT


class TestForgottenBranch:
    """bitcoind was killed, has lost its newest blocks, and the world has gone on without them."""

    async def test_it_is_left_as_soon_as_the_chain_is_as_high(self, autojump_clock: MockClock) -> None:
        """Nobody serves those blocks again: the deposit in them is taken back, and credited on the new branch."""
        teller = ChainTeller()
        await live_then_down(teller)
        tx = teller.payment()
        teller.chain.mine(tx)
        teller.chain.mine_empty(2)
        async with teller.follow():
            await teller.live()
            assert teller.credited_sat == CREDITED_SAT
            teller.chain.crash(forget=3)
            teller.chain.mine_empty(2)  # on top of what is left, still lower than the books
            await until(lambda: "does not know" in teller.status.last_error)
            assert teller.credited_sat == CREDITED_SAT
            teller.chain.mine_empty(1)
            await until(lambda: teller.is_at_tip)
            assert teller.credited_sat == 0
            teller.chain.mine(tx)
            teller.chain.mine_empty(1)
            await until(lambda: teller.credited_sat == CREDITED_SAT)
        deposit = teller.deposit(tx)
        assert deposit is not None
        assert deposit.settlements == 2

    async def test_a_node_that_shares_nothing_halts(self, autojump_clock: MockClock) -> None:
        """None of the hashes that the books keep is in its chain: a person must look."""
        teller = ChainTeller(blocks=2)
        await live_then_down(teller)
        teller.chain.mine_empty(2)
        async with teller.follow():
            await teller.live()
        teller.chain.crash(forget=4)
        teller.chain.mine_empty(9)
        async with teller.follow():
            await until(lambda: teller.status.halted)
        assert "knows none" in teller.status.last_error
