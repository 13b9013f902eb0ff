"""API keys, between the domain's types and protobuf's."""

from __future__ import annotations

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.grpc_api.values import timestamp_of_ms
from daemon.domain.api_keys import ApiKey, Scope

_TO_PROTO = {
    Scope.READ: admin_pb2.SCOPE_READ,
    Scope.RECEIVE: admin_pb2.SCOPE_RECEIVE,
    Scope.WRITE: admin_pb2.SCOPE_WRITE,
    Scope.ADMIN: admin_pb2.SCOPE_ADMIN,
}
_FROM_PROTO = {proto: scope for scope, proto in _TO_PROTO.items()}


def scope_from_proto(scope: admin_pb2.Scope.ValueType) -> Scope | None:
    """A scope; None where none, or one that we do not know, was given."""
    return _FROM_PROTO.get(scope)


def api_key_to_proto(key: ApiKey) -> admin_pb2.ApiKey:
    """The key's message: never with its secret, nor with the hash of it."""
    return admin_pb2.ApiKey(
        key_id=key.key_id,
        name=key.name,
        scopes=[_TO_PROTO[scope] for scope in Scope if scope in key.scopes],
        created_at=timestamp_of_ms(key.created_at_ms),
        expires_at=None if key.expires_at_ms is None else timestamp_of_ms(key.expires_at_ms),
        revoked_at=None if key.revoked_at_ms is None else timestamp_of_ms(key.revoked_at_ms),
        last_used_at=None if key.last_used_at_ms is None else timestamp_of_ms(key.last_used_at_ms),
    )
