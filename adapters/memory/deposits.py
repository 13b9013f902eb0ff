"""`Deposits` in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from adapters.memory.state import Tables
from daemon.domain.chain import ChainCursor, Deposit, DepositState
from daemon.domain.errors import BadInput
from daemon.domain.identifiers import Outpoint, WalletId
from daemon.domain.money import Currency

_MAX_MS_DIGITS = 14
"""Unix milliseconds up to the year 5138."""


class MemoryDeposits:
    """See `daemon.domain.ports.Deposits`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def cursor(self) -> ChainCursor | None:
        with self._tables.lock:
            return self._tables.chain_cursor

    def get(self, outpoint: Outpoint) -> Deposit | None:
        with self._tables.lock:
            return self._tables.deposits.get(outpoint)

    def page(
        self, *, wallet_id: WalletId | None, states: Collection[DepositState], after: str | None, limit: int
    ) -> tuple[Sequence[Deposit], str | None]:
        before = None if after is None else _place_from(after)
        with self._tables.lock:
            found = [
                deposit
                for deposit in self._tables.deposits.values()
                if wallet_id in (None, deposit.wallet_id)
                and (not states or deposit.state in states)
                and (before is None or _place(deposit) < before)
            ]
        found.sort(key=_place, reverse=True)
        page = found[:limit]
        token = f"{page[-1].detected_at_ms}:{page[-1].outpoint}" if len(found) > limit else None
        return page, token

    def detected(self, *, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        return self._ascending(lambda deposit: deposit.state is DepositState.DETECTED, after, limit)

    def due(self, *, height: int, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        def is_due(deposit: Deposit) -> bool:
            settles_at = deposit.settles_at_height
            is_deep = settles_at is not None and settles_at <= height
            return deposit.state is DepositState.CONFIRMED and is_deep and not deposit.is_held

        return self._ascending(is_due, after, limit)

    def _ascending(self, is_wanted: Callable[[Deposit], bool], after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        with self._tables.lock:
            found = [
                deposit
                for outpoint, deposit in self._tables.deposits.items()
                if (after is None or outpoint > after) and is_wanted(deposit)
            ]
        found.sort(key=lambda deposit: deposit.outpoint)
        return found[:limit]

    def in_dollars(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        with self._tables.lock:
            found = (self._tables.wallets.get(wallet_id) for wallet_id in wallet_ids)
            return frozenset(
                one.wallet.wallet_id for one in found if one is not None and one.wallet.currency is Currency.USD
            )

    def waiting(self) -> tuple[int, int]:
        with self._tables.lock:
            amounts_sat = [
                deposit.amount_sat
                for deposit in self._tables.deposits.values()
                if deposit.state in (DepositState.DETECTED, DepositState.CONFIRMED)
            ]
        return len(amounts_sat), sum(amounts_sat)


def _place(deposit: Deposit) -> tuple[int, str]:
    return deposit.detected_at_ms, deposit.outpoint


def _place_from(token: str) -> tuple[int, str]:
    at_ms, _, outpoint = token.partition(":")
    if not at_ms.isdecimal() or len(at_ms) > _MAX_MS_DIGITS:
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    return int(at_ms), outpoint
