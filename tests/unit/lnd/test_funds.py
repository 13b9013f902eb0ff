"""What a node holds: figures as a real LND v0.21.3 gave them for a channel that it opened."""

from __future__ import annotations

import pytest

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.funds import Answers, node_funds
from daemon.domain.identifiers import Outpoint, Txid
from daemon.domain.movements import WalletTx
from daemon.domain.ports import NodeFunds

CAPACITY_SAT = 16_000_000


def channel(local_sat: int, remote_sat: int, commit_fee: int, *, initiator: bool = True, **more: object) -> pb.Channel:
    """An anchor channel at 2,500 sat/kw."""
    return pb.Channel(
        channel_point="aa:0",
        capacity=CAPACITY_SAT,
        local_balance=local_sat,
        remote_balance=remote_sat,
        commit_fee=commit_fee,
        fee_per_kw=2_500,
        commitment_type=pb.ANCHORS,
        initiator=initiator,
        **more,  # type: ignore[arg-type]  # fields of the message, handed through
    )


def funds(
    local_msat: int,
    *channels: pb.Channel,
    pending: pb.PendingChannelsResponse | None = None,
    pending_msat: int = 0,
    incoming_msat: int = 0,
    outgoing_msat: int = 0,
) -> NodeFunds:
    """With the same balance before and after."""
    balance = pb.ChannelBalanceResponse(
        local_balance=pb.Amount(msat=local_msat),
        pending_open_local_balance=pb.Amount(msat=pending_msat),
        unsettled_local_balance=pb.Amount(msat=incoming_msat),
        unsettled_remote_balance=pb.Amount(msat=outgoing_msat),
    )
    return node_funds(
        Answers(
            before=balance,
            channels=pb.ListChannelsResponse(channels=channels),
            pending=pending or pb.PendingChannelsResponse(),
            after=balance,
        )
    )


