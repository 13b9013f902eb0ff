"""What spent coins mean for books and nodes: pure comparisons, with the reason for each part of a difference.

The on-chain account is shared. tellerd's journals put settled deposits on it; Blink's do what its own wallet on the
chain receives and pays (blink-contract.md 2.5), with coins that tellerd does not know. So the account says

    books = credited + others          (credited: our journals; others: all other programs' journals)

and the coins that tellerd can ask bitcoind about are

    nodes = credited + elsewhere - spent - lost

(elsewhere: deposits to our addresses that another program credited first, so that they are within `others`; lost:
spent, nobody knows by what). A tx that spends coins of ours is accounted for by the journals of other programs which
bear its txid, as far as these took something from the account. So the difference has three parts:

    SENT, for each tx:   accounted - spent           what left our coins without a journal
    OTHERS:              elsewhere - accounted - others   what the account holds for coins that are not ours
    unknown:             - lost, and whatever else does not add up

Nothing is booked for a database that Blink has used, and no moment has to be right for it: `others` is summed over
the journals themselves, those of before and those of today alike. It is not compared with anything: that wallet's
keeper knows it, tellerd does not. `credited` is summed over the deposits, while the account is summed over the
journals: a deposit without its journal, or the reverse, shows as unknown.

A coin that comes back to an address of ours as the change of its spender is a deposit of its own, credited to that
address' wallet: the old coin is SENT, the new one is in both sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daemon.domain.accounts import ON_CHAIN
from daemon.domain.books import Gap, GapState
from daemon.domain.coins import CoinBooks, SpentCoin
from daemon.domain.identifiers import Txid
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.reconciliation import Item, ItemKind, Side

COIN_SPENT: Final = "coin_spent"
"""The kind of gap of a tx that spent coins of ours, explained by its txid, and of a lost coin, open."""

OLDER: Final = "older"
OTHER_PROGRAMS: Final = "journals of other programs"

_NODE: Final = "bitcoind"


def spend_key(txid: Txid) -> str:
    """The key of the gap of a tx that spent coins of ours."""
    return f"chain:spend:{txid}"


def lost_key(coin: SpentCoin) -> str:
    """The key of the gap of a coin whose spender is not known."""
    return f"chain:lost:{coin.outpoint}"


def spend_gap(txid: Txid, coins: Sequence[SpentCoin], *, taken_sat: int, known: Gap | None, now_ms: int) -> Gap | None:
    """The gap of a tx that spends these coins, as it has to be now; None if there is nothing to write.

    Journals of other programs took `taken_sat` for it. No coins: it spends none any more.
    """
    spent_sat = sum(coin.amount_sat for coin in coins)
    sent_sat = spent_sat - min(spent_sat, max(0, taken_sat))
    if sent_sat == 0:
        reason = "journals account for it" if coins else "it spends no coin of ours any more"
        return _closed(known, f"tx {txid}: {reason}")
    gap = Gap(
        key=spend_key(txid),
        kind=COIN_SPENT,
        detail=f"tx {txid} in block {max(coin.height for coin in coins)} spends {spent_sat} sat in {len(coins)} of our "
        f"coins, journals of other programs account for {spent_sat - sent_sat} sat",
        amount_msat=-sent_sat * MSAT_PER_SAT,
        seen_at_ms=now_ms,
        state=GapState.EXPLAINED,
        reference=txid,
        node=_NODE,
    )
    return None if known is not None and _says_the_same(known, gap) else gap


def lost_gap(coin: SpentCoin) -> Gap:
    """The gap of a coin that is spent, nobody knows by what."""
    searching = f"blocks from {coin.height} down are still searched" if coin.is_searched_for else "no block has it"
    return Gap(
        key=lost_key(coin),
        kind=COIN_SPENT,
        detail=f"coin {coin.outpoint} of {coin.amount_sat} sat is not among bitcoind's unspent outputs, and the tx "
        f"that spends it is not found: {searching}",
        amount_msat=-coin.amount_sat * MSAT_PER_SAT,
        seen_at_ms=coin.noticed_at_ms,
        state=GapState.OPEN,
        reference=coin.outpoint,
        node=_NODE,
    )


def found_again(known: Gap | None) -> Gap | None:
    """The gap of a lost coin that is lost no more: closed; None if there is nothing to write."""
    return _closed(known, "unspent again, or its spender is found")


def _closed(known: Gap | None, detail: str) -> Gap | None:
    if known is None or known.state is GapState.CLOSED:
        return None
    return replace(known, state=GapState.CLOSED, detail=detail)


def _says_the_same(known: Gap, gap: Gap) -> bool:
    return replace(known, seen_at_ms=gap.seen_at_ms) == gap


def coin_side(books: CoinBooks, *, others_sat: int, sent: Sequence[Gap], sent_total_msat: int) -> Side:
    """The on-chain account against bitcoind. `sent` are the newest explained gaps of spent coins, each an item of its
    own; `sent_total_msat` is the sum of all of them: the older ones are one item together."""
    items = [Item(kind=ItemKind.SENT, reference=gap.reference, amount_msat=gap.amount_msat) for gap in sent]
    if older_msat := sent_total_msat - sum(item.amount_msat for item in items):
        items.append(Item(kind=ItemKind.SENT, reference=OLDER, amount_msat=older_msat))
    accounted_msat = books.spent_sat * MSAT_PER_SAT + sent_total_msat
    if others_msat := (books.elsewhere_sat - others_sat) * MSAT_PER_SAT - accounted_msat:
        items.append(Item(kind=ItemKind.OTHERS, reference=OTHER_PROGRAMS, amount_msat=others_msat))
    unspent_sat = books.credited_sat + books.elsewhere_sat - books.spent_sat - books.lost_sat
    return Side(
        account=ON_CHAIN,
        books_msat=-books.balance_sat * MSAT_PER_SAT,
        nodes_msat=unspent_sat * MSAT_PER_SAT,
        items=tuple(items),
    )
