"""The Lightning account against its nodes: each thing that moves them is booked or explained, and nothing else is."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from daemon.domain.books import GapState
from daemon.domain.movements import Forward, OwnChannel, PaymentState
from daemon.domain.ports import LightningTotals
from daemon.domain.reconciliation import ItemKind
from daemon.matching.node_review import DEEP_BLOCKS, Booking
from tests.samples import hash_of
from tests.unit.ingest.teller import eventually
from tests.unit.reconciling.node_bank import HEIGHT, NodeBank, point_of, txid_of


async def test_the_opening_is_all_that_the_node_holds() -> None:
    """Channels, closing channels and wallet: books and node are equal from then on, to the msat."""
    bank = NodeBank(funds_msat=9_000_501, wallet_sat=7_000)
    bank.begin_close("old", 0, to_come_sat=500)
    async with bank.open():
        side = await bank.compared()
    assert (side.nodes_msat, side.difference_msat) == (9_000_501 + 7_500_000, 0)


async def test_what_was_under_way_at_the_opening_is_part_of_it() -> None:
    """Coins that were not confirmed yet, a channel that closed, a payment: none of it is told as a movement later."""
    bank = NodeBank()
    bank.move_coins("early", 4_000)
    bank.begin_close("old", 0, to_come_sat=500)
    bank.pay(1, "past", 1_000)
    async with bank.open():
        bank.move_coins("early", 4_000, height=HEIGHT + 1)
        bank.move_coins("sweep", 490, height=HEIGHT + 2, spends=(point_of("closing old"),))
        bank.end_close("old", height=HEIGHT)
        assert (await bank.compared()).difference_msat == 0
    assert [one["fee_msat"] for one in bank.told("channel_fee.booked")] == [10_000]
    assert bank.kept("wallet_received") == bank.kept("sent_elsewhere") == []


async def test_routing_income_is_the_bank_owners() -> None:
    """Whole sats to its wallet, the rest to the node's remainder; each forward once, however often it is looked."""
    bank = NodeBank(funds_msat=9_000_000)
    async with bank.open():
        bank.forward(1, 1_100)
        bank.forward(2, 2_950)
        for _ in range(2):
            assert (await bank.compared()).difference_msat == 0
        bank.forward(3, 10)
        assert (await bank.compared()).difference_msat == 0
    assert bank.bank_owner_sat == 4
    assert [(one["forwards"], one["fee_msat"], one["amount_sat"]) for one in bank.told("routing.booked")] == [
        (2, 4_050, 4),
        (1, 10, 0),
    ]
    cursor = bank.cursor()
    assert cursor is not None
    assert cursor.remainder_msat == 60


async def test_routing_income_that_another_program_books_is_explained_until_it_does() -> None:
    """With book_routing off nothing is booked here, and its journal balances it."""
    bank = NodeBank(booking=Booking(routing=False))
    async with bank.open():
        bank.forward(1, 5_000)
        assert await bank.explained() == {ItemKind.RECEIVED: 5_000}
    assert bank.bank_owner_sat == 0
    assert [gap.amount_msat for gap in bank.kept("routing_income")] == [5_000]


async def test_a_receipt_whose_htlc_is_not_resolved_is_in_flight() -> None:
    """It is booked, and the money is not in the channel yet: the peer may be away for long."""
    bank = NodeBank()
    async with bank.open():
        bank.node.htlcs.resolve_at_once = False
        bank.node.settle(bank.expected_invoice("held up"))
        await eventually(lambda: bank.credited_sat == 1_000)
        assert await bank.explained() == {ItemKind.IN_FLIGHT: -1_000_000}
        bank.node.resolve_htlcs()
        assert (await bank.compared()).difference_msat == 0


async def test_a_forward_whose_htlc_is_not_resolved_is_in_flight() -> None:
    """It went out on the other side, its fee is booked, and what it came with is not in the channel yet."""
    bank = NodeBank()
    async with bank.open():
        bank.forward(1, 5_000, resolved=False)
        assert await bank.explained() == {ItemKind.IN_FLIGHT: -1_000_000}
        bank.node.resolve_htlcs()
        assert (await bank.compared()).difference_msat == 0


async def test_the_opening_waits_for_a_forward_whose_htlc_is_not_resolved() -> None:
    """Else its money would come in later, from nowhere."""
    bank = NodeBank()
    incoming = bank.node.htlcs.add(1_000, 0)
    place = (incoming.chan_id, incoming.htlc_index)
    now_ns = time.time_ns()
    bank.node.money.forwards = [Forward(at_ns=now_ns, fee_msat=1, received_msat=1_000, incoming_htlc=place)]
    async with bank.open_when(lambda: bank.node.funds_asked >= 4):
        cursor = bank.cursor()
        assert cursor is None or not cursor.opened
        bank.node.resolve_htlcs()
        await eventually(lambda: (cursor := bank.cursor()) is not None and cursor.opened)
        assert (await bank.compared()).difference_msat == 0


