"""What forwards earn and channels cost: the bank owner's, to the msat.

Whole sats are booked, and what is left of a sat goes to the node's sums, so that books and remainder equal the node to
the msat: of income the bank owner gets the full sats, of a cost it pays the next full sat.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.domain import outbox
from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.books import Gap, GapState, Wanted
from daemon.domain.entries import Detail, JournalEntry, Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import NodePubkey, WalletId, channel_cost_key, routing_key
from daemon.domain.money import MSAT_PER_SAT, Currency
from daemon.domain.movements import MovementMarks
from daemon.domain.node_events import ChannelChange, ChannelCost, MarksMoved, MovementEvent, RoutingIncome
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import AlreadyPosted, CursorMoved, GapFound
from daemon.matching import receipts
from daemon.matching.node_sums import add_to_node
from daemon.matching.plan import Plan, Step

_BTC = Currency.BTC.value
_NS_PER_MS = 1_000_000

ROUTING_INCOME = "routing_income"
CHANNEL_FEE = "channel_fee"
CHANNEL_LOSS = "channel_loss"
"""Kinds of gaps: not booked because another program books it or there is no bank owner; and what is no fee."""


def want_movement(wanted: Wanted, event: MovementEvent) -> None:
    """Adds what must be read before the event can be decided: the bank owner's wallet is among the chain's facts."""
    wanted.pubkeys.add(event.pubkey)
    if not isinstance(event, MarksMoved):
        wanted.chain = True
        wanted.keys.add(_key(event))
    if isinstance(event, ChannelCost):
        wanted.keys.update(_other_keys(event))


def decide_movement(plan: Plan, event: MovementEvent) -> None:
    """Adds what the event means for the books; what was decided before changes nothing."""
    match event:
        case MarksMoved():
            _move_marks(plan, event)
        case RoutingIncome():
            _earn(plan, event)
        case ChannelCost():
            _pay(plan, event)


def _key(event: RoutingIncome | ChannelCost) -> str:
    if isinstance(event, RoutingIncome):
        return routing_key(event.pubkey, event.through_ns)
    return channel_cost_key(event.pubkey, event.channel_point, event.change)


def _other_keys(event: ChannelCost) -> list[str]:
    """Of channels that are over with the event's own: they are taken with nothing booked."""
    own = _key(event)
    keys = (channel_cost_key(event.pubkey, point, event.change) for point in event.resolved)
    return [key for key in keys if key != own]


def _marks(plan: Plan, pubkey: NodePubkey) -> MovementMarks:
    marks = plan.cursor(pubkey).movements
    if marks is None:
        raise InvariantViolation(f"movements of {pubkey} are told before it is known from where they count")
    return marks


def _move_marks(plan: Plan, event: MarksMoved) -> None:
    cursor = plan.cursor(event.pubkey)
    if cursor.movements != event.before:
        plan.outcomes.append(AlreadyPosted(event.pubkey))
        return
    plan.move(replace(cursor, movements=event.after))
    if event.opening_msat:
        amount_sat, rest_msat = divmod(event.opening_msat, MSAT_PER_SAT)
        plan.take(receipts.wallet_opening_step(cursor, event, amount_sat))
        add_to_node(plan, event.pubkey, moved_msat=event.opening_msat, rest_msat=rest_msat, at_ms=event.at_ms)
    plan.outcomes.append(CursorMoved(event.pubkey))


def _earn(plan: Plan, event: RoutingIncome) -> None:
    key = _key(event)
    marks = _marks(plan, event.pubkey)
    if plan.is_booked(key) or marks.forwards_ns != event.before_ns:
        plan.outcomes.append(AlreadyPosted(key))
        return
    at_ms = event.through_ns // _NS_PER_MS
    plan.move(replace(plan.cursor(event.pubkey), movements=replace(marks, forwards_ns=event.through_ns)))
    bank_owner = plan.facts.chain.bank_owner
    if not event.books or bank_owner is None:
        detail = f"{event.forwards} forwards have earned it; {_why(event.books)}"
        plan.gaps[key] = _gap(key, ROUTING_INCOME, detail, event.fee_msat, at_ms, reference=str(event.through_ns))
        plan.outcomes.append(GapFound(key))
        return
    payload = {"node": event.pubkey, "forwards": event.forwards, "fee_msat": event.fee_msat}
    _book(
        plan, key, event.pubkey, bank_owner, event.fee_msat, _Wording("routing_fee", "routing income", at_ms, payload)
    )
    plan.outcomes.append(CursorMoved(key))


