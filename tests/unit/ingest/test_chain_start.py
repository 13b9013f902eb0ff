"""The chain follower's start: which node is followed, and from which block."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from daemon.domain.chain import DepositState
from daemon.domain.errors import Misconfigured, NodeRefused, Unavailable
from daemon.ingest.chain import ChainLimits
from tests.unit.ingest.chain_teller import CREDITED_SAT, ChainTeller, SpiedChain, until


async def test_a_first_start_begins_at_the_tip(autojump_clock: MockClock) -> None:
    """What was paid in blocks before is not tellerd's; what comes later is."""
    teller = ChainTeller()
    teller.chain.mine(before := teller.payment())
    tip = teller.chain.tip()
    async with teller.follow():
        await teller.live()
        assert teller.cursor == tip
        assert [(move.base, move.target.block) for move in teller.moves] == [(None, tip)]
        after = teller.pay()
        teller.chain.mine()
        teller.chain.mine_empty(3)
        await until(lambda: teller.state(after) is DepositState.SETTLED)
    assert teller.deposit(before) is None
    assert teller.credited_sat == CREDITED_SAT


@pytest.mark.parametrize(("start_height", "first"), [(0, 0), (1, 0), (4, 3), (5, 4), (6, 5)])
async def test_a_first_start_can_begin_lower(start_height: int, first: int, autojump_clock: MockClock) -> None:
    """The block at start_height is the first whose outputs count."""
    teller = ChainTeller(blocks=3)
    teller.chain.mine(fourth := teller.payment())
    teller.chain.mine(fifth := teller.payment())
    teller.limits = ChainLimits(start_height=start_height)
    async with teller.follow():
        await teller.live()
    assert teller.moves[0].target.block.height == first
    assert (teller.deposit(fourth) is not None) == (start_height <= 4)
    assert (teller.deposit(fifth) is not None) == (start_height <= 5)


async def test_a_start_above_the_tip_is_misconfigured(autojump_clock: MockClock) -> None:
    """Nothing is booked; the message names the key and the tip."""
    teller = ChainTeller(blocks=5)
    teller.limits = ChainLimits(start_height=7)
    with pytest.RaisesGroup(pytest.RaisesExc(Misconfigured, match=r"start_height: 7 is above the tip at 5")):
        async with teller.follow():
            await trio.sleep(60)
    assert teller.cursor is None


async def test_a_later_start_goes_on_from_the_books(autojump_clock: MockClock) -> None:
    """start_height says where to begin once; what came while the daemon was down is found."""
    teller = ChainTeller()
    async with teller.follow():
        await teller.live()
    teller.chain.mine(missed := teller.payment())
    teller.chain.mine_empty(2)
    teller.limits = ChainLimits(start_height=1)
    async with teller.follow():
        await teller.live()
        await until(lambda: teller.state(missed) is DepositState.SETTLED)
    assert [move.base is None for move in teller.moves] == [True, False]


async def test_another_network_is_misconfigured(autojump_clock: MockClock) -> None:
    """A node of another network is never followed."""
    teller = ChainTeller()
    teller.network = "mainnet"
    with pytest.RaisesGroup(pytest.RaisesExc(Misconfigured, match="bitcoind is on regtest")):
        async with teller.follow():
            await trio.sleep(60)
    assert teller.cursor is None


async def test_another_chain_is_misconfigured(autojump_clock: MockClock) -> None:
    """The same network is not enough: the genesis block tells chains apart."""
    teller = ChainTeller()
    async with teller.follow():
        await teller.live()
    before = teller.store.deposits.cursor()
    teller.chain = _OtherChain()
    with pytest.RaisesGroup(pytest.RaisesExc(Misconfigured, match="another database")):
        async with teller.follow():
            await trio.sleep(60)
    assert before is not None
    assert teller.store.deposits.cursor() == before


class _OtherChain(SpiedChain):
    """A regtest of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._chain[0] = self._block((), None, 1_700_000_000, 0)
        self.mine_empty(9)


async def test_initial_download_is_waited_for(autojump_clock: MockClock) -> None:
    """Its tip is not the world's: nothing begins there, and the status says so."""
    teller = ChainTeller()
    teller.chain.initial_download = True
    async with teller.follow():
        await until(lambda: "initial download: block 5 of 5" in teller.status.state)
        await trio.sleep(120)
        assert teller.cursor is None
        assert teller.chain.asked["info"] <= 15, "a busy loop"
        teller.chain.mine_empty(20)
        teller.chain.initial_download = False
        await teller.live()
    assert teller.moves[0].target.block.height == 25


async def test_a_node_that_is_away_is_waited_for(autojump_clock: MockClock) -> None:
    """It shows in the status, costs a call now and then, and is followed as soon as it is back."""
    teller = ChainTeller()
    teller.chain.go_away()
    async with teller.follow():
        await trio.sleep(120)
        assert not teller.status.connected
        assert not teller.status.connections
        assert teller.status.state.startswith("waiting")
        assert "connection refused" in teller.status.last_error
        assert teller.chain.asked["info"] < 30
        teller.chain.come_back()
        await teller.live()
        assert teller.status.connected


async def test_a_node_that_goes_away_later_is_waited_for(autojump_clock: MockClock) -> None:
    """Whatever it is asked just then: each call fails once, and nothing but waiting comes of it."""
    for call in ("tip", "header", "block_hash_at", "block", "mempool", "mempool_tx"):
        teller = ChainTeller()

        def fail(*_arguments: object, teller: ChainTeller = teller, call: str = call) -> None:
            del teller.chain.before[call]
            raise Unavailable(f"away at {call}")

        async with teller.follow():
            await teller.live()
            teller.chain.before[call] = fail
            teller.chain.mine(paid := teller.payment())
            seen = teller.pay()
            await until(lambda call=call, teller=teller: call not in teller.chain.before, f"{call} was not asked")  # type: ignore[misc]  # a lambda with defaults
            await teller.live()
            await until(lambda teller=teller, seen=seen: teller.state(seen) is DepositState.DETECTED)  # type: ignore[misc]  # a lambda with defaults
            assert teller.state(paid) is DepositState.CONFIRMED
            assert [state.problem for state in teller.states] == [f"away at {call}"]
            assert teller.status.connections == 2


async def test_a_refusal_halts_the_chain_alone(autojump_clock: MockClock) -> None:
    """What repeating does not change is shown, tried again now and then, and stops nothing else."""
    teller = ChainTeller()

    def refuse() -> None:
        raise NodeRefused("method not allowed for this user")

    async with teller.follow():
        await teller.live()
        teller.chain.before["tip"] = refuse
        await until(lambda: teller.status.halted)
        asked = teller.chain.asked["tip"]
        assert teller.status.state == "halted: method not allowed for this user"
        await trio.sleep(300)
        assert 1 <= teller.chain.asked["tip"] - asked <= 5
        assert teller.status.halted
        del teller.chain.before["tip"]
        await until(lambda: teller.status.state == "live")
        assert not teller.status.halted


async def test_a_first_cursor_that_was_told_is_waited_for(autojump_clock: MockClock) -> None:
    """A follower that comes again before its first cursor is in the books does not begin a second time."""
    teller = ChainTeller()
    teller.deliver = trio.Event()
    async with teller.follow():
        await trio.sleep(5)
        teller.deliver.set()
        await teller.live()
    assert [move.base for move in teller.moves] == [None]
