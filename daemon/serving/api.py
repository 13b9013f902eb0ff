"""Everything that the use cases work with; built once by the composition root."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from daemon.domain.ports import (
    Invoices,
    Leases,
    LedgerReader,
    LightningNode,
    StoredEvent,
    StoreProbe,
    Wallets,
)
from daemon.domain.status import NodeStatus
from daemon.posting.board import Board
from daemon.serving.gate import Gate

PREIMAGE_BYTES = 32


class EventFeed(Protocol):
    """The outbox for one subscriber; `daemon.relay.feed.Feed`."""

    def follow(
        self,
        *,
        after_sequence: int,
        types: Collection[str],
        wallet_ids: Collection[str],
        is_wanted: Callable[[], bool],
    ) -> Iterator[StoredEvent]:
        """Events above a sequence, then new ones as they come, until `is_wanted` says no."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


def _new_preimage() -> bytes:
    return secrets.token_bytes(PREIMAGE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The use cases' dependencies. `nodes` and `node_statuses` are in the configuration's order, one status
    per node, equal names."""

    network: str
    version: str
    started_at: datetime
    gate: Gate
    board: Board
    wallets: Wallets
    invoices: Invoices
    ledger: LedgerReader
    leases: Leases
    store: StoreProbe
    feed: EventFeed
    nodes: Sequence[LightningNode]
    node_statuses: Sequence[NodeStatus]
    now: Callable[[], datetime] = field(default=_now)
    new_preimage: Callable[[], bytes] = field(default=_new_preimage)

    def status_of(self, node_name: str) -> NodeStatus | None:
        """The status of the node of this name."""
        return next((status for status in self.node_statuses if status.name == node_name), None)
