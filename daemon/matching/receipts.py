"""The journal entries and events of receipts: one function per business fact, legs as blink-contract.md 2.5."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.domain import outbox
from daemon.domain.accounts import LIGHTNING, OPENING, ROUNDING, SUSPENSE, wallet_account
from daemon.domain.books import Expectation, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import Detail, JournalEntry, Leg
from daemon.domain.identifiers import NodePubkey, assignment_key, opening_key, rounding_key, wallet_opening_key
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import ForeignJournalFound, InvoiceSettled, MarksMoved, NodeOpened
from daemon.domain.outbox import OutboxEvent
from daemon.matching.plan import Step

_BTC = Currency.BTC.value


def moved(source: str, target: str, amount_sat: int) -> tuple[Leg, ...]:
    """Debit source, credit target."""
    return (
        Leg(account=source, currency=_BTC, debit=amount_sat),
        Leg(account=target, currency=_BTC, credit=amount_sat),
    )


def receipt_details(event: InvoiceSettled, amount_sat: int, external_id: str, price: Price | None) -> dict[str, Detail]:
    """Metadata of every leg of a Lightning receive; without a price the dollar fields are absent.

    The display amounts are in dollars on every leg: the only currency that a price is had for.
    """
    details: dict[str, Detail] = {
        "type": "invoice",
        "pending": False,
        "hash": event.payment_hash,
        "pubkey": event.pubkey,
        "satsAmount": amount_sat,
        "satsFee": 0,
        "external_id": external_id,
    }
    if price is not None:
        details |= in_cents(price.cents(amount_sat=amount_sat))
    return details


def in_cents(cents: int) -> dict[str, Detail]:
    """The dollar fields of a leg without a fee."""
    shown: dict[str, Detail] = {"displayAmount": cents, "displayFee": 0, "displayCurrency": Currency.USD.value}
    return {"centsAmount": cents, "centsFee": 0, **shown}


def credit_entry(
    key: str,
    event: InvoiceSettled,
    expectation: Expectation,
    amount_sat: int,
    *,
    source: str,
    price: Price | None,
) -> JournalEntry | None:
    """A Lightning receive into a BTC wallet; None if not even one sat arrived (all of it is remainder)."""
    if amount_sat == 0:
        return None
    return JournalEntry(
        key=key,
        memo=event.memo,
        datetime_ms=event.settled_at_ms,
        legs=moved(source, wallet_account(expectation.wallet_id), amount_sat),
        details=receipt_details(event, amount_sat, expectation.external_id, price),
        payment_hash=event.payment_hash,
        preimage=expectation.preimage,
    )


def settled_event(key: str, event: InvoiceSettled, expectation: Expectation, amount_sat: int) -> OutboxEvent:
    """invoice.settled: the wallet has the money."""
    payload: dict[str, Any] = {
        "payment_hash": event.payment_hash,
        "external_id": expectation.external_id,
        "node": event.pubkey,
        "amount_sat": amount_sat,
        "received_msat": event.received_msat,
        "memo": event.memo,
        "settled_at_ms": event.settled_at_ms,
    }
    return OutboxEvent(
        type=outbox.INVOICE_SETTLED,
        key=key,
        occurred_at_ms=event.settled_at_ms,
        wallet_ids=(expectation.wallet_id,),
        payload=payload,
    )


def suspense_entry(key: str, event: InvoiceSettled, amount_sat: int, *, source: str = LIGHTNING) -> JournalEntry | None:
    """A Lightning receive that no wallet expects; None if not even one sat arrived."""
    if amount_sat == 0:
        return None
    return JournalEntry(
        key=key,
        memo=event.memo,
        datetime_ms=event.settled_at_ms,
        legs=moved(source, SUSPENSE, amount_sat),
        # Blink counts a leg {hash, type "invoice"} as credited to its wallet, which this money is not yet.
        details={
            "type": "reconciliation",
            "pending": False,
            "hash": event.payment_hash,
            "pubkey": event.pubkey,
        },
    )


def suspense_event(waiting: SuspenseEntry) -> OutboxEvent:
    """suspense.received: money waits for somebody to say whose it is."""
    return OutboxEvent(
        type=outbox.SUSPENSE_RECEIVED,
        key=waiting.key,
        occurred_at_ms=waiting.received_at_ms,
        wallet_ids=(),
        payload={
            "key": waiting.key,
            "node": waiting.pubkey,
            "payment_hash": waiting.payment_hash,
            "amount_sat": waiting.amount_sat,
            "received_msat": waiting.received_msat,
            "reason": waiting.reason,
            **_output_of(waiting),
        },
    )


def _output_of(waiting: SuspenseEntry) -> dict[str, Any]:
    """Of a deposit its output, of a Lightning payment nothing."""
    if waiting.outpoint is None:
        return {}
    txid, _, vout = waiting.outpoint.partition(":")
    return {"txid": txid, "vout": int(vout)}


def assignment_step(
    waiting: SuspenseEntry, event: InvoiceSettled, expectation: Expectation, *, price: Price | None
) -> Step:
    """The journal that takes money from suspense to the wallet that turned out to expect it.

    It is told twice: to those who look after suspense, and to the wallet, whose invoice is settled.
    """
    key = assignment_key(waiting.key)
    entry = credit_entry(key, event, expectation, waiting.amount_sat, source=SUSPENSE, price=price)
    assigned = assigned_event(key, waiting, event, expectation.wallet_id)
    return Step(key, entry, (assigned, settled_event(key, event, expectation, waiting.amount_sat)))


def assigned_event(key: str, waiting: SuspenseEntry, event: InvoiceSettled, wallet_id: str) -> OutboxEvent:
    """suspense.assigned: money that waited is a wallet's."""
    return OutboxEvent(
        type=outbox.SUSPENSE_ASSIGNED,
        key=key,
        occurred_at_ms=event.settled_at_ms,
        wallet_ids=(wallet_id,),
        payload={
            "key": waiting.key,
            "payment_hash": waiting.payment_hash,
            "wallet_id": wallet_id,
            "amount_sat": waiting.amount_sat,
            **_output_of(waiting),
        },
    )


