"""`ForeignAddresses` in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

from adapters.memory.state import ScriptDocument, Tables
from daemon.domain.identifiers import WalletId

log = structlog.get_logger()


class MemoryForeignAddresses:
    """See `daemon.domain.ports.ForeignAddresses`."""

    def __init__(self, tables: Tables, script_of: Callable[[str], bytes]) -> None:
        self._tables = tables
        self._script_of = script_of
        self._hints_taken: int | None = None
        self._told: set[tuple[str, str]] = set()

    def sweep(self, *, after: str | None, limit: int) -> tuple[int, str | None]:
        with self._tables.lock:
            first = 0 if after is None else int(after)
            page = list(self._tables.wallets)[first : first + limit]
            return self._learn(page), str(first + limit) if len(page) == limit else None

    def take_hinted(self, timeout_s: float) -> int:
        tables = self._tables
        deadline_s = time.monotonic() + timeout_s
        with tables.lock:
            if self._hints_taken is None:  # as a change stream begins: with what comes from now on
                self._hints_taken = len(tables.changed_wallets)
            while len(tables.changed_wallets) == self._hints_taken:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return 0
                tables.hinted.wait(left_s)
            changed = tables.changed_wallets[self._hints_taken :]
            self._hints_taken = len(tables.changed_wallets)
            return self._learn(changed)

    def _learn(self, wallet_ids: Iterable[WalletId]) -> int:
        tables = self._tables
        before = len(tables.scripts)
        for wallet_id in wallet_ids:
            for entry in tables.onchain.get(wallet_id, ()):
                if entry.pubkey:
                    continue
                try:
                    script = self._script_of(entry.address)
                except ValueError as problem:
                    self._tell_once("address of another program cannot be used", wallet_id, str(problem))
                    continue
                document = ScriptDocument(address=entry.address, wallet_id=wallet_id, unscanned=True)
                if tables.scripts.setdefault(script, document).wallet_id != wallet_id:
                    self._tell_once("address of another program is another wallet's already", wallet_id, entry.address)
        return len(tables.scripts) - before

    def _tell_once(self, what: str, wallet_id: WalletId, detail: str) -> None:
        if (wallet_id, detail) not in self._told:
            self._told.add((wallet_id, detail))
            log.warning(what, wallet_id=wallet_id, detail=detail)
