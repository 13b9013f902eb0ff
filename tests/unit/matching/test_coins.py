"""Spent coins against journals: every part of the difference has its reason, and what has none is unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.domain.accounts import ON_CHAIN
from daemon.domain.books import Gap, GapState
from daemon.domain.coins import CoinBooks, SpentCoin
from daemon.domain.identifiers import BlockHash, Txid, outpoint_of
from daemon.domain.reconciliation import Item, ItemKind
from daemon.matching.coins import OLDER, coin_side, found_again, lost_gap, spend_gap
from tests.samples import MORNING_MS

SPENDER = Txid("5e" * 32)


def coin(amount_sat: int, vout: int = 0) -> SpentCoin:
    return SpentCoin(
        outpoint=outpoint_of(Txid("c0" * 32), vout),
        amount_sat=amount_sat,
        mined_height=7,
        spender=SPENDER,
        height=12,
        block_hash=BlockHash("ab" * 32),
        noticed_at_ms=MORNING_MS,
    )


def gap_of(*coins: SpentCoin, taken_sat: int = 0, known: Gap | None = None) -> Gap | None:
    return spend_gap(SPENDER, coins, taken_sat=taken_sat, known=known, now_ms=MORNING_MS)


def books(**fields: int) -> CoinBooks:
    sums = {
        "balance_sat": 0,
        "credited_sat": 0,
        "elsewhere_sat": 0,
        "spent_sat": 0,
        "lost_sat": 0,
        **fields,
    }
    return CoinBooks(sequence=1, position=1, cursor=None, **sums)


def test_a_spend_that_no_journal_accounts_for_is_explained_by_its_txid() -> None:
    """All coins that the tx spends together, below zero: the nodes hold less than the books say."""
    gap = gap_of(coin(100_000), coin(20_000, 1))
    assert gap is not None
    assert (gap.kind, gap.state, gap.reference, gap.node) == ("coin_spent", GapState.EXPLAINED, SPENDER, "bitcoind")
    assert gap.amount_msat == -120_000_000
    assert "block 12 spends 120000 sat in 2" in gap.detail


@pytest.mark.parametrize(
    ("taken_sat", "sent_sat"), [(0, 100_000), (51_000, 49_000), (99_999, 1), (-5, 100_000)], ids=str
)
def test_what_journals_took_is_not_sent(taken_sat: int, sent_sat: int) -> None:
    """A payout's journal has amount and fee, the change went elsewhere; one that added something takes nothing off."""
    gap = gap_of(coin(100_000), taken_sat=taken_sat)
    assert gap is not None
    assert gap.amount_msat == -sent_sat * 1000


@pytest.mark.parametrize("taken_sat", [100_000, 150_000])
def test_a_spend_that_journals_account_for_is_no_gap_and_closes_the_one_there_was(taken_sat: int) -> None:
    """More than our coins is of coins that are not ours; a gap that is closed is left alone."""
    assert gap_of(coin(100_000), taken_sat=taken_sat) is None
    known = gap_of(coin(100_000))
    assert known is not None
    closed = gap_of(coin(100_000), taken_sat=taken_sat, known=known)
    assert closed is not None
    assert (closed.state, closed.amount_msat) == (GapState.CLOSED, -100_000_000)
    assert gap_of(coin(100_000), taken_sat=taken_sat, known=closed) is None
    assert gap_of(coin(100_000), known=closed) == known  # the journal was voided


def test_a_gap_is_written_when_it_says_something_else() -> None:
    """The same is not written again at every look; a journal or a coin more is."""
    known = gap_of(coin(100_000))
    assert gap_of(coin(100_000), known=known) is None
    assert gap_of(coin(100_000), taken_sat=1, known=known) is not None
    assert gap_of(coin(100_000), coin(1, 1), known=known) is not None


def test_a_spend_that_was_undone_closes_its_gap() -> None:
    """The tx spends no coin of ours any more."""
    known = gap_of(coin(100_000))
    closed = gap_of(known=known)
    assert closed is not None
    assert closed.state is GapState.CLOSED
    assert gap_of() is None


def test_a_lost_coin_is_an_open_gap_until_it_is_found() -> None:
    """The detail says whether the search goes on."""
    missing = coin(100_000).sought_from(11)
    gap = lost_gap(missing)
    assert (gap.kind, gap.state, gap.amount_msat) == ("coin_spent", GapState.OPEN, -100_000_000)
    assert "from 11 down" in gap.detail
    assert "no block has it" in lost_gap(missing.sought_from(6)).detail
    closed = found_again(gap)
    assert closed is not None
    assert closed.state is GapState.CLOSED
    assert found_again(closed) is None
    assert found_again(None) is None