def reversed_event(key: str, taken_back: SuspenseEntry, at_ms: int) -> OutboxEvent:
    """suspense.reversed: a reorg took back what had been booked to suspense; `key` is the reversal's."""
    wallet_id = taken_back.assigned_to
    return OutboxEvent(
        type=outbox.SUSPENSE_REVERSED,
        key=key,
        occurred_at_ms=at_ms,
        wallet_ids=() if wallet_id is None else (wallet_id,),
        payload={
            "key": taken_back.key,
            "wallet_id": wallet_id or "",
            "amount_sat": taken_back.amount_sat,
            **_output_of(taken_back),
        },
    )


def rounding_step(pubkey: NodePubkey, rounding_sats: int, at_ms: int) -> Step:
    """One full sat of msat remainders, from the node to the rounding account."""
    key = rounding_key(pubkey, rounding_sats)
    entry = JournalEntry(
        key=key,
        memo="msat remainders",
        datetime_ms=at_ms,
        legs=moved(LIGHTNING, ROUNDING, 1),
        details={"type": "reconciliation", "pending": False, "pubkey": pubkey},
    )
    event = OutboxEvent(
        type=outbox.ROUNDING_BOOKED,
        key=key,
        occurred_at_ms=at_ms,
        wallet_ids=(),
        payload={"node": pubkey, "amount_sat": 1},
    )
    return Step(key, entry, (event,))


def opening_step(event: NodeOpened, opening_sat: int, opening_msat: int) -> Step:
    """What the node held before tellerd's first start; below zero where earlier credits were spent since."""
    return _opening(
        opening_key(event.pubkey),
        event.pubkey,
        node_name=event.name,
        memo=f"opening balance of {event.name}",
        amount_sat=opening_sat,
        amount_msat=opening_msat,
        at_ms=event.opened_at_ms,
    )


def wallet_opening_step(cursor: LndCursor, event: MarksMoved, amount_sat: int) -> Step:
    """What the node's wallet and closing channels held, where only its channels were counted at the opening."""
    return _opening(
        wallet_opening_key(event.pubkey),
        event.pubkey,
        node_name=cursor.name,
        memo=f"opening balance of {cursor.name}: its wallet",
        amount_sat=amount_sat,
        amount_msat=event.opening_msat,
        at_ms=event.at_ms,
    )


def _opening(
    key: str, pubkey: NodePubkey, *, node_name: str, memo: str, amount_sat: int, amount_msat: int, at_ms: int
) -> Step:
    source, target = (LIGHTNING, OPENING) if amount_sat >= 0 else (OPENING, LIGHTNING)
    entry = JournalEntry(
        key=key,
        memo=memo,
        datetime_ms=at_ms,
        legs=moved(source, target, abs(amount_sat)),
        details={"type": "reconciliation", "pending": False, "pubkey": pubkey},
    )
    told = OutboxEvent(
        type=outbox.BOOKS_OPENED,
        key=key,
        occurred_at_ms=at_ms,
        wallet_ids=(),
        payload={"node": pubkey, "node_name": node_name, "amount_msat": amount_msat},
    )
    return Step(key, entry if amount_sat else None, (told,))


def adoption_step(key: str, event: ForeignJournalFound) -> Step:
    """Another program's journal: its link, its effect on the balances, and the news of it."""
    entry = JournalEntry(key=key, memo=event.memo, datetime_ms=event.datetime_ms, legs=event.legs)
    legs = [
        {"account": leg.account, "currency": leg.currency, "debit": leg.debit, "credit": leg.credit}
        for leg in event.legs
    ]
    told = OutboxEvent(
        type=outbox.JOURNAL_ADOPTED,
        key=key,
        occurred_at_ms=event.datetime_ms,
        wallet_ids=tuple(dict.fromkeys(_wallet_ids(event.legs))),
        payload={"legs": legs},
    )
    return Step(key, entry, (told,), adopted_id=event.journal_id)


def _wallet_ids(legs: tuple[Leg, ...]) -> list[str]:
    return [parts[1] for leg in legs if len(parts := leg.account.split(":")) == 2 and parts[0] == "Liabilities"]


def with_sums(cursor: LndCursor, *, booked_msat: int, remainder_msat: int, rounding_sats: int) -> LndCursor:
    """The cursor with new sums."""
    return replace(cursor, booked_msat=booked_msat, remainder_msat=remainder_msat, rounding_sats=rounding_sats)
