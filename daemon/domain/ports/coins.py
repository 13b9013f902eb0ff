"""Our own coins, and which of them are spent: `teller_coins`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from daemon.domain.coins import CoinBooks, OthersBooked, SpentCoin
from daemon.domain.identifiers import Outpoint, Txid


class Coins(Protocol):
    """What bitcoind was seen to say of settled deposits' outputs: observations, repeatable, and no money moves with
    them. Coins that are unspent are not written here. Majority read concern; raises Unavailable."""

    def books(self) -> CoinBooks:
        """Account, deposits and spent coins of one moment; costs a walk over an index of all of them."""
        ...

    def others_booked(self, since: OthersBooked, *, through: int, limit: int) -> OthersBooked:
        """Goes on from `since` over at most `limit` journals on the on-chain account, to the place `through` in the
        chain at the furthest: if none is left up to there, the position returned is `through`."""
        ...

    def taken_by_others(self, txids: Collection[Txid]) -> Mapping[Txid, int]:
        """Sats that other programs' journals took from the on-chain account for these txs (legs with the txid as
        hash; below zero where they added some); receipts of a tx's outputs (type "onchain_receipt") do not count.
        Only txs for which there is such a leg."""
        ...

    def spent(self, outpoints: Collection[Outpoint]) -> Mapping[Outpoint, SpentCoin]:
        """Those of these coins that are known as spent."""
        ...

    def spent_by(self, txids: Collection[Txid]) -> Sequence[SpentCoin]:
        """All coins that one of these txs spends, ascending by outpoint."""
        ...

    def spent_from(self, height: int, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        """Coins that a block at this height or above spends, ascending by outpoint."""
        ...

    def lost(self, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        """Coins whose spender is not known, ascending by outpoint."""
        ...

    def put(self, coins: Collection[SpentCoin]) -> None:
        """Writes each by its outpoint, new or anew."""
        ...

    def forget(self, outpoints: Collection[Outpoint]) -> None:
        """They are unspent again, or no coins any more."""
        ...
