"""`Policies` in memory."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.memory.state import Tables
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange
from daemon.domain.errors import Conflict


class MemoryPolicies:
    """See `daemon.domain.ports.Policies`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def current(self) -> ConfirmationPolicy | None:
        with self._tables.lock:
            return self._tables.policies[-1].after if self._tables.policies else None

    def change(
        self, *, before: ConfirmationPolicy, tiers: tuple[ConfirmationTier, ...], changed_by: str, reason: str
    ) -> PolicyChange:
        tables = self._tables
        with tables.lock:
            if before.version != len(tables.policies):
                raise Conflict(f"version {before.version} of the policy is not the newest")
            change = PolicyChange(
                before=before,
                after=ConfirmationPolicy(version=before.version + 1, tiers=tiers),
                changed_by=changed_by,
                reason=reason,
                changed_at_ms=int(tables.now_s() * 1000),
            )
            tables.policies.append(change)
            return change

    def history(self, *, before_version: int | None, limit: int) -> Sequence[PolicyChange]:
        with self._tables.lock:
            newest_first = self._tables.policies[::-1]
        return [one for one in newest_first if before_version is None or one.after.version < before_version][:limit]
