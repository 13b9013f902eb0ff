"""Money that comes again to a settled invoice: no node tells it, re-reading what arrived in all finds it.

What an invoice's wallet gets in all is what has arrived in all, in whole sats: so it does not matter which of the
sums on the way were seen, how often, and in which order. Where the fraction of a sat that was left before makes a sat
together with what came, the wallet gets that sat from the rounding account, to which the fractions go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from daemon.domain import outbox
from daemon.domain.accounts import LIGHTNING, ROUNDING, SUSPENSE, wallet_account
from daemon.domain.books import Expectation, Gap, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.identifiers import WalletId, repeat_key
from daemon.domain.money import MSAT_PER_SAT, Currency, Price, split_msat
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import AlreadyPosted, GapFound, Outcome, Posted, Suspended
from daemon.matching import dollars, receipts
from daemon.matching.node_sums import add_to_node
from daemon.matching.plan import Plan, Step

PAID_AGAIN_ELSEWHERE = "paid_again_elsewhere"
"""Kind of gap."""

MSEC_PER_S = 1000
_BTC = Currency.BTC.value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeat:
    """What came on top of what is booked. `borrowed_sat`, 0 or 1, is the sat that the fractions make together."""

    key: str
    moved_msat: int
    amount_sat: int
    borrowed_sat: int
    rest_msat: int


def book_repeat(
    plan: Plan, event: InvoiceSettled, key: str, expectation: Expectation | None, price: Price | None
) -> Outcome | None:
    """Books what has come to a booked settlement on top of what is booked; None if nothing has.

    A record of an older release does not say how much that was: what has arrived by now is taken as booked.
    """
    if event.settled_id != event.payment_hash:
        return None  # a set of an AMP invoice does not come again: more money is another set
    booked_msat = plan.received_msat(key)
    if booked_msat is not None and event.received_msat <= booked_msat:
        return None
    plan.received[key] = event.received_msat
    if booked_msat is None:
        return None
    repeat = _repeat(key, booked_msat, event.received_msat)
    outcome = _credit(plan, event, key, repeat, expectation, price)
    rest_msat = repeat.rest_msat
    add_to_node(plan, event.pubkey, moved_msat=repeat.moved_msat, rest_msat=rest_msat, at_ms=event.settled_at_ms)
    return outcome


def _repeat(key: str, booked_msat: int, received_msat: int) -> _Repeat:
    booked_sat, booked_rest_msat = split_msat(booked_msat)
    received_sat, received_rest_msat = split_msat(received_msat)
    rest_msat = received_rest_msat - booked_rest_msat
    borrowed_sat = 1 if rest_msat < 0 else 0
    return _Repeat(
        key=repeat_key(key, received_msat),
        moved_msat=received_msat - booked_msat,
        amount_sat=received_sat - booked_sat,
        borrowed_sat=borrowed_sat,
        rest_msat=rest_msat + borrowed_sat * MSAT_PER_SAT,
    )


def _credit(
    plan: Plan,
    event: InvoiceSettled,
    key: str,
    repeat: _Repeat,
    expectation: Expectation | None,
    price: Price | None,
) -> Outcome:
    """To where the first money went: the wallet, or suspense as long as it waits there."""
    waiting = plan.waiting_suspense(key)
    if waiting is not None:
        return _raise_suspense(plan, event, repeat, waiting)
    wallet_id = _wallet_of(plan, key, expectation)
    if expectation is None or wallet_id is None:
        barred = None if expectation is None else expectation.barred
        return _suspend(plan, event, repeat, barred or "no_expectation")
    entry = _entry(repeat, event, wallet_account(wallet_id))
    if entry is not None:
        details = receipts.receipt_details(event, repeat.amount_sat, expectation.external_id, price)
        entry = replace(entry, details=details, preimage=expectation.preimage)
    plan.take(Step(repeat.key, entry, (_paid_again(event, repeat, expectation),)))
    return Posted(repeat.key, repeat.amount_sat, price is not None)


def _wallet_of(plan: Plan, key: str, expectation: Expectation | None) -> WalletId | None:
    """Who got the first sats, and gets these: of a dollar invoice the dealer, whatever arrived (design.md section 4,
    Amounts). None where that is not certain: no document says it, or a person has assigned the first elsewhere."""
    if expectation is None or expectation.barred is not None:
        return None
    if expectation.is_in_dollars:
        wallet_id = dollars.sats_wallet(plan, expectation)
    else:
        wallet_id = expectation.wallet_id if expectation.wallet_currency is Currency.BTC else None
    return wallet_id if plan.assigned_to(key) in (None, expectation.wallet_id, wallet_id) else None


def _raise_suspense(plan: Plan, event: InvoiceSettled, repeat: _Repeat, waiting: SuspenseEntry) -> Outcome:
    larger = replace(
        waiting,
        amount_sat=waiting.amount_sat + repeat.amount_sat,
        received_msat=waiting.received_msat + repeat.moved_msat,
    )
    told = receipts.suspense_event(
        replace(
            waiting,
            amount_sat=repeat.amount_sat,
            received_msat=repeat.moved_msat,
            received_at_ms=event.settled_at_ms,
        )
    )
    plan.take(Step(repeat.key, _entry(repeat, event, SUSPENSE), (replace(told, key=repeat.key),)))
    plan.put_suspense(larger)
    return Suspended(repeat.key, repeat.amount_sat, waiting.reason)


def _suspend(plan: Plan, event: InvoiceSettled, repeat: _Repeat, reason: str) -> Outcome:
    """The first money was credited, and nothing says any more to whom, or the wallet must not have this."""
    waiting = SuspenseEntry(
        key=repeat.key,
        pubkey=event.pubkey,
        payment_hash=event.payment_hash,
        amount_sat=repeat.amount_sat,
        received_msat=repeat.moved_msat,
        reason=reason,
        received_at_ms=event.settled_at_ms,
    )
    plan.take(Step(repeat.key, _entry(repeat, event, SUSPENSE), (receipts.suspense_event(waiting),)))
    plan.put_suspense(waiting)
    return Suspended(repeat.key, repeat.amount_sat, waiting.reason)


def _entry(repeat: _Repeat, event: InvoiceSettled, target: str) -> JournalEntry | None:
    """None if not even a sat came together. Blink counts a leg with type "invoice" as credited to its wallet."""
    if repeat.amount_sat == 0:
        return None
    sources = ((LIGHTNING, repeat.amount_sat - repeat.borrowed_sat), (ROUNDING, repeat.borrowed_sat))
    debits = tuple(Leg(account=source, currency=_BTC, debit=sat) for source, sat in sources if sat)
    return JournalEntry(
        key=repeat.key,
        memo=event.memo,
        datetime_ms=event.settled_at_ms,
        legs=(*debits, Leg(account=target, currency=_BTC, credit=repeat.amount_sat)),
        details={"type": "reconciliation", "pending": False, "hash": event.payment_hash, "pubkey": event.pubkey},
        payment_hash=None if target == SUSPENSE else event.payment_hash,
    )


def _paid_again(event: InvoiceSettled, repeat: _Repeat, expectation: Expectation) -> OutboxEvent:
    """invoice.paid_again: the wallet has more than its invoice asked for."""
    return OutboxEvent(
        type=outbox.INVOICE_PAID_AGAIN,
        key=repeat.key,
        occurred_at_ms=event.settled_at_ms,
        wallet_ids=(expectation.wallet_id,),
        payload={
            "payment_hash": event.payment_hash,
            "external_id": expectation.external_id,
            "node": event.pubkey,
            "amount_sat": repeat.amount_sat,
            "received_msat": repeat.moved_msat,
            "total_received_msat": event.received_msat,
            "memo": event.memo,
        },
    )


def without_opening(event: InvoiceSettled, cursor: LndCursor) -> InvoiceSettled:
    """A settlement that no books have, less what the opening balance has of it: an invoice that was settled before the
    opening, and to which money came since, has a new index on bbolt and shows both together.

    LND settles all HTLCs that came together in one moment, so only what came again has two.
    """
    moments_s = {htlc.settled_at_s for htlc in event.htlcs}
    if cursor.opened_at_ms is None or len(moments_s) < 2:
        return event
    since = [htlc.amt_msat for htlc in event.htlcs if htlc.settled_at_s * MSEC_PER_S >= cursor.opened_at_ms]
    return replace(event, received_msat=min(sum(since), event.received_msat)) if since else event


def note_elsewhere(plan: Plan, event: InvoiceSettled, key: str) -> Outcome:
    """Another program has booked this receipt. If more has arrived than it booked, that is for a person to see."""
    booked_sat = plan.facts.booked_elsewhere_sat.get(event.payment_hash)
    if booked_sat is None or event.settled_id != event.payment_hash:
        return AlreadyPosted(key)
    if event.received_msat // MSAT_PER_SAT <= booked_sat:
        return AlreadyPosted(key)
    again = f"{key}:again"
    plan.gaps[again] = Gap(
        key=again,
        kind=PAID_AGAIN_ELSEWHERE,
        detail=f"invoice {event.payment_hash} has received {event.received_msat} msat, another program has booked "
        f"{booked_sat} sat of it",
        amount_msat=event.received_msat - booked_sat * MSAT_PER_SAT,
        seen_at_ms=event.settled_at_ms,
        reference=event.payment_hash,
        node=plan.cursor(event.pubkey).name,
    )
    return GapFound(again)
