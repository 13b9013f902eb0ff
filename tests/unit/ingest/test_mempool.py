"""The mempool: seen by hints, by looks where hints do not suffice, and what is gone from it."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from daemon.domain.chain import DepositState
from daemon.domain.chain_events import OutputsSeen, TxsGone
from daemon.domain.identifiers import Txid
from daemon.domain.ports import HintsLost, RawTx, TxAdded
from daemon.ingest import chain, mempool
from tests.unit.ingest.chain_teller import AMOUNT_SAT, ChainTeller, SpiedChain, until


class TestHints:
    """What the node pushes."""

    async def test_a_hinted_tx_is_seen_at_once(self, autojump_clock: MockClock) -> None:
        """No look at the whole mempool, and no poll, is needed."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            await trio.sleep(0.5)
            looks, before_s = teller.chain.asked["mempool"], trio.current_time()
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            assert trio.current_time() - before_s < 0.2
            assert teller.chain.asked["mempool"] == looks
            assert teller.status.hints == "live"

    async def test_without_hints_it_works_by_polling(self, autojump_clock: MockClock) -> None:
        """Blocks and mempool are found by asking, at a bounded rate."""
        teller = ChainTeller(zmq=False)
        async with teller.follow():
            await teller.live()
            assert teller.status.hints == "off"
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            teller.chain.mine()
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            before = dict(teller.chain.asked)
            await trio.sleep(100)
            assert teller.chain.asked["tip"] - before["tip"] < 200
            assert teller.chain.asked["mempool"] - before["mempool"] <= 21

    async def test_silent_hints_are_noticed_and_polled_for(self, autojump_clock: MockClock) -> None:
        """ZMQ dead while RPC lives: a look that finds something says so if no hint came since the one before; then
        looks come faster."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.pay()
            await until(lambda: teller.status.hints == "live")
            teller.chain.hints_lost = True
            for _ in range(2):
                unannounced = teller.pay()
                await until(lambda tx=unannounced: teller.state(tx) is DepositState.DETECTED)  # type: ignore[misc]  # a lambda with a default
            assert teller.status.hints == "silent"
            before_s = trio.current_time()
            next_one = teller.pay()
            await until(lambda: teller.state(next_one) is DepositState.DETECTED)
            assert trio.current_time() - before_s < 7
            teller.chain.hints_lost = False
            teller.pay()
            await until(lambda: teller.status.hints == "live")

    async def test_lost_hints_call_for_a_look(self, autojump_clock: MockClock) -> None:
        """Counted, and made up for at once, not at the next time for a look."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.pay()
            await until(lambda: teller.status.hints == "live")
            teller.chain.hints_lost = True
            missed = teller.pay()
            teller.chain.hints_lost = False
            before_s = trio.current_time()
            teller.pay()
            await until(lambda: teller.state(missed) is DepositState.DETECTED)
            assert trio.current_time() - before_s < 2
            assert teller.metrics.lost == [("sequence", 2)]

    async def test_hints_that_nobody_takes_are_made_up_for(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The queue is bounded; what does not fit is counted, and looked for as soon as there is time."""
        monkeypatch.setattr(chain, "HINT_BATCHES", 1)
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.deliver = trio.Event()
            paid = []
            for _ in range(6):
                paid.append(teller.pay())
                await trio.sleep(0.1)
            before_s = trio.current_time()
            teller.deliver.set()
            await until(lambda: all(teller.state(tx) is DepositState.DETECTED for tx in paid))
            assert trio.current_time() - before_s < 5
            assert "queue" in [topic for topic, _ in teller.metrics.lost]

    async def test_a_malformed_hint_is_ignored(self, autojump_clock: MockClock) -> None:
        """Bytes that are no tx are warned of; the ones beside them count."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.payment()
            with capture_logs() as logs:
                teller.chain.hints_lost = True  # only what is pushed here arrives
                teller.chain.submit(paid)
                for subscriber in teller.chain._subscribers:
                    subscriber.put([RawTx(b"\x02\x00"), RawTx(b""), RawTx(paid.raw)])
                await until(lambda: teller.state(paid) is DepositState.DETECTED)
            assert [one["log_level"] for one in logs if one["event"] == "mempool.malformed_hint"] == ["warning"] * 2

    async def test_a_raw_tx_of_a_block_is_not_in_the_mempool(self, autojump_clock: MockClock) -> None:
        """bitcoind pushes the txs of blocks, too: what left with a lost block is not seen again."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.payment()
            for subscriber in teller.chain._subscribers:
                subscriber.put([RawTx(paid.raw)])
            await trio.sleep(30)
            assert teller.state(paid) is None

    async def test_hints_of_txs_that_are_gone_are_no_harm(self, autojump_clock: MockClock) -> None:
        """A hint may be late."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            for subscriber in teller.chain._subscribers:
                subscriber.put([TxAdded("ab" * 32), HintsLost("rawtx", 3)])
            await trio.sleep(30)
            assert not [event for event in teller.handed_over if isinstance(event, OutputsSeen)]

    async def test_a_tx_that_comes_back_is_seen(self, autojump_clock: MockClock) -> None:
        """Gone before it could be read, back later: the first hint must not make the second one worthless."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.payment()

            def leave(txid: Txid) -> None:
                if txid == paid.txid:
                    del teller.chain.before["mempool_tx"]
                    teller.chain.evict(txid)

            teller.chain.before["mempool_tx"] = leave
            for subscriber in teller.chain._subscribers:
                subscriber.put([TxAdded(paid.txid)])
            teller.chain.hints_lost = True
            teller.chain.submit(paid)
            teller.chain.hints_lost = False
            teller.chain._lost_hints = 0
            await until(lambda: "mempool_tx" not in teller.chain.before)
            assert teller.state(paid) is None
            before_s = trio.current_time()
            for subscriber in teller.chain._subscribers:
                subscriber.put([TxAdded(paid.txid)])
            teller.chain.hints_lost = True
            teller.chain.submit(paid)
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            assert trio.current_time() - before_s < 2


class TestGone:
    """Detected deposits whose txs left the mempool."""

    async def test_eviction(self, autojump_clock: MockClock) -> None:
        """Dropped at once by the hint; a re-broadcast detects it again."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            before_s = trio.current_time()
            teller.chain.evict(paid.txid)
            await until(lambda: teller.state(paid) is DepositState.DROPPED)
            assert trio.current_time() - before_s < 2
            assert (dropped := teller.deposit(paid)) is not None
            assert dropped.dropped_reason == "evicted"
            teller.chain.submit(paid)
            await until(lambda: teller.state(paid) is DepositState.DETECTED)

    async def test_replacement(self, autojump_clock: MockClock) -> None:
        """The old output is dropped and names the tx that replaced it; the new one is detected."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            bumped = teller.chain.payment((teller.script, AMOUNT_SAT - 1), spends=paid.inputs)
            teller.chain.submit(bumped)
            await until(lambda: teller.state(paid) is DepositState.DROPPED)
            await until(lambda: teller.state(bumped) is DepositState.DETECTED)
            assert (dropped := teller.deposit(paid)) is not None
            assert (dropped.dropped_reason, dropped.replaced_by) == ("replaced", bumped.txid)

    async def test_double_spend_by_a_block(self, autojump_clock: MockClock) -> None:
        """A tx that was never in the mempool takes the coin."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)
            teller.chain.mine(teller.chain.payment((b"\x51", 1), spends=paid.inputs))
            await until(lambda: teller.state(paid) is DepositState.DROPPED)
            assert (dropped := teller.deposit(paid)) is not None
            assert dropped.dropped_reason == "double_spent"

    async def test_double_spend_on_another_branch(self, autojump_clock: MockClock) -> None:
        """bitcoind tells nothing of it: the look after a move finds it."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            teller.chain.mine(paid := teller.payment())
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            teller.chain.reorganise(1, [teller.chain.payment((b"\x51", 1), spends=paid.inputs)], [])
            await until(lambda: teller.state(paid) is DepositState.DROPPED)

    async def test_a_lost_coinbase(self, autojump_clock: MockClock) -> None:
        """It can be in no mempool."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            block = teller.chain.mine(coinbase_to=teller.script)
            await teller.live()
            (deposit,), _ = teller.store.deposits.page(wallet_id=teller.wallet, states=(), after=None, limit=9)
            assert deposit.is_coinbase
            assert deposit.block == block
            assert deposit.confirmations_required == 100
            teller.chain.reorganise(1, [], [])
            await until(
                lambda: (d := teller.store.deposits.get(deposit.outpoint)) and d.dropped_reason == "coinbase_lost"
            )

    async def test_more_than_a_page_is_gone(self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Detected deposits are read page by page."""
        monkeypatch.setattr(mempool, "PAGE", 3)
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = [teller.pay() for _ in range(8)]
            await until(lambda: all(teller.state(tx) is DepositState.DETECTED for tx in paid))
            for tx in paid[1:]:
                teller.chain.evict(tx.txid)
            await until(lambda: all(teller.state(tx) is DepositState.DROPPED for tx in paid[1:]))
            assert teller.state(paid[0]) is DepositState.DETECTED

    async def test_nothing_is_gone_while_a_block_is_not_in_the_books(self, autojump_clock: MockClock) -> None:
        """The mempool has lost a tx to a block that the books do not have yet: the look says nothing."""
        teller = ChainTeller()
        async with teller.follow():
            await teller.live()
            paid = teller.pay()
            await until(lambda: teller.state(paid) is DepositState.DETECTED)

            def mine() -> None:
                del teller.chain.before["mempool"]
                teller.chain.mine()

            teller.chain.before["mempool"] = mine  # after the tip was asked for
            for subscriber in teller.chain._subscribers:
                subscriber.put([HintsLost("sequence", 1)])
            await until(lambda: "mempool" not in teller.chain.before)
            await until(lambda: teller.state(paid) is DepositState.CONFIRMED)
            await trio.sleep(30)
            assert not [event for event in teller.handed_over if isinstance(event, TxsGone)]


class TestBounds:
    """What is remembered, and what is asked."""

    async def test_each_tx_is_read_once(self, autojump_clock: MockClock) -> None:
        """Looks again and again cost one list each."""
        teller = ChainTeller(zmq=False)
        for _ in range(20):
            teller.chain.submit(teller.chain.payment((b"\x51", 1)))
        async with teller.follow():
            await teller.live()
            await trio.sleep(100)
            assert teller.chain.asked["mempool_tx"] == 20
            assert teller.chain.asked["mempool"] > 5

    async def test_what_is_remembered_is_bounded(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond the bound all is forgotten, and looked at again: nothing is missed."""
        monkeypatch.setattr(mempool, "MAX_EXAMINED", 5)
        monkeypatch.setattr(mempool, "CHUNK", 2)
        teller = ChainTeller(SpiedChain(zmq=False))
        paid = [teller.pay() for _ in range(20)]
        async with teller.follow():
            await until(lambda: all(teller.state(tx) is DepositState.DETECTED for tx in paid))
            await trio.sleep(60)
            assert 20 < teller.chain.asked["mempool_tx"] <= 20 * 15
