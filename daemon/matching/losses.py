"""HTLCs of settled invoices whose money did not stay: an LND that was killed forgets (node-interfaces.md A.0).

The wallet keeps its credit: it is the bank's node that has lost the money, so the gap account bears it until a person
has decided. Each lost HTLC is booked once, under its place in its channel.
"""

from __future__ import annotations

from daemon.domain import outbox
from daemon.domain.accounts import GAP, LIGHTNING
from daemon.domain.books import Gap, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.identifiers import lightning_key, loss_key
from daemon.domain.money import MSAT_PER_SAT, Currency
from daemon.domain.node_events import HtlcEvent, HtlcLost, HtlcsChecked, HtlcsUnprovable, HtlcUnproven
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import AlreadyPosted, CursorMoved, GapFound, LossBooked, PartOfOpening
from daemon.matching.node_sums import add_to_node
from daemon.matching.plan import Plan, Step

LOST, UNPROVEN, UNPROVABLE = "htlc_lost", "htlc_unproven", "htlc_unprovable"
"""Kinds of gaps."""

CLOCKS_APART_MS = 60_000
"""The opening's moment is by tellerd's clock, an HTLC's by its node's: a loss is rather booked than passed over."""


def want_htlc(wanted: Wanted, event: HtlcEvent) -> None:
    """What must be read before the event can be decided."""
    wanted.pubkeys.add(event.pubkey)
    if isinstance(event, HtlcLost):
        wanted.keys.add(_key(event))
        wanted.keys.add(lightning_key(event.pubkey, event.settled_id))
        wanted.payment_hashes.add(event.payment_hash)


def decide_htlc(plan: Plan, event: HtlcEvent) -> None:
    """What became of HTLCs: the mark moves, a loss is booked, or a gap is noted."""
    match event:
        case HtlcsChecked():
            plan.move(plan.cursor(event.pubkey).check_through(event.through_index))
            plan.outcomes.append(CursorMoved(event.pubkey))
        case HtlcLost():
            _lost(plan, event)
        case HtlcUnproven():
            _unproven(plan, event)
        case HtlcsUnprovable():
            _unprovable(plan, event)


def _key(event: HtlcLost | HtlcUnproven) -> str:
    return loss_key(event.pubkey, event.htlc.chan_id, event.htlc.htlc_index)


def _lost(plan: Plan, event: HtlcLost) -> None:
    key = _key(event)
    if plan.is_booked(key):
        plan.outcomes.append(AlreadyPosted(key))
    elif _is_in_no_books(plan, event):
        plan.outcomes.append(PartOfOpening(key))
    else:
        _book_loss(plan, event, key)


def _is_in_no_books(plan: Plan, event: HtlcLost) -> bool:
    """The opening counted what the node really had: what it had lost by then was never booked from the node."""
    if _before_opening(event, plan.cursor(event.pubkey)):
        return True
    receipt = lightning_key(event.pubkey, event.settled_id)
    return not (plan.is_booked(receipt) or plan.facts.is_booked_elsewhere(event.pubkey, event.payment_hash))


def _before_opening(event: HtlcLost, cursor: LndCursor) -> bool:
    if cursor.opening_index is None or 0 < event.settle_index <= cursor.opening_index:
        return True
    # An invoice to which money came again since has a later index, but its first HTLCs are as old as they are.
    settled_at_ms = event.htlc.settled_at_s * 1000
    return cursor.opened_at_ms is not None and 0 < settled_at_ms < cursor.opened_at_ms - CLOCKS_APART_MS


def _book_loss(plan: Plan, event: HtlcLost, key: str) -> None:
    amount_msat = event.htlc.amt_msat
    # Rounded up, and the rest given back: so the order of losses and receipts cannot matter for any account.
    amount_sat = -(-amount_msat // MSAT_PER_SAT)
    plan.take(Step(key, _entry(key, event, amount_sat), (_told(key, event),)))
    plan.gaps[key] = Gap(
        key=key,
        kind=LOST,
        detail=f"invoice {event.payment_hash} is settled, but HTLC {event.htlc.htlc_index} of channel "
        f"{event.htlc.chan_id} was failed back",
        amount_msat=-amount_msat,
        seen_at_ms=event.seen_at_ms,
        reference=event.payment_hash,
        node=plan.cursor(event.pubkey).name,
    )
    plan.outcomes.append(LossBooked(key, amount_msat))
    rest_msat = amount_sat * MSAT_PER_SAT - amount_msat
    add_to_node(plan, event.pubkey, moved_msat=-amount_msat, rest_msat=rest_msat, at_ms=event.seen_at_ms)


def _entry(key: str, event: HtlcLost, amount_sat: int) -> JournalEntry:
    return JournalEntry(
        key=key,
        memo="HTLC lost by the node",
        datetime_ms=event.seen_at_ms,
        legs=(
            Leg(account=GAP, currency=Currency.BTC.value, debit=amount_sat),
            Leg(account=LIGHTNING, currency=Currency.BTC.value, credit=amount_sat),
        ),
        details={
            "type": "reconciliation",
            "pending": False,
            "hash": event.payment_hash,
            "pubkey": event.pubkey,
        },
    )


def _told(key: str, event: HtlcLost) -> OutboxEvent:
    """htlc.lost: an operator has to look."""
    return OutboxEvent(
        type=outbox.HTLC_LOST,
        key=key,
        occurred_at_ms=event.seen_at_ms,
        wallet_ids=(),
        payload={
            "node": event.pubkey,
            "payment_hash": event.payment_hash,
            # As text: the id of an alias is more than the 63 bits of a BSON integer.
            "chan_id": str(event.htlc.chan_id),
            "htlc_index": event.htlc.htlc_index,
            "amount_msat": event.htlc.amt_msat,
        },
    )


def _unproven(plan: Plan, event: HtlcUnproven) -> None:
    """It may have stayed or not: the amount stands in the text only, for nothing is known to differ."""
    key = f"{_key(event)}:{UNPROVEN}"
    plan.gaps[key] = Gap(
        key=key,
        kind=UNPROVEN,
        detail=f"invoice {event.payment_hash} is settled, but the node does not say how HTLC {event.htlc.htlc_index} "
        f"of channel {event.htlc.chan_id} with {event.htlc.amt_msat} msat ended",
        amount_msat=0,
        seen_at_ms=event.seen_at_ms,
        reference=event.payment_hash,
        node=plan.cursor(event.pubkey).name,
    )
    plan.outcomes.append(GapFound(key))


def _unprovable(plan: Plan, event: HtlcsUnprovable) -> None:
    key = f"ln:{event.pubkey}:{UNPROVABLE}:{event.through_index}"
    plan.gaps[key] = Gap(
        key=key,
        kind=UNPROVABLE,
        detail=f"{event.htlcs} HTLCs with {event.amount_msat} msat were settled before the node went away; it runs "
        "without --store-final-htlc-resolutions and cannot say whether they have stayed",
        amount_msat=0,
        seen_at_ms=event.seen_at_ms,
        node=plan.cursor(event.pubkey).name,
    )
    plan.outcomes.append(GapFound(key))
