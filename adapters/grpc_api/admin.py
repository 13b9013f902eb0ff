"""AdminService."""

from __future__ import annotations

import grpc

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, admin_pb2_grpc
from adapters.grpc_api.values import timestamp
from daemon.domain.books import GENESIS_HASH
from daemon.domain.cursors import LndCursor
from daemon.domain.status import NodeStatus
from daemon.serving.api import Api
from daemon.serving.gate import Role
from daemon.serving.status import Status, get_status, open_gaps

_ROLES = {
    Role.STARTING: admin_pb2.ROLE_UNSPECIFIED,
    Role.LEADER: admin_pb2.ROLE_LEADER,
    Role.STANDBY: admin_pb2.ROLE_STANDBY,
}


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """See protos/tellerd/v1/admin.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def GetStatus(
        self, request: admin_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetStatusResponse:
        """How the daemon is, whatever is out of reach."""
        return status_to_proto(self._api, get_status(self._api))


def status_to_proto(api: Api, status: Status) -> admin_pb2.GetStatusResponse:
    """The status message."""
    response = admin_pb2.GetStatusResponse(
        role=_ROLES[status.role],
        version=api.version,
        network=api.network,
        started_at=timestamp(api.started_at),
        lnd=[node_to_proto(node, cursor) for node, cursor in zip(status.nodes, status.cursors, strict=True)],
        mongo=admin_pb2.MongoStatus(
            connected=status.store is not None,
            database=api.store.database,
            replica_set=status.store.replica_set if status.store else "",
            version=status.store.version if status.store else "",
            last_error=status.store_error,
        ),
    )
    if status.head is not None:
        response.sequence, response.chain_length = status.head.sequence, status.head.chain_length
        response.head_hash = "" if status.head.chain_hash == GENESIS_HASH else status.head.chain_hash
    if status.lease is not None:
        response.lease.CopyFrom(
            admin_pb2.LeaseStatus(
                holder=status.lease.holder,
                token=status.lease.fence,
                expires_at=timestamp(status.lease.expires_at),
            )
        )
    return response


def node_to_proto(node: NodeStatus, cursor: LndCursor | None) -> admin_pb2.LndStatus:
    """How one node is followed; cursor fields stay 0 where this process knows none."""
    message = admin_pb2.LndStatus(
        name=node.name,
        pubkey=node.pubkey or "",
        connected=node.connected,
        state=node.state,
        last_event_at=timestamp(node.last_event_at),
        last_error=node.last_error or "",
    )
    if cursor is not None:
        message.settle_index = cursor.settle_index
        message.open_gaps = open_gaps(cursor)
        message.remainder_msat = cursor.remainder_msat
    return message
