"""What `tellerd verify` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.domain.books import AccountEffect, Head
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import Leg
from daemon.domain.identifiers import JournalId
from daemon.domain.ports.ledger import AccountRow


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedJournal:
    """A journal and its legs as the ledger holds them now; legs in the order of their `_id`."""

    datetime_ms: int
    legs: tuple[Leg, ...]
    leg_ids: tuple[str, ...]
    listed_leg_ids: tuple[str, ...]
    """The legs that the journal document itself names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedLink:
    """A link of the chain, with what it stands for; `journal` is None if the journal is gone.

    `key_journal_id` is the journal that the link's idempotency key names, None if the key is gone.
    """

    journal_id: JournalId
    position: int
    key: str
    previous: str
    hash: str
    foreign: bool
    effects: tuple[AccountEffect, ...]
    journal: AuditedJournal | None
    key_journal_id: str | None


class Audit(Protocol):
    """Everything that `tellerd verify` reads, from one moment."""

    def head(self) -> Head:
        """Where feed and chain end."""
        ...

    def links(self) -> Iterator[AuditedLink]:
        """All links by position."""
        ...

    def balances(self) -> Iterator[AccountRow]:
        """All running balances."""
        ...

    def outbox_sequences(self) -> Iterator[int]:
        """All numbers of the feed, ascending."""
        ...

    def cursors(self) -> Sequence[LndCursor]:
        """All nodes' cursors."""
        ...

    def deposited_sat(self) -> int:
        """Sats of all deposits that count as credited by tellerd."""
        ...

    def unlinked_legs(self) -> Iterator[tuple[str, str]]:
        """Legs in the book whose journal has no link: (leg id, journal id)."""
        ...
