"""From where a node's movements count: the marks of its opening, in one reading."""

from __future__ import annotations

from typing import Final

from daemon.domain.identifiers import txid_of
from daemon.domain.movements import MovementMarks, PaymentState
from daemon.domain.ports import LightningNode, NodeFunds

BACK_NS: Final = 3600 * 1_000_000_000
"""Forwards are looked for this far back: the newest one is the mark, whatever its clock says. It bridges the
difference between LND's clock and ours."""

MAX_FORWARDS: Final = 50_000
"""In an hour: more than a dozen a second."""

MAX_PAYMENTS: Final = 1_000
"""The newest: one that is in flight is among them, or the node has begun a thousand since."""


def read_marks(node: LightningNode, funds: NodeFunds, *, height: int, now_ns: int) -> MovementMarks:
    """Blocks. `height` was read before the first look at the funds; `funds` are what the marks belong to."""
    forwards = node.forwards(after_ns=now_ns - BACK_NS, limit=MAX_FORWARDS)
    payments = node.newest_payments(limit=MAX_PAYMENTS)
    txs = node.wallet_txs(from_height=height + 1)
    opening = (channel.channel_point for channel in funds.channels if not channel.height)
    return MovementMarks(
        forwards_ns=forwards[-1].at_ns if forwards else now_ns - BACK_NS,
        payments_index=payments[-1].index if payments else 0,
        height=height,
        payments_open=tuple((one.index, one.payment_hash) for one in payments if one.state is PaymentState.IN_FLIGHT),
        known_txids=frozenset({tx.txid for tx in txs} | {txid_of(point) for point in opening}),
        closing={one.channel_point: one.to_come_sat for one in funds.closing},
    )


def forwarded_htlcs(node: LightningNode, *, now_ns: int) -> frozenset[tuple[int, int]]:
    """Incoming HTLCs of payments that went through not long ago: such a one is ours although it is not resolved."""
    forwards = node.forwards(after_ns=now_ns - BACK_NS, limit=MAX_FORWARDS)
    return frozenset(one.incoming_htlc for one in forwards if one.incoming_htlc is not None)
