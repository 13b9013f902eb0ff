"""The chain side: our coins, asked of bitcoind one by one, and the on-chain account that stands for them.

A look asks for the newest coins and for a window of the others that moves on with every look, so that a million coins
cost a look no more than a thousand; the full check asks for all. What is found spent is kept in `teller_coins`, its
spender is looked for in the blocks, and compared with the journals of other programs (`daemon.matching.coins`, where
the sums are explained, too). A spend that a reorg undoes is forgotten, and its gap closed.

gettxout speaks of bitcoind's tip, the deposits of the books' block: only while the two are one block is anything
concluded, and what was seen while they moved is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from daemon.domain.books import Gap, GapState
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.coins import OthersBooked, SpentCoin
from daemon.domain.identifiers import BlockHash, Outpoint, Txid
from daemon.domain.ports import ChainNode, Coins, Deposits, Gaps
from daemon.domain.reconciliation import Side
from daemon.matching.coins import COIN_SPENT, coin_side, found_again, lost_gap, lost_key, spend_gap, spend_key
from daemon.reconciling.bitcoind_calls import BitcoindAway, BitcoindCalls
from daemon.reconciling.spenders import search

NEWEST: Final = 100
"""Coins that every look asks for: whoever steals takes what has just come, too, and it is seen within a look."""

WINDOW: Final = 400
"""Coins more of a look: with the newest half a second of one of bitcoind's threads, once a minute."""

AGAIN: Final = 500
"""Coins known as spent that a look asks for again, of those that a reorg may undo and of those that are lost, each;
where there are more, the next look goes on with them."""

CHUNK: Final = 50
"""Coins asked for in one thread's turn, some 25 ms: so soon is a cancelled look over."""

SHOWN: Final = 100
"""Explained gaps that are an item each and are compared with the journals at every look; older ones are one sum, and
compared by the full check."""

JOURNALS: Final = 20_000
"""Journals on the account added up in one query, some 0.1 s; only the first look of a daemon has so many."""

TRIES: Final = 5
"""For one page of the full check, when the chain moves: a block comes every ten minutes, a page takes 0.1 s."""

RETRY_S: Final = 3.0
"""Between them: the follower needs a moment for a new block."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look has found. `side` is None before the chain is followed. Not `steady`: the chain moved, or bitcoind
    was away, as `problem` says; then the side rests on what was known before."""

    side: Side | None
    steady: bool
    problem: str = ""


