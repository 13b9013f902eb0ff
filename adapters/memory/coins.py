"""`Coins` in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from adapters.memory.state import LedgerLeg, Tables
from daemon.domain.accounts import ON_CHAIN
from daemon.domain.chain import DepositState
from daemon.domain.coins import CoinBooks, OthersBooked, SpentCoin
from daemon.domain.identifiers import Outpoint, Txid
from daemon.domain.money import Currency


class MemoryCoins:
    """See `daemon.domain.ports.Coins`."""

    def __init__(self, tables: Tables, writer_id: bytes) -> None:
        self._tables = tables
        self._writer_id = writer_id

    def books(self) -> CoinBooks:
        tables = self._tables
        with tables.lock:
            settled = [one for one in tables.deposits.values() if one.state is DepositState.SETTLED]
            coins = list(tables.coins.values())
            return CoinBooks(
                sequence=tables.head.sequence,
                position=tables.head.chain_length,
                cursor=tables.chain_cursor,
                balance_sat=tables.balances.get((ON_CHAIN, Currency.BTC), 0),
                credited_sat=sum(one.amount_sat for one in settled if one.booking is not None),
                elsewhere_sat=sum(one.amount_sat for one in settled if one.booking is None),
                spent_sat=sum(coin.amount_sat for coin in coins if coin.spender is not None),
                lost_sat=sum(coin.amount_sat for coin in coins if coin.spender is None),
            )

    def others_booked(self, since: OthersBooked, *, through: int, limit: int) -> OthersBooked:
        tables = self._tables
        with tables.lock:
            entries = [
                entry
                for entry in tables.account_entries.get(ON_CHAIN, ())
                if since.position < entry.position <= through
            ]
            entries = entries[:limit]
            added_sat = -sum(
                entry.delta
                for entry in entries
                if entry.currency == Currency.BTC and tables.links[entry.journal_id].foreign
            )
        position = entries[-1].position if len(entries) == limit else through
        return OthersBooked(position=position, amount_sat=since.amount_sat + added_sat)

    def taken_by_others(self, txids: Collection[Txid]) -> Mapping[Txid, int]:
        taken: dict[Txid, int] = {}
        with self._tables.lock:
            for txid in txids:
                legs = [self._tables.legs[leg_id] for leg_id in self._tables.legs_by_hash.get(txid, ())]
                counted = [leg.leg for leg in legs if self._counts(leg)]
                if counted:
                    taken[txid] = sum(leg.credit - leg.debit for leg in counted)
        return taken

    def _counts(self, leg: LedgerLeg) -> bool:
        is_ours = leg.journal_id[8:18] == self._writer_id.hex()
        is_receipt = leg.details.get("type") == "onchain_receipt"
        return (leg.leg.account, leg.leg.currency) == (ON_CHAIN, Currency.BTC) and not is_ours and not is_receipt

    def spent(self, outpoints: Collection[Outpoint]) -> Mapping[Outpoint, SpentCoin]:
        with self._tables.lock:
            return {one: self._tables.coins[one] for one in outpoints if one in self._tables.coins}

    def spent_by(self, txids: Collection[Txid]) -> Sequence[SpentCoin]:
        return self._ascending(lambda coin: coin.spender in txids)

    def spent_from(self, height: int, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        def is_from(coin: SpentCoin) -> bool:
            return coin.spender is not None and coin.height >= height and (after is None or coin.outpoint > after)

        return self._ascending(is_from)[:limit]

    def lost(self, *, after: Outpoint | None, limit: int) -> Sequence[SpentCoin]:
        return self._ascending(lambda coin: coin.spender is None and (after is None or coin.outpoint > after))[:limit]

    def _ascending(self, is_wanted: Callable[[SpentCoin], bool]) -> list[SpentCoin]:
        with self._tables.lock:
            found = [coin for coin in self._tables.coins.values() if is_wanted(coin)]
        return sorted(found, key=lambda coin: coin.outpoint)

    def put(self, coins: Collection[SpentCoin]) -> None:
        with self._tables.lock:
            self._tables.coins.update((coin.outpoint, coin) for coin in coins)

    def forget(self, outpoints: Collection[Outpoint]) -> None:
        with self._tables.lock:
            for outpoint in outpoints:
                self._tables.coins.pop(outpoint, None)
