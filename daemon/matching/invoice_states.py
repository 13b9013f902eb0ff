"""What becomes of an invoice apart from its settlement: it is told once, and a document that is over is closed.

Nothing is booked here: a credit comes from the SETTLED event only, also for an invoice whose document is closed
already. So an end that turns out to be none (LND settled late) costs nobody anything.
"""

from __future__ import annotations

from typing import Any, Final

from daemon.domain import outbox
from daemon.domain.books import Expectation, Wanted
from daemon.domain.identifiers import canceled_key, expired_key, held_key
from daemon.domain.node_events import InvoiceEnded, InvoiceHeld, InvoiceStateEvent
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import AlreadyPosted, Noted
from daemon.matching.plan import Plan, Step

EXPIRED: Final = "expired"
"""`InvoiceEnded.reason` of an invoice whose time ran out."""

ON_NODE: Final = "on_node"
"""The same of one that was canceled on the node, by whomever: by hand, by another program, or by LND itself near
the end of what it held."""


def why_over(*, held_msat: int, expires_at_s: int, now_s: float) -> str:
    """Why an invoice that its node calls CANCELED is over, where nobody here canceled it. LND does not say: where
    nothing was held and its time is over, it has expired (LND cancels it in that second)."""
    return EXPIRED if held_msat == 0 and now_s >= expires_at_s else ON_NODE


def want_state(wanted: Wanted, event: InvoiceStateEvent) -> None:
    """What must be read before it can be decided."""
    wanted.payment_hashes.add(event.payment_hash)
    wanted.keys.update(make(event.pubkey, event.payment_hash) for make in (held_key, canceled_key, expired_key))


def note_state(plan: Plan, event: InvoiceStateEvent) -> None:
    """Tells it, unless it was told, or the invoice is nobody's or paid by now."""
    key = _key(event)
    expectation = plan.expectation(event.payment_hash)
    ends = (canceled_key(event.pubkey, event.payment_hash), expired_key(event.pubkey, event.payment_hash))
    if (
        expectation is None
        or expectation.pubkey not in (None, event.pubkey)
        or plan.is_paid(expectation)
        or any(plan.is_booked(one) for one in (key, *ends))
    ):
        plan.outcomes.append(AlreadyPosted(key))
        return
    plan.take(Step(key, None, (_told(key, event, expectation),)))
    if isinstance(event, InvoiceEnded):
        plan.closed.append(event.payment_hash)
    plan.outcomes.append(Noted(key))


def _key(event: InvoiceStateEvent) -> str:
    if isinstance(event, InvoiceHeld):
        return held_key(event.pubkey, event.payment_hash)
    make = expired_key if event.reason == EXPIRED else canceled_key
    return make(event.pubkey, event.payment_hash)


def _told(key: str, event: InvoiceStateEvent, expectation: Expectation) -> OutboxEvent:
    told, at_ms, payload = _facts(event)
    common = {"payment_hash": event.payment_hash, "external_id": expectation.external_id, "node": event.pubkey}
    return OutboxEvent(
        type=told, key=key, occurred_at_ms=at_ms, wallet_ids=(expectation.wallet_id,), payload={**common, **payload}
    )


def _facts(event: InvoiceStateEvent) -> tuple[str, int, dict[str, Any]]:
    """Type, time, and what this type alone tells."""
    if isinstance(event, InvoiceHeld):
        held = {"received_msat": event.received_msat, "expiry_height": event.expiry_height}
        return outbox.INVOICE_HELD, event.held_at_ms, {**held, "held_at_ms": event.held_at_ms}
    if event.reason == EXPIRED:
        return outbox.INVOICE_EXPIRED, event.ended_at_ms, {"expired_at_ms": event.ended_at_ms}
    canceled = {"reason": event.reason, "returned_msat": event.returned_msat}
    return outbox.INVOICE_CANCELED, event.ended_at_ms, {**canceled, "canceled_at_ms": event.ended_at_ms}
