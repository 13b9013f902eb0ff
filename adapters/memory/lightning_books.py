"""`LightningBooks` in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from adapters.memory.state import Tables
from daemon.domain.accounts import LIGHTNING
from daemon.domain.money import Currency
from daemon.domain.ports import LightningTotals


class MemoryLightningBooks:
    """See `daemon.domain.ports.LightningBooks`."""

    def __init__(self, tables: Tables, writer_id: bytes) -> None:
        self._tables = tables
        self._writer_id = writer_id

    def totals(self) -> LightningTotals:
        with self._tables.lock:
            return LightningTotals(
                sequence=self._tables.head.sequence,
                balance_sat=self._tables.balances.get((LIGHTNING, Currency.BTC), 0),
                cursors=tuple(self._tables.cursors.values()),
            )

    def taken_by_others(self, hashes: Collection[str]) -> Mapping[str, int]:
        taken: dict[str, int] = {}
        with self._tables.lock:
            for one in set(hashes):
                for leg_id in self._tables.legs_by_hash.get(one, ()):
                    leg = self._tables.legs[leg_id]
                    is_ours = leg.journal_id[8:18] == self._writer_id.hex()
                    if (leg.leg.account, leg.leg.currency) == (LIGHTNING, Currency.BTC) and not is_ours:
                        taken[one] = taken.get(one, 0) + leg.leg.credit - leg.leg.debit
        return taken

    def taken_as(self, types: Collection[str], *, since_ms: int) -> Mapping[str, int]:
        taken: dict[str, int] = {}
        with self._tables.lock:
            for journal in self._tables.journals.values():
                if journal.journal_id[8:18] == self._writer_id.hex() or journal.datetime_ms < since_ms:
                    continue
                for leg in (self._tables.legs[leg_id] for leg_id in journal.leg_ids):
                    kind = leg.details.get("type")
                    if (leg.leg.account, leg.leg.currency) == (LIGHTNING, Currency.BTC) and kind in types:
                        taken[str(kind)] = taken.get(str(kind), 0) + leg.leg.credit - leg.leg.debit
        return taken

    def booked(self, keys: Collection[str]) -> Collection[str]:
        with self._tables.lock:
            return {key for key in keys if key in self._tables.keys}
