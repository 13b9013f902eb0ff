"""What becomes of an invoice apart from its settlement: told once and written into its document, on both stores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.accounts import wallet_account
from daemon.domain.books import Wanted
from daemon.domain.errors import Conflict
from daemon.domain.holds import Release
from daemon.domain.identifiers import canceled_key, expired_key, held_key
from daemon.domain.node_events import InvoiceEnded, InvoiceHeld
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, invoice, node_opened, preimage_of, settled


@pytest.fixture
def opened(store: Database) -> Database:
    """Books of a node that is open already."""
    store.post(node_opened())
    return store


def expect(store: Database, name: str = "a") -> str:
    """A document; its wallet's account in the books."""
    wallet = store.new_wallet(f"wallet-of-{name}")
    store.another.insert_invoice(invoice(name, wallet.wallet_id, account_id=wallet.account_id))
    return wallet_account(wallet.wallet_id)


def held(name: str = "a") -> InvoiceHeld:
    return InvoiceHeld(
        pubkey=NODE, payment_hash=hash_of(name), received_msat=5_000, expiry_height=230, held_at_ms=MORNING_MS
    )


def ended(name: str = "a", *, reason: str = "expired", returned_msat: int = 0) -> InvoiceEnded:
    return InvoiceEnded(
        pubkey=NODE,
        payment_hash=hash_of(name),
        reason=reason,
        returned_msat=returned_msat,
        ended_at_ms=MORNING_MS + 1,
    )


def told(store: Database) -> list[str]:
    """The feed, the opening left out."""
    return [row.type for row in store.ledger.events(after_sequence=1, limit=100)]


def is_closed(store: Database, name: str = "a") -> bool:
    stored = store.invoices.get(hash_of(name))
    assert stored is not None
    return stored.completed and not stored.paid


def test_a_held_payment_is_told_once_and_books_nothing(opened: Database) -> None:
    """However often it is seen; its document stays open."""
    account = expect(opened)
    opened.post(held(), held())
    assert opened.decided(held()).outbox == []
    assert told(opened) == ["invoice.held"]
    assert opened.balance(account) == 0
    assert not is_closed(opened)
    stored = opened.invoices.get(hash_of("a"))
    assert stored is not None
    assert dict(opened.invoices.states_told(stored)["invoice.held"]) == {
        "payment_hash": hash_of("a"),
        "external_id": "ext-a",
        "node": NODE,
        "received_msat": 5_000,
        "expiry_height": 230,
        "held_at_ms": MORNING_MS,
    } | ({"journal_id": None} if "journal_id" in opened.invoices.states_told(stored)["invoice.held"] else {})


@pytest.mark.parametrize(("reason", "kind"), [("expired", "invoice.expired"), ("by_call", "invoice.canceled")])
def test_an_end_is_told_and_closes_the_document_in_one_commit(opened: Database, reason: str, kind: str) -> None:
    """Once: whatever else is said of it later, it has one end."""
    expect(opened)
    assert [one.payment_hash for one in opened.open_invoices.open_invoices(pubkey=NODE, after=None, limit=9)]
    opened.post(held(), ended(reason=reason, returned_msat=5_000))
    for other in ("expired", "by_call", "on_node"):
        assert opened.decided(ended(reason=other)).outbox == []
    assert opened.decided(held()).outbox == []
    assert told(opened) == ["invoice.held", kind]
    assert is_closed(opened)
    assert opened.open_invoices.open_invoices(pubkey=NODE, after=None, limit=9) == []
    keys = opened.books.read_facts(
        Wanted(keys={make(NODE, hash_of("a")) for make in (held_key, canceled_key, expired_key)})
    ).booked
    assert keys == {
        held_key(NODE, hash_of("a")),
        (expired_key if reason == "expired" else canceled_key)(NODE, hash_of("a")),
    }


def test_a_commit_that_fails_closes_nothing(opened: Database) -> None:
    """The document and the event, both or neither."""
    expect(opened)
    expect(opened, "b")
    stale = opened.decided(ended())
    opened.post(held("b"))
    with pytest.raises(Conflict):
        opened.books.commit(stale)
    assert not is_closed(opened)
    assert told(opened) == ["invoice.held"]


def test_what_lnd_settled_late_is_credited_all_the_same(opened: Database) -> None:
    """The document was closed: the money is the wallet's nevertheless, once."""
    account = expect(opened)
    opened.post(ended())
    opened.post(settled("a", 1, 21_000), settled("a", 1, 21_000))
    assert opened.balance(account) == 21
    stored = opened.invoices.get(hash_of("a"))
    assert stored is not None
    assert (stored.paid, stored.completed) == (True, True)
    assert told(opened) == ["invoice.expired", "invoice.settled"]


def test_a_paid_invoice_has_no_other_end(opened: Database) -> None:
    """In one batch, too, whatever the order of what arrives afterwards."""
    expect(opened)
    opened.post(settled("a", 1, 21_000), held(), ended())
    assert told(opened) == ["invoice.settled"]
    assert opened.decided(held(), ended()).outbox == []


def test_what_is_nobodys_here_is_not_told(opened: Database) -> None:
    """No document, or one of another node's invoice."""
    wallet = opened.new_wallet()
    opened.another.insert_invoice(invoice("b", wallet.wallet_id, account_id=wallet.account_id, pubkey=OTHER_NODE))
    changes = opened.decided(held("none"), ended("none"), held("b"), ended("b"))
    assert (list(changes.outbox), list(changes.closed), list(changes.keys)) == ([], [], [])


def test_a_document_that_another_program_has_paid_meanwhile_stays_paid(opened: Database) -> None:
    """Its own journal is the credit; ours is only the news of the end on the node."""
    expect(opened)
    decided = opened.decided(ended())
    opened.another.mark_paid(hash_of("a"))
    opened.books.commit(decided)
    stored = opened.invoices.get(hash_of("a"))
    assert stored is not None
    assert stored.paid


def test_a_release_is_written_and_read_back(store: Database) -> None:
    """Manual when it is made, automatic once somebody has said so; with the preimage, where it was the caller's."""
    wallet = store.new_wallet()
    own = invoice("a", wallet.wallet_id, account_id=wallet.account_id)
    store.invoices.insert(replace(own, release=Release.MANUAL))
    kept = invoice("b", wallet.wallet_id, account_id=wallet.account_id)
    store.invoices.insert(replace(kept, release=Release.MANUAL, preimage=""))
    ordinary = invoice("c", wallet.wallet_id, account_id=wallet.account_id)
    store.invoices.insert(ordinary)
    wanted = Wanted(payment_hashes={hash_of(name) for name in "abc"})
    before = store.books.read_facts(wanted).expectations
    assert [before[hash_of(name)].release for name in "abc"] == [Release.MANUAL, Release.MANUAL, None]
    store.invoices.release(hash_of("a"), None)
    store.invoices.release(hash_of("b"), preimage_of("b").hex())
    after = store.books.read_facts(wanted).expectations
    assert [after[hash_of(name)].release for name in "abc"] == [Release.AUTOMATIC, Release.AUTOMATIC, None]
    assert [after[hash_of(name)].preimage for name in "abc"] == [preimage_of(name).hex() for name in "abc"]
    assert store.invoices.get(hash_of("a")) == replace(own, release=Release.AUTOMATIC)
    assert [after[hash_of(name)].completed for name in "abc"] == [False, False, False]
