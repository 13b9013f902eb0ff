"""The holes (a) to (h) that blink-contract.md 3.3 finds in Blink's receive path: none of them is in tellerd.

Each test is named after its hole and says in its first line what happens in Blink there. The payments are hold
invoices as Blink's core makes them, preimage in the document, unless a test needs another kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo import MongoClient

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo import collections as names
from tests.e2e.bank import Bank, wait_for
from tests.e2e.fail_points import REACHED_MS, SHORT_LEASE, Point, held
from tests.e2e.receives import (
    age,
    blinks_invoice,
    is_paid,
    make_hold,
    paying,
    told,
    wait_accepted,
    wait_cents,
    wait_state,
    write_document,
)

MARKING_PAID = Point("before marking paid", "update", names.INVOICES, in_transaction=False)
"""LND has settled, nothing is written."""

WRITING_LEGS = Point("before writing legs", "insert", names.LEGS, in_transaction=True)
"""The document is marked paid in a transaction that has no journal yet."""

TEN_MINUTES = 600
FIVE_MINUTES = 300

LND_GIVES_BACK = 18
"""Blocks before an HTLC's expiry at which LND 0.21 gives a held one back by itself (node-interfaces.md A.2)."""


@pytest.mark.parametrize("bank", [SHORT_LEASE], indirect=True)
def test_hole_a_crash_between_marked_paid_and_journal(bank: Bank) -> None:
    """Blink loses the credit silently. Here both are one commit: killed just there, neither stands, and the next
    start makes both. (test_kills.py does the same at every other step of the commit.)"""
    wallet = bank.write_wallet()
    invoice = blinks_invoice(bank, wallet)
    with held(bank.db.client, bank.database, WRITING_LEGS) as point, paying(bank, invoice.payment_request) as payment:
        point.wait_reached()
        bank.tellerd.process.kill()
        assert payment.result(120).succeeded
        assert not is_paid(bank, invoice.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
    bank.wait_balance(wallet, 5_000)
    assert is_paid(bank, invoice.payment_hash)
    bank.check_books()


@pytest.mark.parametrize("bank", [SHORT_LEASE], indirect=True)
def test_hole_b_dollars_settled_on_lnd_and_a_crash_before_marked_paid(bank: Bank) -> None:
    """Blink declines such a dollar invoice after five minutes: never credited. Here SETTLED is LND's word, and the
    document's cents are credited however long it took."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("hole-b")
    invoice = blinks_invoice(bank, wallet, cents=299)
    with held(bank.db.client, bank.database, MARKING_PAID) as point, paying(bank, invoice.payment_request) as payment:
        point.wait_reached()
        assert payment.result(120).succeeded
        assert bank.stack.lnd.lookup_invoice(invoice.payment_hash).state == "SETTLED"
        bank.tellerd.process.kill()
        assert not is_paid(bank, invoice.payment_hash)
        age(bank, invoice.payment_hash, TEN_MINUTES)  # now: a transaction that the killed one opens bars the document
        bank.tellerd.start()
        bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 299)
    bank.check_books()


def test_hole_c_settled_but_uncredited_waits_for_nobody(bank: Bank) -> None:
    """Blink looks again only while LND holds something, or at a restart. Here commits that fail are tried again by the
    same process, with nothing held on LND."""
    wallet = bank.write_wallet()
    invoice = blinks_invoice(bank, wallet)
    pid = bank.tellerd.process.pid
    with failing(bank.db.client, f"{bank.database}.{names.LEGS}", times=3) as wait_failed:
        with paying(bank, invoice.payment_request) as payment:
            assert payment.result(120).succeeded
        wait_failed()
        bank.wait_balance(wallet, 5_000)
    assert bank.tellerd.process.pid == pid
    bank.check_books()


def test_hole_d_held_without_a_document_until_it_comes(bank: Bank) -> None:
    """Blink's handler answers with an error. Its core has the invoice on LND before the document is written: here the
    payment waits on the node, and is taken as soon as somebody expects it."""
    wallet = bank.write_wallet()
    invoice = make_hold(bank, 5_000_000)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        assert told(bank, invoice.payment_hash) == []
        write_document(bank, invoice, wallet)
        assert payment.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.settled"]
    bank.check_books()


def test_hole_d_held_without_a_document_for_good(bank: Bank) -> None:
    """Blink never cancels it. Neither does tellerd: somebody else has made that invoice. Operators see it, and nothing
    is lost by it: LND gives it back in time, channels live on, and what has a document is served meanwhile."""
    wallet = bank.write_wallet()
    wait_for(lambda: _unknown(bank) == 0, "nothing is held that nobody expects")
    nobodys = make_hold(bank, 5_000_000)
    bank.tellerd.process.stop()  # it counts at its start, and then every minute
    with paying(bank, nobodys.payment_request) as payment:
        wait_accepted(bank, nobodys.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        wait_for(lambda: _unknown(bank) == 1, "it is counted")
        expiry_height = _expiry_height(bank, nobodys.payment_hash)
        ours = blinks_invoice(bank, wallet, value_msat=7_000_000)
        with paying(bank, ours.payment_request) as served:
            assert served.result(120).succeeded
        bank.wait_balance(wallet, 7_000)
        bank.stack.mine(expiry_height - LND_GIVES_BACK - bank.stack.bitcoind.height())
        assert not payment.result(120).succeeded
    assert told(bank, nobodys.payment_hash) == []
    assert all(channel["active"] for channel in bank.stack.lnd.list_channels())
    bank.check_books()


@pytest.mark.parametrize("bank", [SHORT_LEASE], indirect=True)
def test_hole_e_paid_inside_while_a_payment_is_held(bank: Bank) -> None:
    """Blink's paths hold different locks, and may credit both. Here a held payment of an invoice that was paid inside
    meanwhile goes back to its payer."""
    alice, bob = bank.write_wallet(), bank.write_wallet()
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, bob)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        _pay_inside(bank, alice, bob, invoice.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert not payment.result(120).succeeded
    bank.wait_balance(bob, 5_000)
    assert bank.stack.lnd.lookup_invoice(invoice.payment_hash).state == "CANCELED"
    bank.check_books()


def test_hole_e_paid_inside_in_the_middle_of_the_credit(bank: Bank) -> None:
    """The same race at its narrowest: LND has settled, and the other path marks the document paid just before the
    commit. The wallet is credited once, and the payer's money is a gap that is counted and shown, for a person."""
    alice, bob = bank.write_wallet(), bank.write_wallet()
    invoice = blinks_invoice(bank, bob)
    with held(bank.db.client, bank.database, MARKING_PAID) as point, paying(bank, invoice.payment_request) as payment:
        point.wait_reached()
        assert payment.result(120).succeeded
        _pay_inside(bank, alice, bob, invoice.payment_hash)
    wait_for(lambda: bank.db[names.GAPS].count_documents({"kind": "paid_without_journal"}) == 1, "the gap is counted")
    gap: Any = bank.db[names.GAPS].find_one({"kind": "paid_without_journal"})
    assert (gap["amount_msat"], gap["state"]) == (5_000_000, "open")
    assert invoice.payment_hash in gap["detail"]
    bank.wait_balance(bob, 5_000)
    assert "invoice.settled" not in told(bank, invoice.payment_hash)
    bank.command("verify")


def test_hole_f_an_open_dollar_invoice_is_not_canceled_for_its_age(bank: Bank) -> None:
    """Blink's decline cancels an open one whose document is older than five minutes. Here only the node says when an
    invoice is over: looked at, left open, paid, and credited with its cents."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("hole-f")
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet, cents=299, age_s=TEN_MINUTES)
    looked_at_with_it = blinks_invoice(bank, wallet, cents=1, age_s=TEN_MINUTES)
    bank.stack.lnd.cancel_invoice(looked_at_with_it.payment_hash)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    # Documents are looked up page by page, and what a page has found is told after its last one.
    wait_for(lambda: told(bank, looked_at_with_it.payment_hash) == ["invoice.canceled"], "the page was looked up")
    assert bank.stack.lnd.lookup_invoice(invoice.payment_hash).state == "OPEN"
    with paying(bank, invoice.payment_request) as payment:
        assert payment.result(120).succeeded
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 299)
    bank.check_books()


def test_hole_g_held_in_time_and_looked_at_too_late(bank: Bank) -> None:
    """Blink declines what is paid at 4:59 and looked at at 5:01. Here what LND has accepted in time is taken, for the
    cents that were promised."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("hole-g")
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet, cents=299)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        age(bank, invoice.payment_hash, FIVE_MINUTES + 1)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert payment.result(120).succeeded
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 299)
    bank.check_books()


