"""`Metrics` that nobody looks at."""

from __future__ import annotations

from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey
from daemon.domain.outcomes import DepositsChanged


class SilentMetrics:
    """Counts nothing."""

    def settled(self, *, outcome: str, amount_sat: int, latency_s: float | None) -> None:
        """Nothing."""

    def committed(self, *, events: int, duration_s: float) -> None:
        """Nothing."""

    def retried(self, *, cause: str) -> None:
        """Nothing."""

    def node_connected(self, *, node: str, connected: bool) -> None:
        """Nothing."""

    def cursor_moved(self, cursor: LndCursor) -> None:
        """Nothing."""

    def leading(self, leading: bool) -> None:
        """Nothing."""

    def deposits_changed(self, changed: DepositsChanged) -> None:
        """Nothing."""

    def htlc_lost(self, *, amount_msat: int) -> None:
        """Nothing."""

    def hold_canceled(self, *, pubkey: NodePubkey, reason: str) -> None:
        """Nothing."""

    def hints_lost(self, *, topic: str, missing: int) -> None:
        """Nothing."""
