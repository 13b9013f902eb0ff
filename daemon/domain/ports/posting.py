"""What posting writes to, and may write by: the books and the lease."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from daemon.domain.books import Changes, Facts, Wanted
from daemon.domain.cursors import LndCursor


class Books(Protocol):
    """The ledger's store. One commit is one transaction, majority and journaled."""

    @property
    def writer_id(self) -> bytes:
        """Five random bytes, fixed at `tellerd init`, in every journal id that tellerd makes: with them
        its own journals are told from those of other programs without a look-up."""
        ...

    def read_facts(self, wanted: Wanted) -> Facts:
        """What is known of these keys, hashes and nodes; the head is read first."""
        ...

    def commit(self, changes: Changes) -> None:
        """Writes everything or nothing.

        Raises LeaseLost if another daemon holds the fence, Conflict if anything else moved (head, key,
        a document's paid mark), CommitUnknown if the outcome is not known, Unavailable if nothing was
        written.
        """
        ...

    def sweep_snapshots(self) -> int:
        """Deletes balance snapshots of medici that hide legs committed since they were taken (design.md
        section 3, Other writers); to be called at start and every few seconds. Returns how many."""
        ...

    def cursor_of_name(self, name: str) -> LndCursor | None:
        """The cursor last written for a node of this name, whatever its pubkey."""
        ...


class Leases(Protocol):
    """The one lease: who posts. Time is the database server's; a lease lives `ttl_s` from its renewal."""

    def acquire(self, *, holder: str, ttl_s: float) -> int | None:
        """Takes the lease if it is free or expired, ends the former holder's server session and raises
        the fence in the head. Returns the new fence, None while another holder's lease is valid."""
        ...

    def renew(self, *, fence: int, ttl_s: float) -> bool:
        """Prolongs the lease; False if it is no longer ours."""
        ...

    def release(self, *, fence: int) -> None:
        """Gives the lease back, so that a standby need not wait; a lost lease is no error."""
        ...

    def current(self) -> LeaseView | None:
        """Who holds the lease, for status."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """The lease document as status shows it."""

    holder: str
    fence: int
    expires_at: datetime
