"""What a node holds in its channels, to the msat, from LND's answers; pure.

LND's local balance is what is left after the commitment fee and both anchors, which the side that opened
the channel pays (lnwallet: ChannelCommitment.LocalBalance). The fee comes back when the channel closes, and
changes with the fee rate while it is open, so it is counted as ours: else the books would differ from the
node with every fee update.
"""

from __future__ import annotations

import hashlib
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.ports import NodeFunds

_ANCHORS_SAT: Final = 2 * 330
"""Two outputs of 330 sat (BOLT 3, option_anchors)."""

_COMMIT_WEIGHT: Final = 724
_ANCHOR_COMMIT_WEIGHT: Final = 1124
_TAPROOT_COMMIT_WEIGHT: Final = 968
"""Weights without HTLCs that LND computes the fee from (lnd: input/size.go), whatever the tx really weighs."""

_HTLC_WEIGHT: Final = 172
"""What one HTLC output adds (BOLT 3)."""

_WITHOUT_ANCHORS: Final = frozenset({pb.LEGACY, pb.STATIC_REMOTE_KEY, pb.UNKNOWN_COMMITMENT_TYPE})
_TAPROOT: Final = frozenset({pb.SIMPLE_TAPROOT, pb.SIMPLE_TAPROOT_OVERLAY, pb.SIMPLE_TAPROOT_FINAL})


def node_funds(
    *,
    balance_before: pb.ChannelBalanceResponse,
    channels: pb.ListChannelsResponse,
    pending: pb.PendingChannelsResponse,
    balance_after: pb.ChannelBalanceResponse,
) -> NodeFunds:
    """The sum, and a token of everything it was made of.

    Three answers are three moments; the balance is asked before and after, and both are in the token, so
    that a change in between makes the token one that does not come again.
    """
    held_msat = balance_after.local_balance.msat + balance_after.pending_open_local_balance.msat
    held_msat += balance_after.unsettled_local_balance.msat
    fees_sat = sum(_fee_and_anchors_sat(one) for one in channels.channels if one.initiator)
    fees_sat += sum(_pending_fee_and_anchors_sat(one) for one in pending.pending_open_channels)
    moments = (balance_before, channels, pending, balance_after)
    token = hashlib.sha256(b"".join(_steady_bytes(answer) for answer in moments))
    return NodeFunds(
        funds_msat=held_msat + fees_sat * MSAT_PER_SAT,
        incoming_hashes=tuple(
            PaymentHash(htlc.hash_lock.hex())
            for one in channels.channels
            for htlc in one.pending_htlcs
            if htlc.incoming
        ),
        quiet_token=token.hexdigest(),
    )


def _fee_and_anchors_sat(channel: pb.Channel) -> int:
    """What of the capacity is on neither side: the fee and the anchors.

    LND rounds the balances and every HTLC down to sats. Their fractions make full sats together, which then
    look like fee, in LND's `commit_fee`, too. The fee that follows from the fee rate, with as many HTLCs as are
    not too small to have an output, tells. It only tells: where we cannot pay it whole, LND takes less, and the
    difference is right as it is.
    """
    outside_sat = channel.capacity - channel.local_balance - channel.remote_balance - channel.unsettled_balance
    most_from_fractions_sat = 1 + len(channel.pending_htlcs)
    for outputs in range(len(channel.pending_htlcs) + 1):
        expected_sat = _expected_sat(channel, outputs)
        if expected_sat <= outside_sat <= expected_sat + most_from_fractions_sat:
            return expected_sat
    return outside_sat


def _expected_sat(channel: pb.Channel, htlc_outputs: int) -> int:
    htlc_weight = htlc_outputs * _HTLC_WEIGHT
    if channel.commitment_type in _WITHOUT_ANCHORS:
        return channel.fee_per_kw * (_COMMIT_WEIGHT + htlc_weight) // 1000
    weight = _TAPROOT_COMMIT_WEIGHT if channel.commitment_type in _TAPROOT else _ANCHOR_COMMIT_WEIGHT
    return channel.fee_per_kw * (weight + htlc_weight) // 1000 + _ANCHORS_SAT


def _pending_fee_and_anchors_sat(pending: pb.PendingChannelsResponse.PendingOpenChannel) -> int:
    """The same before the funding tx is confirmed; nothing was paid through it yet: there are no fractions."""
    channel = pending.channel
    if channel.initiator != pb.INITIATOR_LOCAL:
        return 0
    return channel.capacity - channel.local_balance - channel.remote_balance


def _steady_bytes(
    answer: pb.ChannelBalanceResponse | pb.ListChannelsResponse | pb.PendingChannelsResponse,
) -> bytes:
    """The answer without what changes by the mere passing of time."""
    if isinstance(answer, pb.ListChannelsResponse):
        steady = pb.ListChannelsResponse()
        for channel in sorted(answer.channels, key=lambda one: one.channel_point):
            kept = steady.channels.add()
            kept.channel_point = channel.channel_point
            kept.num_updates = channel.num_updates
            kept.local_balance = channel.local_balance
            kept.remote_balance = channel.remote_balance
            kept.unsettled_balance = channel.unsettled_balance
            kept.commit_fee = channel.commit_fee
            kept.pending_htlcs.extend(channel.pending_htlcs)
        return steady.SerializeToString(deterministic=True)
    if isinstance(answer, pb.PendingChannelsResponse):
        return "\n".join(sorted(one.channel.channel_point for one in answer.pending_open_channels)).encode()
    return answer.SerializeToString(deterministic=True)
