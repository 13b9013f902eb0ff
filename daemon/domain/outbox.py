"""What the world is told: one row per fact, numbered without gaps, in the same commit as the fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

INVOICE_SETTLED: Final = "invoice.settled"
INVOICE_HELD: Final = "invoice.held"
INVOICE_CANCELED: Final = "invoice.canceled"
INVOICE_EXPIRED: Final = "invoice.expired"
INVOICE_OVERPAID: Final = "invoice.overpaid"
INVOICE_PAID_AGAIN: Final = "invoice.paid_again"
HTLC_LOST: Final = "htlc.lost"
SUSPENSE_RECEIVED: Final = "suspense.received"
SUSPENSE_ASSIGNED: Final = "suspense.assigned"
SUSPENSE_REVERSED: Final = "suspense.reversed"
JOURNAL_ADOPTED: Final = "journal.adopted"
BOOKS_OPENED: Final = "books.opened"
ROUNDING_BOOKED: Final = "rounding.booked"
ROUTING_BOOKED: Final = "routing.booked"
CHANNEL_FEE_BOOKED: Final = "channel_fee.booked"
DEPOSIT_DETECTED: Final = "deposit.detected"
DEPOSIT_CONFIRMED: Final = "deposit.confirmed"
DEPOSIT_SETTLED: Final = "deposit.settled"
DEPOSIT_DROPPED: Final = "deposit.dropped"
DEPOSIT_REVERSED: Final = "deposit.reversed"
WALLET_OVERDRAWN: Final = "wallet.overdrawn"

EVENT_TYPES: Final = (
    INVOICE_SETTLED,
    INVOICE_HELD,
    INVOICE_CANCELED,
    INVOICE_EXPIRED,
    INVOICE_OVERPAID,
    INVOICE_PAID_AGAIN,
    HTLC_LOST,
    SUSPENSE_RECEIVED,
    SUSPENSE_ASSIGNED,
    SUSPENSE_REVERSED,
    JOURNAL_ADOPTED,
    BOOKS_OPENED,
    ROUNDING_BOOKED,
    ROUTING_BOOKED,
    CHANNEL_FEE_BOOKED,
    DEPOSIT_DETECTED,
    DEPOSIT_CONFIRMED,
    DEPOSIT_SETTLED,
    DEPOSIT_DROPPED,
    DEPOSIT_REVERSED,
    WALLET_OVERDRAWN,
)


@dataclass(slots=True, kw_only=True)
class OutboxEvent:
    """One fact. `key` is the idempotency key of what happened; the event's id is `<key>#<type>`.

    `payload` holds the fields of the typed message of the same name in tellerd.v1, snake_case, times as
    Unix milliseconds in `*_at_ms`. `wallet_ids` are the wallets it concerns, for filters.
    """

    type: str
    key: str
    occurred_at_ms: int
    wallet_ids: tuple[str, ...]
    payload: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The same for the same fact, however often it is delivered."""
        return f"{self.key}#{self.type}"


@dataclass(slots=True)
class OutboxRow:
    """An event with its place in the feed: sequences start at 1 and have no gaps.

    `journal_id` is the journal that the fact was booked with, None where nothing was booked.
    """

    sequence: int
    event: OutboxEvent
    journal_id: str | None
