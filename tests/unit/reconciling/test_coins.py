"""The chain side on a node in memory: what is spent is found, explained, undone, and never judged while it moves."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from daemon.domain.accounts import ON_CHAIN
from daemon.domain.books import GapState
from daemon.domain.identifiers import Outpoint
from daemon.domain.reconciliation import ItemKind
from daemon.reconciling import coins, spenders
from tests.unit.ingest.chain_teller import AMOUNT_SAT, ChainTeller, SpiedChain, until
from tests.unit.reconciling.coin_bank import REORG_DEPTH, CoinBank, explained, sent


class _Counting(SpiedChain):
    """Keeps which outputs it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[Outpoint] = []

    def is_unspent(self, outpoint: Outpoint) -> bool:
        self.looked_at.append(outpoint)
        return super().is_unspent(outpoint)


async def test_coins_that_nobody_spends_are_the_account(autojump_clock: MockClock) -> None:
    """Each look is steady, and nothing is left to explain."""
    bank = CoinBank()
    async with bank.open():
        for _ in range(3):
            await bank.coin()
        side = await bank.look()
    assert (side.account, side.nodes_msat, side.books_msat) == (ON_CHAIN, 3 * AMOUNT_SAT * 1000, 3 * AMOUNT_SAT * 1000)
    assert (side.items, side.difference_msat, bank.gaps()) == ((), 0, {})


async def test_a_spent_coin_is_explained_by_the_tx_that_spends_it(autojump_clock: MockClock) -> None:
    """Two coins of one tx are one item; what remains is in the node."""
    bank = CoinBank()
    async with bank.open():
        first, second, _kept = [await bank.coin() for _ in range(3)]
        tx = bank.spend(first, second)
        side = await bank.look()
        again = await bank.look()
    assert sent(side) == {tx.txid: -2 * AMOUNT_SAT}
    assert (side.nodes_msat, side.unknown_msat) == (AMOUNT_SAT * 1000, 0)
    assert again == side
    gap = bank.gaps()[tx.txid]
    assert (gap.state, gap.amount_msat, gap.node) == (GapState.EXPLAINED, -2 * AMOUNT_SAT * 1000, "bitcoind")


async def test_a_spend_in_the_mempool_is_none_yet(autojump_clock: MockClock) -> None:
    """It may be replaced; the coin counts until a block spends it."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        bank.chain.submit(bank.chain.payment((b"\x51", 10_000), spends=[coin]))
        side = await bank.look()
    assert (side.difference_msat, side.items) == (0, ())


async def test_a_coin_spent_by_a_tx_that_pays_back_to_us_is_sent_and_the_change_is_a_deposit(
    autojump_clock: MockClock,
) -> None:
    """The change is credited to a wallet like any deposit: the old coin is what left the bank."""
    bank = CoinBank()
    change_script = bank.teller.give(1)
    async with bank.open():
        coin = await bank.coin()
        tx = bank.spend(coin, to=change_script, amount_sat=AMOUNT_SAT - 1_000)
        bank.chain.mine_empty()
        await until(lambda: bank.store.deposits.get(tx.outpoint(0)) is not None)
        side = await bank.look()
    assert side.books_msat == (2 * AMOUNT_SAT - 1_000) * 1000
    assert side.nodes_msat == (AMOUNT_SAT - 1_000) * 1000
    assert sent(side) == {tx.txid: -AMOUNT_SAT}
    assert side.unknown_msat == 0


async def test_a_spend_that_a_reorg_undoes_is_closed_and_comes_back(autojump_clock: MockClock) -> None:
    """Unspent again: no difference; mined again in another block: explained again."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        tx = bank.spend(coin)
        assert sent(await bank.look()) == {tx.txid: -AMOUNT_SAT}
        bank.chain.reorganise(1, (), ())
        side = await bank.look()
        assert (side.difference_msat, side.items) == (0, ())
        assert bank.gaps()[tx.txid].state is GapState.CLOSED
        assert bank.store.coins.spent([coin]) == {}
        bank.chain.mine()
        assert sent(await bank.look()) == {tx.txid: -AMOUNT_SAT}
    assert bank.gaps()[tx.txid].state is GapState.EXPLAINED


