"""One function per kind of node event: what it means for the books (design.md sections 3 and 4).

Nothing here waits, reads or writes: facts come in, decisions are added to the plan. The order in which
events arrive, how often, and how they are batched cannot change the final books.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from daemon.domain.accounts import LIGHTNING, OPENING, Barred
from daemon.domain.books import (
    TELLERD,
    Expectation,
    Facts,
    Gap,
    SuspenseChange,
    SuspenseEntry,
    SuspenseState,
    Wanted,
)
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import check_balanced
from daemon.domain.errors import InvariantViolation
from daemon.domain.holds import ALREADY_PAID
from daemon.domain.identifiers import PaymentHash, WalletId, assignment_key, foreign_key, lightning_key, opening_key
from daemon.domain.money import MSAT_PER_SAT, Currency, Price, split_msat
from daemon.domain.node_events import (
    ChannelCost,
    ForeignJournalFound,
    HtlcLost,
    HtlcsChecked,
    HtlcsUnprovable,
    HtlcUnproven,
    InvoiceEnded,
    InvoiceHeld,
    InvoiceSettled,
    ListingCompleted,
    MarksMoved,
    NodeEvent,
    NodeOpened,
    NodeRestored,
    RoutingIncome,
    SuspenseAssigned,
)
from daemon.domain.outcomes import (
    Adopted,
    AlreadyPosted,
    CursorMoved,
    GapFound,
    PartOfOpening,
    Posted,
    Suspended,
)
from daemon.matching import amp, dollars, receipts, spontaneous
from daemon.matching.deposits import BLINKS_RULES, DepositRules, decide_chain, in_books, note_repeated, want
from daemon.matching.invoice_states import note_state, want_state
from daemon.matching.losses import decide_htlc, want_htlc
from daemon.matching.movements import decide_movement, want_movement
from daemon.matching.node_sums import add_to_node
from daemon.matching.plan import Plan, Step
from daemon.matching.repeats import book_repeat, note_elsewhere, without_opening
from daemon.matching.suspense import decide_assignment, want_assignment

_BARRED = frozenset(Barred)
_BY_AN_OPERATOR = dollars.BY_AN_OPERATOR | _BARRED
"""Money that waits in suspense for one of these is never assigned by itself, whatever changes later."""


def wanted_by(events: Iterable[NodeEvent]) -> Wanted:
    """What must be read before these events can be decided."""
    wanted = Wanted()
    for event in events:
        match event:
            case InvoiceSettled():
                key = lightning_key(event.pubkey, event.settled_id)
                wanted.keys.update((key, assignment_key(key)))
                amp.want_invoice_key(wanted, event)
                spontaneous.want_named_wallet(wanted, event)
                wanted.payment_hashes.add(event.payment_hash)
                wanted.pubkeys.add(event.pubkey)
            case NodeOpened():
                wanted.keys.add(opening_key(event.pubkey))
                wanted.pubkeys.add(event.pubkey)
                wanted.opening = True
            case ListingCompleted() | NodeRestored():
                wanted.pubkeys.add(event.pubkey)
            case ForeignJournalFound():
                wanted.keys.add(foreign_key(event.journal_id))
            case HtlcsChecked() | HtlcLost() | HtlcUnproven() | HtlcsUnprovable():
                want_htlc(wanted, event)
            case RoutingIncome() | ChannelCost() | MarksMoved():
                want_movement(wanted, event)
            case InvoiceHeld() | InvoiceEnded():
                want_state(wanted, event)
            case SuspenseAssigned():
                want_assignment(wanted, event)
            case _:
                want(wanted, event)
    return wanted


def decide(
    events: Sequence[NodeEvent], facts: Facts, *, price: Price | None, rules: DepositRules = BLINKS_RULES
) -> Plan:
    """Decides a batch in order. `price` is the dollar value to write beside credits; None if there is none."""
    plan = Plan(facts)
    repeated = in_books(events, facts.chain.cursor)
    for number, event in enumerate(events):
        match event:
            case InvoiceSettled():
                _settled(plan, event, price)
            case ListingCompleted():
                cursor = plan.cursor(event.pubkey)
                plan.move(cursor.close_through(event.through_index, event.checkpoint_hash))
                plan.outcomes.append(CursorMoved(event.pubkey))
            case NodeOpened():
                _opened(plan, event)
            case NodeRestored():
                plan.move(plan.cursor(event.pubkey).new_epoch(event.newest_index))
                plan.outcomes.append(CursorMoved(event.pubkey))
            case ForeignJournalFound():
                _found(plan, event)
            case HtlcsChecked() | HtlcLost() | HtlcUnproven() | HtlcsUnprovable():
                decide_htlc(plan, event)
            case RoutingIncome() | ChannelCost() | MarksMoved():
                decide_movement(plan, event)
            case InvoiceHeld() | InvoiceEnded():
                note_state(plan, event)
            case SuspenseAssigned():
                decide_assignment(plan, event, price)
            case _ if number < repeated:
                note_repeated(plan, event)
            case _:
                decide_chain(plan, event, rules, price)
    return plan


def why_not_credited(facts: Facts, event: InvoiceSettled) -> str | None:
    """Why this settlement could not be credited to a wallet if it came now: asked before a held payment is taken."""
    return _why_not_credited(Plan(facts), event, facts.expectations.get(event.payment_hash))


def _settled(plan: Plan, event: InvoiceSettled, price: Price | None) -> None:
    key = lightning_key(event.pubkey, event.settled_id)
    cursor = plan.cursor(event.pubkey)
    expectation = plan.expectation(event.payment_hash)
    if expectation is None and cursor.opened and not _before_opening(event, cursor):
        expectation = spontaneous.expectation_of(plan, event)
    reason = _why_not_credited(plan, event, expectation)
    if plan.is_booked(key):
        outcome = book_repeat(plan, event, key, expectation, price) or AlreadyPosted(key)
        plan.outcomes.append(_assign_if_awaited(plan, event, key, expectation, reason, price) or outcome)
    elif plan.facts.is_booked_elsewhere(event.pubkey, event.payment_hash):
        plan.outcomes.append(note_elsewhere(plan, event, key))
    elif expectation is not None and reason == ALREADY_PAID:
        _note_gap(plan, event, key)
    elif reason is not None and reason not in _BY_AN_OPERATOR and (not cursor.opened or _before_opening(event, cursor)):
        plan.outcomes.append(PartOfOpening(key))
    else:
        _receive(plan, event, key, expectation, reason, price)
    if not (isinstance(plan.outcomes[-1], PartOfOpening) and not cursor.opened):
        # Before the opening such an index is in no books yet: the opening closes those that it covers.
        plan.move(plan.cursor(event.pubkey).book(event.settle_index, _checkpoint(event)))


def _checkpoint(event: InvoiceSettled) -> PaymentHash | None:
    """The hash by which the node can be asked for this index: an AMP invoice has none of its own."""
    return event.payment_hash if event.settled_id == event.payment_hash else None


def _before_opening(event: InvoiceSettled, cursor: LndCursor) -> bool:
    return cursor.opening_index is not None and 0 < event.settle_index <= cursor.opening_index


def _why_not_credited(plan: Plan, event: InvoiceSettled, expectation: Expectation | None) -> str | None:
    """Why this settlement cannot be credited to a wallet now; None if it can."""
    if expectation is None:
        return "no_expectation"
    if expectation.pubkey not in (None, event.pubkey):
        # Who has paid an invoice knows its preimage, and can send money with the same hash to another node.
        return "other_node"
    if plan.is_paid(expectation) and not amp.is_paid_by_another_set(plan, event):
        return ALREADY_PAID
    if expectation.wallet_currency is None:
        return "no_wallet"
    if expectation.barred is not None:
        return expectation.barred.value
    if expectation.currency != Currency.BTC or expectation.wallet_currency != Currency.BTC:
        return dollars.why_not_credited(plan, event, expectation)
    return None


def _receive(
    plan: Plan,
    event: InvoiceSettled,
    key: str,
    expectation: Expectation | None,
    reason: str | None,
    price: Price | None,
) -> None:
    cursor = plan.cursor(event.pubkey)
    plan.received[key] = event.received_msat
    amount_sat, rest_msat = split_msat(event.received_msat)
    # The opening journal has taken this money in already: it moves from there, not in again.
    source = OPENING if _before_opening(event, cursor) else LIGHTNING
    if expectation is not None and reason is None:
        if expectation.is_in_dollars:
            step = dollars.credit_step(plan, key, event, expectation, amount_sat, source=source, price=price)
        else:
            entry = receipts.credit_entry(key, event, expectation, amount_sat, source=source, price=price)
            step = Step(key, entry, (receipts.settled_event(key, event, expectation, amount_sat),))
        amp.take_credit(plan, event, step)
        plan.outcomes.append(Posted(key, amount_sat, price is not None or expectation.is_in_dollars))
    else:
        reason = reason or "no_expectation"
        if source == LIGHTNING:
            event = without_opening(event, cursor)
        amount_sat, rest_msat = split_msat(event.received_msat)
        waiting = SuspenseEntry(
            key=key,
            pubkey=event.pubkey,
            payment_hash=event.payment_hash,
            amount_sat=amount_sat,
            received_msat=event.received_msat,
            reason=reason,
            received_at_ms=event.settled_at_ms,
        )
        entry = receipts.suspense_entry(key, event, amount_sat, source=source)
        plan.take(Step(key, entry, (receipts.suspense_event(waiting),)))
        plan.suspense_new[key] = waiting
        plan.outcomes.append(Suspended(key, amount_sat, reason))
    if source == LIGHTNING:
        add_to_node(plan, event.pubkey, moved_msat=event.received_msat, rest_msat=rest_msat, at_ms=event.settled_at_ms)


def _assign_if_awaited(
    plan: Plan,
    event: InvoiceSettled,
    key: str,
    expectation: Expectation | None,
    reason: str | None,
    price: Price | None,
) -> Posted | None:
    """Money that waits in suspense goes to its wallet as soon as a document expects it; None if it does not."""
    waiting = plan.waiting_suspense(key)
    if waiting is None or expectation is None or reason is not None or waiting.reason in _BY_AN_OPERATOR:
        return None
    if plan.facts.is_booked_elsewhere(event.pubkey, event.payment_hash):
        return None  # its wallet has it already
    if expectation.is_in_dollars:
        step = dollars.assignment_step(plan, waiting, event, expectation, price=price)
    else:
        step = receipts.assignment_step(waiting, event, expectation, price=price)
    amp.take_credit(plan, event, step)
    change = SuspenseChange(
        at_ms=event.settled_at_ms,
        state=SuspenseState.ASSIGNED,
        by=TELLERD,
        reason="its invoice appeared",
        wallet_id=WalletId(step.events[0].wallet_ids[0]),  # less than a cent goes to the account's BTC wallet
    )
    plan.put_suspense(waiting.changed(change))
    return Posted(step.key, waiting.amount_sat, price is not None or expectation.is_in_dollars)


def _note_gap(plan: Plan, event: InvoiceSettled, key: str) -> None:
    """Another program marked the invoice paid, but its journal is not in the book (blink-contract.md 3.3 a)."""
    plan.gaps[key] = Gap(
        key=key,
        kind="paid_without_journal",
        detail=f"invoice {event.payment_hash} is marked paid, but no journal has its hash",
        amount_msat=event.received_msat,
        seen_at_ms=event.settled_at_ms,
        reference=event.payment_hash,
        node=plan.cursor(event.pubkey).name,
        moved_msat=event.received_msat,
    )
    plan.outcomes.append(GapFound(key))


def _opened(plan: Plan, event: NodeOpened) -> None:
    cursor = plan.cursor(event.pubkey)
    key = opening_key(event.pubkey)
    if plan.is_booked(key):
        plan.outcomes.append(AlreadyPosted(key))
        return
    absorbed_sat = _foreign_before_opening(plan)
    opening_msat = event.funds_msat - cursor.booked_msat - absorbed_sat * MSAT_PER_SAT
    # Floor division keeps the rest at 0 to 999 msat also where more was credited than is left on the node.
    opening_sat, rest_msat = divmod(opening_msat + cursor.remainder_msat, MSAT_PER_SAT)
    plan.take(receipts.opening_step(event, opening_sat, opening_msat))
    opened = receipts.with_sums(
        cursor,
        booked_msat=event.funds_msat,
        remainder_msat=rest_msat,
        rounding_sats=cursor.rounding_sats,
    ).close_through(event.through_index, event.checkpoint_hash)
    plan.move(
        replace(
            opened,
            name=event.name,
            opening_index=event.through_index,
            absorbed_sat=absorbed_sat,
            htlc_checked_through=event.through_index,
            opened_at_ms=event.opened_at_ms,
            movements=event.movements,
        )
    )
    plan.outcomes.append(CursorMoved(key))


def _foreign_before_opening(plan: Plan) -> int:
    """What other programs have booked on the Lightning account, in sats, if this is the first node to be opened.

    On a database that Blink has used, its journals say already what part of the funds is whose: the opening
    is what they do not explain. What they book after the first opening is a movement of its own.
    """
    cursors = {**plan.facts.cursors, **plan.cursors}.values()
    if any(cursor.opened for cursor in cursors):
        return 0
    booked_sat = -plan.facts.lightning_balance
    for step in plan.steps:
        for leg in step.entry.legs if step.entry is not None else ():
            if (leg.account, leg.currency) == (LIGHTNING, Currency.BTC):
                booked_sat += leg.debit - leg.credit
    return booked_sat - sum(cursor.booked_msat // MSAT_PER_SAT for cursor in cursors)


def _found(plan: Plan, event: ForeignJournalFound) -> None:
    key = foreign_key(event.journal_id)
    if plan.is_booked(key):
        plan.outcomes.append(AlreadyPosted(key))
        return
    if event.unreadable:
        _note_unreadable(plan, event, key)
        return
    try:
        check_balanced(event.legs, what=key)
    except InvariantViolation as problem:
        # Another program's mistake is not ours to stop for: it is shown, and its sums count as they stand.
        plan.gaps[key] = Gap(
            key=key,
            kind="foreign_journal_unbalanced",
            detail=str(problem),
            amount_msat=0,
            seen_at_ms=event.datetime_ms,
        )
    plan.take(receipts.adoption_step(key, event))
    plan.outcomes.append(Adopted(key))


def _note_unreadable(plan: Plan, event: ForeignJournalFound, key: str) -> None:
    """Amounts that are no money cannot be added to balances: the key is taken, so that it is told once."""
    plan.gaps[key] = Gap(
        key=key,
        kind="foreign_journal_unreadable",
        detail=event.unreadable,
        amount_msat=0,
        seen_at_ms=event.datetime_ms,
    )
    plan.take(Step(key, None, ()))
    plan.outcomes.append(GapFound(key))
