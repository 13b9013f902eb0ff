"""Gaps about money, compared again with what other programs' journals say by now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.books import Gap, GapState
from daemon.domain.node_events import InvoiceSettled
from daemon.matching.decide import decide
from daemon.matching.elsewhere import recheck
from tests.samples import hash_of, settled
from tests.unit.matching.test_decide import KEY, expected, facts


def paid_without_journal(event: InvoiceSettled) -> Gap:
    """As the decision on a settlement leaves it whose document another program has marked paid."""
    return decide([event], facts(expected(paid=True)), price=None).gaps[KEY]


@pytest.mark.parametrize(
    ("booked_sat", "amount_msat", "state"),
    [
        (5, 0, GapState.CLOSED),
        (3, 2_000, GapState.OPEN),
        (7, -2_000, GapState.OPEN),
    ],
)
def test_a_journal_that_comes_later_counts_against_the_gap(booked_sat: int, amount_msat: int, state: GapState) -> None:
    """It is over when all of it is accounted for, and waits for a person until then."""
    gap = paid_without_journal(settled("a", 1, 5_000))
    assert recheck(gap, {hash_of("a"): -booked_sat}) == replace(gap, amount_msat=amount_msat, state=state)


def test_the_fraction_of_a_sat_that_others_drop_waits_for_nobody() -> None:
    """It stays part of the difference, explained."""
    gap = paid_without_journal(settled("a", 1, 5_400))
    assert recheck(gap, {hash_of("a"): -5}) == replace(gap, amount_msat=400, state=GapState.EXPLAINED)


def test_without_news_nothing_changes() -> None:
    """A look each minute must not write each minute."""
    assert recheck(paid_without_journal(settled("a", 1, 5_000)), {}) is None
