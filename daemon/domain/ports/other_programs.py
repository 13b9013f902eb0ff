"""What other programs leave in the database: journals, and documents that wait for a payment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from daemon.domain.identifiers import JournalId, NodePubkey, PaymentHash
from daemon.domain.node_events import ForeignJournalFound


class Journals(Protocol):
    """Journals in the book, whoever wrote them: for adoption."""

    def foreign_journals(self, *, after: JournalId | None, limit: int) -> Sequence[ForeignJournalFound]:
        """Complete journals of other programs with `_id` above `after`, ascending by `_id`, that have no link
        in the chain yet; at most `limit`."""
        ...

    def newest_adopted(self) -> JournalId | None:
        """The largest `_id` of another program's journal that has its link; None if there is none."""
        ...

    def wait_for_hint(self, timeout_s: float) -> bool:
        """Blocks until another program may have written a journal, or the time is up; True if there was a hint.
        Hints may be lost or needless; the first call begins to listen for them."""
        ...

    def end_hints(self) -> None:
        """Listens no longer, so that hints cost nothing; the next `wait_for_hint` begins anew."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvoice:
    """An `invoiceusers` document that is not paid and not closed."""

    payment_hash: PaymentHash
    pubkey: NodePubkey
    payment_request: str | None = None


class OpenInvoices(Protocol):
    """Documents that wait for a payment: for the look-up sweep."""

    def open_invoices(self, *, pubkey: NodePubkey, after: PaymentHash | None, limit: int) -> Sequence[OpenInvoice]:
        """Unpaid, not completed documents of this node, ascending by hash, from the one after `after`."""
        ...

    def open_invoices_since(self, *, pubkey: NodePubkey, since: datetime, limit: int) -> Sequence[OpenInvoice]:
        """The same, those created at or after `since`, newest first."""
        ...
