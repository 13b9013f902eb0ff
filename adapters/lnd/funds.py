"""What a node holds, to the msat, from LND's answers; pure.

LND's local balance is what is left after the commitment fee and both anchors, which the side that opened
the channel pays (lnwallet: ChannelCommitment.LocalBalance). The fee comes back when the channel closes, and
changes with the fee rate while it is open, so it is counted as ours: else the books would differ from the
node with every fee update.

HTLCs that are not resolved: LND's "unsettled remote" balance is those that go out (rpcserver.go: ChannelBalance),
whatever the name makes one think. They are ours until their payment went through. The "unsettled local" ones come in,
and are not ours before they are settled: a held payment is no money yet.

Channels that close, as seen on v0.21.3-beta: a channel waits for its close (`waiting_close_channels`) from the
broadcast until the closing tx has three confirmations, and all the while `limbo_balance` is its local balance, though
the output of a cooperative close is in the wallet's unconfirmed balance from the broadcast on. So what the wallet has
of a closing tx, or of an unconfirmed sweep, is taken off. After a commitment tx of ours `limbo_balance` has the
time-locked output, and our anchor once the tx is deep enough; commitment fee and the other anchor are in no figure.

The wallet, likewise: `total_balance` has what is unconfirmed in it. Outputs that are leased, as for a funding tx, are
in `locked_balance` instead, and stay there when an unconfirmed tx has spent them and its change is in the total: what
such txs spend is taken off the locked ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from daemon.domain.identifiers import Outpoint, PaymentHash, Txid
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.movements import ClosingChannel, OwnChannel, WalletTx
from daemon.domain.ports import NodeFunds

_ANCHORS_SAT: Final = 2 * 330
"""Two outputs of 330 sat (BOLT 3, option_anchors)."""

_COMMIT_WEIGHT: Final = 724
_ANCHOR_COMMIT_WEIGHT: Final = 1124
_TAPROOT_COMMIT_WEIGHT: Final = 968
"""Weights without HTLCs that LND computes the fee from (lnd: input/size.go), whatever the tx really weighs."""

_HEIGHT_SHIFT: Final = 40
"""A short channel id is the funding tx's block height, place and output, in 24, 24 and 16 bits (BOLT 7)."""

_HTLC_WEIGHT: Final = 172
"""What one HTLC output adds (BOLT 3)."""

