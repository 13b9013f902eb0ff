"""Which deposits do not fit what bitcoind says of them."""

from __future__ import annotations

import pytest

from daemon.domain.books import GapState
from daemon.domain.chain import Deposit, DepositState
from daemon.matching.deposit_check import (
    GONE,
    NOT_IN_CHAIN,
    UNNOTICED,
    Sighting,
    misfit,
    misfit_gap,
    no_misfits_any_more,
)
from tests.contract.deposit_samples import confirmed, deposit
from tests.samples import MORNING_MS

SETTLED = confirmed("a", 7, state=DepositState.SETTLED)
DROPPED = deposit("d", state=DepositState.DROPPED, dropped_reason="evicted")
NOWHERE = Sighting()
STANDS = Sighting(block_stands=True)
IN_MEMPOOL = Sighting(is_in_mempool=True)
IN_CHAIN = Sighting(is_unspent=True)


@pytest.mark.parametrize(
    ("one", "seen", "kind"),
    [
        (SETTLED, STANDS, None),
        (SETTLED, NOWHERE, NOT_IN_CHAIN),
        (confirmed("b", 7), STANDS, None),
        (confirmed("b", 7), IN_MEMPOOL, NOT_IN_CHAIN),
        (deposit("c"), IN_MEMPOOL, None),
        (deposit("c"), NOWHERE, GONE),
        (deposit("c"), IN_CHAIN, UNNOTICED),
        (DROPPED, NOWHERE, None),
        (DROPPED, IN_MEMPOOL, UNNOTICED),
        (DROPPED, IN_CHAIN, UNNOTICED),
    ],
)
def test_a_deposit_fits_where_bitcoind_has_it_as_the_books_do(one: Deposit, seen: Sighting, kind: str | None) -> None:
    """In its block, in the mempool, or nowhere."""
    assert misfit(one, seen) == kind


def test_only_what_is_booked_is_an_amount_of_the_difference() -> None:
    """A settled deposit without its block: the nodes hold less; others are in no account."""
    gap = misfit_gap(SETTLED, NOT_IN_CHAIN, now_ms=MORNING_MS)
    assert (gap.kind, gap.state, gap.reference, gap.amount_msat) == (
        NOT_IN_CHAIN,
        GapState.OPEN,
        SETTLED.outpoint,
        -20_000_000,
    )
    assert "settled in block 7" in gap.detail
    assert misfit_gap(deposit("c"), GONE, now_ms=MORNING_MS).amount_msat == 0
    assert misfit_gap(confirmed("b", 7), NOT_IN_CHAIN, now_ms=MORNING_MS).amount_msat == 0


def test_a_gap_that_is_found_no_more_is_closed() -> None:
    """Those that are found again stay as they are."""
    kept, over = (misfit_gap(one, GONE, now_ms=MORNING_MS) for one in (deposit("c"), deposit("e")))
    (closed,) = no_misfits_any_more({kept.key: kept, over.key: over}, {kept.key: kept})
    assert (closed.key, closed.state) == (over.key, GapState.CLOSED)
