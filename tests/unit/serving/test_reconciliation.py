"""Comparisons on demand: how long a caller waits, and what he is told when there is no result by then."""

from __future__ import annotations

import pytest

from daemon.domain.errors import Unavailable
from daemon.domain.reconciliation import Reconciled
from daemon.serving.reconciliation import ANSWER_S, FULL_CHECK_S, LOOK_S, NotInTime, reconcile
from tests.unit.serving.bank_in_memory import Rounds
from tests.unit.serving.reconciliation_samples import look


@pytest.mark.parametrize(
    ("full", "remaining_s", "waits_s"),
    [
        (False, None, LOOK_S),
        (True, None, FULL_CHECK_S),
        (False, 10.0, 10.0 - ANSWER_S),
        (True, 10.0, 10.0 - ANSWER_S),
        (False, 100.0, 100.0 - ANSWER_S),
        (False, 0.1, 0.0),
        (True, 1e9, FULL_CHECK_S),
    ],
)
def test_a_caller_waits_as_long_as_he_says_within_bounds(full: bool, remaining_s: float | None, waits_s: float) -> None:
    """His thread is one of few; and he is answered before his own deadline."""
    rounds = Rounds()
    rounds.result = Reconciled(look=look())
    assert reconcile(rounds, full=full, remaining_s=remaining_s) is rounds.result
    assert rounds.asked == [(full, waits_s)]


@pytest.mark.parametrize(("full", "said"), [(False, "later deadline"), (True, "GetStatus will show it")])
def test_no_result_in_time_is_said(full: bool, said: str) -> None:
    """With what to do."""
    with pytest.raises(NotInTime, match=said):
        reconcile(Rounds(), full=full, remaining_s=3.0)


def test_an_outage_passes() -> None:
    """It is UNAVAILABLE to the caller."""
    rounds = Rounds()
    rounds.away = "this daemon does not lead"
    with pytest.raises(Unavailable, match="does not lead"):
        reconcile(rounds, full=False, remaining_s=None)
