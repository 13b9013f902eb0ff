"""What a dealer has said counts for as long as he stands by it, however long its commit takes."""

from __future__ import annotations

import random
import time

import pytest

from adapters.memory import MemoryStore
from daemon.domain.accounts import SUSPENSE, wallet_account
from daemon.domain.chain_events import DepositDue
from daemon.domain.identifiers import WalletId, lightning_key
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent, SuspenseAssigned
from daemon.domain.outcomes import Assigned, AssignmentProblem, DepositsChanged, Held, NotAssigned, Outcome
from daemon.domain.quotes import DEFAULT_QUOTE_S, Deal
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from tests.samples import MORNING_MS, NODE, block_at, chain_moved, connected, hash_of, node_opened, output, settled
from tests.unit.posting.test_poster import Counts, NoPrice

DEAL = Deal(amount_sat=500_000, amount_cents=30_000, price="60000.00", source="test")


def post(store: MemoryStore, *events: NodeEvent) -> Outcome:
    """The last one's outcome."""
    poster = Poster(books=store.books, prices=NoPrice(), board=Board(), metrics=Counts(), fence=1, rng=random.Random(1))
    return poster.commit(events).plan.outcomes[-1]


def ns_ago(seconds: float) -> int:
    """On the monotonic clock."""
    return max(1, time.monotonic_ns() - int(seconds * 1e9))


@pytest.fixture
def store() -> MemoryStore:
    """A dollar wallet, 500,000 sats that wait in suspense, and a dealer."""
    store = MemoryStore()
    assert store.leases.acquire(holder="one", ttl_s=60) == 1
    post(store, node_opened(), settled("a", 1, 500_000_000))
    return store


@pytest.fixture
def dollars(store: MemoryStore) -> WalletId:
    """The dollar wallet."""
    return store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars").wallet_id


def assigned(wallet_id: WalletId, *, asked_at_ns: int) -> SuspenseAssigned:
    """A person says that it is this wallet's."""
    return SuspenseAssigned(
        key=lightning_key(NODE, hash_of("a")),
        wallet_id=wallet_id,
        by="ann",
        reason="hers",
        at_ms=MORNING_MS,
        payment_hash=hash_of("a"),
        deal=DEAL,
        asked_at_ns=asked_at_ns,
    )


def test_money_in_suspense_is_assigned_at_a_price_that_the_dealer_stands_by(
    store: MemoryStore, dollars: WalletId
) -> None:
    """Ten seconds of waiting are nothing."""
    outcome = post(store, assigned(dollars, asked_at_ns=ns_ago(10)))
    assert isinstance(outcome, Assigned)
    assert store.ledger.balance((wallet_account(dollars), "USD"))[0] == 30_000


def test_money_in_suspense_is_not_assigned_at_a_price_of_before_an_outage(
    store: MemoryStore, dollars: WalletId
) -> None:
    """The database was away, and the call is tried again when it is back: the money waits on, at no price."""
    outcome = post(store, assigned(dollars, asked_at_ns=ns_ago(DEFAULT_QUOTE_S + 1)))
    assert isinstance(outcome, NotAssigned)
    assert outcome.problem is AssignmentProblem.NO_PRICE
    assert store.ledger.balance((SUSPENSE, "BTC"))[0] == 500_000


@pytest.mark.parametrize(("waited_s", "is_credited"), [(10, True), (DEFAULT_QUOTE_S + 1, False)])
def test_a_deposit_is_credited_at_a_price_that_the_dealer_stands_by(
    store: MemoryStore, dollars: WalletId, waited_s: float, is_credited: bool
) -> None:
    """At an older one it is held, and due again: the dealer is asked anew."""
    sent = output("b", dollars, 500_000)
    blocks = [connected(block_at(100), sent), connected(block_at(101))]
    post(store, chain_moved(None, connected(block_at(99))), chain_moved(block_at(99), *blocks))
    due = DepositDue(txid=sent.txid, vout=sent.vout, due_at_ms=MORNING_MS, deal=DEAL, asked_at_ns=ns_ago(waited_s))
    outcome = post(store, due)
    assert isinstance(outcome, DepositsChanged if is_credited else Held)
    again = post(store, DepositDue(txid=sent.txid, vout=sent.vout, due_at_ms=MORNING_MS, deal=DEAL))
    assert isinstance(again, DepositsChanged) is not is_credited