async def test_a_payment_by_hand_is_explained_and_closed_when_it_is_booked() -> None:
    """With its hash; amount and fee. A part that is booked leaves the rest."""
    bank = NodeBank()
    async with bank.open():
        bank.pay(1, "coffee", 2_500_300)
        assert await bank.explained() == {ItemKind.SENT: -2_500_300}
        (gap,) = bank.kept("sent_elsewhere")
        assert (gap.reference, gap.node, gap.moved_msat) == (hash_of("coffee"), "lnd1", -2_500_300)
        await bank.book_elsewhere(hash_of("coffee"), 2_000)
        assert await bank.explained() == {ItemKind.SENT: -500_300}
        await bank.book_elsewhere(hash_of("coffee"), 501)
        assert await bank.explained() == {ItemKind.RECEIVED: 700}


async def test_a_payment_that_is_booked_leaves_nothing() -> None:
    """The other program's journal has the same hash and the whole amount."""
    bank = NodeBank()
    async with bank.open():
        await bank.book_elsewhere(hash_of("coffee"), 2_500)
        bank.pay(1, "coffee", 2_500_000)
        assert (await bank.compared()).difference_msat == 0
    assert bank.kept("sent_elsewhere") == []


async def test_a_booked_payment_is_in_flight_until_it_ends() -> None:
    """The node has the money still; then the payment is what it is, and one that fails is to be taken back."""
    bank = NodeBank()
    async with bank.open():
        for index, name in enumerate(("slow", "failing"), 1):
            bank.pay(index, name, 1_000_000, PaymentState.IN_FLIGHT)
            await bank.book_elsewhere(hash_of(name), 1_000)
        assert await bank.explained() == {ItemKind.IN_FLIGHT: 2_000_000}
        bank.pay(3, "later", 7_000)
        assert await bank.explained() == {ItemKind.IN_FLIGHT: 2_000_000, ItemKind.SENT: -7_000}
        bank.pay(1, "slow", 1_000_000)
        bank.pay(2, "failing", 0, PaymentState.FAILED)
        await bank.book_elsewhere(hash_of("failing"), -1_000)
        assert await bank.explained() == {ItemKind.SENT: -7_000}


async def test_coins_that_come_and_go_are_explained_by_their_txids() -> None:
    """While unconfirmed they may vanish and are only shown; kept when they are in a block."""
    bank = NodeBank()
    async with bank.open():
        bank.move_coins("gone", 900)
        bank.move_coins("in", 4_000)
        bank.move_coins("out", -1_234, fee_sat=34)
        assert await bank.explained() == {ItemKind.RECEIVED: 4_900_000, ItemKind.SENT: -1_234_000}
        assert bank.kept("wallet_received") == []
        bank.forget_tx("gone")
        bank.move_coins("in", 4_000, height=HEIGHT + 1)
        bank.move_coins("out", -1_234, height=HEIGHT + 1)
        assert await bank.explained() == {ItemKind.RECEIVED: 4_000_000, ItemKind.SENT: -1_234_000}
        assert [gap.reference for gap in bank.kept("wallet_received")] == [txid_of("in")]
        await bank.book_elsewhere(txid_of("out"), 1_234)
        assert await bank.explained() == {ItemKind.RECEIVED: 4_000_000}


async def test_txs_that_are_deep_are_not_looked_at_again_and_stay_explained() -> None:
    """The height of the marks follows; what was found stays among the gaps."""
    bank = NodeBank()
    async with bank.open():
        bank.move_coins("in", 4_000, height=HEIGHT + 1)
        assert await bank.explained() == {ItemKind.RECEIVED: 4_000_000}
        bank.node.holds.height += 2 * DEEP_BLOCKS
        assert await bank.explained() == {ItemKind.RECEIVED: 4_000_000}
        cursor = bank.cursor()
        assert cursor is not None
        assert cursor.movements is not None
        assert cursor.movements.height == HEIGHT + DEEP_BLOCKS


async def test_opening_a_channel_costs_the_miners_fee_once_it_is_confirmed() -> None:
    """The coins are in the channel then: nothing else has moved."""
    bank = NodeBank(wallet_sat=2_000_000)
    async with bank.open():
        bank.open_channel("ours", 1_000_000, 329)
        assert await bank.explained() == {ItemKind.IN_FLIGHT: -329_000}
        bank.open_channel("ours", 1_000_000, 329, height=HEIGHT + 1)
        for _ in range(2):
            assert (await bank.compared()).difference_msat == 0
    assert bank.bank_owner_sat == -329
    (told,) = bank.told("channel_fee.booked")
    assert (told["change"], told["txid"], told["fee_msat"]) == ("open", txid_of("ours"), 329_000)


