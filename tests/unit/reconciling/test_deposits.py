"""The full check of the chain: every deposit and every coin, and what does not fit after a second look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from daemon.domain.books import Changes, GapState, Wanted
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.identifiers import BlockHash
from daemon.matching.deposit_check import GONE, NOT_IN_CHAIN, UNNOTICED
from daemon.reconciling import coins, deposits
from daemon.reconciling.deposits import PATIENCE_S
from tests.unit.ingest.chain_teller import now_ms, until
from tests.unit.reconciling.coin_bank import CoinBank

OFF_CHAIN = BlockRef(height=7, hash=BlockHash("0b" * 32))


def put(bank: CoinBank, *changed: Deposit) -> None:
    """Writes deposits as no decision ever would."""
    head = bank.store.books.read_facts(Wanted()).head
    written = Changes(
        before=head,
        after=head,
        committed_at_ms=now_ms(),
        keys=(),
        paid=(),
        deltas={},
        outbox=(),
        entries=(),
        suspense_new=(),
        suspense_assigned=(),
        gaps=(),
        cursors=(),
        deposits=changed,
    )
    bank.store.books.commit(written)


async def deposit_in_block(bank: CoinBank) -> Deposit:
    """One that is settled."""
    found = bank.store.deposits.get(await bank.coin())
    assert found is not None
    return found


async def test_deposits_that_fit_are_counted_and_no_more(autojump_clock: MockClock) -> None:
    """In every state: settled, spent, confirmed, detected, dropped; in pages, without the second look's wait."""
    bank = CoinBank()
    async with bank.open():
        for _ in range(3):
            await bank.coin()
        tx = bank.spend(await bank.coin())
        evicted = bank.teller.pay()
        await until(lambda: bank.teller.state(evicted) is DepositState.DETECTED)
        bank.chain.evict(evicted.txid)
        bank.chain.mine(bank.teller.payment())
        bank.teller.pay()
        await trio.sleep(100)
        began = trio.current_time()
        checked = await bank.check.run()
        assert trio.current_time() - began < PATIENCE_S
        states = {one.state for one in bank.store.deposits.page(wallet_id=None, states=(), after=None, limit=99)[0]}
    assert (checked.deposits, checked.gaps, checked.unfinished) == (7, 0, ())
    assert states == set(DepositState)
    assert set(bank.store.known_gaps()) == {f"chain:spend:{tx.txid}"}


