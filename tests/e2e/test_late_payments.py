"""Payments that are settled after their time was over: a credit comes from LND's word alone, whatever the document or
the clock says."""

from __future__ import annotations

import time

from adapters.mongo.collections import INVOICES
from tests.e2e.bank import Bank
from tests.e2e.holding import HELD, SETTLED, is_closed, settle
from tests.e2e.receives import is_paid, make_hold, paying, told, wait_accepted, wait_state, write_document


def close(bank: Bank, payment_hash: str) -> None:
    """As Blink's core does by its own clock when an invoice's time is over: its node is not asked."""
    bank.db[INVOICES].update_one({"_id": payment_hash}, {"$set": {"processingCompleted": True}})
    assert is_closed(bank, payment_hash)


def test_a_payment_of_a_closed_document_is_credited(bank: Bank) -> None:
    """Closed as expired by another program, paid and settled on LND all the same: credited once, and the document is
    paid."""
    wallet = bank.write_wallet()
    invoice = bank.stack.lnd.add_invoice(3_000_000)
    bank.write_invoice_document(invoice.payment_hash, wallet)
    close(bank, invoice.payment_hash)
    assert bank.stack.payer.pay(invoice.payment_request).succeeded
    bank.wait_balance(wallet, 3_000)
    with bank.tellerd.client() as client:
        assert wait_state(client, invoice.payment_hash, SETTLED).received_sat == 3_000
    assert is_paid(bank, invoice.payment_hash)
    assert told(bank, invoice.payment_hash) == ["invoice.settled"]
    bank.check_books()


def test_what_another_program_settles_late_while_tellerd_is_away_is_credited(bank: Bank) -> None:
    """Held, its document closed, then taken by its own program: tellerd finds it at its start."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    invoice = make_hold(bank, 3_000_000)
    write_document(bank, invoice, wallet)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        close(bank, invoice.payment_hash)
        bank.stack.lnd.settle_hold(invoice.preimage)
        assert payment.result(120).succeeded
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, 3_000)
    assert is_paid(bank, invoice.payment_hash)
    bank.check_books()


def test_a_payment_that_is_held_when_its_invoice_expires_is_held_on(bank: Bank) -> None:
    """Paid in time, released when the invoice's time is over: neither closed nor declined, and credited."""
    wallet = bank.write_wallet()
    invoice = make_hold(bank, 3_000_000, expiry_s=15)
    over_at = time.time() + 15
    bank.write_invoice_document(invoice.payment_hash, wallet)  # its preimage is the caller's
    with bank.tellerd.client() as client, paying(bank, invoice.payment_request) as payment:
        wait_state(client, invoice.payment_hash, HELD)
        time.sleep(max(0.0, over_at + 6 - time.time()))  # a look is every 5 s
        assert client.invoice(invoice.payment_hash).state == HELD
        assert not is_closed(bank, invoice.payment_hash)
        assert settle(client, invoice.payment_hash, bytes.fromhex(invoice.preimage)).state == SETTLED
        assert payment.result(120).succeeded
    bank.wait_balance(wallet, 3_000)
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.settled"]
    bank.check_books()
