"""AMP invoices: one document, and any number of payments, each a set of HTLCs that settles by itself.

The node keeps such an invoice open for ever, so every set is credited, with what it brought, to the wallet of the
document. The first one marks the document paid, for then the invoice has been paid, and takes the invoice's own key
(`ln:<pubkey>:<payment_hash>`) with it: by that a later set tells a document that tellerd has marked from one that
another program has, whose money stays a gap (design.md section 3, Keys).
"""

from __future__ import annotations

from dataclasses import replace

from daemon.domain.books import Wanted
from daemon.domain.identifiers import lightning_key
from daemon.domain.node_events import InvoiceSettled
from daemon.matching.plan import Plan, Step


def is_set_of_invoice(event: InvoiceSettled) -> bool:
    """Whether this is one set of an AMP invoice. A spontaneous AMP payment has no invoice: its set id is all it has."""
    return event.settled_id != event.payment_hash


def want_invoice_key(wanted: Wanted, event: InvoiceSettled) -> None:
    """Of a set it must be known whether another one came before."""
    if is_set_of_invoice(event):
        wanted.keys.add(_invoice_key(event))


def is_paid_by_another_set(plan: Plan, event: InvoiceSettled) -> bool:
    """Whether it was a set of the same invoice that had its document marked paid."""
    return is_set_of_invoice(event) and plan.is_booked(_invoice_key(event))


def take_credit(plan: Plan, event: InvoiceSettled, step: Step) -> None:
    """Adds the credit of a settlement; the document, if there is one, is marked paid with the first of its invoice."""
    if is_set_of_invoice(event):
        if plan.is_booked(_invoice_key(event)):
            plan.take(step)
            return
        step = replace(step, also_takes=(_invoice_key(event),))
    plan.take(step)
    if plan.expectation(event.payment_hash) is not None:
        plan.mark_paid(event.payment_hash)


def _invoice_key(event: InvoiceSettled) -> str:
    return lightning_key(event.pubkey, event.payment_hash)
