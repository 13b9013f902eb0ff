"""A dealer's answer that has waited too long for its commit is none: the database may be away for hours, and what is
tried again then must not change sats at the price of before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daemon.domain.chain_events import DepositDue
from daemon.domain.node_events import NodeEvent, SuspenseAssigned
from daemon.domain.quotes import DEFAULT_QUOTE_S, Deal, Unpriced, UnpricedReason

_DEAL_NS: Final = DEFAULT_QUOTE_S * 1_000_000_000
"""As long as a dealer stands by any price."""


def without_late_deals(batch: Sequence[NodeEvent], *, now_ns: int) -> Sequence[NodeEvent]:
    """The events, in order; those whose deal is too old by the monotonic clock have none: it has to be asked for
    again."""
    return [
        replace(event, deal=Unpriced(UnpricedReason.STALE))
        if isinstance(event, DepositDue | SuspenseAssigned) and _is_late(event, now_ns)
        else event
        for event in batch
    ]


def _is_late(event: DepositDue | SuspenseAssigned, now_ns: int) -> bool:
    return isinstance(event.deal, Deal) and event.asked_at_ns > 0 and now_ns - event.asked_at_ns > _DEAL_NS
