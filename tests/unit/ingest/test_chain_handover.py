"""The way of the chain's events into posting, and the look for scripts that were learnt late."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest
import trio
from trio.testing import MockClock

from adapters.memory import MemoryStore
from daemon.domain.chain import DepositState
from daemon.domain.chain_events import ChainEvent, OutputsFound
from daemon.domain.node_events import NodeEvent
from daemon.ingest import back_scan, chain_handover
from daemon.ingest.chain import ChainLimits
from daemon.ingest.chain_handover import ChainHandover
from daemon.posting.board import Board
from tests.samples import deposit_due
from tests.unit.ingest.chain_teller import CREDITED_SAT, ChainTeller, script_of, until

ADDRESS = "bcrt1qforeign"


class TestCounting:
    """What was handed over, and what of it is in the books."""

    async def test_it_returns_when_all_is_in_the_books(self, autojump_clock: MockClock) -> None:
        """Not before the last one; other tasks' publishing does not count."""
        send, receive = trio.open_memory_channel[Sequence[NodeEvent]](9)
        board = Board()
        handover = ChainHandover(send, board)
        await handover.tell([deposit_due("a"), deposit_due("b")])
        returned = trio.Event()

        async def wait() -> None:
            await handover.posted()
            returned.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            for chain_events, sequence in ((1, 0), (0, 5), (0, 0)):
                await trio.sleep(1)
                board.publish(chain_events=chain_events, sequence=sequence)
                await trio.sleep(1)
                assert not returned.is_set()
            board.publish(chain_events=1)
            with trio.fail_after(1):
                await returned.wait()
        assert len(receive.receive_nowait()) == 2

    async def test_an_earlier_turn_does_not_count(self, autojump_clock: MockClock) -> None:
        """A board that has seen events before: only what is told from now on is waited for."""
        send, _receive = trio.open_memory_channel[Sequence[NodeEvent]](9)
        board = Board()
        board.publish(chain_events=7)
        handover = ChainHandover(send, board)
        with trio.fail_after(1):
            await handover.posted()
        await handover.tell([deposit_due("a")])
        with trio.move_on_after(5) as waiting:
            await handover.posted()
        assert waiting.cancelled_caught

    async def test_what_was_not_handed_over_is_not_waited_for(self, autojump_clock: MockClock) -> None:
        """A follower that is cut off while the inbox is full comes again: it must not wait for what nobody has."""
        send, _receive = trio.open_memory_channel[Sequence[NodeEvent]](0)
        handover = ChainHandover(send, Board())
        with trio.move_on_after(1):
            await handover.tell([deposit_due("a")])
        with trio.fail_after(1):
            await handover.posted()

    async def test_long_lists_are_handed_over_in_parts(self, autojump_clock: MockClock) -> None:
        """Each is at most one commit's worth, all are counted."""
        send, receive = trio.open_memory_channel[Sequence[NodeEvent]](9)
        board = Board()
        handover = ChainHandover(send, board)
        events: list[ChainEvent] = [deposit_due(f"{n}") for n in range(2 * chain_handover.MAX_LIST + 1)]
        await handover.tell(events)
        parts = [receive.receive_nowait() for _ in range(3)]
        assert [len(part) for part in parts] == [chain_handover.MAX_LIST, chain_handover.MAX_LIST, 1]
        assert list(chain.from_iterable(parts)) == events
        board.publish(chain_events=len(events) - 1)
        with trio.move_on_after(5) as waiting:
            await handover.posted()
        assert waiting.cancelled_caught


def foreign_bank(blocks: int = 5, *, back_scan_blocks: int = 10) -> ChainTeller:
    """Addresses of other programs count."""
    teller = ChainTeller(blocks=blocks)
    teller.limits = ChainLimits(foreign_addresses=True, back_scan_blocks=back_scan_blocks)
    return teller


def learn(teller: ChainTeller, index: int = 50) -> None:
    """Another program's address reaches the scripts."""
    teller.store.another.add_address(teller.wallet, f"{ADDRESS}{index}")
    known = teller.store.foreign_addresses(_script_of_address)
    known.sweep(after=None, limit=100)


def _script_of_address(address: str) -> bytes:
    if not address.startswith(ADDRESS):
        raise ValueError(address)
    return script_of(int(address.removeprefix(ADDRESS)))


def unscanned(store: MemoryStore) -> int:
    """How many scripts wait to be looked for."""
    return len(store.scripts.unscanned(limit=100))


