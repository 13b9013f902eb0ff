"""The ports `Invoices` and `OpenInvoices`: documents that are unique, listed in order, and waited for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daemon.domain.errors import AlreadyExists
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceEnded
from daemon.domain.ports import AskedTerms, StoredInvoice
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, invoice, node_opened, settled


def test_a_document_is_read_back_as_it_was_written(store: Database) -> None:
    """By hash and by external_id."""
    written = invoice("a", "w1")
    store.invoices.insert(written)
    assert store.invoices.get(hash_of("a")) == written
    assert store.invoices.get_by_external_id(AccountId("account-1"), "ext-a") == written
    assert store.invoices.get_by_external_id(AccountId("account-2"), "ext-a") is None
    assert store.invoices.get(hash_of("b")) is None


def test_a_document_says_what_was_asked_for(store: Database) -> None:
    """To amounts beyond 32 bits; of other programs' it is not known."""
    in_sats = AskedTerms(
        amount_sat=2**45,
        amount_cents=None,
        memo="two teas",
        description_hash=b"",
        expiry_s=600,
        hold=True,
        payment_hash=hash_of("a"),
    )
    in_cents = replace(in_sats, amount_sat=None, amount_cents=10**11, memo="", description_hash=bytes(range(32)))
    for name, asked in (("a", in_sats), ("b", in_cents), ("c", None)):
        store.invoices.insert(replace(invoice(name, "w1"), asked=asked))
        known = store.invoices.get(hash_of(name))
        assert known is not None
        assert known.asked == asked


def test_an_account_uses_an_external_id_once(store: Database) -> None:
    """Another invoice with the same external_id is refused; another account may use it."""
    store.invoices.insert(invoice("a", "w1"))
    with pytest.raises(AlreadyExists):
        store.invoices.insert(replace(invoice("b", "w1"), external_id="ext-a"))
    assert store.invoices.get(hash_of("b")) is None
    store.invoices.insert(replace(invoice("b", "w2", account_id="account-2"), external_id="ext-a"))


def test_a_payment_hash_stands_for_one_document(store: Database) -> None:
    """A second document with the hash is refused, and the first one stays as it is."""
    first = invoice("a", "w1")
    store.invoices.insert(first)
    with pytest.raises(AlreadyExists):
        store.invoices.insert(replace(invoice("a", "w2", account_id="account-2"), external_id="another"))
    assert store.invoices.get(hash_of("a")) == first


def test_the_payment_request_comes_later(store: Database) -> None:
    """The document is written first, and completed when the node has answered."""
    store.invoices.insert(invoice("a", "w1", payment_request=None))
    store.invoices.set_payment_request(hash_of("a"), "lnbcrt1later")
    completed = store.invoices.get(hash_of("a"))
    assert completed is not None
    assert completed.payment_request == "lnbcrt1later"


def test_a_wallets_invoices_are_listed_newest_first(store: Database) -> None:
    """Every document of the wallet stands on exactly one page, also where times are equal."""
    times = {"a": 1, "b": 3, "c": 3, "d": 2, "e": 3}
    for name, seconds in times.items():
        store.invoices.insert(invoice(name, "w1", created_at_ms=MORNING_MS + seconds * 1000))
    store.invoices.insert(invoice("z", "w2"))
    seen: list[StoredInvoice] = []
    token = None
    for expected in (2, 2, 1):
        page, token = store.invoices.page(wallet_id=invoice("a", "w1").wallet_id, after=token, limit=2)
        assert len(page) == expected
        seen += page
    assert token is None
    assert {i.payment_hash for i in seen} == {hash_of(name) for name in times}
    assert [i.created_at for i in seen] == sorted((i.created_at for i in seen), reverse=True)


def test_open_invoices_of_a_node_are_paged_by_hash(store: Database) -> None:
    """Unpaid documents of this node only, ascending by hash, from the one after the mark."""
    for name in "abcde":
        store.another.insert_invoice(invoice(name, "w1"))
    store.another.insert_invoice(invoice("y", "w1", pubkey=OTHER_NODE))
    store.another.mark_paid(hash_of("c"))
    waiting = sorted(hash_of(name) for name in "abde")
    seen: list[PaymentHash] = []
    while page := store.open_invoices.open_invoices(pubkey=NODE, after=seen[-1] if seen else None, limit=3):
        assert len(page) <= 3
        assert all(one.pubkey == NODE for one in page)
        seen += [one.payment_hash for one in page]
    assert seen == waiting


def test_young_open_invoices_are_listed_newest_first(store: Database) -> None:
    """Those created at or after a moment, at most `limit`."""
    for name, seconds in {"a": 1, "b": 4, "c": 2, "d": 3}.items():
        store.another.insert_invoice(invoice(name, "w1", created_at_ms=MORNING_MS + seconds * 1000))
    since = datetime.fromtimestamp(MORNING_MS / 1000 + 2, tz=UTC)
    young = store.open_invoices.open_invoices_since(pubkey=NODE, since=since, limit=10)
    assert [one.payment_hash for one in young] == [hash_of("b"), hash_of("d"), hash_of("c")]
    assert len(store.open_invoices.open_invoices_since(pubkey=NODE, since=since, limit=2)) == 2


def test_a_settlement_is_told_by_its_invoice(store: Database) -> None:
    """The payload of invoice.settled, with the journal; None before."""
    wallet = store.new_wallet()
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    assert store.invoices.settlement(hash_of("a")) is None
    changes = store.post(settled("a", 1, 12_345))
    told = store.invoices.settlement(hash_of("a"))
    assert told is not None
    assert (told["amount_sat"], told["received_msat"]) == (12, 12_345)
    assert told["journal_id"] == changes.entries[0].journal_id
    assert store.open_invoices.open_invoices(pubkey=NODE, after=None, limit=10) == []


def test_an_old_document_that_names_no_node_is_read_like_any_other(store: Database) -> None:
    """By hash and in its wallet's list; what became of it is found, whichever node it was on."""
    wallet = store.new_wallet()
    for name in "ab":
        nodeless = replace(invoice(name, wallet.wallet_id, account_id=wallet.account_id), pubkey=NodePubkey(""))
        store.another.insert_invoice(nodeless)
    stored = store.invoices.get(hash_of("b"))
    assert stored is not None
    assert stored.pubkey == ""
    assert len(store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=10)[0]) == 2
    assert store.invoices.settlement(hash_of("a")) is None
    assert store.invoices.states_told(stored) == {}
    ended = InvoiceEnded(
        pubkey=NODE, payment_hash=hash_of("b"), reason="by_call", returned_msat=0, ended_at_ms=MORNING_MS
    )
    store.post(node_opened(), settled("a", 1, 12_345), ended)
    told = store.invoices.settlement(hash_of("a"))
    assert told is not None
    assert (told["amount_sat"], told["node"]) == (12, NODE)
    assert store.invoices.states_told(stored)["invoice.canceled"]["reason"] == "by_call"


def test_a_settlement_out_of_suspense_is_told_by_its_invoice(store: Database) -> None:
    """Money that waited in suspense, too."""
    store.post(node_opened(), settled("a", 1, 12_345))
    wallet = store.new_wallet()
    store.another.insert_invoice(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    assert store.invoices.settlement(hash_of("a")) is None
    changes = store.post(settled("a", 1, 12_345))
    told = store.invoices.settlement(hash_of("a"))
    assert told is not None
    assert (told["amount_sat"], told["journal_id"]) == (12, changes.entries[0].journal_id)
