"""`Books` in memory: a commit checks everything first and writes after, under one lock."""

from __future__ import annotations

from dataclasses import replace

from adapters.memory.chain_facts import chain_facts, wants_chain
from adapters.memory.dollar_facts import dollar_facts
from adapters.memory.faults import CommitFaults
from adapters.memory.state import BalanceSnapshot, LedgerJournal, Link, Tables
from daemon.domain.accounts import LIGHTNING
from daemon.domain.books import (
    ChainFacts,
    Changes,
    Expectation,
    Facts,
    Gap,
    GapState,
    SealedEntry,
    SuspenseEntry,
    Wanted,
)
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.errors import Conflict, LeaseLost
from daemon.domain.identifiers import AccountId, JournalId, PaymentHash, deposit_key
from daemon.domain.money import Currency
from daemon.domain.ports import AccountEntry


class MemoryBooks:
    """See `daemon.domain.ports.Books`."""

    def __init__(self, tables: Tables, faults: CommitFaults, writer_id: bytes) -> None:
        self._tables = tables
        self._faults = faults
        self._writer_id = writer_id

    @property
    def writer_id(self) -> bytes:
        return self._writer_id

    def read_facts(self, wanted: Wanted) -> Facts:
        self._faults.at_step("read")
        tables = self._tables
        with tables.lock:
            facts = Facts(
                head=tables.head if wanted.known is None else wanted.known.head,
                booked={key for key in wanted.keys if key in tables.keys},
                expectations={
                    payment_hash: self._expectation(payment_hash)
                    for payment_hash in wanted.payment_hashes
                    if payment_hash in tables.invoices
                },
                suspense={key: replace(tables.suspense[key]) for key in wanted.keys if key in tables.suspense},
                cursors={
                    pubkey: cursor
                    for pubkey, cursor in tables.cursors.items()
                    if wanted.opening or pubkey in wanted.pubkeys
                }
                | ({} if wanted.known is None else dict(wanted.known.cursors)),
                booked_elsewhere={
                    payment_hash for payment_hash in wanted.payment_hashes if self._is_booked_elsewhere(payment_hash)
                },
                booked_elsewhere_sat={
                    payment_hash: self._taken_from_lightning(payment_hash)
                    for payment_hash in wanted.payment_hashes
                    if self._is_booked_elsewhere(payment_hash)
                },
                received={
                    key: record.received_msat
                    for key in wanted.keys
                    if (record := tables.keys.get(key)) is not None and record.received_msat is not None
                },
                lightning_balance=tables.balances.get((LIGHTNING, Currency.BTC), 0) if wanted.opening else 0,
                chain=chain_facts(tables, wanted, is_ours=self._is_ours) if wants_chain(wanted) else ChainFacts(),
            )
            facts.suspense = {**facts.suspense, **self._suspense_of(facts.chain)}
            facts.dollars = dollar_facts(tables, facts.expectations.values())
            return facts

    def _suspense_of(self, chain: ChainFacts) -> dict[str, SuspenseEntry]:
        """The entries of deposits that were booked to suspense."""
        suspense = self._tables.suspense
        keys = [
            deposit_key(one.outpoint, one.settlements)
            for one in chain.deposits.values()
            if one.booking is not None and one.booking.suspense_reason
        ]
        return {key: suspense[key] for key in keys if key in suspense}

    def commit(self, changes: Changes) -> None:
        self._faults.at_step("commit")
        fault = self._faults.before_write()
        with self._tables.lock:
            self._refuse_what_moved(changes)
            self._write(changes)
        self._faults.at_step("committed")
        self._faults.after_write(fault)

    def sweep_snapshots(self) -> int:
        tables = self._tables
        with tables.lock:
            kept = [snapshot for snapshot in tables.snapshots if not self._hides_a_leg(snapshot)]
            deleted = len(tables.snapshots) - len(kept)
            tables.snapshots = kept
            return deleted

    def cursor_of_name(self, name: str) -> LndCursor | None:
        with self._tables.lock:
            # A cursor that is written goes to the end of the table.
            named = [cursor for cursor in self._tables.cursors.values() if cursor.name == name]
            return named[-1] if named else None

    def _expectation(self, payment_hash: PaymentHash) -> Expectation:
        document = self._tables.invoices[payment_hash]
        invoice = document.invoice
        wallet = self._tables.wallets.get(invoice.wallet_id)
        return Expectation(
            payment_hash=payment_hash,
            wallet_id=invoice.wallet_id,
            account_id=wallet.wallet.account_id if wallet else AccountId(""),
            external_id=invoice.external_id,
            pubkey=invoice.pubkey or None,
            currency=invoice.currency,
            wallet_currency=wallet.wallet.currency if wallet else None,
            cents=document.cents,
            paid=invoice.paid,
            barred=self._tables.barred.get(wallet.wallet.account_id) if wallet else None,
            preimage=invoice.preimage,
            completed=invoice.completed,
            release=invoice.release,
        )

    def _is_booked_elsewhere(self, payment_hash: PaymentHash) -> bool:
        tables = self._tables
        legs = (tables.legs[leg_id] for leg_id in tables.legs_by_hash.get(payment_hash, ()))
        return any(leg.details.get("type") == "invoice" and not self._is_ours(leg.journal_id) for leg in legs)

    def _taken_from_lightning(self, payment_hash: PaymentHash) -> int:
        tables = self._tables
        legs = [tables.legs[leg_id] for leg_id in tables.legs_by_hash.get(payment_hash, ())]
        return sum(
            one.leg.debit - one.leg.credit
            for one in legs
            if one.details.get("type") == "invoice"
            and not self._is_ours(one.journal_id)
            and (one.leg.account, one.leg.currency) == (LIGHTNING, Currency.BTC)
        )

    def _is_ours(self, journal_id: JournalId) -> bool:
        return journal_id[8:18] == self._writer_id.hex()

    def _refuse_what_moved(self, changes: Changes) -> None:
        tables = self._tables
        if tables.head.fence != changes.before.fence:
            raise LeaseLost(f"the head's fence is {tables.head.fence}, not {changes.before.fence}")
        if tables.head != changes.before:
            raise Conflict("the head has moved")
        keys = [record.key for record in changes.keys]
        if len(set(keys)) != len(keys) or any(key in tables.keys for key in keys):
            raise Conflict("an idempotency key is taken")
        if len(set(changes.paid)) != len(changes.paid) or not all(map(self._is_unpaid, changes.paid)):
            raise Conflict("an invoice is paid already, or gone")
        if any(entry.key in tables.suspense for entry in changes.suspense_new):
            raise Conflict("a suspense entry exists")

    def _is_unpaid(self, payment_hash: PaymentHash) -> bool:
        document = self._tables.invoices.get(payment_hash)
        return document is not None and not document.invoice.paid

    def _write(self, changes: Changes) -> None:
        tables = self._tables
        tables.keys.update((record.key, record) for record in changes.keys)
        for key, received_msat in changes.received.items():
            tables.keys[key] = replace(tables.keys[key], received_msat=received_msat)
        for payment_hash in changes.paid:
            document = tables.invoices[payment_hash]
            document.invoice = replace(document.invoice, paid=True, completed=True)
        for payment_hash in changes.closed:
            closed = tables.invoices.get(payment_hash)
            if closed is not None and not closed.invoice.paid:
                closed.invoice = replace(closed.invoice, completed=True)
        tables.outbox.extend(changes.outbox)
        for sealed in changes.entries:
            self._write_entry(sealed)
        for account, delta in changes.deltas.items():
            tables.balances[account] = tables.balances.get(account, 0) + delta
        for entry in (*changes.suspense_new, *changes.suspense_assigned):
            tables.suspense[entry.key] = replace(entry)
        for gap in changes.gaps:
            self._put_gap(gap)
        for cursor in changes.cursors:
            tables.cursors.pop(cursor.pubkey, None)
            tables.cursors[cursor.pubkey] = cursor
        self._write_chain(changes)
        tables.quotes.update((quote.payment_hash, quote) for quote in changes.quotes)
        tables.head = changes.after

    def _put_gap(self, gap: Gap) -> None:
        """A gap keeps its first sighting; found open again it stays as it is, and none is made to be closed."""
        known = self._tables.gaps.get(gap.key)
        if known is None:
            if gap.state is not GapState.CLOSED:
                self._tables.gaps[gap.key] = replace(gap)
        elif gap.state is not GapState.OPEN:
            self._tables.gaps[gap.key] = replace(gap, seen_at_ms=known.seen_at_ms)

    def _write_chain(self, changes: Changes) -> None:
        tables = self._tables
        if changes.chain_cursor is not None:
            tables.chain_cursor = changes.chain_cursor
        tables.deposits.update((deposit.outpoint, deposit) for deposit in changes.deposits)
        for outpoint, pending in changes.pending.items():
            if pending is None:
                tables.pending.pop(outpoint, None)
            else:
                tables.pending.setdefault(outpoint, pending)

    def _write_entry(self, sealed: SealedEntry) -> None:
        tables = self._tables
        journal_id, entry = JournalId(sealed.journal_id), sealed.entry
        if not sealed.foreign:
            leg_ids = tuple(tables.add_leg(journal_id, leg, _leg_details(entry, leg)) for leg in entry.legs)
            tables.journals[journal_id] = LedgerJournal(
                journal_id=journal_id, datetime_ms=entry.datetime_ms, memo=entry.memo, leg_ids=leg_ids
            )
        tables.links[journal_id] = Link(journal_id=journal_id, key=entry.key, hash=sealed.hash, foreign=sealed.foreign)
        for effect in sealed.effects:
            history = tables.account_entries.setdefault(effect.account, [])
            before = next((e.balance_after for e in reversed(history) if e.currency == effect.currency), 0)
            history.append(
                AccountEntry(
                    journal_id=journal_id,
                    key=entry.key,
                    position=sealed.position,
                    delta=effect.delta,
                    balance_after=before + effect.delta,
                    currency=effect.currency,
                    memo=entry.memo,
                    booked_at_ms=entry.datetime_ms,
                    details=self._first_leg_details(journal_id, effect.account),
                )
            )

    def _first_leg_details(self, journal_id: JournalId, account: str) -> dict[str, object]:
        legs = (self._tables.legs[leg_id] for leg_id in self._tables.journals[journal_id].leg_ids)
        return next((dict(leg.details) for leg in legs if leg.leg.account == account), {})

    def _hides_a_leg(self, snapshot: BalanceSnapshot) -> bool:
        return any(
            leg.leg_id <= snapshot.through_leg_id
            and leg.leg_id not in snapshot.counted
            and (leg.leg.account, leg.leg.currency) == (snapshot.account, snapshot.currency)
            for leg in self._tables.legs.values()
        )


def _leg_details(entry: JournalEntry, leg: Leg) -> dict[str, object]:
    details: dict[str, object] = {**entry.details, **leg.details, "currency": leg.currency}
    # A database has arrays only: they are read back as lists.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in details.items()}
