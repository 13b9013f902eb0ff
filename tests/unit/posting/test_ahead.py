"""Facts laid over with a commit that is under way: the same as facts read after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from adapters.memory import MemoryStore
from daemon.domain.books import Changes, Facts
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceEnded, ListingCompleted, NodeEvent
from daemon.matching.decide import decide, wanted_by
from daemon.posting.ahead import can_look_ahead, facts_after
from daemon.posting.seal import seal
from tests.samples import MORNING_MS, NODE, hash_of, invoice, node_opened, settled

OPENED = node_opened()
NAMES = ["expected", "unexpected", "later", "other"]
BATCH: list[NodeEvent] = [settled("expected", 1, 5_500), settled("unexpected", 2, 7_000), settled("later", 5, 9_900)]
FOLLOWING: list[NodeEvent] = [settled(name, index, 1_000) for index, name in enumerate(NAMES, start=1)]


@pytest.fixture
def store() -> MemoryStore:
    """One of the payments is expected."""
    store = MemoryStore()
    store.leases.acquire(holder="one", ttl_s=60)
    wallet = store.wallets.create(account_id=None, currency=Currency.BTC, external_id="wallet")
    store.invoices.insert(invoice("expected", wallet.wallet_id, account_id=wallet.account_id))
    store.books.commit(changes_of(store, [OPENED]))
    return store


def changes_of(store: MemoryStore, events: Sequence[NodeEvent]) -> Changes:
    """What these events change, decided on the store as it is."""
    plan = decide(events, store.books.read_facts(wanted_by(events)), price=None)
    return seal(plan, now_ms=MORNING_MS, writer_id=store.books.writer_id)


def facts(store: MemoryStore) -> Facts:
    """What the following batch is decided on."""
    return store.books.read_facts(wanted_by(FOLLOWING))


def laid_over(before: Facts, changes: Changes) -> Facts:
    """The facts after the changes; keys that the following batch does not ask for may be among them."""
    after = facts_after(before, changes)
    return replace(after, booked=after.booked & wanted_by(FOLLOWING).keys)


def test_it_makes_no_difference_when_the_facts_were_read(store: MemoryStore) -> None:
    """Before the commit or after it: keys, paid marks, suspense, cursors and head are those after it."""
    changes = changes_of(store, BATCH)
    before = facts(store)
    store.books.commit(changes)
    after = facts(store)
    assert before != after
    assert laid_over(before, changes) == after == laid_over(after, changes)


def test_money_that_was_assigned_is_assigned(store: MemoryStore) -> None:
    """The commit takes it out of suspense; the next batch must not do so again."""
    store.books.commit(changes_of(store, BATCH))
    wallet = store.wallets.create(account_id=None, currency=Currency.BTC, external_id="wallet")
    store.invoices.insert(invoice("unexpected", wallet.wallet_id, account_id=wallet.account_id))
    changes = changes_of(store, [settled("unexpected", 2, 7_000)])
    assert len(changes.suspense_assigned) == 1
    before = facts(store)
    store.books.commit(changes)
    assert laid_over(before, changes) == facts(store)


def test_a_document_that_is_closed_is_closed(store: MemoryStore) -> None:
    """Its invoice can never be paid any more; the next batch sees it so."""
    wallet = store.wallets.create(account_id=None, currency=Currency.BTC, external_id="wallet")
    store.invoices.insert(invoice("other", wallet.wallet_id, account_id=wallet.account_id))
    ended = InvoiceEnded(
        pubkey=NODE, payment_hash=hash_of("other"), reason="expired", returned_msat=0, ended_at_ms=MORNING_MS
    )
    changes = changes_of(store, [ended])
    assert changes.closed == [hash_of("other")]
    before = facts(store)
    store.books.commit(changes)
    assert laid_over(before, changes) == facts(store)


def test_only_settlements_are_decided_ahead() -> None:
    """An opening is decided on balances, which are not laid over."""
    assert can_look_ahead(FOLLOWING)
    assert not can_look_ahead([*FOLLOWING, ListingCompleted(pubkey=NODE, through_index=1, checkpoint_hash=None)])