def test_hole_g_paid_in_time_and_credited_after_its_quote(bank: Bank) -> None:
    """The same with an invoice of tellerd's own: its quote has expired when the payment is seen, and counts."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("hole-g")
        invoice = client.create_dollar_invoice(wallet, 250)
    bank.tellerd.process.kill()
    bank.pay([invoice])
    age(bank, invoice.payment_hash, FIVE_MINUTES + 1)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 250)
        wait_state(client, invoice.payment_hash, invoice_pb2.INVOICE_STATE_SETTLED)
    bank.check_books()


def test_hole_h_what_the_ledger_has_already_is_not_booked_again(bank: Bank) -> None:
    """Blink asks nobody before it books. Here a leg with the payment's hash counts as its credit, whoever wrote it."""
    with bank.tellerd.client() as client:
        wallet = bank.write_wallet()
        first, second = blinks_invoice(bank, wallet), blinks_invoice(bank, wallet, value_msat=7_000_000)
        bank.write_receipt(wallet, first.payment_hash, 5_000)
        bank.wait_balance(wallet, 5_000)
        for invoice in (first, second):
            with paying(bank, invoice.payment_request) as payment:
                assert payment.result(120).succeeded
        # The second one is credited: the first, which was settled before, has been decided.
        bank.wait_balance(wallet, 12_000)
        assert client.balance_sat(wallet) == 12_000
    booked = list(bank.db[names.LEGS].find({"hash": first.payment_hash, "credit": {"$gt": 0}}))
    assert [leg["credit"] for leg in booked] == [5_000]
    bank.check_books()


