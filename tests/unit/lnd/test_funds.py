"""What a node holds: figures as a real LND v0.21.3 gave them for a channel that it opened."""

from __future__ import annotations

import pytest

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.funds import node_funds
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
    unsettled_msat: int = 0,
) -> NodeFunds:
    """With the same balance before and after."""
    balance = pb.ChannelBalanceResponse(
        local_balance=pb.Amount(msat=local_msat),
        pending_open_local_balance=pb.Amount(msat=pending_msat),
        unsettled_local_balance=pb.Amount(msat=unsettled_msat),
    )
    return node_funds(
        balance_before=balance,
        channels=pb.ListChannelsResponse(channels=channels),
        pending=pending or pb.PendingChannelsResponse(),
        balance_after=balance,
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
    found = funds(5_000_000, busy, channel(1, 1, 0, initiator=False), unsettled_msat=700_500)
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
        node_funds(balance_before=first, channels=channels, pending=pending, balance_after=second).quiet_token
        for first, second in ((before, before), (before, after), (after, after))
    }
    assert len(tokens) == 3
