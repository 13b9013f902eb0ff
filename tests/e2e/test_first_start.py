"""The first start on a node and a database that were used before: what is whose, to the msat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regtest.stack import Stack
from tests.e2e.bank import Bank, wait_for


@pytest.fixture
def used(stack: Stack, tmp_path: Path) -> Iterator[Bank]:
    """A bank whose database is initialised, and whose tellerd has never run."""
    bank = Bank(stack, tmp_path)
    try:
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
