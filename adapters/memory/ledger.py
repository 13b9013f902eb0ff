"""`LedgerReader` in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapters.memory.state import Tables
from daemon.domain.books import BalanceKey, Head
from daemon.domain.outbox import OutboxRow
from daemon.domain.ports import AccountEntry, AccountRow, StoredEvent, TrialBalancePage


class MemoryLedger:
    """See `daemon.domain.ports.LedgerReader`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def head(self) -> Head:
        with self._tables.lock:
            return self._tables.head

    def balance(self, key: BalanceKey) -> tuple[int, int]:
        with self._tables.lock:
            return self._tables.balances.get(key, 0), self._tables.head.sequence

    def entries(self, *, account: str, before: int | None, limit: int) -> Sequence[AccountEntry]:
        with self._tables.lock:
            history = self._tables.account_entries.get(account, [])
            newest_first = [e for e in reversed(history) if before is None or e.position < before]
            return newest_first[:limit]

    def trial_balance(self, *, after: str | None, limit: int) -> TrialBalancePage:
        with self._tables.lock:
            balances = sorted(self._tables.balances.items())
            sequence = self._tables.head.sequence
        totals: dict[str, int] = {}
        for (_, currency), balance in balances:
            totals[currency] = totals.get(currency, 0) + balance
        rest = [(key, balance) for key, balance in balances if after is None or _token(key) > after]
        page = rest[:limit]
        return TrialBalancePage(
            rows=[
                AccountRow(account=account, currency=currency, balance=balance) for (account, currency), balance in page
            ],
            totals=totals,
            sequence=sequence,
            next_token=_token(page[-1][0]) if len(rest) > limit else None,
        )

    def events(self, *, after_sequence: int, limit: int) -> Sequence[StoredEvent]:
        with self._tables.lock:
            rows = self._tables.outbox[after_sequence : after_sequence + limit]
        return [
            StoredEvent(
                sequence=row.sequence,
                id=row.event.id,
                type=row.event.type,
                occurred_at_ms=row.event.occurred_at_ms,
                wallet_ids=row.event.wallet_ids,
                payload=payload_of(row),
            )
            for row in rows
        ]


def payload_of(row: OutboxRow) -> dict[str, Any]:
    """What a reader of the feed sees: the event's payload and the journal it was booked with, if any."""
    told = dict(row.event.payload)
    return told if row.journal_id is None else {**told, "journal_id": row.journal_id}


def _token(key: BalanceKey) -> str:
    """Sorts as (account, currency) does."""
    return "\0".join(key)
