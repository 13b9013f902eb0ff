"""The books for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daemon.domain.books import BalanceKey, Head
from daemon.domain.identifiers import JournalId


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """One line of the trial balance; `balance` is credit minus debit in minor units."""

    account: str
    currency: str
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalancePage:
    """Some accounts, the totals over all (zero, or the books are broken), and the feed's position."""

    rows: Sequence[AccountRow]
    totals: Mapping[str, int]
    sequence: int
    next_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """A journal as one account sees it. `legs_details` is the metadata of its leg in the ledger.

    `delta` and `balance_after` are credit minus debit in minor units; `position` is the place in the chain.
    """

    journal_id: JournalId
    key: str
    position: int
    delta: int
    balance_after: int
    currency: str
    memo: str
    booked_at_ms: int
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row of the outbox; `payload` as in `daemon.domain.outbox.OutboxEvent`, with `journal_id` added."""

    sequence: int
    id: str
    type: str
    occurred_at_ms: int
    wallet_ids: tuple[str, ...]
    payload: Mapping[str, Any]


class LedgerReader(Protocol):
    """The books, for reading: majority read concern, at most a second behind the last commit."""

    def head(self) -> Head:
        """Where feed and chain end."""
        ...

    def balance(self, key: BalanceKey) -> tuple[int, int]:
        """Balance (credit minus debit; 0 for an unknown account) and the feed sequence it is at least as new as."""
        ...

    def entries(self, *, account: str, before: int | None, limit: int) -> Sequence[AccountEntry]:
        """An account's journals, newest first by place in the chain, those before position `before`."""
        ...

    def trial_balance(self, *, after: str | None, limit: int) -> TrialBalancePage:
        """Balances of all accounts, ascending by name."""
        ...

    def events(self, *, after_sequence: int, limit: int) -> Sequence[StoredEvent]:
        """Outbox rows above a sequence, ascending, without gaps; at most `limit`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """The database server, as it answered just now."""

    replica_set: str
    version: str


class StoreProbe(Protocol):
    """Whether the database answers: for status and readiness."""

    @property
    def database(self) -> str:
        """The database's name in the configuration."""
        ...

    def probe(self) -> StoreInfo:
        """Asks the primary; Unavailable after a deadline of a few seconds if it does not answer."""
        ...
