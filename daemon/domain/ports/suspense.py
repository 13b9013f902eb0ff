"""Money that waits in suspense, or did, for those who look after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemon.domain.books import SuspenseEntry, SuspenseState


class Suspense(Protocol):
    """`teller_suspense`. Posting writes it in its commits; here it is read."""

    def get(self, key: str) -> SuspenseEntry | None:
        """The entry, None if there is none."""
        ...

    def page(
        self, *, state: SuspenseState | None, after: str | None, limit: int
    ) -> tuple[Sequence[SuspenseEntry], str | None]:
        """Entries in this state, None: in any, newest receipt first, and the token of the next page, None after the
        last. Raises BadInput for a token that is none."""
        ...