async def test_every_coin_is_asked_for(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look would take a while to come to all of them; spent ones are compared with the journals again."""
    for name in ("NEWEST", "WINDOW"):
        monkeypatch.setattr(coins, name, 1)
    monkeypatch.setattr(coins, "SHOWN", 0)
    monkeypatch.setattr(deposits, "PAGE", 2)
    bank = CoinBank()
    async with bank.open():
        made = [await bank.coin() for _ in range(5)]
        spends = [bank.spend(coin) for coin in made]
        await bank.teller.live()
        checked = await bank.check.run()
        assert (checked.deposits, checked.unfinished) == (5, ())
        assert {txid: gap.state for txid, gap in bank.gaps().items()} == {tx.txid: GapState.EXPLAINED for tx in spends}
        await bank.write_journal(100_000, hash=spends[0].txid, type="onchain_payment")
        bank.chain.mine_empty(20)
        await bank.teller.live()
        await bank.check.run()
    assert bank.gaps()[spends[0].txid].state is GapState.CLOSED


@pytest.mark.parametrize(
    ("break_it", "kind", "amount_msat"),
    [
        (lambda one: replace(one, block=OFF_CHAIN), NOT_IN_CHAIN, -100_000_000),
        (lambda one: replace(one, block=BlockRef(height=5, hash=one.block.hash)), NOT_IN_CHAIN, -100_000_000),
        (
            lambda one: replace(one, state=DepositState.CONFIRMED, block=OFF_CHAIN, held_reason="no_wallet"),
            NOT_IN_CHAIN,
            0,
        ),
        (lambda one: replace(one, state=DepositState.DROPPED, block=None), UNNOTICED, 0),
    ],
    ids=["off_chain", "other_height", "confirmed", "dropped"],
)
async def test_what_does_not_fit_is_a_gap_until_it_fits_again(
    autojump_clock: MockClock, break_it: Callable[[Deposit], Deposit], kind: str, amount_msat: int
) -> None:
    """Kept once, never mended here, and closed when it is over."""
    bank = CoinBank()
    async with bank.open():
        right = await deposit_in_block(bank)
        wrong = break_it(right)
        put(bank, wrong)
        for _ in range(2):
            assert (await bank.check.run()).gaps == 1
        (gap,) = bank.gaps(kind).values()
        assert (gap.state, gap.reference, gap.amount_msat) == (GapState.OPEN, right.outpoint, amount_msat)
        assert bank.store.deposits.get(right.outpoint) == wrong
        put(bank, right)
        checked = await bank.check.run()
    assert (checked.gaps, checked.unfinished) == (0, ())
    assert bank.gaps(kind)[right.outpoint].state is GapState.CLOSED


async def test_a_deposit_that_is_nowhere_is_gone(autojump_clock: MockClock) -> None:
    """The follower would drop it, if it ran."""
    bank = CoinBank()
    async with bank.open():
        tx = bank.teller.pay()
        bank.teller.deliver = trio.Event()  # nothing more reaches posting
        bank.teller.deliver.set()
        await trio.sleep(5)
        assert bank.teller.state(tx) is DepositState.DETECTED
    bank.chain.evict(tx.txid)
    async with bank.teller.follow():
        bank.teller.deliver = trio.Event()
        assert (await bank.check.run()).gaps == 1
        bank.teller.deliver.set()
    (gap,) = bank.gaps(GONE).values()
    assert (gap.reference, gap.amount_msat) == (tx.outpoint(0), 0)


async def test_what_the_follower_mends_before_the_second_look_is_no_gap(autojump_clock: MockClock) -> None:
    """The mempool forgets a tx just before the check: it is dropped within a minute."""
    bank = CoinBank()
    async with bank.open():
        tx = bank.teller.pay()
        await trio.sleep(5)
        bank.chain.hints_lost = True
        bank.chain.evict(tx.txid)
        checked = await bank.check.run()
        assert bank.teller.state(tx) is DepositState.DROPPED
    assert (checked.deposits, checked.gaps) == (1, 0)
    assert bank.gaps(GONE) == {}


async def test_a_node_that_goes_away_leaves_the_check_unfinished(autojump_clock: MockClock) -> None:
    """The reason is told, nothing is concluded, and the next check is whole."""
    bank = CoinBank()
    async with bank.open():
        right = await deposit_in_block(bank)
        put(bank, replace(right, block=OFF_CHAIN))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_away_after, bank, PATIENCE_S / 2)
            checked = await bank.check.run()
        assert checked.unfinished == ("bitcoind: bitcoind: connection refused",)
        assert (checked.deposits, bank.store.known_gaps()) == (1, {})
        bank.chain.come_back()
        put(bank, right)
        await trio.sleep(20)
        assert (await bank.check.run()).unfinished == ()


async def _away_after(bank: CoinBank, seconds: float) -> None:
    await trio.sleep(seconds)
    bank.chain.go_away()


async def test_books_that_are_behind_leave_the_check_unfinished(autojump_clock: MockClock) -> None:
    """A follower that has stopped is no reason to call its deposits wrong."""
    bank = CoinBank()
    async with bank.open():
        await bank.coin()
    bank.chain.mine_empty()
    async with bank.teller.follow():
        bank.teller.deliver = trio.Event()
        (reason,) = (await bank.check.run()).unfinished
        bank.teller.deliver.set()
    assert "not at its tip" in reason


async def test_more_misfits_than_are_kept_are_told(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound for a database that is wrong altogether; then no gap is closed by what was not looked for."""
    monkeypatch.setattr(deposits, "MAX_MISFITS", 2)
    bank = CoinBank()
    async with bank.open():
        wrong = [replace(await deposit_in_block(bank), block=OFF_CHAIN) for _ in range(3)]
        put(bank, *wrong)
        checked = await bank.check.run()
        assert (checked.deposits, checked.gaps) == (3, 2)
        assert checked.unfinished == ("bitcoind: 1 more deposits do not fit",)
        assert len(bank.gaps(NOT_IN_CHAIN)) == 2