async def test_a_coin_that_another_tx_spends_after_a_reorg_has_the_other_ones_txid(autojump_clock: MockClock) -> None:
    """It stays spent all the time as far as gettxout says; the first tx's gap is closed."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        first = bank.spend(coin)
        assert sent(await bank.look()) == {first.txid: -AMOUNT_SAT}
        second = bank.chain.payment((b"\x51", 20_000), spends=[coin])
        bank.chain.reorganise(1, (), (second,))
        assert sent(await bank.look()) == {second.txid: -AMOUNT_SAT}
    assert {txid: gap.state for txid, gap in bank.gaps().items()} == {
        first.txid: GapState.CLOSED,
        second.txid: GapState.EXPLAINED,
    }


async def test_a_reorg_that_takes_the_deposit_too_leaves_no_spent_coin(autojump_clock: MockClock) -> None:
    """The deposit is reversed in the books: its coin is none any more."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        tx = bank.spend(coin)
        assert sent(await bank.look()) == {tx.txid: -AMOUNT_SAT}
        bank.chain.reorganise(3, (), (), (), ())
        side = await bank.look()
    assert (side.books_msat, side.nodes_msat, side.items) == (0, 0, ())
    assert bank.store.coins.spent([coin]) == {}
    assert bank.gaps()[tx.txid].state is GapState.CLOSED


async def test_journals_of_another_program_account_for_a_spend_before_it_and_after(autojump_clock: MockClock) -> None:
    """A payout's journal has the tx' id; what it took is not sent, and the gap is closed when all is accounted for."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        tx = bank.chain.payment((b"\x51", 10_000), spends=[coin])
        await bank.write_journal(60_000, hash=tx.txid, type="onchain_payment")
        assert explained(await bank.look()) == {ItemKind.OTHERS: 60_000}  # till the coin is spent it is of others
        bank.chain.mine(tx)
        side = await bank.look()
        assert (explained(side), side.unknown_msat) == ({ItemKind.SENT: 60_000 - AMOUNT_SAT}, 0)
        await bank.write_journal(AMOUNT_SAT - 60_000, hash=tx.txid, type="onchain_payment")
        side = await bank.look()
    assert (side.difference_msat, side.items) == (0, ())
    assert bank.gaps()[tx.txid].state is GapState.CLOSED


async def test_what_other_programs_hold_on_the_account_is_an_item_of_its_own(autojump_clock: MockClock) -> None:
    """What Blink booked before tellerd began, and what it books beside it; each journal counts once."""
    bank = CoinBank()
    async with bank.open():
        await bank.write_journal(-1_000_000, hash="b1" * 32, type="onchain_receipt")
        await bank.coin()
        assert explained(await bank.look()) == {ItemKind.OTHERS: -1_000_000}
        await bank.write_journal(300_000, hash="b2" * 32, type="onchain_payment")
        await bank.look()
        side = await bank.look()
    assert (explained(side), side.unknown_msat) == ({ItemKind.OTHERS: -700_000}, 0)
    assert (side.books_msat, side.nodes_msat) == ((AMOUNT_SAT + 700_000) * 1000, AMOUNT_SAT * 1000)


async def test_a_deposit_that_another_program_credited_is_a_coin_of_ours(autojump_clock: MockClock) -> None:
    """Its receipt is among the journals of others, its coin among those that are asked for."""
    bank = CoinBank()
    async with bank.open():
        tx = bank.teller.pay()
        await bank.write_journal(-AMOUNT_SAT, hash=tx.txid, vout=0, type="onchain_receipt")
        bank.chain.mine()
        bank.chain.mine_empty()
        side = await bank.look()
        assert (side.books_msat, side.nodes_msat, side.items) == (AMOUNT_SAT * 1000, AMOUNT_SAT * 1000, ())
        spender = bank.spend(tx.outpoint(0))
        side = await bank.look()
    assert (sent(side), side.unknown_msat) == ({spender.txid: -AMOUNT_SAT}, 0)


async def test_nothing_is_judged_while_the_books_are_behind(autojump_clock: MockClock) -> None:
    """gettxout speaks of a tip that the books have not reached."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
    bank.spend(coin)
    async with bank.teller.follow():
        bank.teller.deliver = trio.Event()  # nothing reaches posting
        looked = await bank.side.look()
        bank.teller.deliver.set()
    assert not looked.steady
    assert looked.side is not None
    assert looked.side.difference_msat == 0
    assert bank.gaps() == {}


async def test_what_was_seen_while_the_chain_moved_is_thrown_away(autojump_clock: MockClock) -> None:
    """A block comes in the middle of a look: nothing is written, and the next look sees it all."""
    bank = CoinBank()
    async with bank.open():
        coin = await bank.coin()
        tx = bank.spend(coin)
        await bank.teller.live()

        def mine_once(_block_hash: object) -> None:
            bank.chain.before.clear()
            bank.chain.mine_empty()

        bank.chain.before["block"] = mine_once
        looked = await bank.side.look()
        assert not looked.steady
        assert bank.gaps() == {}
        assert sent(await bank.look()) == {tx.txid: -AMOUNT_SAT}


