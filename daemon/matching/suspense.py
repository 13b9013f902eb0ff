"""Money in suspense becomes a wallet's because a person says so.

| the money | becomes the wallet's as |
| --- | --- |
| of an invoice whose document names this wallet | its settlement would have been: sats, or the quoted cents |
| anything else, to a wallet in sats | the sats that wait |
| anything else, to a wallet in dollars | the cents that the dealer gives for these sats at this moment |

Once: a repeat finds it done, another wallet is refused; after a reorg has taken the money back, the repeat is, too. An
unpaid document whose money it is (of an AMP invoice: one set of it) counts as paid from then on, whoever got it, so
that no program credits it a second time. Who said it, when and why stands in the entry's trail and in the event.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.domain.accounts import SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import Expectation, SuspenseChange, SuspenseEntry, SuspenseState, Wanted
from daemon.domain.chain import Deposit
from daemon.domain.entries import MAX_LEG_AMOUNT, JournalEntry
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import assignment_key, lightning_key, settled_by
from daemon.domain.money import Currency, Price, fee_in_cents
from daemon.domain.node_events import InvoiceSettled, SuspenseAssigned
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import Assigned, AssignmentProblem, NotAssigned
from daemon.domain.quotes import Deal
from daemon.matching import amp, deposit_entries, dollars, receipts
from daemon.matching.plan import Plan, Step


def want_assignment(wanted: Wanted, event: SuspenseAssigned) -> None:
    """Adds what must be read before the event can be decided."""
    wanted.keys.update((event.key, assignment_key(event.key)))
    wanted.wallet_ids.add(event.wallet_id)
    if event.payment_hash:
        wanted.payment_hashes.add(event.payment_hash)
        if (settlement := settled_by(event.key)) is not None:
            wanted.keys.add(lightning_key(settlement[0], event.payment_hash))  # of an AMP set that of its invoice
    if event.outpoint:
        wanted.outpoints.add(event.outpoint)


def decide_assignment(plan: Plan, event: SuspenseAssigned, price: Price | None) -> None:
    """Decides one event; adds one outcome."""
    entry = plan.suspense(event.key)
    if entry is not None and entry.state is SuspenseState.ASSIGNED and entry.assigned_to == event.wallet_id:
        plan.outcomes.append(Assigned(event.key, entry, again=True))
        return
    problem = _problem(plan, event, entry)
    if entry is None or problem is not None:
        plan.outcomes.append(NotAssigned(event.key, problem or AssignmentProblem.NO_ENTRY, entry))
        return
    owner = _invoice_of(plan, entry)
    step = _told(_step(plan, event, entry, owner, price), event)
    if owner is None:
        plan.take(step)
    else:
        amp.take_credit(plan, _settlement(entry), step)
    change = SuspenseChange(
        at_ms=event.at_ms,
        state=SuspenseState.ASSIGNED,
        by=event.by,
        reason=event.reason,
        wallet_id=event.wallet_id,
    )
    plan.put_suspense(entry.changed(change))
    plan.outcomes.append(Assigned(event.key, entry.changed(change), again=False))


def _problem(plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry | None) -> AssignmentProblem | None:
    """Why the money cannot become this wallet's; None if it can."""
    facts = plan.facts.chain
    if entry is None:
        return AssignmentProblem.NO_ENTRY
    if entry.state is SuspenseState.REVERSED:
        return AssignmentProblem.REVERSED
    if entry.assigned_to is not None:
        return AssignmentProblem.ASSIGNED
    if event.wallet_id not in facts.currencies:
        return AssignmentProblem.NO_WALLET
    if event.wallet_id in facts.barred:
        return AssignmentProblem.BARRED
    is_receipt_elsewhere = plan.facts.is_booked_elsewhere(entry.pubkey, entry.payment_hash)
    if is_receipt_elsewhere or entry.outpoint in facts.booked_elsewhere:
        return AssignmentProblem.BOOKED_ELSEWHERE
    if facts.currencies[event.wallet_id] is Currency.USD:
        return _not_in_dollars(plan, event, entry)
    return None


def _not_in_dollars(plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry) -> AssignmentProblem | None:
    """Why a dollar wallet cannot have it; None if it can."""
    if plan.facts.chain.dealer is None:
        return AssignmentProblem.NO_DEALER
    if _is_quoted(plan, event, entry, _invoice_of(plan, entry)):
        return None
    if entry.amount_sat == 0:
        return AssignmentProblem.UNDER_ONE_CENT  # whatever the price: nobody has been asked for one
    if not isinstance(event.deal, Deal) or event.deal.amount_cents > MAX_LEG_AMOUNT:
        return AssignmentProblem.NO_PRICE
    if event.deal.amount_sat != entry.amount_sat:
        return AssignmentProblem.CHANGED
    return None if event.deal.amount_cents else AssignmentProblem.UNDER_ONE_CENT


def _invoice_of(plan: Plan, entry: SuspenseEntry) -> Expectation | None:
    """The document whose money this is, unpaid, or paid by another set of its AMP invoice; None for money of no
    invoice, that came again, or is another node's."""
    expectation = plan.expectation(entry.payment_hash)
    if expectation is None or settled_by(entry.key) is None or expectation.pubkey not in (None, entry.pubkey):
        return None
    if plan.is_paid(expectation) and not amp.is_paid_by_another_set(plan, _settlement(entry)):
        return None
    return expectation


