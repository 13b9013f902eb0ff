"""The port `Policies`: versions follow one another, and none is ever changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.domain.books import Wanted
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange
from daemon.domain.errors import Conflict
from tests.contract.conftest import Database

CONFIGURED = ConfirmationPolicy(version=0, tiers=(ConfirmationTier(from_sat=0, confirmations=2),))


def tiers(confirmations: int) -> tuple[ConfirmationTier, ...]:
    """Two steps, the second from more sats than 32 bits hold."""
    large = ConfirmationTier(from_sat=2**40, confirmations=confirmations + 4)
    return (ConfirmationTier(from_sat=0, confirmations=confirmations), large)


def change(store: Database, before: ConfirmationPolicy, confirmations: int) -> PolicyChange:
    return store.policies.change(
        before=before, tiers=tiers(confirmations), changed_by="alice", reason=f"now {confirmations}"
    )


def test_without_a_change_there_is_no_policy(store: Database) -> None:
    """The configuration's counts then, and the facts say so."""
    assert store.policies.current() is None
    assert store.policies.history(before_version=None, limit=10) == []
    assert store.books.read_facts(Wanted(chain=True)).chain.policy is None


def test_a_change_makes_the_next_version(store: Database) -> None:
    """It is what counts from now on, for commits too, and the history tells who, why, and what was before."""
    first = change(store, CONFIGURED, 1)
    assert first.after == ConfirmationPolicy(version=1, tiers=tiers(1))
    assert (first.before, first.changed_by, first.reason) == (CONFIGURED, "alice", "now 1")
    second = change(store, first.after, 3)
    assert second.changed_at_ms >= first.changed_at_ms > 0
    assert store.policies.current() == second.after
    assert store.books.read_facts(Wanted(chain=True)).chain.policy == second.after
    assert store.policies.history(before_version=None, limit=10) == [second, first]


def test_a_change_of_what_is_not_the_newest_is_a_conflict(store: Database) -> None:
    """Who has not seen the latest version, or names one that does not exist, changes nothing."""
    first = change(store, CONFIGURED, 1)
    for stale in (CONFIGURED, ConfirmationPolicy(version=2, tiers=tiers(9))):
        with pytest.raises(Conflict):
            change(store, stale, 5)
    assert store.policies.history(before_version=None, limit=10) == [first]


def test_of_changes_at_once_one_wins(store: Database) -> None:
    """The others are conflicts, and the history has one entry."""

    def attempt(confirmations: int) -> PolicyChange | None:
        try:
            return change(store, CONFIGURED, confirmations)
        except Conflict:
            return None

    with ThreadPoolExecutor(4) as threads:
        made = [one for one in threads.map(attempt, range(1, 5)) if one is not None]
    assert store.policies.history(before_version=None, limit=10) == made
    assert len(made) == 1


def test_history_comes_in_pages(store: Database) -> None:
    """Newest first, those before a version."""
    made = [change(store, CONFIGURED, 1)]
    for confirmations in (2, 3, 4):
        made.append(change(store, made[-1].after, confirmations))
    newest_first = made[::-1]
    assert store.policies.history(before_version=None, limit=2) == newest_first[:2]
    assert store.policies.history(before_version=3, limit=10) == newest_first[2:]
    assert store.policies.history(before_version=1, limit=10) == []