_WITHOUT_ANCHORS: Final = frozenset({pb.LEGACY, pb.STATIC_REMOTE_KEY, pb.UNKNOWN_COMMITMENT_TYPE})
_TAPROOT: Final = frozenset({pb.SIMPLE_TAPROOT, pb.SIMPLE_TAPROOT_OVERLAY, pb.SIMPLE_TAPROOT_FINAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What LND said, each of it one moment; `before` and `after` are the balances around the rest.

    `txs` are the unconfirmed ones, and those confirmed since the first channel that still closes; needed only where
    `needs_txs` says so.
    """

    before: pb.ChannelBalanceResponse
    channels: pb.ListChannelsResponse
    pending: pb.PendingChannelsResponse
    after: pb.ChannelBalanceResponse
    wallet_before: pb.WalletBalanceResponse = field(default_factory=pb.WalletBalanceResponse)
    wallet_after: pb.WalletBalanceResponse = field(default_factory=pb.WalletBalanceResponse)
    txs: Sequence[WalletTx] = ()


def needs_txs(wallet: pb.WalletBalanceResponse, pending: pb.PendingChannelsResponse) -> bool:
    """Whether something may be counted twice: a channel closes, or coins are leased."""
    return bool(pending.waiting_close_channels or pending.pending_force_closing_channels or wallet.locked_balance)


def first_close_height(pending: pb.PendingChannelsResponse) -> int:
    """The lowest block with a closing tx that is not deep enough for LND; 0 if there is none."""
    return min((one.close_height for one in pending.waiting_close_channels if one.close_height), default=0)


def node_funds(answers: Answers) -> NodeFunds:
    """The sums, and a token of everything they were made of.

    Several answers are several moments; the balances are asked before and after, and both are in the token, so
    that a change in between makes the token one that does not come again.
    """
    after, channels, pending = answers.after, answers.channels.channels, answers.pending
    held_msat = after.local_balance.msat + after.pending_open_local_balance.msat + after.unsettled_remote_balance.msat
    fees_sat = sum(_fee_and_anchors_sat(one) for one in channels if one.initiator)
    fees_sat += sum(_pending_fee_and_anchors_sat(one) for one in pending.pending_open_channels)
    closing = (
        *(_waiting(one, answers.txs) for one in pending.waiting_close_channels),
        *(_force_closing(one, answers.txs) for one in pending.pending_force_closing_channels),
    )
    incoming = [(one.chan_id, htlc) for one in channels for htlc in one.pending_htlcs if htlc.incoming]
    return NodeFunds(
        channels_msat=held_msat + fees_sat * MSAT_PER_SAT,
        closing_msat=sum(one.to_come_sat for one in closing) * MSAT_PER_SAT,
        wallet_msat=_wallet_sat(answers.wallet_after, answers.txs) * MSAT_PER_SAT,
        incoming_hashes=tuple(PaymentHash(htlc.hash_lock.hex()) for _, htlc in incoming),
        incoming_htlcs=tuple((chan_id, htlc.htlc_index) for chan_id, htlc in incoming),
        channels=(
            *(_open(one) for one in channels),
            *(_pending_open(one.channel) for one in pending.pending_open_channels),
        ),
        closing=closing,
        quiet_token=_token(answers),
    )


def _wallet_sat(wallet: pb.WalletBalanceResponse, txs: Sequence[WalletTx]) -> int:
    spent_sat = sum(tx.spent_sat for tx in txs if not tx.height)
    return wallet.total_balance + max(0, wallet.locked_balance - spent_sat)


def _open(channel: pb.Channel) -> OwnChannel:
    return OwnChannel(
        channel_point=Outpoint(channel.channel_point),
        capacity_sat=channel.capacity,
        opened_by_us=channel.initiator,
        pushed_sat=channel.push_amount_sat,
        height=channel.chan_id >> _HEIGHT_SHIFT,
    )


def _pending_open(channel: pb.PendingChannelsResponse.PendingChannel) -> OwnChannel:
    """Nothing was paid through it: the side that did not open it has what was pushed."""
    opened_by_us = channel.initiator == pb.INITIATOR_LOCAL
    return OwnChannel(
        channel_point=Outpoint(channel.channel_point),
        capacity_sat=channel.capacity,
        opened_by_us=opened_by_us,
        pushed_sat=channel.remote_balance if opened_by_us else channel.local_balance,
    )


def _waiting(one: pb.PendingChannelsResponse.WaitingCloseChannel, txs: Sequence[WalletTx]) -> ClosingChannel:
    channel = one.channel
    opened_by_us = channel.initiator == pb.INITIATOR_LOCAL
    anchors_sat = 0 if channel.commitment_type in _WITHOUT_ANCHORS else _ANCHORS_SAT
    fee_sat = one.commitments.local_commit_fee_sat + anchors_sat if opened_by_us else 0
    # Until three confirmations LND says limbo of what the wallet has already.
    in_wallet_sat = sum(tx.amount_sat for tx in txs if channel.channel_point in tx.spends)
    return ClosingChannel(
        channel_point=Outpoint(channel.channel_point),
        closing_txid=Txid(one.closing_txid) if one.closing_txid else None,
        held_sat=channel.local_balance + fee_sat,
        to_come_sat=max(0, one.limbo_balance - in_wallet_sat),
        capacity_sat=channel.capacity,
        opened_by_us=opened_by_us,
    )


def _force_closing(one: pb.PendingChannelsResponse.ForceClosedChannel, txs: Sequence[WalletTx]) -> ClosingChannel:
    """What it held is a guess for want of a better one: LND has forgotten the fee. It counts where the channel was not
    seen before it came here."""
    channel = one.channel
    opened_by_us = channel.initiator == pb.INITIATOR_LOCAL
    swept_sat = sum(tx.amount_sat for tx in txs if not tx.height and _spends_of(tx, one.closing_txid))
    outside_sat = channel.capacity - channel.local_balance - channel.remote_balance if opened_by_us else 0
    return ClosingChannel(
        channel_point=Outpoint(channel.channel_point),
        closing_txid=Txid(one.closing_txid),
        held_sat=channel.local_balance + outside_sat,
        to_come_sat=max(0, one.limbo_balance - max(0, swept_sat)),
        capacity_sat=channel.capacity,
        opened_by_us=opened_by_us,
    )


def _spends_of(tx: WalletTx, txid: str) -> bool:
    return any(outpoint.partition(":")[0] == txid for outpoint in tx.spends)


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


def _token(answers: Answers) -> str:
    """Of everything that the sums were made of, without what changes by the mere passing of time."""
    token = hashlib.sha256()
    for balance in (answers.before, answers.after, answers.wallet_before, answers.wallet_after):
        token.update(balance.SerializeToString(deterministic=True))
    token.update(_steady_channels(answers.channels))
    token.update(_steady_pending(answers.pending))
    for tx in sorted(answers.txs, key=lambda one: one.txid):
        token.update(f"{tx.txid} {tx.amount_sat} {tx.height}\n".encode())
    return token.hexdigest()


def _steady_channels(answer: pb.ListChannelsResponse) -> bytes:
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


def _steady_pending(answer: pb.PendingChannelsResponse) -> bytes:
    lines = [f"open {one.channel.channel_point}" for one in answer.pending_open_channels]
    lines += [_closing_line(one.channel, one.closing_txid, one.limbo_balance) for one in answer.waiting_close_channels]
    lines += [
        _closing_line(one.channel, one.closing_txid, one.limbo_balance) for one in answer.pending_force_closing_channels
    ]
    return "\n".join(sorted(lines)).encode()


def _closing_line(channel: pb.PendingChannelsResponse.PendingChannel, txid: str, limbo_sat: int) -> str:
    return f"closes {channel.channel_point} {txid} {limbo_sat}"