@pytest.mark.parametrize(
    ("local_msat", "remote_sat", "commit_fee", "paid_msat"),
    [
        # LND counts the missing output's anchor into commit_fee: 3,140 instead of 2,810.
        (15_996_530_000, 0, 3_140, 0),
        # Both balances have a fraction: the sat that they make together looks like fee.
        (15_995_529_499, 1_000, 2_811, 1_000_501),
        (15_995_129_499, 1_400, 2_811, 1_400_501),
        (14_995_128_000, 1_001_402, 2_810, 1_001_402_000),
    ],
)
def test_fee_and_anchors_of_our_channel_are_ours(
    local_msat: int, remote_sat: int, commit_fee: int, paid_msat: int
) -> None:
    """The whole capacity less what was paid, to the msat."""
    ours = channel(local_msat // 1000, remote_sat, commit_fee)
    assert funds(local_msat, ours).funds_msat == CAPACITY_SAT * 1000 - paid_msat


def test_fee_and_anchors_of_their_channel_are_theirs() -> None:
    """The side that opened a channel pays them."""
    theirs = channel(1_000, 15_995_529, 2_811, initiator=False)
    assert funds(1_000_501, theirs).funds_msat == 1_000_501


def test_a_fee_that_we_cannot_pay_whole_counts_as_it_was_taken() -> None:
    """LND takes what there is; the difference is what is outside of both balances."""
    poor = channel(0, CAPACITY_SAT - 2_000, 1_340)
    assert funds(0, poor).funds_msat == 2_000_000


@pytest.mark.parametrize(
    ("kind", "outside_sat"), [(pb.STATIC_REMOTE_KEY, 1_810), (pb.SIMPLE_TAPROOT, 2_420 + 660), (pb.ANCHORS, 3_470)]
)
def test_each_kind_of_channel_has_its_own_weight(kind: pb.CommitmentType.ValueType, outside_sat: int) -> None:
    """One sat more than fee and anchors is a pair of fractions, whatever the kind."""
    for fraction_msat in (0, 400):
        local_msat = 5_000_000_000 + fraction_msat
        total_msat = CAPACITY_SAT * 1000 - outside_sat * 1000
        ours = channel(local_msat // 1000, (total_msat - local_msat) // 1000, 0)
        ours.commitment_type = kind
        assert funds(local_msat, ours).funds_msat == local_msat + outside_sat * 1000


def test_a_channel_that_opens_counts_with_its_fee_if_it_is_ours() -> None:
    """So that nothing changes when it is open."""
    pending = pb.PendingChannelsResponse()
    for initiator in (pb.INITIATOR_LOCAL, pb.INITIATOR_REMOTE):
        opening = pending.pending_open_channels.add()
        opening.channel.channel_point = f"{initiator}:0"
        opening.channel.capacity = 1_000_000
        opening.channel.local_balance = 996_530 if initiator == pb.INITIATOR_LOCAL else 0
        opening.channel.remote_balance = 0 if initiator == pb.INITIATOR_LOCAL else 996_530
        opening.channel.initiator = initiator
    assert funds(0, pending=pending, pending_msat=996_530_000).funds_msat == 1_000_000_000


def test_incoming_htlcs_are_named() -> None:
    """Their payment hashes, over all channels; outgoing ones are ours until they are resolved, and counted."""
    busy = channel(5_000, 5_000, 0, initiator=False)
    busy.pending_htlcs.add(incoming=True, hash_lock=b"\x01" * 32)
    busy.pending_htlcs.add(incoming=False, hash_lock=b"\x02" * 32)
    idle = channel(1, 1, 0, initiator=False)
    found = funds(5_000_000, busy, idle, incoming_msat=3_000_000, outgoing_msat=700_500)
    assert found.incoming_hashes == ("01" * 32,)
    assert found.funds_msat == 5_700_500


@pytest.mark.parametrize("fractions_sat", [0, 1, 2, 3])
def test_htlcs_and_fractions_do_not_blur_the_fee(fractions_sat: int) -> None:
    """With two HTLCs, one too small for an output, the fee is for one output, whatever the fractions leave over."""
    fee_sat = 2_500 * (1124 + 172) // 1000 + 660
    ours = channel(400_000, 500_000, 0)
    ours.capacity = 400_000 + 500_000 + 50_300 + fee_sat + fractions_sat
    ours.unsettled_balance = 50_300
    ours.pending_htlcs.add(incoming=True, amount=50_000)
    ours.pending_htlcs.add(incoming=True, amount=300)
    assert funds(400_000_000, ours).funds_msat == (400_000 + fee_sat) * 1000


def test_the_token_changes_with_every_commitment_and_not_with_time() -> None:
    """Uptime passes; an update that leaves the balances as they were is still one."""
    first = funds(5_000_000, channel(5_000, 5_000, 0, num_updates=3, uptime=1)).quiet_token
    assert funds(5_000_000, channel(5_000, 5_000, 0, num_updates=3, uptime=9)).quiet_token == first
    assert funds(5_000_000, channel(5_000, 5_000, 0, num_updates=4, uptime=1)).quiet_token != first
    assert funds(5_000_001, channel(5_000, 5_000, 0, num_updates=3, uptime=1)).quiet_token != first


def test_a_change_between_the_two_balances_is_a_token_of_its_own() -> None:
    """It equals neither that before nor that after."""
    before, after = (pb.ChannelBalanceResponse(local_balance=pb.Amount(msat=msat)) for msat in (1, 2))
    channels, pending = pb.ListChannelsResponse(), pb.PendingChannelsResponse()
    tokens = {
        node_funds(Answers(before=first, channels=channels, pending=pending, after=second)).quiet_token
        for first, second in ((before, before), (before, after), (after, after))
    }
    assert len(tokens) == 3


def answers(
    wallet: pb.WalletBalanceResponse, pending: pb.PendingChannelsResponse | None = None, *txs: WalletTx
) -> NodeFunds:
    """Of a node without open channels."""
    nothing = pb.ChannelBalanceResponse()
    return node_funds(
        Answers(
            before=nothing,
            channels=pb.ListChannelsResponse(),
            pending=pending or pb.PendingChannelsResponse(),
            after=nothing,
            wallet_before=wallet,
            wallet_after=wallet,
            txs=txs,
        )
    )


def tx(amount_sat: int, *, spends: str = "", spent_sat: int = 0, height: int = 0) -> WalletTx:
    """A tx of the wallet."""
    return WalletTx(
        txid=Txid("cc" * 32),
        amount_sat=amount_sat,
        spent_sat=spent_sat,
        outputs_sat=0,
        fee_sat=0,
        height=height,
        spends=(Outpoint(spends),) if spends else (),
    )


def waiting(limbo_sat: int, closing_txid: str) -> pb.PendingChannelsResponse:
    """A channel of ours that waits for its close."""
    pending = pb.PendingChannelsResponse()
    one = pending.waiting_close_channels.add(limbo_balance=limbo_sat, closing_txid=closing_txid)
    one.channel.channel_point = "bb:0"
    one.channel.capacity = 5_000_000
    one.channel.local_balance = 4_918_752
    one.channel.remote_balance = 77_777
    one.channel.initiator = pb.INITIATOR_LOCAL
    one.channel.commitment_type = pb.ANCHORS
    one.commitments.local_commit_fee_sat = 2_810
    return pending


def test_coins_that_are_leased_and_spent_already_count_once() -> None:
    """A funding tx that is not confirmed: LND shows its change, and the coin that it spends as locked."""
    wallet = pb.WalletBalanceResponse(
        total_balance=14_999_671, unconfirmed_balance=14_999_671, locked_balance=20_000_000
    )
    assert answers(wallet, None, tx(-5_000_329, spent_sat=20_000_000)).wallet_msat == 14_999_671_000
    assert answers(wallet, None, tx(-5_000_329, spent_sat=20_000_000, height=9)).wallet_msat == 34_999_671_000


def test_coins_that_are_leased_only_are_there() -> None:
    """Before the tx that they are for is made."""
    assert answers(pb.WalletBalanceResponse(total_balance=3, locked_balance=20)).wallet_msat == 23_000


def test_a_cooperative_close_counts_once() -> None:
    """Its output is in the wallet from the broadcast on, and limbo all the same until three confirmations."""
    wallet = pb.WalletBalanceResponse(total_balance=16_920_093)
    (before,) = answers(wallet, waiting(4_918_752, "")).closing
    assert (before.to_come_sat, before.held_sat) == (4_918_752, 4_918_752 + 2_810 + 660)
    for height in (0, 123):
        closing = answers(wallet, waiting(4_918_752, "dd" * 32), tx(4_920_730, spends="bb:0", height=height))
        assert (closing.closing_msat, closing.closing[0].held_sat) == (0, 4_922_222)


def test_an_unconfirmed_sweep_counts_once() -> None:
    """LND goes on to call it limbo until it is confirmed."""
    pending = pb.PendingChannelsResponse()
    forced = pending.pending_force_closing_channels.add(closing_txid="ee" * 32, limbo_balance=2_396_736)
    forced.channel.channel_point = "bb:0"
    forced.channel.initiator = pb.INITIATOR_REMOTE
    wallet = pb.WalletBalanceResponse(total_balance=1)
    assert answers(wallet, pending).closing_msat == 2_396_736_000
    swept = tx(2_396_300, spends=f"{'ee' * 32}:3")
    assert answers(wallet, pending, swept).closing_msat == 436_000


def test_the_token_changes_with_the_wallet_and_with_what_closes() -> None:
    """And not with the blocks that pass."""
    wallet = pb.WalletBalanceResponse(total_balance=5)
    pending = waiting(4_918_752, "dd" * 32)
    token = answers(wallet, pending).quiet_token
    pending.waiting_close_channels[0].blocks_til_close_confirmed = 2
    assert answers(wallet, pending).quiet_token == token
    assert answers(pb.WalletBalanceResponse(total_balance=6), pending).quiet_token != token
    assert answers(wallet, waiting(4_918_751, "dd" * 32)).quiet_token != token
    assert answers(wallet, pending, tx(1)).quiet_token != token