async def test_a_push_is_money_sent() -> None:
    """No payment tells what the other side got with the opening."""
    bank = NodeBank(wallet_sat=2_000_000)
    async with bank.open():
        bank.open_channel("ours", 1_000_000, 329, pushed_sat=4_000, height=HEIGHT + 1)
        assert await bank.explained() == {ItemKind.SENT: -4_000_000}
    assert [gap.reference for gap in bank.kept("channel_push")] == [point_of("ours")]


async def test_a_push_to_us_is_money_received() -> None:
    """In a channel that another node opens, from its opening on; one of old is in the opening balance."""
    bank = NodeBank()
    theirs = OwnChannel(channel_point=point_of("theirs"), capacity_sat=10**6, opened_by_us=False, pushed_sat=600)
    old = replace(theirs, channel_point=point_of("old"), height=HEIGHT - 1)
    bank.node.money.channels = [old]
    async with bank.open():
        bank.node.money.channels = [old, theirs]
        bank.node.spend(-600_000)
        assert await bank.explained() == {ItemKind.RECEIVED: 600_000}
        assert bank.kept("channel_push") == []
        bank.node.money.channels = [old, replace(theirs, height=HEIGHT + 1)]
        assert await bank.explained() == {ItemKind.RECEIVED: 600_000}
    assert [gap.amount_msat for gap in bank.kept("channel_push")] == [600_000]


async def test_a_cooperative_close_costs_what_does_not_come_back() -> None:
    """The miner's fee, and the fraction of a sat that no output can hold."""
    bank = NodeBank(funds_msat=500_000_223, wallet_sat=0)
    async with bank.open():
        bank.begin_close("ours", 500_000_223, to_come_sat=0)
        bank.move_coins("closing ours", 498_500, spends=(point_of("ours"),))
        assert await bank.explained() == {ItemKind.CLOSING: -1_500_223}
        bank.move_coins("closing ours", 498_500, height=HEIGHT + 1)
        bank.end_close("ours")
        for _ in range(2):
            assert (await bank.compared()).difference_msat == 0
    assert [one["fee_msat"] for one in bank.told("channel_fee.booked")] == [1_500_223]
    assert bank.bank_owner_sat == -1_501


async def test_a_forced_close_is_over_when_its_sweep_is_confirmed() -> None:
    """LND never calls its own commitment tx confirmed; the sweep's fee and an anchor that is lost are costs."""
    bank = NodeBank(funds_msat=500_000_000, wallet_sat=0)
    async with bank.open():
        bank.begin_close("ours", 500_000_000, to_come_sat=496_530)
        bank.move_coins("closing ours", 0, spends=(point_of("ours"),))
        assert await bank.explained() == {ItemKind.CLOSING: -3_470_000}
        bank.node.money.closing = [replace(bank.node.money.closing[0], to_come_sat=0)]
        bank.move_coins("sweep", 496_600, spends=(point_of("closing ours"),))
        bank.end_close("ours")
        assert await bank.explained() == {ItemKind.CLOSING: -3_400_000}
        bank.move_coins("sweep", 496_600, height=HEIGHT + 400)
        assert (await bank.compared()).difference_msat == 0
    assert [one["fee_msat"] for one in bank.told("channel_fee.booked")] == [3_400_000]


