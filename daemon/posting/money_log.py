"""One log line for each fact that moved money: what an operator looks for when somebody asks where it is.

Written from what was just committed, so a line means: this is in the books. A process that is killed between
commit and line leaves it out; the outbox has the fact all the same.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from daemon.domain import outbox
from daemon.domain.books import Changes
from daemon.domain.outbox import OutboxRow

MONEY_FACTS: Final = frozenset(
    {
        outbox.INVOICE_SETTLED,
        outbox.INVOICE_PAID_AGAIN,
        outbox.HTLC_LOST,
        outbox.SUSPENSE_RECEIVED,
        outbox.SUSPENSE_REVERSED,
        outbox.JOURNAL_ADOPTED,
        outbox.BOOKS_OPENED,
        outbox.ROUNDING_BOOKED,
        outbox.ROUTING_BOOKED,
        outbox.CHANNEL_FEE_BOOKED,
        outbox.DEPOSIT_SETTLED,
        outbox.DEPOSIT_DROPPED,
        outbox.DEPOSIT_REVERSED,
    }
)
"""Types of which a fact has one event each. suspense.assigned has a line of its own, which says who assigned it;
invoice.overpaid is told by the invoice.settled of the same key, and wallet.overdrawn by the deposit.reversed; a deposit
that is detected or confirmed, and an invoice that is held, canceled or expired, have moved nothing."""

log = structlog.get_logger()


def log_money(changes: Changes) -> None:
    """`money.posted` for each money fact of a commit, in order; `key` is the fact's idempotency key."""
    for row in changes.outbox:
        if row.event.type in MONEY_FACTS:
            log.info("money.posted", **_fields(row))


def _fields(row: OutboxRow) -> dict[str, Any]:
    event = row.event
    fields: dict[str, Any] = {"fact": event.type, "key": event.key, "sequence": row.sequence}
    # These and no others of the payload: what is not named here cannot leak.
    for name in ("amount_sat", "credited_sat", "amount_cents", "credited_cents", "amount_msat", "reason"):
        if name in event.payload:
            fields[name] = event.payload[name]
    if event.wallet_ids:
        fields["wallet_id"] = event.wallet_ids[0] if len(event.wallet_ids) == 1 else list(event.wallet_ids)
    if row.journal_id is not None:
        fields["journal_id"] = row.journal_id
    return fields