class TestBackScan:
    """Scripts that were learnt after their payment."""

    async def test_payments_in_blocks_and_in_the_mempool_are_found(self, autojump_clock: MockClock) -> None:
        """Each once, though the address was written after them."""
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(old := teller.payment(script_of(50)))
            teller.chain.mine_empty(2)
            teller.chain.submit(waiting := teller.payment(script_of(50)))
            await trio.sleep(10)
            assert teller.state(old) is None
            learn(teller)
            await until(lambda: teller.state(old) is DepositState.SETTLED)
            await until(lambda: teller.state(waiting) is DepositState.DETECTED)
            assert unscanned(teller.store) == 0
            teller.chain.mine()
            teller.chain.mine_empty()
            await until(lambda: teller.credited_sat == 2 * CREDITED_SAT)

    async def test_it_goes_back_a_bounded_number_of_blocks(self, autojump_clock: MockClock) -> None:
        """The last `back_scan_blocks` blocks, not one more."""
        teller = foreign_bank(back_scan_blocks=4)
        async with teller.follow():
            await teller.live()
            txs = [teller.payment(script_of(50)) for _ in range(6)]
            for tx in txs:
                teller.chain.mine(tx)
            await teller.live()
            before = teller.chain.asked["block"]
            learn(teller)
            await until(lambda: unscanned(teller.store) == 0)
            assert teller.chain.asked["block"] - before == 4
            assert [teller.state(tx) is not None for tx in txs] == [False, False, True, True, True, True]

    async def test_a_short_chain_is_scanned_to_its_begin(self, autojump_clock: MockClock) -> None:
        """Never below block 1."""
        teller = foreign_bank(blocks=2, back_scan_blocks=100)
        async with teller.follow():
            await teller.live()
            learn(teller)
            await until(lambda: unscanned(teller.store) == 0)
            assert teller.chain.asked["block"] == 2

    async def test_a_pruned_node_is_scanned_as_far_as_it_goes(self, autojump_clock: MockClock) -> None:
        """What is gone cannot be found; the chain is followed all the same."""
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment(script_of(50)))
            await teller.live()
            teller.chain.prune(below_height=6)
            learn(teller)
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            await until(lambda: unscanned(teller.store) == 0)
            assert not teller.states

    async def test_scripts_are_marked_only_when_all_is_in_the_books(self, autojump_clock: MockClock) -> None:
        """A daemon that dies before has it all to do again."""
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment(script_of(50)))
            await teller.live()
            teller.deliver = trio.Event()
            learn(teller)
            await trio.sleep(60)
            assert unscanned(teller.store) == 1
        teller.deliver.set()
        async with teller.follow():
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            await until(lambda: unscanned(teller.store) == 0)

    async def test_more_scripts_than_fit_are_looked_for_in_turns(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The bound is on memory, not on what is found."""
        monkeypatch.setattr(back_scan, "MAX_SCRIPTS", 2)
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            txs = [teller.payment(script_of(50 + n)) for n in range(5)]
            teller.chain.mine(*txs)
            await teller.live()
            for n in range(5):
                learn(teller, 50 + n)
            await until(lambda: unscanned(teller.store) == 0)
            assert all(teller.state(tx) is DepositState.CONFIRMED for tx in txs)

    async def test_found_outputs_belong_to_the_block_of_the_books(self, autojump_clock: MockClock) -> None:
        """A reorg during the scan: what was found counts at its base, and falls back with its block."""
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment(script_of(50)))
            await teller.live()

            def reorganise(_hash: object) -> None:
                del teller.chain.before["block"]
                teller.chain.reorganise(1, [], [])

            teller.chain.before["block"] = reorganise
            learn(teller)
            await until(lambda: any(isinstance(event, OutputsFound) for event in teller.handed_over))
            await teller.live()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            teller.chain.mine()
            teller.chain.mine_empty()
            await until(lambda: teller.credited_sat == CREDITED_SAT)

    async def test_a_garbled_block_is_waited_out(self, autojump_clock: MockClock) -> None:
        """Bytes that are no block are an outage here, too."""
        teller = foreign_bank()
        async with teller.follow():
            await teller.live()
            real = teller.chain.block
            garbled = trio.Event()

            def block(block_hash: object) -> bytes:
                if not garbled.is_set():
                    garbled.set()
                    return b"half a block"
                return real(block_hash)  # type: ignore[arg-type]  # as it was given

            teller.chain.block = block  # type: ignore[method-assign]  # this one node answers so
            learn(teller)
            await until(lambda: unscanned(teller.store) == 0)
            assert garbled.is_set()
            assert "malformed" in teller.states[0].problem
