"""The port `LedgerReader`: balances, journals, trial balance and feed as the last commit left them."""

from __future__ import annotations

import pytest

from daemon.domain.accounts import LIGHTNING, SUSPENSE, wallet_account
from daemon.domain.ports import AccountRow
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE, hash_of, invoice, moved, node_opened, settled


@pytest.fixture
def busy(store: Database) -> Database:
    """A node that was opened with 1,000 sats and has received 1, 2, 3, 4 and 5 sats that nobody expects."""
    store.post(node_opened(1_000_000))
    store.post(settled("a", 1, 1_000), settled("b", 2, 2_000))
    store.post(settled("c", 3, 3_000), settled("d", 4, 4_000), settled("e", 5, 5_000))
    return store


def test_an_unknown_account_has_nothing(store: Database) -> None:
    """Its balance is zero, and it has no journals."""
    assert store.ledger.balance(("Liabilities:nobody", "BTC")) == (0, 0)
    assert store.ledger.entries(account="Liabilities:nobody", before=None, limit=5) == []
    assert store.ledger.events(after_sequence=0, limit=5) == []


def test_balances_come_with_the_feeds_position(busy: Database) -> None:
    """A balance says which event it is at least as new as; currencies do not mix."""
    assert busy.ledger.balance((SUSPENSE, "BTC")) == (15, 6)
    assert busy.ledger.balance((SUSPENSE, "USD")) == (0, 6)
    assert busy.ledger.head().sequence == 6


def test_journals_are_listed_newest_first_with_the_balance_after_each(busy: Database) -> None:
    """Each entry's balance is the one before it plus its delta, on the first page and on later ones."""
    entries = busy.ledger.entries(account=LIGHTNING, before=None, limit=10)
    assert [entry.delta for entry in entries] == [-5, -4, -3, -2, -1, -1000]
    assert [entry.balance_after for entry in entries] == [-1015, -1010, -1006, -1003, -1001, -1000]
    assert [entry.position for entry in entries] == [6, 5, 4, 3, 2, 1]
    pages = [
        *busy.ledger.entries(account=LIGHTNING, before=None, limit=4),
        *busy.ledger.entries(account=LIGHTNING, before=3, limit=4),
    ]
    assert pages == entries


def test_an_entry_tells_what_the_ledger_has(busy: Database) -> None:
    """Key, journal, memo, time and metadata of the account's own leg."""
    wallet = busy.new_wallet()
    busy.another.insert_invoice(invoice("x", wallet.wallet_id, account_id=wallet.account_id))
    changes = busy.post(settled("x", 6, 9_000))
    (entry,) = busy.ledger.entries(account=wallet_account(wallet.wallet_id), before=None, limit=5)
    assert entry.journal_id == changes.entries[0].journal_id
    assert entry.key == f"ln:{NODE}:{hash_of('x')}"
    assert (entry.delta, entry.balance_after, entry.currency) == (9, 9, "BTC")
    assert (entry.memo, entry.booked_at_ms) == ("memo of x", MORNING_MS + 6000)
    assert entry.details == {
        "type": "invoice",
        "pending": False,
        "hash": hash_of("x"),
        "pubkey": NODE,
        "satsAmount": 9,
        "satsFee": 0,
        "external_id": "ext-x",
        "currency": "BTC",
    }


def test_the_trial_balance_is_paged_by_name_and_sums_to_zero(busy: Database) -> None:
    """Every account stands on exactly one page; totals are over all accounts on each."""
    seen: list[AccountRow] = []
    token = None
    for expected in (2, 1):
        page = busy.ledger.trial_balance(after=token, limit=2)
        assert page.totals == {"BTC": 0}
        assert page.sequence == 6
        assert len(page.rows) == expected
        seen += page.rows
        token = page.next_token
    assert token is None
    assert [row.account for row in seen] == [LIGHTNING, "Liabilities:Teller:Opening", SUSPENSE]
    assert [row.balance for row in seen] == [-1015, 1000, 15]


def test_the_feed_has_no_gaps_and_is_read_from_anywhere(busy: Database) -> None:
    """Sequences start at 1; a read above a sequence returns the next ones, at most `limit`."""
    events = busy.ledger.events(after_sequence=0, limit=100)
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[0].type == "books.opened"
    assert {event.type for event in events[1:]} == {"suspense.received"}
    assert busy.ledger.events(after_sequence=2, limit=3) == events[2:5]
    assert busy.ledger.events(after_sequence=6, limit=3) == []
    assert len({event.id for event in events}) == 6


def test_an_event_is_read_back_as_it_was_told(busy: Database) -> None:
    """Id, time, wallets and payload, with the journal of the fact."""
    wallet = busy.new_wallet()
    busy.another.insert_invoice(invoice("x", wallet.wallet_id, account_id=wallet.account_id))
    changes = busy.post(settled("x", 6, 9_001))
    (event,) = busy.ledger.events(after_sequence=6, limit=5)
    assert event.id == f"ln:{NODE}:{hash_of('x')}#invoice.settled"
    assert (event.occurred_at_ms, event.wallet_ids) == (MORNING_MS + 6000, (wallet.wallet_id,))
    assert event.payload == {
        "payment_hash": hash_of("x"),
        "external_id": "ext-x",
        "node": NODE,
        "amount_sat": 9,
        "received_msat": 9_001,
        "memo": "memo of x",
        "settled_at_ms": MORNING_MS + 6000,
        "journal_id": changes.entries[0].journal_id,
    }


def test_a_fact_without_a_journal_is_told_without_one(busy: Database) -> None:
    """Less than a sat moves no account; the feed tells it all the same."""
    busy.post(settled("x", 6, 999))
    (event,) = busy.ledger.events(after_sequence=6, limit=5)
    assert event.payload["amount_sat"] == 0
    assert "journal_id" not in event.payload


def test_two_currencies_of_one_account_are_kept_apart(store: Database) -> None:
    """A journal that moves sats and cents of one account is two lines of it."""
    store.another.write_journal(
        (*moved("Liabilities:a", "Liabilities:b", 3), *moved("Liabilities:b", "Liabilities:a", 50, currency="USD"))
    )
    (found,) = store.journals.foreign_journals(after=None, limit=5)
    store.post(found)
    lines = store.ledger.entries(account="Liabilities:a", before=None, limit=5)
    assert {(line.currency, line.delta, line.balance_after) for line in lines} == {
        ("BTC", -3, -3),
        ("USD", 50, 50),
    }
    assert store.balance("Liabilities:a", "USD") == 50
