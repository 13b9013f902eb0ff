"""The first start on a node and a database that were used before: what is whose, to the msat."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from regtest.stack import CAPACITY_SAT, Stack
from tests.e2e.bank import Bank, wait_for
from tests.e2e.receives import make_hold, paying, wait_accepted, write_document


@pytest.fixture
def used(stack: Stack, tmp_path: Path) -> Iterator[Bank]:
    """A bank whose database is initialised, and whose tellerd has never run."""
    bank = Bank(stack, tmp_path)
    try:
        stack.wait_payable()
        bank.command("init")
        yield bank
    finally:
        bank.close()


def test_a_database_that_blink_has_used(used: Bank) -> None:
    """Blink's receipts stay as they are, a payment that it missed is credited, the rest is the opening balance."""
    wallet = used.write_wallet()
    booked, missed, nobodys = (used.stack.lnd.add_invoice(msat) for msat in (30_000_000, 5_000_400, 7_000_900))
    for invoice in (booked, missed, nobodys):
        assert used.stack.payer.pay(invoice.payment_request).succeeded
    used.write_invoice_document(booked.payment_hash, wallet, paid=True)
    used.write_receipt(wallet, booked.payment_hash, 30_000)
    used.write_invoice_document(missed.payment_hash, wallet)

    used.tellerd.start()
    used.tellerd.wait_ready()
    used.wait_opened()
    used.wait_balance(wallet, 35_000)
    with used.tellerd.client() as client:
        rows, _ = client.trial_balance()
        balances = {row.account: row.balance for row in rows}
        assert "Liabilities:Teller:Suspense" not in balances
        assert balances["Liabilities:Teller:Opening"] == -balances["Assets:Reserve:Lightning"] - 35_000
        assert used.cursor(used.stack.lnd.pubkey)["absorbed_sat"] == 30_000
        used.check_books()
        invoices = used.invoices(client, wallet, [1_000])
    used.pay(invoices)
    used.wait_balance(wallet, 36_000)
    used.check_books()


def test_a_document_that_comes_late_takes_its_money_from_the_opening(used: Bank) -> None:
    """Settled before the first start, awaited only after it: the wallet is paid out of what the opening took in."""
    wallet = used.write_wallet()
    early = used.stack.lnd.add_invoice(9_000_000)
    assert used.stack.payer.pay(early.payment_request).succeeded
    used.tellerd.start()
    used.tellerd.wait_ready()
    used.wait_opened()
    with used.tellerd.client() as client:
        opening = {row.account: row.balance for row in client.trial_balance()[0]}["Liabilities:Teller:Opening"]
        used.write_invoice_document(early.payment_hash, wallet)
        used.wait_balance(wallet, 9_000)
        wait_for(
            lambda: (
                {row.account: row.balance for row in client.trial_balance()[0]}["Liabilities:Teller:Opening"]
                == opening - 9_000
            ),
            "the opening is less by the payment",
        )
    used.check_books()


def reconcile(bank: Bank) -> admin_pb2.Reconciliation:
    """A steady look."""
    looks: list[admin_pb2.Reconciliation] = []

    def steady() -> bool:
        with bank.tellerd.client() as client:
            looks.append(client.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=60).reconciliation)
        return looks[-1].steady

    wait_for(steady, "a steady look")
    return looks[-1]


def opening_sat(bank: Bank) -> int:
    """What the opening balance says."""
    with bank.tellerd.client() as client:
        return {row.account: row.balance for row in client.trial_balance()[0]}.get("Liabilities:Teller:Opening", 0)


def test_what_is_held_at_the_first_start_is_no_part_of_the_opening(used: Bank) -> None:
    """20,000 sat wait on the node at the very first start: not its money yet. Settled, they are the wallet's, once:
    books equal the node to the msat, and nothing is unknown."""
    wallet = used.write_wallet()
    held = make_hold(used, 20_000_000)
    with paying(used, held.payment_request) as payment:
        wait_accepted(used, held.payment_hash)
        used.tellerd.start()
        used.tellerd.wait_ready()
        used.wait_opened()
        assert opening_sat(used) == used.node_msat() // 1_000
        used.check_books()
        assert reconcile(used).unknown_msat == 0
        write_document(used, held, wallet)
        assert payment.result(120).succeeded
    used.wait_balance(wallet, 20_000)
    used.check_books()
    assert reconcile(used).unknown_msat == 0


def test_a_payment_of_ours_that_is_under_way_is_part_of_the_opening(used: Bank) -> None:
    """The other side holds 7,000 sat at the very first start: ours until it takes them, and it gives them back."""
    ours, payer = used.stack.lnd, used.stack.payer
    # A hundredth of a channel cannot be spent (BOLT 2, channel_reserve_satoshis).
    assert payer.pay(ours.add_invoice(CAPACITY_SAT // 50 * 1_000).payment_request).succeeded
    theirs = hashlib.sha256(os.urandom(32)).hexdigest()
    request = payer.add_hold_invoice(theirs, 7_000_000).payment_request
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(ours.pay, request)
        wait_for(lambda: payer.lookup_invoice(theirs).state == "ACCEPTED", "the other side holds it")
        used.tellerd.start()
        used.tellerd.wait_ready()
        used.wait_opened()
        assert opening_sat(used) == used.node_msat() // 1_000 + 7_000
        assert reconcile(used).unknown_msat == 0
        payer.cancel_invoice(theirs)
        assert not sending.result(120).succeeded
    used.check_books()
    assert reconcile(used).unknown_msat == 0
