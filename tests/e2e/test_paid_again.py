"""Money that comes again to a settled invoice, on real nodes: LND tells nobody, and no sat of it is lost.

What LND v0.21.3 answers to who tries to pay a settled invoice once more:

| how | answer |
| --- | --- |
| the same payment request, by the same node | the payer's own LND: `invoice is already paid` (ALREADY_EXISTS) |
| the same, by a node that does not remember | the payee: `incorrect_or_unknown_payment_details` |
| more than it asks for, by hash and payment address | the same |
| a keysend with the invoice's preimage, which every payer has | taken, without an event |
| an AMP invoice | another set, with an event of its own (test_spontaneous.py) |
"""

from __future__ import annotations

import base64
from typing import Any, Final

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, invoice_pb2
from adapters.mongo.collections import LEGS
from regtest.lnd_rest import LndError, LndRest
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.receives import dealers, told, wait_cents

ALREADY_EXISTS: Final = 6
REFUSED: Final = "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS"

FULL_CHECK_S: Final = 120.0


def forget(payer: LndRest, payment_hash: str) -> None:
    """The payer's LND pays no hash twice: from now on it has never paid this one."""
    name = base64.urlsafe_b64encode(bytes.fromhex(payment_hash)).decode()
    payer.call("DELETE", f"/v1/payment?payment_hash={name}")


def pay_again(bank: Bank, payment_hash: str, preimage: str, amount_msat: int) -> None:
    """Money with the invoice's preimage, from somebody who has it: whoever paid it."""
    forget(bank.stack.payer, payment_hash)
    before = bank.stack.lnd.lookup_invoice(payment_hash)
    assert bank.stack.payer.keysend(bank.stack.lnd.pubkey, amount_msat, preimage=preimage).succeeded
    after = bank.stack.lnd.lookup_invoice(payment_hash)
    assert (after.state, after.amt_paid_msat) == ("SETTLED", before.amt_paid_msat + amount_msat)


def full_check(client: Client) -> admin_pb2.FullCheck:
    """Every invoice of the node is read again."""
    return client.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=FULL_CHECK_S).full_check


def wait_repeats(client: Client, expected: int) -> None:
    """Returns when full checks have found so many invoices to which money came again; they tell each once."""
    found = 0

    def all_found() -> bool:
        nonlocal found
        found += full_check(client).repeats
        return found >= expected

    wait_for(all_found, f"{expected} repeats are found", FULL_CHECK_S)
    assert found == expected


@pytest.mark.parametrize("amount_sat", [1_000, 0], ids=["with-amount", "amountless"])
def test_lnd_takes_no_second_payment_of_a_settled_invoice(bank: Bank, amount_sat: int) -> None:
    """Neither the payer's LND nor ours, by request or by hash and address; nothing of it is in the books."""
    payer, lnd = bank.stack.payer, bank.stack.lnd
    more = {} if amount_sat else {"amount_msat": 1_000_000}
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet)
        if amount_sat:
            request.amount_sat = amount_sat
        invoice = client.invoices.CreateInvoice(request, timeout=CALL_S).invoice
        assert payer.pay(invoice.payment_request, **more).succeeded
        bank.wait_balance(wallet, 1_000)
        settled = lnd.lookup_invoice(invoice.payment_hash)
        with pytest.raises(LndError, match="invoice is already paid") as refused:
            payer.pay(invoice.payment_request, **more)
        assert refused.value.code == ALREADY_EXISTS
        forget(payer, invoice.payment_hash)
        assert payer.pay(invoice.payment_request, **more).failure_reason == REFUSED
        assert payer.overpay(invoice.payment_request, 2_000_000).failure_reason == REFUSED
        assert lnd.lookup_invoice(invoice.payment_hash) == settled
        assert full_check(client).repeats == 0
        assert (client.balance_sat(wallet), told(bank, invoice.payment_hash)) == (1_000, ["invoice.settled"])
    bank.check_books()


def test_money_that_comes_again_to_a_settled_invoice_is_its_wallets(bank: Bank) -> None:
    """A full check finds it; by then both fractions make a sat, which the wallet gets. What comes after that is found
    by itself: the next payment shows that there was an index in between. No second credit, whatever is read again."""
    with bank.tellerd.client() as client:
        wallet, other = client.create_wallet("shop"), client.create_wallet("other")
        request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet, external_id="order-1")
        invoice = client.invoices.CreateInvoice(request, timeout=CALL_S).invoice
        first = bank.stack.payer.pay(invoice.payment_request, amount_msat=3_000_400)
        bank.wait_balance(wallet, 3_000)
        pay_again(bank, invoice.payment_hash, first.preimage, 4_000_700)
        assert client.balance_sat(wallet) == 3_000
        wait_repeats(client, 1)
        bank.wait_balance(wallet, 7_001)
        pay_again(bank, invoice.payment_hash, first.preimage, 5_000_000)
        bank.pay([client.create_invoice(other, 1_000)])
        bank.wait_balance(wallet, 12_001)
        bank.wait_balance(other, 1_000)
    bank.tellerd.process.kill()
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        assert full_check(client).repeats == 0
        assert client.balance_sat(wallet) == 12_001
        shown = client.invoice(invoice.payment_hash)
        assert (shown.state, shown.received_sat) == (invoice_pb2.INVOICE_STATE_SETTLED, 3_000)
    again = [one.invoice_paid_again for one in bank.feed(after_sequence=0, count=2, types=["invoice.paid_again"])]
    assert [(one.amount_sat, one.total_received_msat, one.external_id) for one in again] == [
        (4_001, 7_001_100, "order-1"),
        (5_000, 12_001_100, "order-1"),
    ]
    bank.check_whole()


def test_money_that_comes_again_to_a_dollar_invoice_is_the_dealers(bank: Bank) -> None:
    """The wallet keeps exactly its cents; the dealer, who gave them, gets the sats, and the feed tells it."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("shop")
        invoice = client.create_dollar_invoice(wallet, 250)
        first = bank.stack.payer.pay(invoice.payment_request)
        wait_cents(client, wallet, 250)
        pay_again(bank, invoice.payment_hash, first.preimage, 5_000_999)
        wait_repeats(client, 1)
        dealer_btc, dealer_usd = dealers(bank)
        rows, _ = client.trial_balance()
        held = {row.account: row.balance for row in rows}
        assert (held[dealer_btc], held[dealer_usd]) == (4_167 + 5_000, -250)
        assert client.balance_cents(wallet) == 250
    told_again = bank.feed(after_sequence=0, count=1, types=["invoice.paid_again"])[0]
    assert (told_again.wallet_id, told_again.invoice_paid_again.amount_sat) == (wallet, 5_000)
    legs: list[dict[str, Any]] = list(bank.db[LEGS].find({"hash": invoice.payment_hash}).sort("_id", 1))
    assert [(leg["type"], leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs[4:]] == [
        ("invoice", "Assets:Reserve:Lightning", "BTC", 5_000, 0),
        ("invoice", dealer_btc, "BTC", 0, 5_000),
    ]
    bank.check_whole()