async def test_a_node_that_is_away_is_shown_and_what_was_known_stays(autojump_clock: MockClock) -> None:
    """The look is not steady, and says why; afterwards it is as before."""
    bank = CoinBank()
    async with bank.open():
        coin, _ = await bank.coin(), await bank.coin()
        bank.spend(coin)
        before = await bank.look()
        bank.chain.go_away()
        looked = await bank.side.look()
        assert (looked.steady, looked.side, looked.problem) == (False, before, "bitcoind: connection refused")
        bank.chain.come_back()
        await until(lambda: bank.teller.status.state == "live")
        assert await bank.look() == before


async def test_before_the_chain_is_followed_there_is_no_side(autojump_clock: MockClock) -> None:
    """And nothing is steady."""
    bank = CoinBank()
    async with bank.teller.follow():
        bank.teller.deliver = trio.Event()
        looked = await bank.side.look()
        assert (looked.side, looked.steady) == (None, False)
        bank.teller.deliver.set()


class TestTheSearch:
    """A coin that went while nobody looked."""

    async def test_it_goes_on_look_by_look_and_the_coin_is_unknown_meanwhile(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So many blocks a look; an open gap until its spender is found."""
        monkeypatch.setattr(spenders, "MAX_BLOCKS", 10)
        bank = CoinBank()
        async with bank.open():
            coin = await bank.coin()
            tx = bank.spend(coin)
            bank.chain.mine_empty(25)
            for _ in range(2):
                side = await bank.look()
                assert (side.unknown_msat, side.items) == (-AMOUNT_SAT * 1000, ())
                assert bank.gaps()[coin].state is GapState.OPEN
            side = await bank.look()
        assert (sent(side), side.unknown_msat) == ({tx.txid: -AMOUNT_SAT}, 0)
        assert bank.gaps()[coin].state is GapState.CLOSED
        assert bank.chain.asked["block"] > 25

    async def test_it_ends_at_a_pruned_block_and_is_begun_anew_by_the_full_check(
        self, autojump_clock: MockClock
    ) -> None:
        """gettxout works on a pruned node; its blocks may be gone."""
        bank = CoinBank()
        async with bank.open():
            coin = await bank.coin()
            tx = bank.spend(coin)
            tip = bank.chain.mine_empty(3)
            await bank.teller.live()
            bank.chain.prune(tip.height - 1)
            assert (await bank.look()).unknown_msat == -AMOUNT_SAT * 1000
            assert "no block has it" in bank.gaps()[coin].detail
            blocks = bank.chain.asked["block"]
            assert (await bank.look()).unknown_msat == -AMOUNT_SAT * 1000
            assert bank.chain.asked["block"] == blocks, "searched again in vain"
            bank.chain.prune(0)
            checked = await bank.check.run()
            assert (checked.deposits, checked.gaps, checked.unfinished) == (1, 0, ())
            assert sent(await bank.look()) == {tx.txid: -AMOUNT_SAT}

    async def test_a_lost_coin_that_comes_back_is_lost_no_more(self, autojump_clock: MockClock) -> None:
        """The reorg that undoes the spend closes its gap, too."""
        bank = CoinBank()
        async with bank.open():
            coin = await bank.coin()
            bank.spend(coin)
            await bank.teller.live()
            bank.chain.prune(1_000)
            assert (await bank.look()).unknown_msat == -AMOUNT_SAT * 1000
            bank.chain.prune(0)
            bank.chain.reorganise(1, (), ())
            side = await bank.look()
        assert (side.difference_msat, bank.gaps()[coin].state) == (0, GapState.CLOSED)


class TestTheCostOfALook:
    """Bounded, however many coins there are."""

    async def test_the_newest_and_a_window_that_moves_on_are_asked_for(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every coin has its turn; a newest one is asked for at every look."""
        monkeypatch.setattr(coins, "NEWEST", 2)
        monkeypatch.setattr(coins, "WINDOW", 3)
        chain = _Counting()
        bank = CoinBank(ChainTeller(chain))
        async with bank.open():
            made = [await bank.coin() for _ in range(10)]
            await bank.teller.live()
            asked = []
            for _ in range(4):
                chain.looked_at.clear()
                await bank.look()
                asked.append(list(chain.looked_at))
        assert [len(one) for one in asked] == [5, 5, 4, 5]
        assert all(set(made[-2:]) <= set(one) for one in asked)
        assert set().union(*asked[:3]) == set(made)

    async def test_a_spend_that_is_deep_is_not_asked_for_again(self, autojump_clock: MockClock) -> None:
        """No reorg that is followed reaches it."""
        chain = _Counting()
        bank = CoinBank(ChainTeller(chain))
        async with bank.open():
            coin = await bank.coin()
            bank.spend(coin)
            await bank.look()
            bank.chain.mine_empty(REORG_DEPTH)
            await bank.look()
            chain.looked_at.clear()
            await bank.look()
            assert chain.looked_at == [coin]
            bank.chain.mine_empty()
            await bank.look()
            chain.looked_at.clear()
            assert sent(await bank.look())
            assert chain.looked_at == []
