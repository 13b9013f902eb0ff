"""Who asks for a look or for a full check now: API threads ask and wait, the rounds answer (`daemon.requests`)."""

from __future__ import annotations

from daemon.domain.reconciliation import Reconciled, ReconciliationAsked
from daemon.requests import Requests


class ReconciliationRequests(Requests[ReconciliationAsked, Reconciled]):
    """Each is answered with a look that began after the question, and with a full check that ended after it where one
    was asked for."""

    def __init__(self) -> None:
        super().__init__(
            waits_for="a comparison",
            closed="books and nodes are not compared now",
            ended="the comparison was broken off: this daemon ends, or leads no more; ask again",
        )
