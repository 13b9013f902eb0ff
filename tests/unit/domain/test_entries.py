"""Journal entries balance per currency, leg by leg sound."""

from __future__ import annotations

import pytest

from daemon.domain.entries import MAX_LEG_AMOUNT, JournalEntry, Leg, check_balanced
from daemon.domain.errors import InvariantViolation
from tests.samples import moved


def test_balanced_legs_pass() -> None:
    """Each currency sums to zero by itself."""
    check_balanced((*moved("a", "b", 5), *moved("c", "d", 70, currency="USD")), what="sample")


@pytest.mark.parametrize(
    "legs",
    [
        (),
        (Leg(account="a", currency="BTC", debit=5),),
        (Leg(account="a", currency="BTC", debit=5), Leg(account="b", currency="BTC", credit=4)),
        (Leg(account="a", currency="BTC", debit=5), Leg(account="b", currency="USD", credit=5)),
        (Leg(account="a", currency="BTC"), Leg(account="b", currency="BTC")),
        (Leg(account="a", currency="BTC", debit=5, credit=5),),
        (Leg(account="a", currency="BTC", debit=-5), Leg(account="b", currency="BTC", credit=-5)),
        (Leg(account="a", currency="BTC", debit=5, credit=-5), Leg(account="b", currency="BTC", credit=10)),
        moved("a", "b", MAX_LEG_AMOUNT + 1),
    ],
)
def test_unsound_legs_stop_the_process(legs: tuple[Leg, ...]) -> None:
    """None, one-sided, unequal, across currencies, empty, two-sided, negative, or larger than all money."""
    with pytest.raises(InvariantViolation):
        check_balanced(legs, what="sample")


def test_a_preimage_is_not_shown() -> None:
    """An entry in an error message or a log gives no secret away."""
    entry = JournalEntry(key="k", memo="", datetime_ms=0, legs=moved("a", "b", 1), preimage="5ec7e7")
    assert "5ec7e7" not in repr(entry)
