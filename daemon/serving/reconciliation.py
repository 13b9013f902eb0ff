"""Books against nodes, for callers: a comparison on demand, and what does not add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

import structlog

from daemon.domain.books import Gap, GapState
from daemon.domain.errors import BadInput, NotFound, TellerdError
from daemon.domain.ports import Gaps
from daemon.domain.reconciliation import Reconciled, ReconciliationAsked
from daemon.serving import fields, paging

LOOK_S: Final = 30.0
"""A caller without a deadline waits this long for a look: a look takes a second, and is tried a few times."""

FULL_CHECK_S: Final = 600.0
"""The longest wait of all: a full check of a million invoices may take longer, and is then looked up in GetStatus."""

ANSWER_S: Final = 0.5
"""Before the caller's own deadline, so that he is told why."""

log = structlog.get_logger()

_TOKEN_KIND = "gaps"  # noqa: S105 (names a list, is no secret)


class NotInTime(TellerdError):
    """There is no result within the caller's deadline."""


class Reconciler(Protocol):
    """Compares books and nodes when asked; `daemon.reconciling.requests.ReconciliationRequests`."""

    def ask(self, asked: ReconciliationAsked, /, *, timeout_s: float) -> Reconciled | None:
        """A look that began after the question, with a full check where it is asked for; None when the time is up.
        Raises Unavailable."""
        ...


def reconcile(reconciler: Reconciler, *, full: bool, remaining_s: float | None) -> Reconciled:
    """Compares now; `remaining_s` is what the caller's deadline leaves, None without one. Raises NotInTime,
    Unavailable."""
    timeout_s = FULL_CHECK_S if full else LOOK_S
    if remaining_s is not None:
        timeout_s = min(max(remaining_s - ANSWER_S, 0.0), FULL_CHECK_S)
    answer = reconciler.ask(ReconciliationAsked(full=full), timeout_s=timeout_s)
    if answer is None:
        what = "the full check goes on, and GetStatus will show it" if full else "call again with a later deadline"
        raise NotInTime(f"no result after {timeout_s:.1f} s; {what}")
    return answer


def list_gaps(
    gaps: Gaps, *, states: Sequence[GapState | None], page_size: int, page_token: str
) -> tuple[Sequence[Gap], str]:
    """A page of gaps in these states (none given: all), newest first, and the next page's token; None among the
    states stands for one that does not exist. Raises BadInput, Unavailable."""
    known = frozenset(state for state in states if state is not None)
    if None in states:
        raise BadInput(field="states", value=list(states), remedy=f"give any of {', '.join(GapState)}, or none for all")
    limit = paging.page_size(page_size)
    page, next_after = gaps.page(states=known, after=paging.read_token(_TOKEN_KIND, page_token), limit=limit)
    return page, paging.make_token(_TOKEN_KIND, next_after)


def close_gap(gaps: Gaps, *, key: str, closed_by: str, reason: str) -> Gap:
    """Closes a gap for a person; the words are added to its detail. Raises BadInput, NotFound, Unavailable."""
    who = fields.words("closed_by", closed_by, fields.MAX_NAME_CHARS)
    why = fields.words("reason", reason, fields.MAX_REASON_CHARS)
    if not key:
        raise BadInput(field="gap_key", value=key, remedy="give the key of a gap, as ListGaps has it")
    gap = gaps.get([key]).get(key)
    if gap is None:
        raise NotFound(f"gap_key: there is no gap {key[:100]!r}")
    if gap.state is not GapState.CLOSED:
        gap = replace(gap, state=GapState.CLOSED, detail=f"{gap.detail}; closed by {who}: {why}")
        gaps.put([gap])
        log.info("gap.closed", key=key, kind=gap.kind, amount_msat=gap.amount_msat, closed_by=who)
    return gap
