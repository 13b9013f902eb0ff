"""`Scripts` in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapters.memory.state import Tables
from daemon.domain.ports import WatchedScript


class MemoryScripts:
    """See `daemon.domain.ports.Scripts`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def owners(self, scripts: Collection[bytes]) -> Sequence[WatchedScript]:
        with self._tables.lock:
            return [self._watched(script) for script in set(scripts) if script in self._tables.scripts]

    def unscanned(self, *, limit: int) -> Sequence[WatchedScript]:
        with self._tables.lock:
            found = sorted(
                (script for script, one in self._tables.scripts.items() if one.unscanned),
                key=lambda script: (len(script), script),  # as MongoDB orders bytes
            )
            return [self._watched(script) for script in found[:limit]]

    def mark_scanned(self, scripts: Collection[bytes]) -> None:
        with self._tables.lock:
            for script in scripts:
                if script in self._tables.scripts:
                    self._tables.scripts[script].unscanned = False

    def _watched(self, script: bytes) -> WatchedScript:
        document = self._tables.scripts[script]
        return WatchedScript(script=script, address=document.address, wallet_id=document.wallet_id)