def _pay(plan: Plan, event: ChannelCost) -> None:
    key = _key(event)
    if plan.is_booked(key):
        plan.outcomes.append(AlreadyPosted(key))
        return
    marks = _marks(plan, event.pubkey)
    closing = {point: held for point, held in marks.closing.items() if point not in event.resolved}
    plan.move(replace(plan.cursor(event.pubkey), movements=replace(marks, closing=closing)))
    for other in _other_keys(event):
        if not plan.is_booked(other):
            plan.take(Step(other, None, ()))
    bank_owner = plan.facts.chain.bank_owner
    if not event.is_fee or not event.books or bank_owner is None:
        _note_cost(plan, event, key)
        return
    payload = {
        "node": event.pubkey,
        "channel_point": event.channel_point,
        "change": event.change.value,
        "txid": event.txid,
        "fee_msat": event.cost_msat,
    }
    memo = f"{'opening' if event.change is ChannelChange.OPEN else 'closing'} channel {event.channel_point}"
    _book(
        plan, key, event.pubkey, bank_owner, -event.cost_msat, _Wording("fee", memo, event.at_ms, payload, event.txid)
    )
    plan.outcomes.append(CursorMoved(key))


def _note_cost(plan: Plan, event: ChannelCost, key: str) -> None:
    """The key is taken all the same: it is told once."""
    kind, state = (CHANNEL_FEE, GapState.EXPLAINED) if event.is_fee else (CHANNEL_LOSS, GapState.OPEN)
    why = _why(event.books) if event.is_fee else "more than any fee: see what became of its outputs"
    detail = f"{event.change} of channel {event.channel_point}, tx {event.txid}; {why}"
    plan.gaps[key] = _gap(key, kind, detail, -event.cost_msat, event.at_ms, reference=event.channel_point, state=state)
    plan.take(Step(key, None, ()))
    plan.outcomes.append(GapFound(key))


def _why(books: bool) -> str:
    return "there is no bank owner's wallet" if books else "left to another program by [reconciliation]"


def _gap(
    key: str,
    kind: str,
    detail: str,
    amount_msat: int,
    at_ms: int,
    *,
    reference: str,
    state: GapState = GapState.EXPLAINED,
) -> Gap:
    return Gap(
        key=key,
        kind=kind,
        detail=detail,
        amount_msat=amount_msat,
        seen_at_ms=at_ms,
        state=state,
        reference=reference,
        moved_msat=amount_msat,
    )


class _Wording:
    """How it stands in ledger and feed."""

    def __init__(self, kind: str, memo: str, at_ms: int, payload: dict[str, Any], txid: str = "") -> None:
        self.kind, self.memo, self.at_ms, self.payload, self.txid = kind, memo, at_ms, payload, txid


def _book(plan: Plan, key: str, pubkey: NodePubkey, bank_owner: WalletId, amount_msat: int, wording: _Wording) -> None:
    """Books income (above zero) or a cost; one of less than a sat may only move the remainder."""
    amount_sat, rest_msat = divmod(amount_msat, MSAT_PER_SAT)
    wallet = wallet_account(bank_owner)
    source, target = (LIGHTNING, wallet) if amount_sat > 0 else (wallet, LIGHTNING)
    details: dict[str, Detail] = {"type": wording.kind, "pending": False, "pubkey": pubkey}
    if wording.txid:
        details["txid"] = wording.txid
    entry = JournalEntry(
        key=key,
        memo=wording.memo,
        datetime_ms=wording.at_ms,
        legs=(
            Leg(account=source, currency=_BTC, debit=abs(amount_sat)),
            Leg(account=target, currency=_BTC, credit=abs(amount_sat)),
        ),
        details=details,
    )
    event = OutboxEvent(
        type=outbox.ROUTING_BOOKED if wording.kind == "routing_fee" else outbox.CHANNEL_FEE_BOOKED,
        key=key,
        occurred_at_ms=wording.at_ms,
        wallet_ids=(bank_owner,),
        payload={**wording.payload, "amount_sat": abs(amount_sat)},
    )
    plan.take(Step(key, entry if amount_sat else None, (event,)))
    add_to_node(plan, pubkey, moved_msat=amount_msat, rest_msat=rest_msat, at_ms=wording.at_ms)
