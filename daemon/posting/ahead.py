"""Looking ahead: what the next batch need not read, and facts that are read while the one before is still
being committed.

What that commit changes is known exactly, for this process is the only one that posts: it is laid over what
was read, so that it does not matter whether the read saw it. What other programs change in between is
noticed by the commit itself, as always: head, keys and paid marks are checked by what it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from daemon.domain.books import Changes, Facts, Known
from daemon.domain.node_events import InvoiceSettled, NodeEvent


def can_look_ahead(batch: Sequence[NodeEvent]) -> bool:
    """Whether `facts_after` holds all that these events are decided on: settlements, and nothing rarer."""
    return all(isinstance(event, InvoiceSettled) for event in batch)


def known_after(known: Known | None, changes: Changes) -> Known:
    """Head and cursors once `changes` are committed; the cursors that they move, and those known before."""
    cursors = {} if known is None else dict(known.cursors)
    return Known(head=changes.after, cursors=cursors | {cursor.pubkey: cursor for cursor in changes.cursors})


def facts_after(facts: Facts, changes: Changes) -> Facts:
    """The facts as they are once `changes` are committed, whether or not they were when the facts were read."""
    expectations = dict(facts.expectations)
    for payment_hash in expectations.keys() & set(changes.paid):
        expectations[payment_hash] = replace(expectations[payment_hash], paid=True, completed=True)
    for payment_hash in expectations.keys() & set(changes.closed):
        expectations[payment_hash] = replace(expectations[payment_hash], completed=True)
    suspense = {entry.key: entry for entry in (*changes.suspense_new, *changes.suspense_assigned)}
    cursors = {cursor.pubkey: cursor for cursor in changes.cursors}
    used = {quote.payment_hash: quote for quote in changes.quotes if quote.payment_hash in facts.dollars.quotes}
    taken = {one.key: one.received_msat for one in changes.keys if one.received_msat is not None}
    return replace(
        facts,
        head=changes.after,
        booked=facts.booked | {record.key for record in changes.keys},
        expectations=expectations,
        suspense={**facts.suspense, **suspense},
        cursors={**facts.cursors, **cursors},
        dollars=replace(facts.dollars, quotes={**facts.dollars.quotes, **used}) if used else facts.dollars,
        received={**facts.received, **taken, **changes.received},
    )