async def test_channels_that_one_tx_sweeps_are_over_together() -> None:
    """Whose part of the fee is whose nobody can say: it is booked once, and neither is told again."""
    bank = NodeBank(funds_msat=500_000_000, wallet_sat=0)
    async with bank.open():
        for name, held_msat in (("one", 200_000_000), ("two", 300_000_000)):
            bank.begin_close(name, held_msat, to_come_sat=held_msat // 1000 - 1_000)
        assert await bank.explained() == {ItemKind.CLOSING: -2_000_000}
        bank.move_coins("sweep", 497_500, height=HEIGHT + 9, spends=(point_of("closing one"), point_of("closing two")))
        bank.end_close("one")
        bank.node.money.closing = [replace(bank.node.money.closing[0], to_come_sat=0)]
        assert await bank.explained() == {ItemKind.CLOSING: -2_500_000}
        bank.end_close("two")
        for _ in range(2):
            assert (await bank.compared()).difference_msat == 0
    assert [one["fee_msat"] for one in bank.told("channel_fee.booked")] == [2_500_000]


@pytest.mark.parametrize("breach", [False, True])
async def test_a_close_that_loses_more_than_a_fee_is_for_a_person(breach: bool) -> None:
    """A channel that came back empty, or whose other side had cheated, is not booked as a fee."""
    back_sat = 498_000 if breach else 100_000
    bank = NodeBank(funds_msat=500_000_000, wallet_sat=0)
    async with bank.open():
        bank.begin_close("ours", 500_000_000, to_come_sat=0)
        bank.move_coins("closing ours", back_sat, height=HEIGHT + 1, spends=(point_of("ours"),))
        await bank.compared()
        bank.end_close("ours", breach=breach)
        for _ in range(2):
            assert await bank.explained() == {ItemKind.GAP: (back_sat - 500_000) * 1_000}
    assert bank.told("channel_fee.booked") == []
    assert [gap.reference for gap in bank.kept("channel_loss", state=GapState.OPEN)] == [point_of("ours")]


async def test_channel_fees_that_another_program_books_are_explained_until_it_does() -> None:
    """With book_channel_fees off; its journal carries no hash, and is told by its type."""
    bank = NodeBank(wallet_sat=2_000_000, booking=Booking(channel_fees=False))
    async with bank.open():
        bank.open_channel("ours", 1_000_000, 329, height=HEIGHT + 1)
        assert await bank.explained() == {ItemKind.SENT: -329_000}
    assert bank.bank_owner_sat == 0


async def test_what_nothing_explains_is_unknown() -> None:
    """And not taken for a fraction of a channel that closes, unless it is one."""
    bank = NodeBank(funds_msat=500_000_000)
    async with bank.open():
        bank.node.spend(1)
        looked = await bank.look()
        assert looked.side is not None
        assert looked.side.unknown_msat == -1
        bank.begin_close("ours", 400_000_000, to_come_sat=400_000)
        bank.node.spend(999)
        looked = await bank.look()
        assert looked.side is not None
        assert looked.side.unknown_msat == -1_000


async def test_a_node_that_is_away_is_not_compared() -> None:
    """Nothing is concluded from what is not known."""
    bank = NodeBank()
    async with bank.open():
        await bank.compared()
        bank.node.go_away("hung")
        looked = await bank.look()
    assert (looked.side, looked.steady) == (None, False)
    assert "hung" in looked.problem


async def test_a_moment_in_which_the_node_moves_is_not_steady() -> None:
    """The figures are shown, and judged by nobody."""
    bank = NodeBank()
    async with bank.open():
        bank.node.on_funds = lambda: bank.node.spend(1)
        assert not (await bank.look()).steady


async def test_a_moment_in_which_the_books_move_is_not_steady() -> None:
    """The node was read between two readings of the books that differ."""
    bank = NodeBank()
    numbers = iter(range(1_000))
    totals = bank.store.lightning_books.totals

    def moving() -> LightningTotals:
        return replace(totals(), sequence=next(numbers))

    async with bank.open():
        await bank.compared()
        bank.store.lightning_books.totals = moving  # type: ignore[method-assign]  # this one bank answers so
        assert not (await bank.look()).steady


async def test_while_a_channel_closes_its_txs_are_looked_at_however_deep() -> None:
    """What came back of it counts until all of it has, thousands of blocks later."""
    bank = NodeBank(funds_msat=500_000_000, wallet_sat=0)
    async with bank.open():
        bank.begin_close("ours", 500_000_000, to_come_sat=400_000)
        bank.move_coins("first", 99_000, height=HEIGHT + 1, spends=(point_of("closing ours"),))
        assert await bank.explained() == {ItemKind.CLOSING: -1_000_000}
        bank.node.holds.height += 20 * DEEP_BLOCKS
        assert await bank.explained() == {ItemKind.CLOSING: -1_000_000}
        bank.move_coins("second", 399_500, height=HEIGHT + 19 * DEEP_BLOCKS, spends=(point_of("closing ours"),))
        bank.end_close("ours")
        assert (await bank.compared()).difference_msat == 0
    assert [one["fee_msat"] for one in bank.told("channel_fee.booked")] == [1_500_000]


async def test_the_money_of_a_node_that_is_not_configured_any_more_is_shown() -> None:
    """The books hold it still: it is no unknown difference."""
    bank = NodeBank(funds_msat=9_000_000, wallet_sat=0)
    async with bank.open():
        await bank.compared()
    bank.node.replace_by_empty("03" * 33, funds_msat=2_000_000)
    async with bank.open():
        await eventually(lambda: (cursor := bank.cursor()) is not None and cursor.opened)
        assert await bank.explained() == {ItemKind.GAP: -9_000_000}
