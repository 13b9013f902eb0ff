"""The full check of the chain: every deposit, and every coin, against bitcoind.

A pass over all deposits, newest first, while the follower goes on: so what does not fit at first sight is looked at
once more when the follower has had time to see it, too, and only then kept as a gap. Nothing is mended here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from daemon.domain.books import Gap, GapState
from daemon.domain.chain import BlockRef, Deposit
from daemon.domain.identifiers import BlockHash
from daemon.domain.ports import ChainNode, Deposits, Gaps
from daemon.matching.coins import COIN_SPENT
from daemon.matching.deposit_check import GONE, KINDS, Sighting, misfit, misfit_gap, no_misfits_any_more
from daemon.reconciling.bitcoind_calls import BitcoindAway, BitcoindCalls
from daemon.reconciling.coins import RETRY_S, TRIES, CoinSide

PAGE: Final = 200
"""Deposits of one step: some 0.3 s of one of bitcoind's threads."""

PAUSE_S: Final = 0.1
"""Between pages, so that a long pass leaves bitcoind to others, too: a million deposits take about half an hour."""

PATIENCE_S: Final = 90.0
"""Before the second look at what does not fit: the follower looks at the whole mempool once a minute at least."""

MAX_MISFITS: Final = 10_000
"""Looked at again, and kept as gaps: where there are more, a person has enough to do with these. Also how many open
gaps there can be."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositsChecked:
    """How many deposits were compared, how many things wait for a person, and why the rest could not be compared."""

    deposits: int
    gaps: int
    unfinished: tuple[str, ...] = ()


class _Unfinished(Exception):
    """Nothing can be concluded now; the reason is for people."""


@dataclass(kw_only=True, slots=True)
class DepositCheck:
    """One bitcoind's. `pause_s` and `patience_s` as above; a test goes faster."""

    node: ChainNode
    deposits: Deposits
    gaps: Gaps
    coins: CoinSide
    now_ms: Callable[[], int]
    pause_s: float = PAUSE_S
    patience_s: float = PATIENCE_S
    calls: BitcoindCalls = field(default_factory=BitcoindCalls)
    _compared: int = 0
    _left_out: int = 0

    async def run(self) -> DepositsChecked:
        """One pass. Raises Unavailable if the store is away; an outage of bitcoind ends it as unfinished."""
        self._compared = self._left_out = 0
        try:
            found = await self._again(await self._pass())
        except (BitcoindAway, _Unfinished) as stop:
            log.warning("deposits.check_unfinished", deposits=self._compared, cause=str(stop))
            return DepositsChecked(
                deposits=self._compared, gaps=await self._lost_coins(), unfinished=(f"bitcoind: {stop}",)
            )
        await self.calls.run(self._write, found)
        left_out = (f"bitcoind: {self._left_out} more deposits do not fit",) if self._left_out else ()
        return DepositsChecked(deposits=self._compared, gaps=len(found) + await self._lost_coins(), unfinished=left_out)

    async def _pass(self) -> list[Deposit]:
        """All deposits once; returns those that do not fit at first sight."""
        suspects: list[Deposit] = []
        after: str | None = None
        while True:
            page, after = await self.calls.run(self.deposits.page, wallet_id=None, states=(), after=after, limit=PAGE)
            if not await self.coins.check(page):
                raise _Unfinished("the books were not at its tip, or it moved again and again")
            misfits = await self._misfits(page)
            suspects += [deposit for deposit in page if deposit.outpoint in misfits]
            self._left_out += len(suspects[MAX_MISFITS:])
            del suspects[MAX_MISFITS:]
            self._compared += len(page)
            if after is None:
                return suspects
            await trio.sleep(self.pause_s)

    async def _again(self, suspects: Sequence[Deposit]) -> dict[str, Gap]:
        """The second look, at deposits as they are in the books by now: the gaps that are left, by key."""
        if suspects:
            await trio.sleep(self.patience_s)
        found: dict[str, Gap] = {}
        for start in range(0, len(suspects), PAGE):
            for gap in await self._gaps_at_tip(suspects[start : start + PAGE]):
                found[gap.key] = gap
        return found

    async def _gaps_at_tip(self, suspects: Sequence[Deposit]) -> list[Gap]:
        """What does not fit while books and bitcoind are at one block."""
        for _ in range(TRIES):
            tip = await self.coins.common_tip()
            now = await self.calls.run(_read_again, self.deposits, suspects)
            misfits = await self._misfits(now)
            if GONE in misfits.values() and not (await self.calls.ask(self.node.mempool)).is_complete:
                raise _Unfinished("it still reads its mempool from its disk")
            if tip is not None and await self.coins.common_tip() == tip:
                return [
                    misfit_gap(one, misfits[one.outpoint], now_ms=self.now_ms())
                    for one in now
                    if one.outpoint in misfits
                ]
            await trio.sleep(RETRY_S)
        raise _Unfinished("the books were not at its tip, or it moved again and again")

    async def _misfits(self, deposits: Sequence[Deposit]) -> dict[str, str]:
        """By outpoint, the kind of gap of those that do not fit."""
        blocks = {one.block for one in deposits if one.block is not None}
        standing = await self.calls.ask(_standing, self.node, blocks)
        seen = await self.calls.ask(_sightings, self.node, deposits, standing)
        kinds = ((one.outpoint, misfit(one, sighting)) for one, sighting in zip(deposits, seen, strict=True))
        return {outpoint: kind for outpoint, kind in kinds if kind is not None}

    async def _lost_coins(self) -> int:
        """Coins that are spent, nobody knows by what."""
        totals = await self.calls.run(self.gaps.totals)
        return totals.get((COIN_SPENT, GapState.OPEN), (0, 0))[0]

    def _write(self, found: dict[str, Gap]) -> None:
        """Writes the gaps found, and closes those that are no more, if all were looked for."""
        known = {
            gap.key: gap for kind in KINDS for gap in self.gaps.by_kind(kind, states={GapState.OPEN}, limit=MAX_MISFITS)
        }
        over = [] if self._left_out else no_misfits_any_more(known, found)
        self.gaps.put([*found.values(), *over])
        for key in found.keys() - known.keys():
            log.error("deposit.misfit", key=key, detail=found[key].detail)


def _standing(node: ChainNode, blocks: Iterable[BlockRef]) -> frozenset[BlockHash]:
    """Those of these blocks that are in the best chain, at these heights; each is asked for once."""
    headers = ((block, node.header(block.hash)) for block in blocks)
    return frozenset(
        block.hash for block, header in headers if header is not None and header.in_best_chain and header.block == block
    )


def _sightings(node: ChainNode, deposits: Iterable[Deposit], standing: frozenset[BlockHash]) -> list[Sighting]:
    """What bitcoind says of each; of one in a block, the block says all that is asked."""
    return [
        Sighting(block_stands=deposit.block.hash in standing)
        if deposit.block is not None
        else Sighting(is_unspent=node.is_unspent(deposit.outpoint), is_in_mempool=node.is_in_mempool(deposit.txid))
        for deposit in deposits
    ]


def _read_again(deposits: Deposits, suspects: Iterable[Deposit]) -> list[Deposit]:
    found = (deposits.get(one.outpoint) for one in suspects)
    return [one for one in found if one is not None]
