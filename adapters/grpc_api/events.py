"""EventService."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from adapters.grpc_api._pb.tellerd.v1 import event_pb2, event_pb2_grpc, ledger_pb2
from adapters.grpc_api.values import currency_to_proto, deposit_state_to_proto, timestamp_of_ms
from daemon.domain import outbox
from daemon.domain.chain import DepositState
from daemon.domain.ports import StoredEvent
from daemon.serving import events
from daemon.serving.api import Api


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """See protos/tellerd/v1/event.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def Subscribe(
        self, request: event_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[event_pb2.SubscribeResponse]:
        """The feed after a sequence, without end."""
        feed = events.subscribe(
            self._api,
            after_sequence=request.after_sequence,
            types=request.types,
            wallet_ids=request.wallet_ids,
            is_wanted=context.is_active,
        )
        for event in feed:
            yield event_pb2.SubscribeResponse(event=event_to_proto(event))


def event_to_proto(event: StoredEvent) -> event_pb2.Event:
    """The event's message; a type that this release does not know has no payload."""
    message = event_pb2.Event(
        sequence=event.sequence,
        id=event.id,
        type=event.type,
        occurred_at=timestamp_of_ms(event.occurred_at_ms),
        wallet_id=event.wallet_ids[0] if len(event.wallet_ids) == 1 else "",
    )
    fill = _FILLERS.get(event.type)
    if fill is not None:
        fill(message, event.payload)
    return message


def _invoice_settled(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.invoice_settled.CopyFrom(
        event_pb2.InvoiceSettled(
            payment_hash=payload["payment_hash"],
            external_id=payload["external_id"],
            node=payload["node"],
            amount_sat=payload["amount_sat"],
            received_msat=payload["received_msat"],
            memo=payload["memo"],
            journal_id=_journal_id(payload),
            settled_at=timestamp_of_ms(payload["settled_at_ms"]),
            amount_cents=payload.get("amount_cents"),
        )
    )


def _invoice_overpaid(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    names = ("payment_hash", "wallet_id", "quoted_sat", "amount_sat", "excess_sat", "amount_cents")
    message.invoice_overpaid.CopyFrom(
        event_pb2.InvoiceOverpaid(**{name: payload[name] for name in names}, journal_id=_journal_id(payload))
    )


def _invoice_paid_again(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.invoice_paid_again.CopyFrom(
        event_pb2.InvoicePaidAgain(
            payment_hash=payload["payment_hash"],
            external_id=payload["external_id"],
            node=payload["node"],
            amount_sat=payload["amount_sat"],
            received_msat=payload["received_msat"],
            total_received_msat=payload["total_received_msat"],
            memo=payload["memo"],
            journal_id=_journal_id(payload),
        )
    )


def _htlc_lost(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.htlc_lost.CopyFrom(
        event_pb2.HtlcLost(
            node=payload["node"],
            payment_hash=payload["payment_hash"],
            chan_id=int(payload["chan_id"]),
            htlc_index=payload["htlc_index"],
            amount_msat=payload["amount_msat"],
            journal_id=_journal_id(payload),
        )
    )


def _invoice_held(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    names = ("payment_hash", "external_id", "node", "received_msat", "expiry_height")
    message.invoice_held.CopyFrom(
        event_pb2.InvoiceHeld(**{name: payload[name] for name in names}, held_at=timestamp_of_ms(payload["held_at_ms"]))
    )


def _invoice_canceled(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    names = ("payment_hash", "external_id", "node", "reason", "returned_msat")
    message.invoice_canceled.CopyFrom(
        event_pb2.InvoiceCanceled(
            **{name: payload[name] for name in names}, canceled_at=timestamp_of_ms(payload["canceled_at_ms"])
        )
    )


def _invoice_expired(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    names = ("payment_hash", "external_id", "node")
    message.invoice_expired.CopyFrom(
        event_pb2.InvoiceExpired(
            **{name: payload[name] for name in names}, expired_at=timestamp_of_ms(payload["expired_at_ms"])
        )
    )


def _suspense_received(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.suspense_received.CopyFrom(
        event_pb2.SuspenseReceived(
            key=payload["key"],
            node=payload["node"],
            payment_hash=payload["payment_hash"],
            amount_sat=payload["amount_sat"],
            received_msat=payload["received_msat"],
            reason=payload["reason"],
            journal_id=_journal_id(payload),
            txid=payload.get("txid", ""),
            vout=payload.get("vout"),
        )
    )


def _suspense_assigned(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.suspense_assigned.CopyFrom(
        event_pb2.SuspenseAssigned(
            key=payload["key"],
            payment_hash=payload["payment_hash"],
            wallet_id=payload["wallet_id"],
            amount_sat=payload["amount_sat"],
            journal_id=_journal_id(payload),
            by=payload.get("by", ""),
            reason=payload.get("reason", ""),
            amount_cents=payload.get("amount_cents"),
            txid=payload.get("txid", ""),
            vout=payload.get("vout"),
        )
    )


def _suspense_reversed(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    names = ("key", "wallet_id", "amount_sat", "txid", "vout")
    message.suspense_reversed.CopyFrom(
        event_pb2.SuspenseReversed(**{name: payload[name] for name in names}, journal_id=_journal_id(payload))
    )


def _journal_adopted(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.journal_adopted.CopyFrom(
        event_pb2.JournalAdopted(
            journal_id=_journal_id(payload),
            legs=[
                ledger_pb2.Leg(
                    account=leg["account"],
                    currency=currency_to_proto(leg["currency"]),
                    debit=leg["debit"],
                    credit=leg["credit"],
                )
                for leg in payload["legs"]
            ],
        )
    )


def _books_opened(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.books_opened.CopyFrom(
        event_pb2.BooksOpened(
            node=payload["node"],
            node_name=payload["node_name"],
            amount_msat=payload["amount_msat"],
            journal_id=_journal_id(payload),
        )
    )


def _rounding_booked(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.rounding_booked.CopyFrom(
        event_pb2.RoundingBooked(
            node=payload["node"], amount_sat=payload["amount_sat"], journal_id=_journal_id(payload)
        )
    )


def _routing_booked(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.routing_booked.CopyFrom(
        event_pb2.RoutingBooked(
            node=payload["node"],
            forwards=payload["forwards"],
            fee_msat=payload["fee_msat"],
            amount_sat=payload["amount_sat"],
            journal_id=_journal_id(payload),
        )
    )


def _channel_fee_booked(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.channel_fee_booked.CopyFrom(
        event_pb2.ChannelFeeBooked(
            node=payload["node"],
            channel_point=payload["channel_point"],
            change=payload["change"],
            txid=payload["txid"],
            fee_msat=payload["fee_msat"],
            amount_sat=payload["amount_sat"],
            journal_id=_journal_id(payload),
        )
    )


def _deposit_detected(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.deposit_detected.CopyFrom(
        event_pb2.DepositDetected(
            **_deposit(payload),
            confirmations_required=payload["confirmations_required"],
            again=payload["again"],
        )
    )


def _deposit_confirmed(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.deposit_confirmed.CopyFrom(
        event_pb2.DepositConfirmed(
            **_deposit(payload),
            confirmations_required=payload["confirmations_required"],
            block_height=payload["block_height"],
            block_hash=payload["block_hash"],
        )
    )


def _deposit_settled(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.deposit_settled.CopyFrom(event_pb2.DepositSettled(**_deposit(payload), **_booking(payload)))


def _deposit_dropped(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.deposit_dropped.CopyFrom(
        event_pb2.DepositDropped(
            **_deposit(payload), reason=payload["reason"], replaced_by=payload["replaced_by"] or ""
        )
    )


def _deposit_reversed(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.deposit_reversed.CopyFrom(event_pb2.DepositReversed(**_deposit(payload), **_booking(payload)))


def _wallet_overdrawn(message: event_pb2.Event, payload: Mapping[str, Any]) -> None:
    message.wallet_overdrawn.CopyFrom(
        event_pb2.WalletOverdrawn(
            wallet_id=payload["wallet_id"],
            balance_sat=payload.get("balance_sat", 0),
            balance_cents=payload.get("balance_cents"),
            txid=payload["txid"],
            vout=payload["vout"],
            journal_id=_journal_id(payload),
        )
    )


def _deposit(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What every event of a deposit tells."""
    names = ("txid", "vout", "wallet_id", "address", "amount_sat")
    state = deposit_state_to_proto(DepositState(payload["state"]))
    return {name: payload[name] for name in names} | {"state": state}


def _booking(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a deposit's journal did, or undid."""
    names = ("fee_sat", "credited_sat", "is_dust", "settlement", "block_height", "block_hash")
    in_cents = {name: payload.get(name) for name in ("credited_cents", "fee_cents")}
    return {name: payload[name] for name in names} | in_cents | {"journal_id": _journal_id(payload)}


def _journal_id(payload: Mapping[str, Any]) -> str:
    """Empty where nothing was booked."""
    return payload.get("journal_id") or ""


_FILLERS: Mapping[str, Callable[[event_pb2.Event, Mapping[str, Any]], None]] = {
    outbox.INVOICE_SETTLED: _invoice_settled,
    outbox.INVOICE_OVERPAID: _invoice_overpaid,
    outbox.INVOICE_PAID_AGAIN: _invoice_paid_again,
    outbox.HTLC_LOST: _htlc_lost,
    outbox.INVOICE_HELD: _invoice_held,
    outbox.INVOICE_CANCELED: _invoice_canceled,
    outbox.INVOICE_EXPIRED: _invoice_expired,
    outbox.SUSPENSE_RECEIVED: _suspense_received,
    outbox.SUSPENSE_ASSIGNED: _suspense_assigned,
    outbox.SUSPENSE_REVERSED: _suspense_reversed,
    outbox.JOURNAL_ADOPTED: _journal_adopted,
    outbox.BOOKS_OPENED: _books_opened,
    outbox.ROUNDING_BOOKED: _rounding_booked,
    outbox.ROUTING_BOOKED: _routing_booked,
    outbox.CHANNEL_FEE_BOOKED: _channel_fee_booked,
    outbox.DEPOSIT_DETECTED: _deposit_detected,
    outbox.DEPOSIT_CONFIRMED: _deposit_confirmed,
    outbox.DEPOSIT_SETTLED: _deposit_settled,
    outbox.DEPOSIT_DROPPED: _deposit_dropped,
    outbox.DEPOSIT_REVERSED: _deposit_reversed,
    outbox.WALLET_OVERDRAWN: _wallet_overdrawn,
}
