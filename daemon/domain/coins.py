"""Coins: the outputs of settled deposits, and what became of those that are spent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from daemon.domain.chain import ChainCursor
from daemon.domain.identifiers import BlockHash, Outpoint, Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentCoin:
    """A coin that bitcoind does not have among its unspent outputs any more.

    `mined_height` is where the coin itself is in the chain. `spender` is the tx that spends it, in the block at
    `height` that has `block_hash`. While it is not found, both are None, and `height` is that of the next block to be
    searched: below `mined_height` all were searched in vain, or are not there to be read.
    """

    outpoint: Outpoint
    amount_sat: int
    mined_height: int
    spender: Txid | None
    height: int
    noticed_at_ms: int
    block_hash: BlockHash | None = None

    @property
    def is_searched_for(self) -> bool:
        """Whether there are blocks left in which its spender may be found."""
        return self.spender is None and self.height >= self.mined_height

    def sought_from(self, height: int) -> SpentCoin:
        """The coin without a spender, to be looked for from this height down."""
        return replace(self, spender=None, block_hash=None, height=height)


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersBooked:
    """What journals of other programs did to the on-chain account, up to a place in the chain of journals, in sats;
    above zero where by them it holds more."""

    position: int = 0
    amount_sat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinBooks:
    """The on-chain account, the deposits that it stands for, and the coins known as spent, of one moment; in sats.

    `sequence` is the feed's position, `position` the length of the chain of journals. `balance_sat` is the account's,
    credit less debit. `credited_sat` are settled deposits that tellerd booked, `elsewhere_sat` those that another
    program did; `spent_sat` are coins whose spender is known, `lost_sat` those whose spender is not.
    """

    sequence: int
    position: int
    cursor: ChainCursor | None
    balance_sat: int
    credited_sat: int
    elsewhere_sat: int
    spent_sat: int
    lost_sat: int
