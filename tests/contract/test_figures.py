"""The port `Figures`: counts and sums over what was committed."""

from __future__ import annotations

import pytest

from daemon.domain.accounts import LIGHTNING, OPENING, SUSPENSE, wallet_account
from daemon.domain.ports import SuspenseTotal, SystemWallet
from tests.contract.conftest import Database
from tests.samples import invoice, node_opened, settled


@pytest.fixture
def busy(store: Database) -> Database:
    """A node that was opened with 1,000 sats; a wallet has got 7 sats, and 1, 2 and 3 sats are expected by nobody."""
    store.post(node_opened(1_000_000))
    store.invoices.insert(invoice("mine", store.new_wallet().wallet_id))
    store.post(settled("a", 1, 1_000), settled("b", 2, 2_000), settled("c", 3, 3_000), settled("mine", 4, 7_000))
    return store


def test_empty_books_add_up_to_nothing(store: Database) -> None:
    """Zero, not an error: nothing waits, nothing was told, and an account that was asked for is 0."""
    assert store.figures.suspense() == SuspenseTotal(payments=0, amount_sat=0)
    assert store.figures.outbox_rows() == 0
    totals = store.figures.totals([(LIGHTNING, "BTC")])
    assert totals.roots == {}
    assert totals.balances == {(LIGHTNING, "BTC"): 0}


def test_what_waits_in_suspense_is_counted_until_it_is_assigned(busy: Database) -> None:
    """Each payment counts once, with its sats; a wallet that turns up takes its payment out."""
    assert busy.figures.suspense() == SuspenseTotal(payments=3, amount_sat=6)
    busy.invoices.insert(invoice("b", busy.new_wallet().wallet_id))
    busy.post(settled("b", 2, 2_000))
    assert busy.figures.suspense() == SuspenseTotal(payments=2, amount_sat=4)


def test_every_event_of_the_outbox_is_counted(busy: Database) -> None:
    """As many as a subscriber would get."""
    rows = busy.figures.outbox_rows()
    assert rows == len(busy.ledger.events(after_sequence=0, limit=100)) == 5


def test_all_accounts_are_summed_by_root_and_those_asked_for_are_named(busy: Database) -> None:
    """Assets and liabilities balance each other; an unknown account, or another currency of one, is 0."""
    wallet = wallet_account(busy.new_wallet().wallet_id)
    asked = [
        (LIGHTNING, "BTC"),
        (SUSPENSE, "BTC"),
        (SUSPENSE, "USD"),
        (OPENING, "BTC"),
        (wallet, "BTC"),
        ("X:y", "BTC"),
    ]
    totals = busy.figures.totals(asked)
    assert totals.roots == {("Assets", "BTC"): -1_013, ("Liabilities", "BTC"): 1_013}
    assert [totals.balances[key] for key in asked] == [-1_013, 6, 0, 1_000, 7, 0]


def test_the_bank_owners_wallet_is_found(store: Database) -> None:
    """By its account's role, also the second time."""
    for _ in range(2):
        owner = store.figures.system_wallets()[SystemWallet.BANK_OWNER]
        found = store.wallets.get(owner)
        assert found is not None
        assert found.currency == "BTC"
