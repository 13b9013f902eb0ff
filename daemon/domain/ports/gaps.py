"""What does not add up, kept with a state: `teller_gaps`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from daemon.domain.books import Gap, GapState


class Gaps(Protocol):
    """Gaps that reconciliation finds are written here at once: observations, repeatable, and no money moves with them.

    Those that a decision finds are written by posting, in its commit. Majority read concern; raises Unavailable.
    """

    def put(self, gaps: Collection[Gap]) -> None:
        """Writes each by its key: new, or with its new state, amount and detail; the first sighting's time stays."""
        ...

    def get(self, keys: Collection[str]) -> Mapping[str, Gap]:
        """Those of these keys that exist."""
        ...

    def by_kind(self, kind: str, *, states: Collection[GapState], limit: int) -> Sequence[Gap]:
        """Gaps of one kind in these states, newest first by sighting."""
        ...

    def page(self, *, states: Collection[GapState], after: str | None, limit: int) -> tuple[Sequence[Gap], str | None]:
        """Gaps in these states (none given: all), newest first, and the token of the next page, None after the last.
        BadInput for a token not ours."""
        ...

    def totals(self) -> Mapping[tuple[str, GapState], tuple[int, int]]:
        """By kind and state, those that are not closed: how many, and the sum of their amounts in msat."""
        ...