def test_coins_and_account_that_agree_have_no_difference() -> None:
    """Only tellerd's own deposits."""
    side = coin_side(books(balance_sat=-70, credited_sat=70), others_sat=0, sent=(), sent_total_msat=0)
    assert (side.account, side.books_msat, side.nodes_msat, side.items) == (ON_CHAIN, 70_000, 70_000, ())


def test_other_programs_coins_are_an_item_of_their_own() -> None:
    """Blink's wallet received 1,000 and paid 300; it also credited a deposit of 500 to one of our addresses."""
    side = coin_side(
        books(balance_sat=-(70 + 1_000 - 300 + 500), credited_sat=70, elsewhere_sat=500),
        others_sat=1_000 - 300 + 500,
        sent=(),
        sent_total_msat=0,
    )
    assert (side.nodes_msat, side.difference_msat, side.unknown_msat) == (570_000, -700_000, 0)
    assert [(item.kind, item.amount_msat) for item in side.items] == [(ItemKind.OTHERS, -700_000)]


def test_a_payout_by_journal_of_our_coin_is_no_difference() -> None:
    """A payout's journal with the whole coin: books and nodes fall alike."""
    side = coin_side(books(balance_sat=0, credited_sat=100, spent_sat=100), others_sat=-100, sent=(), sent_total_msat=0)
    assert (side.books_msat, side.nodes_msat, side.items) == (0, 0, ())


def test_each_spend_is_an_item_and_the_older_ones_are_one() -> None:
    """However many there are, the sum is right."""
    known = gap_of(coin(30))
    assert known is not None
    side = coin_side(
        books(balance_sat=-100, credited_sat=100, spent_sat=80), others_sat=0, sent=[known], sent_total_msat=-80_000
    )
    assert side.items == (
        Item(kind=ItemKind.SENT, reference=SPENDER, amount_msat=-30_000),
        Item(kind=ItemKind.SENT, reference=OLDER, amount_msat=-50_000),
    )
    assert (side.difference_msat, side.unknown_msat) == (-80_000, 0)


def test_a_lost_coin_is_unknown() -> None:
    """Nobody knows where it went."""
    side = coin_side(books(balance_sat=-100, credited_sat=100, lost_sat=40), others_sat=0, sent=(), sent_total_msat=0)
    assert (side.difference_msat, side.unknown_msat, side.items) == (-40_000, -40_000, ())


def test_a_deposit_without_its_journal_is_unknown() -> None:
    """The account is summed over journals, the coins over deposits."""
    side = coin_side(books(balance_sat=-100, credited_sat=103), others_sat=0, sent=(), sent_total_msat=0)
    assert side.unknown_msat == 3_000


SATS = st.integers(0, 10**12)


@given(
    credited=SATS,
    elsewhere=SATS,
    lost=SATS,
    own_wallet=st.integers(-(10**12), 10**12),
    spends=st.lists(st.tuples(SATS, SATS)),
)
def test_whatever_moves_with_a_reason_leaves_only_lost_coins_unknown(
    credited: int, elsewhere: int, lost: int, own_wallet: int, spends: list[tuple[int, int]]
) -> None:
    """Any deposits, any spends, any journals for them, and a wallet of Blink's own beside."""
    gaps = [
        gap
        for number, (spent_sat, taken_sat) in enumerate(spends)
        if (
            gap := spend_gap(
                Txid(f"{number:064x}"), [coin(spent_sat)], taken_sat=taken_sat, known=None, now_ms=MORNING_MS
            )
        )
    ]
    others_sat = own_wallet + elsewhere - sum(taken_sat for _, taken_sat in spends)
    side = coin_side(
        books(
            balance_sat=-(credited + others_sat),
            credited_sat=credited,
            elsewhere_sat=elsewhere,
            spent_sat=sum(spent_sat for spent_sat, _ in spends),
            lost_sat=lost,
        ),
        others_sat=others_sat,
        sent=gaps[:2],
        sent_total_msat=sum(gap.amount_msat for gap in gaps),
    )
    assert side.unknown_msat == -lost * 1000
    foreign_part = sum(max(0, taken_sat - spent_sat) for spent_sat, taken_sat in spends)
    assert side.explained_msat().get(ItemKind.OTHERS, 0) == -(own_wallet - foreign_part) * 1000
