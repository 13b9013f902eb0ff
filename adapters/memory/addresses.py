"""`Addresses` in memory."""

from __future__ import annotations

from adapters.memory.state import OnchainAddress, ScriptDocument, Tables
from daemon.domain.errors import InvariantViolation, NotFound
from daemon.domain.identifiers import WalletId
from daemon.domain.ports import DerivedAddress


class MemoryAddresses:
    """See `daemon.domain.ports.Addresses`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def current(self, wallet_id: WalletId, *, key_id: str) -> str | None:
        tables = self._tables
        with tables.lock:
            given = [one for one in tables.scripts.values() if (one.wallet_id, one.key_id) == (wallet_id, key_id)]
            if not given:
                return None
            address = max(given, key=lambda one: one.index).address
            used = any(deposit.address == address for deposit in tables.deposits.values())
            return None if used else address

    def take_index(self, *, key_id: str) -> int:
        with self._tables.lock:
            index = self._tables.next_index.get(key_id, 0)
            self._tables.next_index[key_id] = index + 1
            return index

    def give(self, wallet_id: WalletId, derived: DerivedAddress, *, key_id: str) -> None:
        tables = self._tables
        with tables.lock:
            if wallet_id not in tables.wallets:
                raise NotFound(f"there is no wallet {wallet_id}")
            known = tables.scripts.get(derived.script)
            if known is not None and known.wallet_id != wallet_id:
                raise InvariantViolation(f"address {derived.address} is wallet {known.wallet_id}'s")
            tables.scripts[derived.script] = ScriptDocument(
                address=derived.address,
                wallet_id=wallet_id,
                key_id=key_id,
                index=derived.index,
                unscanned=known is not None and known.unscanned,
            )
            if derived.address not in [entry.address for entry in tables.onchain.get(wallet_id, ())]:
                tables.add_address(wallet_id, OnchainAddress(address=derived.address))
