"""The main job: an invoice is made over gRPC, paid by another node, and the wallet has the money."""

from __future__ import annotations

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2, ledger_pb2
from tests.e2e.bank import Bank, wait_for


def test_twenty_payments_are_credited_to_the_sat(bank: Bank) -> None:
    """20 invoices paid: every balance right, trial balance zero, books equal to the node."""
    with bank.tellerd.client() as client:
        alice, bob = client.create_wallet("alice"), client.create_wallet("bob")
        invoices = bank.invoices(client, alice, range(1_000, 1_010)) + bank.invoices(client, bob, range(2_000, 2_010))
    bank.pay(invoices)
    bank.wait_balance(alice, sum(range(1_000, 1_010)))
    bank.wait_balance(bob, sum(range(2_000, 2_010)))
    bank.check_books()


def test_a_paid_invoice_is_told_and_listed(bank: Bank) -> None:
    """WatchInvoice ends with SETTLED; the feed, the invoice and the wallet's transactions say the same."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        invoice = client.create_invoice(wallet, 12_345, memo="a coffee", external_id="order-1")
        again = client.create_invoice(wallet, 12_345, memo="a coffee", external_id="order-1")
        assert again.payment_request == invoice.payment_request
        watch = client.invoices.WatchInvoice(
            invoice_pb2.WatchInvoiceRequest(payment_hash=invoice.payment_hash), timeout=60
        )
        assert next(watch).invoice.state == invoice_pb2.INVOICE_STATE_OPEN
        bank.pay([invoice])
        *_, last = watch
        assert last.invoice.state == invoice_pb2.INVOICE_STATE_SETTLED
        assert last.invoice.received_sat == 12_345

        told = bank.feed(after_sequence=0, count=1, types=["invoice.settled"])[0]
        assert told.invoice_settled.payment_hash == invoice.payment_hash
        assert told.invoice_settled.external_id == "order-1"
        assert told.wallet_id == wallet

        listed = client.ledger.ListTransactions(ledger_pb2.ListTransactionsRequest(wallet_id=wallet), timeout=60)
        (transaction,) = listed.transactions
        assert transaction.amount_sat == 12_345
        assert (transaction.balance_before_sat, transaction.balance_after_sat) == (0, 12_345)
        assert transaction.memo == "a coffee"
        assert transaction.payment_hash == invoice.payment_hash
        assert transaction.id == told.invoice_settled.journal_id
    bank.check_books()


def test_an_invoice_made_by_hand_goes_to_suspense(bank: Bank) -> None:
    """Money that no wallet expects is booked to suspense with an event: books and node stay equal."""
    by_hand = bank.stack.lnd.add_invoice(7_000_500)  # half a sat over: the remainder is kept, too
    assert bank.stack.payer.pay(by_hand.payment_request).succeeded
    told = bank.feed(after_sequence=0, count=1, types=["suspense.received"])[0]
    assert told.suspense_received.payment_hash == by_hand.payment_hash
    assert told.suspense_received.amount_sat == 7_000
    with bank.tellerd.client() as client:
        rows, _ = client.trial_balance()
    assert {row.account: row.balance for row in rows}["Liabilities:Teller:Suspense"] == 7_000
    bank.check_books()


def test_an_invoice_that_another_program_wrote_is_credited(bank: Bank) -> None:
    """A document in `invoiceusers` that tellerd did not write is matched all the same."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("core")
    invoice = bank.stack.lnd.add_invoice(5_000_000)
    bank.write_invoice_document(invoice.payment_hash, wallet)
    assert bank.stack.payer.pay(invoice.payment_request).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_a_document_that_comes_after_the_payment_takes_it_out_of_suspense(bank: Bank) -> None:
    """A payment in suspense is assigned by a journal of its own when its expectation appears."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("late")
    invoice = bank.stack.lnd.add_invoice(3_000_000)
    assert bank.stack.payer.pay(invoice.payment_request).succeeded
    bank.feed(after_sequence=0, count=1, types=["suspense.received"])
    bank.write_invoice_document(invoice.payment_hash, wallet)
    bank.wait_balance(wallet, 3_000)
    with bank.tellerd.client() as client:
        rows, _ = client.trial_balance()
    assert {row.account: row.balance for row in rows}["Liabilities:Teller:Suspense"] == 0
    assert bank.feed(after_sequence=0, count=1, types=["suspense.assigned"])[0].wallet_id == wallet
    bank.check_books()


def test_a_journal_of_another_program_is_adopted(bank: Bank) -> None:
    """A transfer that Blink's core writes into the book moves GetBalance, and `verify` counts it."""
    with bank.tellerd.client() as client:
        alice, bob = client.create_wallet("alice"), client.create_wallet("bob")
        bank.pay(bank.invoices(client, alice, [10_000]))
        bank.wait_balance(alice, 10_000)
        bank.write_transfer(alice, bob, 4_000)
        wait_for(lambda: client.balance_sat(bob) == 4_000, "the transfer is adopted")
        assert client.balance_sat(alice) == 6_000
    assert "(1 of other programs)" in bank.command("verify")


def test_metrics_and_health_are_served(bank: Bank) -> None:
    """/metrics counts settlements, /healthz and /readyz say yes."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("measured")
        bank.pay(bank.invoices(client, wallet, [1_000, 2_000]))
    bank.wait_balance(wallet, 3_000)
    assert bank.tellerd.get("/healthz").status == 200
    assert bank.tellerd.get("/readyz").status == 200
    assert 'tellerd_outcomes_total{outcome="posted"} 2.0' in bank.tellerd.get("/metrics").text.splitlines()
