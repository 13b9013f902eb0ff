"""What is counted."""

from __future__ import annotations

from typing import Protocol

from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey
from daemon.domain.outcomes import DepositsChanged


class HoldMetrics(Protocol):
    """What the keepers of hold invoices count."""

    def holds_attached(self, *, node: str, holds: int, again: bool) -> None:
        """So many hold invoices are watched after a start, or again after an outage."""
        ...

    def hold_settled(self, *, node: str, delay_s: float | None) -> None:
        """A held payment that could be taken when it came was taken, so long after it was seen; None if that was not
        measured."""
        ...


class Metrics(Protocol):
    """What posting and ingest count; implemented over prometheus_client in `daemon.serving.metrics`."""

    def settled(self, *, outcome: str, amount_sat: int, latency_s: float | None) -> None:
        """One settlement was decided and committed."""
        ...

    def committed(self, *, events: int, duration_s: float) -> None:
        """One commit."""
        ...

    def retried(self, *, cause: str) -> None:
        """A commit was tried again."""
        ...

    def node_connected(self, *, node: str, connected: bool) -> None:
        """A node's stream stands or fell."""
        ...

    def cursor_moved(self, cursor: LndCursor) -> None:
        """A node's cursor after a commit: index, open gaps, remainder."""
        ...

    def leading(self, leading: bool) -> None:
        """Whether this process holds the lease."""
        ...

    def deposits_changed(self, changed: DepositsChanged) -> None:
        """One chain event was decided and committed."""
        ...

    def htlc_lost(self, *, amount_msat: int) -> None:
        """An HTLC that a node calls settled was failed back; the loss is booked."""
        ...

    def hold_canceled(self, *, pubkey: NodePubkey, reason: str) -> None:
        """A payment that this node held has gone back, whoever asked for it; the reason is `InvoiceEnded.reason`."""
        ...

    def hints_lost(self, *, topic: str, missing: int) -> None:
        """bitcoind pushed messages that did not arrive; `topic` is one of ZMQ's, or "queue" for our own."""
        ...
