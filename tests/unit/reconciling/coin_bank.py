"""A daemon's chain side in memory: the follower and posting as they are, and reconciliation beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from adapters.memory import MemoryStore
from adapters.memory.raw_blocks import MemoryTx
from daemon.domain.accounts import ON_CHAIN
from daemon.domain.books import Gap
from daemon.domain.chain import DepositState
from daemon.domain.entries import Leg
from daemon.domain.identifiers import Outpoint
from daemon.domain.reconciliation import ItemKind, Side
from daemon.ingest.chain import ChainFollower
from daemon.reconciling.coins import CoinSide
from daemon.reconciling.deposits import DepositCheck
from tests.unit.ingest.chain_teller import ChainTeller, now_ms, until

NOBODY = b"\x51"
REORG_DEPTH = 6


class CoinBank:
    """One wallet with an address, whose coins somebody else can spend."""

    def __init__(self, teller: ChainTeller | None = None) -> None:
        self.teller = teller or ChainTeller()
        self.chain = self.teller.chain
        self._follower: ChainFollower
        self.store: MemoryStore = self.teller.store
        self.side = CoinSide(
            node=self.chain,
            deposits=self.store.deposits,
            coins=self.store.coins,
            gaps=self.store.gaps,
            reorg_depth=REORG_DEPTH,
            now_ms=now_ms,
        )
        self.check = DepositCheck(
            node=self.chain, deposits=self.store.deposits, gaps=self.store.gaps, coins=self.side, now_ms=now_ms
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The follower at the tip."""
        async with self.teller.follow() as follower:
            self._follower = follower
            await self.teller.live()
            yield

    async def coin(self) -> Outpoint:
        """A settled deposit of AMOUNT_SAT."""
        tx = self.teller.payment()
        self.chain.mine(tx)
        self.chain.mine_empty()
        await until(lambda: self.teller.state(tx) is DepositState.SETTLED)
        return tx.outpoint(0)

    def spend(self, *coins: Outpoint, to: bytes = NOBODY, amount_sat: int = 10_000) -> MemoryTx:
        """A tx that spends them, mined."""
        tx = self.chain.payment((to, amount_sat), spends=coins)
        self.chain.mine(tx)
        return tx

    async def write_journal(self, taken_sat: int, **details: Any) -> None:
        """Another program takes sats from the on-chain account (gives, if below zero); returns when it is adopted."""
        legs = (
            Leg(account=ON_CHAIN, currency="BTC", credit=max(taken_sat, 0), debit=max(-taken_sat, 0)),
            Leg(account="Liabilities:blinks", currency="BTC", debit=max(taken_sat, 0), credit=max(-taken_sat, 0)),
        )
        self.store.another.write_journal(legs, details=details)
        before = self._adopted()
        await self._follower.inbox.send(self.store.journals.foreign_journals(after=None, limit=10))
        await until(lambda: self._adopted() == before + 1)

    def _adopted(self) -> int:
        return sum(one.link.foreign for one in self.store.chain())

    async def look(self) -> Side:
        """A steady look."""
        await self.teller.live()
        looked = await self.side.look()
        assert looked.steady, looked
        assert looked.side is not None
        return looked.side

    def gaps(self, kind: str = "coin_spent") -> Mapping[str, Gap]:
        """Those of a kind, by what they name."""
        return {gap.reference: gap for gap in self.store.known_gaps().values() if gap.kind == kind}


def explained(side: Side) -> Mapping[ItemKind, int]:
    """Sats by kind."""
    return {kind: amount_msat // 1000 for kind, amount_msat in side.explained_msat().items()}


def sent(side: Side) -> Mapping[str, int]:
    """Sats that were sent, by txid."""
    return {item.reference: item.amount_msat // 1000 for item in side.items if item.kind is ItemKind.SENT}