@dataclass(kw_only=True, slots=True)
class CoinSide:
    """The on-chain account against one bitcoind. `reorg_depth`: a spend that many blocks deep is final."""

    node: ChainNode
    deposits: Deposits
    coins: Coins
    gaps: Gaps
    reorg_depth: int
    now_ms: Callable[[], int]
    calls: BitcoindCalls = field(default_factory=BitcoindCalls)
    _others: OthersBooked = field(default_factory=OthersBooked)
    _window: str | None = None
    _recent: Outpoint | None = None
    _lost: Outpoint | None = None
    _busy: trio.Lock = field(default_factory=trio.Lock)
    """Looks and pages of the full check take turns: both write what they saw."""

    async def look(self) -> Looked:
        """One look. Raises Unavailable if the store is away; an outage of bitcoind is shown in what is returned."""
        async with self._busy:
            problem, tip = "", None
            try:
                tip = await self.common_tip()
                if tip is not None and not await self._observe(tip, await self._next(), await self._next_again(tip)):
                    tip = None
            except BitcoindAway as away:
                problem, tip = str(away), None
            return await self._looked(tip, problem)

    async def check(self, deposits: Sequence[Deposit]) -> bool:
        """Asks for the coins of these deposits, spent ones again, and compares their spenders with the journals.

        False if the chain did not stand still for it in several tries. Raises BitcoindAway and Unavailable.
        """
        settled = [one for one in deposits if one.state is DepositState.SETTLED]
        for left in reversed(range(TRIES)):
            async with self._busy:
                tip = await self.common_tip()
                known = await self.calls.run(self.coins.spent, [one.outpoint for one in settled])
                if tip is not None and await self._observe(tip, settled, list(known.values()), anew=True):
                    return True
            if left:
                await trio.sleep(RETRY_S)
        return False

    async def common_tip(self) -> BlockRef | None:
        """The block that bitcoind and the books are both at, None while they are not; raises BitcoindAway."""
        cursor = await self.calls.run(self.deposits.cursor)
        tip = await self.calls.ask(self.node.tip)
        return tip if cursor is not None and cursor.block == tip else None

    async def _next(self) -> list[Deposit]:
        """The newest settled deposits, and the next ones of the window."""
        settled = {DepositState.SETTLED}
        page, rest = await self.calls.run(self.deposits.page, wallet_id=None, states=settled, after=None, limit=NEWEST)
        after = self._window or rest
        if after is None:
            return list(page)
        window, self._window = await self.calls.run(
            self.deposits.page, wallet_id=None, states=settled, after=after, limit=WINDOW
        )
        return list({one.outpoint: one for one in (*page, *window)}.values())

    async def _next_again(self, tip: BlockRef) -> list[SpentCoin]:
        """Coins known as spent that may be unspent again, and lost ones."""
        above = tip.height - self.reorg_depth
        recent = await self.calls.run(self.coins.spent_from, above, after=self._recent, limit=AGAIN)
        lost = await self.calls.run(self.coins.lost, after=self._lost, limit=AGAIN)
        self._recent = recent[-1].outpoint if len(recent) == AGAIN else None
        self._lost = lost[-1].outpoint if len(lost) == AGAIN else None
        return [*recent, *lost]

    async def _observe(
        self, tip: BlockRef, deposits: Iterable[Deposit], again: Sequence[SpentCoin], *, anew: bool = False
    ) -> bool:
        """Asks for the coins of these deposits and for those known as spent, and writes what became of them; `anew`:
        what was searched for in vain is searched for once more.

        False, and nothing is written, if `tip` is not the tip any more.
        """
        asked = {one.outpoint: one for one in deposits}
        known = await self.calls.run(self.coins.spent, list(asked))
        gone = await self._gone([outpoint for outpoint in asked if outpoint not in known])
        new = [_new(asked[outpoint], tip, self.now_ms()) for outpoint in gone]
        still = set(await self._gone(await self._settled([coin.outpoint for coin in again])))
        kept = [coin for coin in again if coin.outpoint in still]
        back = [coin for coin in again if coin.outpoint not in still]
        spent = await search(self.node, self.calls, [*new, *await self._still_in_chain(kept, tip, anew=anew)])
        if await self.common_tip() != tip:
            return False
        changed = [coin for coin in spent if coin not in kept]
        await self.calls.run(self._write, again, changed, back)
        _tell(changed, back)
        return True

    async def _still_in_chain(self, spent: Iterable[SpentCoin], tip: BlockRef, *, anew: bool) -> list[SpentCoin]:
        """The coins; without their spender where its block is in the chain no more: another tx may have it there."""
        hashes: dict[int, BlockHash | None] = {}
        coins = []
        for coin in spent:
            if coin.spender is not None and coin.height not in hashes:
                hashes[coin.height] = await self.calls.ask(self.node.block_hash_at, coin.height)
            is_elsewhere = coin.spender is not None and hashes[coin.height] != coin.block_hash
            is_in_vain = coin.spender is None and not coin.is_searched_for
            coins.append(coin.sought_from(tip.height) if is_elsewhere or (anew and is_in_vain) else coin)
        return coins

    async def _gone(self, outpoints: Sequence[Outpoint]) -> list[Outpoint]:
        """Those that are not among the unspent outputs."""
        gone: list[Outpoint] = []
        for start in range(0, len(outpoints), CHUNK):
            gone += await self.calls.ask(_not_unspent, self.node, outpoints[start : start + CHUNK])
        return gone

    async def _settled(self, outpoints: Sequence[Outpoint]) -> list[Outpoint]:
        """Those whose deposits are still settled: a reorg can undo more than the spend."""
        settled: list[Outpoint] = []
        for start in range(0, len(outpoints), CHUNK):
            settled += await self.calls.run(_still_settled, self.deposits, outpoints[start : start + CHUNK])
        return settled

    def _write(self, again: Sequence[SpentCoin], changed: Sequence[SpentCoin], back: Sequence[SpentCoin]) -> None:
        """Gaps first: if nothing else is written, the coins are found as they were, and all of it is done again."""
        shown = self.gaps.by_kind(COIN_SPENT, states={GapState.EXPLAINED}, limit=SHOWN)
        txids = {coin.spender for coin in (*again, *changed) if coin.spender} | {Txid(gap.reference) for gap in shown}
        coins = {coin.outpoint: coin for coin in self.coins.spent_by(txids)}
        coins |= {coin.outpoint: coin for coin in changed}
        for coin in back:
            coins.pop(coin.outpoint, None)
        known = self.gaps.get({*map(spend_key, txids), *map(lost_key, (*changed, *back))})
        self.gaps.put([*self._spend_gaps(txids, coins.values(), known), *_lost_gaps(changed, back, known)])
        self.coins.put(changed)
        self.coins.forget([coin.outpoint for coin in back])

    def _spend_gaps(self, txids: Iterable[Txid], coins: Iterable[SpentCoin], known: Mapping[str, Gap]) -> Iterable[Gap]:
        by_spender: dict[Txid, list[SpentCoin]] = {txid: [] for txid in txids}
        for coin in coins:
            if coin.spender is not None:
                by_spender.setdefault(coin.spender, []).append(coin)
        taken = self.coins.taken_by_others(by_spender)
        for txid, of_tx in by_spender.items():
            gap = spend_gap(
                txid,
                of_tx,
                taken_sat=taken.get(txid, 0),
                known=known.get(spend_key(txid)),
                now_ms=self.now_ms(),
            )
            if gap is not None:
                yield gap

    async def _looked(self, tip: BlockRef | None, problem: str) -> Looked:
        books = await self.calls.run(self.coins.books)
        if books.cursor is None:
            return Looked(side=None, steady=False, problem=problem)
        sent = await self.calls.run(self.gaps.by_kind, COIN_SPENT, states={GapState.EXPLAINED}, limit=SHOWN)
        _, total_msat = (await self.calls.run(self.gaps.totals)).get((COIN_SPENT, GapState.EXPLAINED), (0, 0))
        others_sat = await self._others_through(books.position)
        side = coin_side(books, others_sat=others_sat, sent=sent, sent_total_msat=total_msat)
        steady = tip is not None and books.cursor.block == tip
        return Looked(side=side, steady=steady, problem=problem)

    async def _others_through(self, position: int) -> int:
        """What other programs' journals have booked on the account up to this place; each journal is added once."""
        if position < self._others.position:
            self._others = OthersBooked()  # another database in this one's place, as after a restore
        while self._others.position < position:
            self._others = await self.calls.run(
                self.coins.others_booked, self._others, through=position, limit=JOURNALS
            )
        return self._others.amount_sat


