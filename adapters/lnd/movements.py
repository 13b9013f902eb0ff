"""LND's forwards, payments, txs and closed channels as the domain has them; pure."""

from __future__ import annotations

from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from daemon.domain.identifiers import Outpoint, PaymentHash, Txid
from daemon.domain.movements import ClosedChannel, Forward, PaymentState, SentPayment, WalletTx

_NS_PER_MS: Final = 1_000_000

_STATES: Final = {
    pb.Payment.SUCCEEDED: PaymentState.SUCCEEDED,
    pb.Payment.FAILED: PaymentState.FAILED,
}
"""All other states may still send something."""


def forward(event: pb.ForwardingEvent) -> Forward:
    """One forwarded payment."""
    return Forward(
        at_ns=event.timestamp_ns,
        fee_msat=event.fee_msat,
        received_msat=event.amt_in_msat,
        incoming_htlc=(event.chan_id_in, event.incoming_htlc_id) if event.HasField("incoming_htlc_id") else None,
    )


def sent_payment(payment: pb.Payment) -> SentPayment:
    """One payment; of one that failed nothing was sent."""
    state = _STATES.get(payment.status, PaymentState.IN_FLIGHT)
    return SentPayment(
        index=payment.payment_index,
        payment_hash=PaymentHash(payment.payment_hash),
        state=state,
        sent_msat=payment.value_msat + payment.fee_msat,
        began_at_ms=payment.creation_time_ns // _NS_PER_MS,
    )


def wallet_tx(tx: pb.Transaction) -> WalletTx:
    """One tx of the wallet."""
    return WalletTx(
        txid=Txid(tx.tx_hash),
        amount_sat=tx.amount,
        spent_sat=sum(one.amount for one in tx.output_details if one.is_our_address) - tx.amount,
        outputs_sat=sum(one.amount for one in tx.output_details),
        fee_sat=tx.total_fees,
        height=max(tx.block_height, 0),
        spends=tuple(Outpoint(one.outpoint) for one in tx.previous_outpoints if not one.is_our_output),
    )


def closed_channel(channel: pb.ChannelCloseSummary) -> ClosedChannel | None:
    """One closed channel; None for one that never was open."""
    if channel.close_type == pb.ChannelCloseSummary.FUNDING_CANCELED:
        return None
    return ClosedChannel(
        channel_point=Outpoint(channel.channel_point),
        closing_txid=Txid(channel.closing_tx_hash),
        capacity_sat=channel.capacity,
        opened_by_us=channel.open_initiator == pb.INITIATOR_LOCAL,
        settled_sat=channel.settled_balance,
        htlcs_sat=sum(_htlc_sat(one) for one in channel.resolutions),
        close_height=channel.close_height,
        breach=channel.close_type == pb.ChannelCloseSummary.BREACH_CLOSE,
    )


def _htlc_sat(resolution: pb.Resolution) -> int:
    """What an HTLC that ended on the chain brought or took, in sats.

    An incoming one that we claimed is a receipt; an outgoing one that was claimed is a payment, and was counted as
    ours until then.
    """
    if resolution.outcome != pb.CLAIMED:
        return 0
    if resolution.resolution_type == pb.INCOMING_HTLC:
        return int(resolution.amount_sat)
    if resolution.resolution_type == pb.OUTGOING_HTLC:
        return -int(resolution.amount_sat)
    return 0
