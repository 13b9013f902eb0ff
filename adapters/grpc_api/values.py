"""Values that all services share, between the domain's types and protobuf's."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2, wallet_pb2
from daemon.domain.chain import DepositState
from daemon.domain.money import Currency

_NO_DEADLINE_S: Final = 86_400.0
"""Nobody waits a day for one answer."""

_TO_PROTO = {Currency.BTC.value: wallet_pb2.CURRENCY_BTC, Currency.USD.value: wallet_pb2.CURRENCY_USD}
_FROM_PROTO = {proto: Currency(currency) for currency, proto in _TO_PROTO.items()}

_DEPOSIT_STATES = {
    DepositState.DETECTED: deposit_pb2.DEPOSIT_STATE_DETECTED,
    DepositState.CONFIRMED: deposit_pb2.DEPOSIT_STATE_CONFIRMED,
    DepositState.SETTLED: deposit_pb2.DEPOSIT_STATE_SETTLED,
    DepositState.DROPPED: deposit_pb2.DEPOSIT_STATE_DROPPED,
}
_DEPOSIT_STATES_FROM_PROTO = {proto: state for state, proto in _DEPOSIT_STATES.items()}


def currency_to_proto(currency: str) -> wallet_pb2.Currency.ValueType:
    """A currency; UNSPECIFIED for a leg of another program that is in neither."""
    return _TO_PROTO.get(currency, wallet_pb2.CURRENCY_UNSPECIFIED)


def currency_from_proto(currency: wallet_pb2.Currency.ValueType) -> Currency | None:
    """A currency; None where none, or one that we do not know, was given."""
    return _FROM_PROTO.get(currency)


def deposit_state_to_proto(state: DepositState) -> deposit_pb2.DepositState.ValueType:
    """Where a deposit stands."""
    return _DEPOSIT_STATES[state]


def deposit_state_from_proto(state: deposit_pb2.DepositState.ValueType) -> DepositState | None:
    """Where a deposit stands; None where nothing, or a state that we do not know, was given."""
    return _DEPOSIT_STATES_FROM_PROTO.get(state)


def remaining_s(context: grpc.ServicerContext) -> float | None:
    """What the caller's deadline leaves, in seconds; None without one, which grpcio tells as one centuries from now."""
    left_s: float | None = context.time_remaining()
    return None if left_s is None or left_s > _NO_DEADLINE_S else left_s


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A time; None stays absent."""
    if moment is None:
        return None
    result = Timestamp()
    result.FromDatetime(moment)
    return result


def milliseconds(moment: Timestamp) -> int:
    """Unix milliseconds of a time, cut off."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def timestamp_of_ms(unix_ms: int) -> Timestamp:
    """A time from Unix milliseconds."""
    return Timestamp(seconds=unix_ms // 1000, nanos=unix_ms % 1000 * 1_000_000)
