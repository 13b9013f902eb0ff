"""SuspenseService."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from adapters.grpc_api._pb.tellerd.v1 import suspense_pb2, suspense_pb2_grpc
from adapters.grpc_api.values import remaining_s, timestamp_of_ms
from daemon.domain.books import SuspenseChange, SuspenseEntry, SuspenseState
from daemon.serving import suspense
from daemon.serving.api import Api

_STATES: Mapping[SuspenseState, suspense_pb2.SuspenseState.ValueType] = {
    SuspenseState.WAITING: suspense_pb2.SUSPENSE_STATE_WAITING,
    SuspenseState.ASSIGNED: suspense_pb2.SUSPENSE_STATE_ASSIGNED,
    SuspenseState.REVERSED: suspense_pb2.SUSPENSE_STATE_REVERSED,
}
_STATES_FROM_PROTO = {proto: state for state, proto in _STATES.items()}


class SuspenseServicer(suspense_pb2_grpc.SuspenseServiceServicer):
    """See protos/tellerd/v1/suspense.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def ListSuspense(
        self, request: suspense_pb2.ListSuspenseRequest, context: grpc.ServicerContext
    ) -> suspense_pb2.ListSuspenseResponse:
        """A page of entries."""
        asked = [] if request.state == suspense_pb2.SUSPENSE_STATE_UNSPECIFIED else [request.state]
        page, token = suspense.list_suspense(
            self._api,
            states=[_STATES_FROM_PROTO.get(state) for state in asked],
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return suspense_pb2.ListSuspenseResponse(
            entries=[entry_to_proto(entry) for entry in page], next_page_token=token
        )

    def AssignSuspense(
        self, request: suspense_pb2.AssignSuspenseRequest, context: grpc.ServicerContext
    ) -> suspense_pb2.AssignSuspenseResponse:
        """Says whose money it is."""
        entry = suspense.assign_suspense(
            self._api,
            entry_key=request.entry_key,
            wallet_id=request.wallet_id,
            assigned_by=request.assigned_by,
            reason=request.reason,
            remaining_s=remaining_s(context),
        )
        return suspense_pb2.AssignSuspenseResponse(entry=entry_to_proto(entry))


def entry_to_proto(entry: SuspenseEntry) -> suspense_pb2.SuspenseEntry:
    """The entry's message."""
    txid, _, vout = (entry.outpoint or "").partition(":")
    return suspense_pb2.SuspenseEntry(
        entry_key=entry.key,
        state=_STATES[entry.state],
        amount_sat=entry.amount_sat,
        received_msat=entry.received_msat,
        suspense_reason=entry.reason,
        received_at=timestamp_of_ms(entry.received_at_ms),
        node=entry.pubkey,
        payment_hash=entry.payment_hash,
        txid=txid,
        vout=int(vout) if vout else None,
        wallet_id=entry.assigned_to or "",
        trail=[_change_to_proto(change) for change in entry.trail],
    )


def _change_to_proto(change: SuspenseChange) -> suspense_pb2.SuspenseChange:
    return suspense_pb2.SuspenseChange(
        at=timestamp_of_ms(change.at_ms),
        state=_STATES[change.state],
        by=change.by,
        reason=change.reason,
        wallet_id=change.wallet_id or "",
    )
