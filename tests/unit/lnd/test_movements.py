"""LND's movements as the domain has them: messages as a real LND v0.21.3 gave them."""

from __future__ import annotations

import pytest

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.movements import closed_channel, forward, sent_payment, wallet_tx
from daemon.domain.movements import PaymentState

COIN, CHANNEL = "aa" * 32 + ":0", "bb" * 32 + ":1"


def test_what_a_tx_spends_of_the_wallet_is_no_return_of_a_channel() -> None:
    """The output of a cooperative close is the wallet's own, and may be spent by any tx later."""
    tx = pb.Transaction(
        tx_hash="cc" * 32,
        amount=-124_186,
        block_height=134,
        total_fees=730,
        output_details=[
            pb.OutputDetail(amount=123_456, is_our_address=False),
            pb.OutputDetail(amount=11_875_177, is_our_address=True),
        ],
        previous_outpoints=[
            pb.PreviousOutPoint(outpoint=COIN, is_our_output=True),
            pb.PreviousOutPoint(outpoint=CHANNEL, is_our_output=False),
        ],
    )
    read = wallet_tx(tx)
    assert read.spends == (CHANNEL,)
    assert (read.amount_sat, read.spent_sat, read.outputs_sat, read.fee_sat) == (-124_186, 11_999_363, 11_998_633, 730)
    assert read.height == 134


@pytest.mark.parametrize("height", [0, -1])
def test_a_tx_without_a_block_is_unconfirmed(height: int) -> None:
    """LND says 0, or -1 for one that it broadcast a moment ago."""
    assert wallet_tx(pb.Transaction(tx_hash="cc" * 32, block_height=height)).height == 0


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (pb.Payment.IN_FLIGHT, PaymentState.IN_FLIGHT),
        (pb.Payment.INITIATED, PaymentState.IN_FLIGHT),
        (pb.Payment.SUCCEEDED, PaymentState.SUCCEEDED),
        (pb.Payment.FAILED, PaymentState.FAILED),
    ],
)
def test_a_payment_has_its_fee_in_it(status: pb.Payment.PaymentStatus.ValueType, state: PaymentState) -> None:
    """What left the node; one that has only begun may still send something."""
    payment = pb.Payment(
        payment_hash="dd" * 32,
        value_msat=77_777,
        fee_msat=1_100,
        status=status,
        payment_index=9,
        creation_time_ns=5 * 10**9,
    )
    read = sent_payment(payment)
    assert (read.sent_msat, read.state, read.index, read.began_at_ms) == (78_877, state, 9, 5_000)


def test_a_forward_without_an_htlc_is_an_old_ones() -> None:
    """An LND before v0.20 does not tell it; index 0 is one that it tells."""
    old = pb.ForwardingEvent(timestamp_ns=7, fee_msat=1_100, amt_in_msat=10**6, chan_id_in=3)
    assert (forward(old).incoming_htlc, forward(old).fee_msat, forward(old).received_msat) == (None, 1_100, 10**6)
    assert forward(pb.ForwardingEvent(chan_id_in=3, incoming_htlc_id=0)).incoming_htlc == (3, 0)


def test_htlcs_that_ended_on_the_chain_are_payments_not_costs() -> None:
    """An incoming one that we claimed came in, an outgoing one that was claimed went out; others changed nothing."""
    summary = pb.ChannelCloseSummary(
        channel_point=CHANNEL,
        closing_tx_hash="ee" * 32,
        capacity=1_000_000,
        settled_balance=500_000,
        close_height=200,
        close_type=pb.ChannelCloseSummary.REMOTE_FORCE_CLOSE,
        open_initiator=pb.INITIATOR_LOCAL,
        resolutions=[
            pb.Resolution(resolution_type=pb.COMMIT, outcome=pb.CLAIMED, amount_sat=500_000),
            pb.Resolution(resolution_type=pb.ANCHOR, outcome=pb.CLAIMED, amount_sat=330),
            pb.Resolution(resolution_type=pb.INCOMING_HTLC, outcome=pb.FIRST_STAGE, amount_sat=7_000),
            pb.Resolution(resolution_type=pb.INCOMING_HTLC, outcome=pb.CLAIMED, amount_sat=7_000),
            pb.Resolution(resolution_type=pb.INCOMING_HTLC, outcome=pb.TIMEOUT, amount_sat=900),
            pb.Resolution(resolution_type=pb.OUTGOING_HTLC, outcome=pb.CLAIMED, amount_sat=2_000),
            pb.Resolution(resolution_type=pb.OUTGOING_HTLC, outcome=pb.TIMEOUT, amount_sat=1_000),
        ],
    )
    read = closed_channel(summary)
    assert read is not None
    assert (read.htlcs_sat, read.settled_sat, read.opened_by_us, read.breach) == (5_000, 500_000, True, False)


def test_a_channel_that_never_opened_did_not_close() -> None:
    """Its funding was called off."""
    assert closed_channel(pb.ChannelCloseSummary(close_type=pb.ChannelCloseSummary.FUNDING_CANCELED)) is None
