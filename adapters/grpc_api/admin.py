"""AdminService."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, admin_pb2_grpc
from adapters.grpc_api.api_keys import api_key_to_proto, scope_from_proto
from adapters.grpc_api.reconciliation import (
    audit_entry_to_proto,
    full_check_to_proto,
    gap_state_from_proto,
    gap_to_proto,
    reconciliation_status_to_proto,
    reconciliation_to_proto,
)
from adapters.grpc_api.values import milliseconds, remaining_s, timestamp, timestamp_of_ms
from daemon.domain.books import GENESIS_HASH
from daemon.domain.chain import BlockRef
from daemon.domain.cursors import LndCursor
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange
from daemon.domain.status import ChainStatus, HintsState, NodeStatus
from daemon.serving import audit_trail, keys, policies, reconciliation
from daemon.serving.api import Api
from daemon.serving.gate import Role
from daemon.serving.status import Status, get_status, open_gaps

_ROLES = {
    Role.STARTING: admin_pb2.ROLE_UNSPECIFIED,
    Role.LEADER: admin_pb2.ROLE_LEADER,
    Role.STANDBY: admin_pb2.ROLE_STANDBY,
}
_HINTS: Mapping[HintsState, admin_pb2.ChainHints.ValueType] = {
    "off": admin_pb2.CHAIN_HINTS_OFF,
    "live": admin_pb2.CHAIN_HINTS_LIVE,
    "silent": admin_pb2.CHAIN_HINTS_SILENT,
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

    def GetConfirmationPolicy(
        self, request: admin_pb2.GetConfirmationPolicyRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetConfirmationPolicyResponse:
        """The policy in force, and a page of its history."""
        page = policies.get_confirmation_policy(self._api, page_size=request.page_size, page_token=request.page_token)
        return admin_pb2.GetConfirmationPolicyResponse(
            policy=policy_to_proto(page.current),
            history=[policy_change_to_proto(change) for change in page.history],
            next_page_token=page.next_page_token,
        )

    def SetConfirmationPolicy(
        self, request: admin_pb2.SetConfirmationPolicyRequest, context: grpc.ServicerContext
    ) -> admin_pb2.SetConfirmationPolicyResponse:
        """Another policy, for deposits first seen afterwards."""
        change = policies.set_confirmation_policy(
            self._api,
            tiers=[
                ConfirmationTier(from_sat=tier.from_sat, confirmations=tier.confirmations) for tier in request.tiers
            ],
            changed_by=request.changed_by,
            reason=request.reason,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
        )
        return admin_pb2.SetConfirmationPolicyResponse(change=policy_change_to_proto(change))

    def CreateApiKey(
        self, request: admin_pb2.CreateApiKeyRequest, context: grpc.ServicerContext
    ) -> admin_pb2.CreateApiKeyResponse:
        """A new key, with its text this once."""
        key, text = keys.create_api_key(
            self._api.api_keys,
            name=request.name,
            scopes=[scope_from_proto(scope) for scope in request.scopes],
            expires_at_ms=milliseconds(request.expires_at) if request.HasField("expires_at") else None,
            now_ms=self._now_ms(),
        )
        return admin_pb2.CreateApiKeyResponse(api_key=api_key_to_proto(key), key=text.reveal())

    def ListApiKeys(
        self, request: admin_pb2.ListApiKeysRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListApiKeysResponse:
        """A page of keys, without secrets."""
        page, token = keys.list_api_keys(self._api.api_keys, page_size=request.page_size, page_token=request.page_token)
        return admin_pb2.ListApiKeysResponse(api_keys=[api_key_to_proto(key) for key in page], next_page_token=token)

    def RevokeApiKey(
        self, request: admin_pb2.RevokeApiKeyRequest, context: grpc.ServicerContext
    ) -> admin_pb2.RevokeApiKeyResponse:
        """The end of a key."""
        key = keys.revoke_api_key(self._api.api_keys, request.key_id, now_ms=self._now_ms())
        return admin_pb2.RevokeApiKeyResponse(api_key=api_key_to_proto(key))

    def Reconcile(
        self, request: admin_pb2.ReconcileRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ReconcileResponse:
        """Books against nodes, now."""
        answer = reconciliation.reconcile(self._api.reconciler, full=request.full, remaining_s=remaining_s(context))
        return admin_pb2.ReconcileResponse(
            reconciliation=reconciliation_to_proto(answer.look), full_check=full_check_to_proto(answer.full_check)
        )

    def ListGaps(self, request: admin_pb2.ListGapsRequest, context: grpc.ServicerContext) -> admin_pb2.ListGapsResponse:
        """A page of what does not add up."""
        page, token = reconciliation.list_gaps(
            self._api.gaps,
            states=[gap_state_from_proto(state) for state in request.states],
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return admin_pb2.ListGapsResponse(gaps=[gap_to_proto(gap) for gap in page], next_page_token=token)

    def CloseGap(self, request: admin_pb2.CloseGapRequest, context: grpc.ServicerContext) -> admin_pb2.CloseGapResponse:
        """The end of a gap that a person has looked into."""
        gap = reconciliation.close_gap(
            self._api.gaps, key=request.gap_key, closed_by=request.closed_by, reason=request.reason
        )
        return admin_pb2.CloseGapResponse(gap=gap_to_proto(gap))

    def ListAuditLog(
        self, request: admin_pb2.ListAuditLogRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListAuditLogResponse:
        """A page of who called what."""
        page, token = audit_trail.list_audit_log(
            self._api.audit_log, page_size=request.page_size, page_token=request.page_token
        )
        entries = [audit_entry_to_proto(entry) for entry in page]
        return admin_pb2.ListAuditLogResponse(entries=entries, next_page_token=token)

    def _now_ms(self) -> int:
        return int(self._api.now().timestamp() * 1000)


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
        chain=chain_to_proto(status.chain, status.pending_deposits),
        reconciliation=reconciliation_status_to_proto(status.reconciliation),
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


def chain_to_proto(chain: ChainStatus | None, pending_deposits: int | None) -> admin_pb2.ChainStatus:
    """How the chain is followed."""
    if chain is None:
        return admin_pb2.ChainStatus(configured=False)
    connected = chain.connected
    return admin_pb2.ChainStatus(
        configured=True,
        name=chain.name,
        connected=connected,
        connected_since=timestamp(chain.connected_since) if connected else None,
        state=chain.state,
        tip=_block(chain.tip),
        cursor=_block(chain.cursor),
        blocks_behind=chain.blocks_behind,
        catch_up_blocks_per_s=chain.catch_up_blocks_per_s,
        zmq=_HINTS[chain.hints],
        halted=chain.halted,
        last_error=chain.last_error,
        pending_deposits=pending_deposits,
    )


def policy_to_proto(policy: ConfirmationPolicy) -> admin_pb2.ConfirmationPolicy:
    """One version of the policy."""
    return admin_pb2.ConfirmationPolicy(
        version=policy.version,
        tiers=[
            admin_pb2.ConfirmationTier(from_sat=tier.from_sat, confirmations=tier.confirmations)
            for tier in policy.tiers
        ],
    )


def policy_change_to_proto(change: PolicyChange) -> admin_pb2.ConfirmationPolicyChange:
    """One entry of the policy's history."""
    return admin_pb2.ConfirmationPolicyChange(
        version=change.after.version,
        changed_by=change.changed_by,
        reason=change.reason,
        changed_at=timestamp_of_ms(change.changed_at_ms),
        old_policy=policy_to_proto(change.before),
        new_policy=policy_to_proto(change.after),
    )


def _block(block: BlockRef | None) -> admin_pb2.Block | None:
    return None if block is None else admin_pb2.Block(height=block.height, hash=block.hash)