def _new(deposit: Deposit, tip: BlockRef, now_ms: int) -> SpentCoin:
    return SpentCoin(
        outpoint=deposit.outpoint,
        amount_sat=deposit.amount_sat,
        mined_height=0 if deposit.block is None else deposit.block.height,
        spender=None,
        height=tip.height,
        noticed_at_ms=now_ms,
    )


def _not_unspent(node: ChainNode, outpoints: Sequence[Outpoint]) -> list[Outpoint]:
    return [outpoint for outpoint in outpoints if not node.is_unspent(outpoint)]


def _still_settled(deposits: Deposits, outpoints: Sequence[Outpoint]) -> list[Outpoint]:
    found = (deposits.get(outpoint) for outpoint in outpoints)
    return [one.outpoint for one in found if one is not None and one.state is DepositState.SETTLED]


def _lost_gaps(changed: Sequence[SpentCoin], back: Sequence[SpentCoin], known: Mapping[str, Gap]) -> Iterable[Gap]:
    for coin in changed:
        if coin.spender is None:
            yield lost_gap(coin)
    for coin in (*(coin for coin in changed if coin.spender), *back):
        if (closed := found_again(known.get(lost_key(coin)))) is not None:
            yield closed


def _tell(changed: Iterable[SpentCoin], back: Iterable[SpentCoin]) -> None:
    for coin in changed:
        if coin.spender is None:
            log.warning("coin.lost", outpoint=coin.outpoint, amount_sat=coin.amount_sat, searched_to=coin.height + 1)
        else:
            log.info(
                "coin.spent",
                outpoint=coin.outpoint,
                amount_sat=coin.amount_sat,
                spender=coin.spender,
                height=coin.height,
            )
    for coin in back:
        log.info("coin.unspent", outpoint=coin.outpoint, amount_sat=coin.amount_sat)