def _unknown(bank: Bank) -> int | None:
    """The gauge of what is held and nobody here expects; None while it was not counted."""
    found = re.search(r'^tellerd_holds_unknown\{node="lnd1"\} (\S+)$', bank.tellerd.get("/metrics").text, re.MULTILINE)
    return None if found is None else int(float(found[1]))


def _pay_inside(bank: Bank, sender: str, recipient: str, payment_hash: str) -> None:
    """A transfer that pays an invoice between two wallets, as Blink's core does it: journal, then marked paid."""
    bank.write_transfer(sender, recipient, 5_000, payment_hash=payment_hash)
    done = {"$set": {"paid": True, "processingCompleted": True}}
    bank.db[names.INVOICES].update_one({"_id": payment_hash}, done)


def _expiry_height(bank: Bank, payment_hash: str) -> int:
    """Of the one HTLC that an invoice holds."""
    (htlc,) = bank.stack.lnd.call("GET", f"/v1/invoice/{payment_hash}")["htlcs"]
    return int(htlc["expiry_height"])


@contextmanager
def failing(client: MongoClient[dict[str, Any]], collection: str, *, times: int) -> Iterator[Any]:
    """The next inserts into a collection lose their connection; gives a wait until the last of them has."""
    data = {"failCommands": ["insert"], "closeConnection": True, "namespace": collection}
    set_ = client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})
    last = {"waitForFailPoint": "failCommand", "timesEntered": int(set_["count"]) + times, "maxTimeMS": REACHED_MS}
    try:
        yield lambda: client.admin.command(last)
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
