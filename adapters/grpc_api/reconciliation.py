"""Books against nodes, between the domain's types and protobuf's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.grpc_api.values import timestamp_of_ms
from daemon.domain.audit_log import AuditEntry
from daemon.domain.books import Gap, GapState
from daemon.domain.reconciliation import (
    FullCheck,
    Holding,
    Item,
    ItemKind,
    Reconciliation,
    ReconciliationStatus,
    Side,
)

ITEMS_SHOWN: Final = 100
"""Of one side: a node that routes has thousands of HTLCs under way; their sum says what is asked."""

_KINDS: Mapping[ItemKind, admin_pb2.DifferenceKind.ValueType] = {
    ItemKind.IN_FLIGHT: admin_pb2.DIFFERENCE_KIND_IN_FLIGHT,
    ItemKind.CLOSING: admin_pb2.DIFFERENCE_KIND_CLOSING,
    ItemKind.SENT: admin_pb2.DIFFERENCE_KIND_SENT,
    ItemKind.RECEIVED: admin_pb2.DIFFERENCE_KIND_RECEIVED,
    ItemKind.GAP: admin_pb2.DIFFERENCE_KIND_GAP,
    ItemKind.OTHERS: admin_pb2.DIFFERENCE_KIND_OTHERS,
}
_STATES: Mapping[GapState, admin_pb2.GapState.ValueType] = {
    GapState.OPEN: admin_pb2.GAP_STATE_OPEN,
    GapState.EXPLAINED: admin_pb2.GAP_STATE_EXPLAINED,
    GapState.CLOSED: admin_pb2.GAP_STATE_CLOSED,
}
_STATES_FROM_PROTO = {proto: state for state, proto in _STATES.items()}


def gap_state_from_proto(state: admin_pb2.GapState.ValueType) -> GapState | None:
    """Where a gap stands; None where nothing, or a state that we do not know, was given."""
    return _STATES_FROM_PROTO.get(state)


def gap_to_proto(gap: Gap) -> admin_pb2.Gap:
    """The gap's message."""
    return admin_pb2.Gap(
        key=gap.key,
        kind=gap.kind,
        state=_STATES[gap.state],
        amount_msat=gap.amount_msat,
        detail=gap.detail,
        reference=gap.reference,
        node=gap.node,
        seen_at=timestamp_of_ms(gap.seen_at_ms),
    )


def reconciliation_to_proto(look: Reconciliation) -> admin_pb2.Reconciliation:
    """One look."""
    return admin_pb2.Reconciliation(
        at=timestamp_of_ms(look.at_ms),
        sequence=look.sequence,
        steady=look.steady,
        sides=[_side(side) for side in look.sides],
        holdings=[_holding(holding) for holding in look.holdings],
        unknown_msat=look.unknown_msat,
    )


def full_check_to_proto(check: FullCheck | None) -> admin_pb2.FullCheck | None:
    """One full check; None stays absent."""
    if check is None:
        return None
    return admin_pb2.FullCheck(
        began_at=timestamp_of_ms(check.began_at_ms),
        ended_at=timestamp_of_ms(check.ended_at_ms),
        invoices=check.invoices,
        deposits=check.deposits,
        repeats=check.repeats,
        losses=check.losses,
        gaps=check.gaps,
        unfinished=check.unfinished,
    )


def reconciliation_status_to_proto(status: ReconciliationStatus | None) -> admin_pb2.ReconciliationStatus:
    """The short form; empty without one."""
    if status is None:
        return admin_pb2.ReconciliationStatus()
    steady, since_ms = status.last_steady, status.unknown_since_ms
    return admin_pb2.ReconciliationStatus(
        steady_at=None if steady is None else timestamp_of_ms(steady.at_ms),
        unknown=[
            admin_pb2.UnknownDifference(account=side.account, unknown_msat=side.unknown_msat)
            for side in (() if steady is None else steady.sides)
        ],
        unknown_since=None if since_ms is None else timestamp_of_ms(since_ms),
        last_full_check=full_check_to_proto(status.last_full),
        problem=status.problem,
    )


def audit_entry_to_proto(entry: AuditEntry) -> admin_pb2.AuditEntry:
    """One call of the audit log."""
    return admin_pb2.AuditEntry(
        entry_id=entry.entry_id,
        at=timestamp_of_ms(entry.at_ms),
        method=entry.method,
        key_id=entry.key_id,
        key_name=entry.key_name,
        peer=entry.peer,
        code=entry.code,
        subjects=entry.subjects,
    )


def _side(side: Side) -> admin_pb2.ReconciliationSide:
    return admin_pb2.ReconciliationSide(
        account=side.account,
        books_msat=side.books_msat,
        nodes_msat=side.nodes_msat,
        difference_msat=side.difference_msat,
        unknown_msat=side.unknown_msat,
        explained=[
            admin_pb2.DifferenceSum(
                kind=_KINDS[kind],
                items=sum(item.kind is kind for item in side.items),
                amount_msat=amount_msat,
            )
            for kind, amount_msat in side.explained_msat().items()
        ],
        items=[_item(item) for item in side.items[:ITEMS_SHOWN]],
    )


def _item(item: Item) -> admin_pb2.DifferenceItem:
    return admin_pb2.DifferenceItem(kind=_KINDS[item.kind], reference=item.reference, amount_msat=item.amount_msat)


def _holding(holding: Holding) -> admin_pb2.NodeHolding:
    return admin_pb2.NodeHolding(
        name=holding.name,
        pubkey=holding.pubkey,
        channels_msat=holding.channels_msat,
        closing_msat=holding.closing_msat,
        wallet_msat=holding.wallet_msat,
    )