def _is_quoted(plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry, owner: Expectation | None) -> bool:
    """Whether the document says how many cents its dollar wallet gets."""
    if owner is None or not owner.is_in_dollars or owner.wallet_id != event.wallet_id:
        return False
    why_not = dollars.why_not_credited(plan, _settlement(entry), owner)
    return why_not is None and dollars.sats_wallet(plan, owner) == _dealer(plan).btc


def _step(
    plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry, owner: Expectation | None, price: Price | None
) -> Step:
    """The journal, and who is told; times are those of the assignment."""
    if entry.outpoint is not None:
        return _of_deposit(plan, event, entry)
    settlement = _settlement(entry)
    if owner is None or owner.wallet_id != event.wallet_id:
        return _of_lightning(plan, event, entry, price)
    if _is_quoted(plan, event, entry, owner):
        step = dollars.assignment_step(plan, entry, settlement, owner, price=price)
    elif not owner.currency is owner.wallet_currency is Currency.BTC:
        return _of_lightning(plan, event, entry, price)
    else:
        step = receipts.assignment_step(entry, settlement, owner, price=price)
    journal = None if step.entry is None else replace(step.entry, datetime_ms=event.at_ms)
    return replace(step, entry=journal, events=tuple(replace(one, occurred_at_ms=event.at_ms) for one in step.events))


def _of_lightning(plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry, price: Price | None) -> Step:
    """To a wallet that no invoice names, or at the price of this moment."""
    key = assignment_key(entry.key)
    settlement = replace(_settlement(entry), settled_at_ms=event.at_ms)
    told = receipts.assigned_event(key, entry, settlement, event.wallet_id)
    if entry.amount_sat == 0:
        return Step(key, None, (told,))
    details = receipts.receipt_details(settlement, entry.amount_sat, entry.payment_hash, price)
    if plan.facts.chain.currencies[event.wallet_id] is Currency.USD:
        cents = _deal(event).amount_cents
        details |= receipts.in_cents(cents)
        told = replace(told, payload={**told.payload, "amount_cents": cents})
        legs = dollars.exchange(SUSPENSE, _dealer(plan), event.wallet_id, amount_sat=entry.amount_sat, cents=cents)
    else:
        legs = receipts.moved(SUSPENSE, wallet_account(event.wallet_id), entry.amount_sat)
    journal = JournalEntry(
        key=key,
        memo="",
        datetime_ms=event.at_ms,
        legs=legs,
        details=details,
        payment_hash=entry.payment_hash or None,
    )
    return Step(key, journal, (told,))


def _of_deposit(plan: Plan, event: SuspenseAssigned, entry: SuspenseEntry) -> Step:
    """The deposit keeps whose it became: a reorg takes it back from there."""
    deposit = None if entry.outpoint is None else plan.deposit(entry.outpoint)
    if deposit is None or deposit.booking is None or not deposit.booking.suspense_reason:
        raise InvariantViolation(f"{entry.key} waits in suspense, but its deposit is not booked there")
    key = assignment_key(entry.key)
    booking = replace(deposit.booking, assigned_to=event.wallet_id)
    told = receipts.assigned_event(key, entry, replace(_settlement(entry), settled_at_ms=event.at_ms), event.wallet_id)
    if plan.facts.chain.currencies[event.wallet_id] is Currency.USD:
        cents = _deal(event).amount_cents
        booking = replace(booking, cents=cents, fee_cents=_fee_cents(deposit, cents), dealer=_dealer(plan))
        told = replace(told, payload={**told.payload, "amount_cents": cents})
    deposit = replace(deposit, booking=booking, revision=deposit.revision + 1, updated_at_ms=event.at_ms)
    plan.put_deposit(deposit)
    events: tuple[OutboxEvent, ...] = (told,)
    if event.wallet_id == deposit.wallet_id:
        events += (deposit_entries.settled_event(key, deposit, booking, event.at_ms),)
    return Step(key, deposit_entries.assignment_entry(key, deposit, booking, event.at_ms), events)


def _fee_cents(deposit: Deposit, credited_cents: int) -> int:
    """What the fee, taken in sats, is worth at the price of the rest; rounded up (blink-contract.md 2.6)."""
    fee_sat = deposit.booking.fee_sat if deposit.booking is not None else 0
    credited_sat = deposit.amount_sat - fee_sat
    return fee_in_cents(fee_sat=fee_sat, total_sat=credited_sat, total_cents=credited_cents) if credited_sat else 0


def _told(step: Step, event: SuspenseAssigned) -> Step:
    """suspense.assigned comes first, and says who has said so and why."""
    assigned, *others = step.events
    return replace(
        step,
        events=(replace(assigned, payload={**assigned.payload, "by": event.by, "reason": event.reason}), *others),
    )


def _settlement(entry: SuspenseEntry) -> InvoiceSettled:
    """What the entry was booked for, as far as it is kept; of an AMP set its id is in the key."""
    _, settled_id = settled_by(entry.key) or (entry.pubkey, entry.payment_hash)
    return InvoiceSettled(
        pubkey=entry.pubkey,
        payment_hash=entry.payment_hash,
        settled_id=settled_id,
        settle_index=0,
        received_msat=entry.received_msat,
        settled_at_ms=entry.received_at_ms,
        memo="",
    )


def _dealer(plan: Plan) -> DealerWallets:
    if plan.facts.chain.dealer is None:
        raise InvariantViolation("money in suspense goes to a dollar wallet, and there is no dealer")
    return plan.facts.chain.dealer


def _deal(event: SuspenseAssigned) -> Deal:
    if not isinstance(event.deal, Deal):
        raise InvariantViolation(f"{event.key} goes to a dollar wallet without a price")
    return event.deal
