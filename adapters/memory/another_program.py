"""What another program (Blink's core) does to the shared database, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapters.memory.state import (
    FOREIGN_WRITER,
    BalanceSnapshot,
    InvoiceDocument,
    LedgerJournal,
    OnchainAddress,
    Tables,
)
from daemon.domain.accounts import BARRED_STATUSES
from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, JournalId, Outpoint, PaymentHash, WalletId
from daemon.domain.ports import StoredInvoice

_BEYOND_ALL_LEGS = 1 << 62


class AnotherProgram:
    """Writes as Blink does: legs first, the journal after them, never a key, a link or a balance."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._journals_begun = 0

    def begin_journal(
        self, legs: Sequence[Leg], *, memo: str = "", details: Mapping[str, Any] | None = None
    ) -> LedgerJournal:
        """Writes the legs of a journal whose own document is not there yet: it is not complete."""
        tables = self._tables
        with tables.lock:
            self._journals_begun += 1
            seconds = int(tables.now_s())
            journal_id = JournalId(f"{seconds:08x}{FOREIGN_WRITER}{self._journals_begun:06x}")
            leg_ids = tuple(
                tables.add_leg(journal_id, leg, {**(details or {}), **leg.details, "currency": leg.currency})
                for leg in legs
            )
            return LedgerJournal(journal_id=journal_id, datetime_ms=seconds * 1000, memo=memo, leg_ids=leg_ids)

    def finish_journal(self, begun: LedgerJournal) -> JournalId:
        """Writes the document that completes a journal."""
        with self._tables.lock:
            self._tables.journals[begun.journal_id] = begun
            self._tables.hint()
            return begun.journal_id

    def write_journal(
        self, legs: Sequence[Leg], *, memo: str = "", details: Mapping[str, Any] | None = None
    ) -> JournalId:
        """Writes a complete journal; `details` are metadata of every leg."""
        return self.finish_journal(self.begin_journal(legs, memo=memo, details=details))

    def insert_invoice(self, invoice: StoredInvoice, *, cents: int | None = None) -> None:
        """Writes an `invoiceusers` document."""
        with self._tables.lock:
            self._tables.invoices[invoice.payment_hash] = InvoiceDocument(invoice=invoice, cents=cents)

    def mark_paid(self, payment_hash: PaymentHash) -> None:
        """Marks a document paid and completed, without any journal."""
        with self._tables.lock:
            document = self._tables.invoices[payment_hash]
            document.invoice = replace(document.invoice, paid=True, completed=True)

    def set_status(self, account_id: AccountId, status: str) -> None:
        """Gives an account this status, as its history's last."""
        with self._tables.lock:
            barred = BARRED_STATUSES.get(status)
            if barred is None:
                self._tables.barred.pop(account_id, None)
            else:
                self._tables.barred[account_id] = barred

    def add_address(self, wallet_id: WalletId, address: str, *, pubkey: str | None = None) -> None:
        """Appends to a wallet's `onchain`; one with a pubkey is an LND's."""
        with self._tables.lock:
            self._tables.add_address(wallet_id, OnchainAddress(address=address, pubkey=pubkey))

    def addresses(self, wallet_id: WalletId) -> list[str]:
        """What it reads in a wallet's `onchain`."""
        with self._tables.lock:
            return [entry.address for entry in self._tables.onchain.get(wallet_id, ())]

    def pending_receives(self) -> set[Outpoint]:
        """The outputs that it shows as pending."""
        with self._tables.lock:
            return set(self._tables.pending)

    def take_snapshot(self, account: str, currency: str, *, beyond_legs_to_come: bool = False) -> None:
        """Keeps medici's balance snapshot of an account.

        `beyond_legs_to_come`: one that names a leg which sorts after those that tellerd writes next, as
        when another program's leg overtook a commit in flight.
        """
        tables = self._tables
        with tables.lock:
            counted = frozenset(
                leg.leg_id for leg in tables.legs.values() if (leg.leg.account, leg.leg.currency) == (account, currency)
            )
            newest = _BEYOND_ALL_LEGS if beyond_legs_to_come else max(counted, default=0)
            tables.snapshots.append(
                BalanceSnapshot(account=account, currency=currency, through_leg_id=newest, counted=counted)
            )

    def snapshots(self) -> list[tuple[str, str]]:
        """Account and currency of every snapshot there is."""
        with self._tables.lock:
            return [(snapshot.account, snapshot.currency) for snapshot in self._tables.snapshots]
