"""Dollar wallets on real nodes: fixed cents for what arrives, through the dealer; no price, no guess.

The scenarios of blink-contract.md section 6 that are about dollars and amounts have their names here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2, invoice_pb2, wallet_pb2
from adapters.mongo.collections import INVOICES, LEGS, QUOTES
from adapters.mongo.documents import RELEASE
from daemon.domain.holds import Release
from daemon.domain.quotes import RELEASE_GRACE_S
from regtest.lnd_rest import LndError
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.receives import dealers, told, wait_cents, wait_state
from tests.e2e.ticker import Ticker, ticking


def create(client: Client, wallet_id: str, **fields: Any) -> invoice_pb2.Invoice:
    """Any invoice."""
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet_id, **fields)
    return client.invoices.CreateInvoice(request, timeout=CALL_S).invoice


def balances(client: Client) -> dict[tuple[str, str], int]:
    """Every account's, by account and currency."""
    rows, totals = client.trial_balance()
    assert set(totals.values()) == {0}, totals
    return {
        (row.account, wallet_pb2.Currency.Name(row.currency).removeprefix("CURRENCY_")): row.balance for row in rows
    }


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    """60,000 dollars a bitcoin, until a test says otherwise."""
    with ticking() as running:
        yield running


@pytest.fixture
def priced_bank(stack: Stack, tmp_path: Path, ticker: Ticker) -> Iterator[Bank]:
    """A bank whose price the test sets."""
    bank = Bank(stack, tmp_path)
    try:
        ticker.use(bank.tellerd)
        bank.open()
        yield bank
    finally:
        bank.close()


@pytest.fixture
def priced_chain(stack: Stack, tmp_path: Path, ticker: Ticker) -> Iterator[ChainBank]:
    """The same with a chain of its own."""
    bank = ChainBank(stack, tmp_path)
    try:
        ticker.use(bank.bank.tellerd)
        bank.open()
        yield bank
        bank.check_books()
        bank.bank.command("verify")
    finally:
        bank.close()


def test_ln_receive_usd_with_amount(bank: Bank) -> None:
    """Exactly the cents, booked leg by leg as Blink books them; books equal to the node."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("shop")
        invoice = create(client, wallet, amount_cents=250, memo="a coffee", external_id="order-1")
        assert (invoice.amount_sat, invoice.amount_cents) == (4_167, 250)
        bank.pay([invoice])
        wait_cents(client, wallet, 250)
        paid = client.invoice(invoice.payment_hash)
        assert (paid.state, paid.received_cents) == (invoice_pb2.INVOICE_STATE_SETTLED, 250)
        dealer_btc, dealer_usd = dealers(bank)
        held = balances(client)
        assert held[f"Liabilities:{wallet}", "USD"] == 250
        assert (held[dealer_usd, "USD"], held[dealer_btc, "BTC"]) == (-250, 4_167)
    legs = list(bank.db[LEGS].find({"hash": invoice.payment_hash}).sort("_id", 1))
    assert [(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs] == [
        ("Assets:Reserve:Lightning", "BTC", 4_167, 0),
        (dealer_usd, "USD", 250, 0),
        (dealer_btc, "BTC", 0, 4_167),
        (f"Liabilities:{wallet}", "USD", 0, 250),
    ]
    for leg in legs:
        assert (leg["satsAmount"], leg["satsFee"], leg["centsAmount"], leg["centsFee"]) == (4_167, 0, 250, 0)
        assert (leg["displayAmount"], leg["displayFee"], leg["displayCurrency"]) == (250, 0, "USD")
        assert (leg["type"], leg["pending"], leg["external_id"], leg["memo"]) == (
            "invoice",
            False,
            "order-1",
            "a coffee",
        )
        assert leg["pubkey"] == bank.stack.lnd.pubkey
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert (document["cents"], document["currency"], document["paid"]) == (250, "USD", True)
    quote = bank.db[QUOTES].find_one({"_id": invoice.payment_hash})
    assert quote is not None
    assert (quote["cents"], quote["sat"], quote["price"], quote["state"]) == (250, 4_167, "60000.00", "used")
    bank.check_books()


def test_ln_receive_btc_amountless(bank: Bank) -> None:
    """What comes is credited, in whole sats."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("tips")
        invoice = create(client, wallet)
        assert invoice.amount_sat == 0
        assert bank.stack.payer.pay(invoice.payment_request, amount_msat=1_234_567).succeeded
        bank.wait_balance(wallet, 1_234)
        assert client.invoice(invoice.payment_hash).received_sat == 1_234
    bank.check_books()


def test_ln_receive_usd_created_while_trigger_down_and_paid_then(bank: Bank) -> None:
    """Paid while no daemon looks: the quoted cents, once, when one is back."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("later")
        invoices = [create(client, wallet, amount_cents=100) for _ in range(3)]
    bank.tellerd.process.kill()
    bank.pay(invoices)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 300)
    bank.check_books()


def test_an_overpaid_dollar_invoice_gets_its_cents_and_the_dealer_the_rest(bank: Bank) -> None:
    """A payer may send more than was asked for: the excess is told, and stays with the dealer."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("generous")
        invoice = create(client, wallet, amount_cents=60)
        assert invoice.amount_sat == 1_000
        assert bank.stack.payer.overpay(invoice.payment_request, 1_500_999).succeeded
        wait_cents(client, wallet, 60)
        dealer_btc, dealer_usd = dealers(bank)
        held = balances(client)
        assert (held[dealer_btc, "BTC"], held[dealer_usd, "USD"]) == (1_500, -60)
    over = bank.feed(after_sequence=0, count=1, types=["invoice.overpaid"])[0]
    assert (over.invoice_overpaid.excess_sat, over.wallet_id) == (500, wallet)
    bank.check_books()


def test_a_dollar_document_of_another_program_is_credited_with_its_cents(bank: Bank) -> None:
    """As Blink's core writes it: no quote of ours, its `cents` count."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("core")
    invoice = bank.stack.lnd.add_invoice(5_000_000)
    bank.write_invoice_document(invoice.payment_hash, wallet)
    bank.db[INVOICES].update_one({"_id": invoice.payment_hash}, {"$set": {"currency": "USD", "cents": 299}})
    assert bank.stack.payer.pay(invoice.payment_request).succeeded
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 299)
    bank.check_books()


def test_a_dollar_payment_without_cents_waits_in_suspense(bank: Bank) -> None:
    """Settled by somebody else before anybody could price it: nothing is guessed."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("unpriced")
    invoice = bank.stack.lnd.add_invoice(0)
    bank.write_invoice_document(invoice.payment_hash, wallet)
    bank.db[INVOICES].update_one({"_id": invoice.payment_hash}, {"$set": {"currency": "USD"}})
    assert bank.stack.payer.pay(invoice.payment_request, amount_msat=5_000_000).succeeded
    told = bank.feed(after_sequence=0, count=1, types=["suspense.received"])[0].suspense_received
    assert (told.reason, told.amount_sat) == ("not_priced", 5_000)
    with bank.tellerd.client() as client:
        assert client.balance_cents(wallet) == 0
    bank.check_books()


def test_without_a_price_a_dollar_invoice_is_refused_and_paid_ones_are_credited(
    priced_bank: Bank, ticker: Ticker
) -> None:
    """The quote of before holds; a new one needs a price; when it is back, so are invoices, at the new price."""
    bank = priced_bank
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("shop")
        wait_for(lambda: "tellerd_price_age_seconds" in bank.tellerd.get("/metrics").text, "there is a price")
        quoted = create(client, wallet, amount_cents=100, external_id="first")
        ticker.usd_per_btc = None
        wait_for(lambda: _refused(client, wallet) is not None, "no price any more")
        code, text = _refused(client, wallet) or (None, "")
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "price_stale" in text
        assert create(client, wallet, amount_cents=100, external_id="first") == quoted
        bank.pay([quoted])
        wait_cents(client, wallet, 100)
        ticker.usd_per_btc = "30000.00"
        wait_for(lambda: _refused(client, wallet) is None, "a price again")
        again = create(client, wallet, amount_cents=100, external_id="second")
        assert (quoted.amount_sat, again.amount_sat) == (1_667, 3_333)
        bank.pay([again])
        wait_cents(client, wallet, 200)
    bank.check_books()


def _refused(client: Client, wallet: str) -> tuple[grpc.StatusCode, str] | None:
    """How a dollar invoice is refused; None if it is made."""
    try:
        create(client, wallet, amount_cents=100)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return None


def test_onchain_receive_usd(chain: ChainBank) -> None:
    """A deposit to a dollar wallet: fee to the bank owner, sats to the dealer, cents to the wallet, leg by leg."""
    with chain.bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("saver")
        txid, vout = chain.send(chain.address(client, wallet), 100_000)
        wait_for(lambda: len(chain.pending(wallet)) == 1, "it is shown as pending")
        (pending,) = chain.pending(wallet)
        assert (pending["walletCurrency"], pending["walletAmount"], pending["walletFee"]) == ("USD", 5_820, 180)
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_cents(wallet) == 5_820
        shown = chain.deposit(client, txid, vout)
        assert (shown.credited_cents, shown.fee_cents, shown.fee_sat) == (5_820, 180, 3_000)
        assert shown.state == deposit_pb2.DEPOSIT_STATE_SETTLED
    assert chain.pending(wallet) == []
    dealer_btc, dealer_usd = dealers(chain.bank)
    legs = list(chain.bank.db[LEGS].find({"hash": txid}).sort("_id", 1))
    assert [(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs] == [
        (f"Liabilities:{chain.bank_owner()}", "BTC", 0, 3_000),
        ("Assets:OnChain", "BTC", 100_000, 0),
        (dealer_usd, "USD", 5_820, 0),
        (dealer_btc, "BTC", 0, 97_000),
        (f"Liabilities:{wallet}", "USD", 0, 5_820),
    ]
    for leg in legs:
        assert (leg["type"], leg["vout"], leg["request_id"], leg["memo"]) == ("onchain_receipt", vout, None, "")
        assert (leg["satsAmount"], leg["satsFee"], leg["centsAmount"], leg["centsFee"]) == (97_000, 3_000, 5_820, 180)


def test_a_dollar_deposit_waits_for_a_price_and_a_reorg_takes_back_the_same_cents(
    priced_chain: ChainBank, ticker: Ticker
) -> None:
    """Held while the price is gone, credited at the price of the moment when it is back; the reorg reverses exactly
    that, and what confirms again is credited at the price of then."""
    chain = priced_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("saver")
        address = chain.address(client, wallet)
        ticker.usd_per_btc = None
        wait_for(lambda: _refused(client, wallet) is not None, "no price any more")
        txid, vout = chain.send(address, 100_000)
        lost, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "confirmed")
        wait_for(lambda: chain.deposit(client, txid, vout).held_reason == "price_stale", "it is held")
        assert (chain.state(txid, vout), client.balance_cents(wallet)) == ("confirmed", 0)
        ticker.usd_per_btc = "50000.00"
        chain.wait_state(txid, vout, "settled")
        assert client.balance_cents(wallet) == 4_850  # 5,000 less the fee's share
        assert chain.deposit(client, txid, vout).held_reason == ""
        ticker.usd_per_btc = "80000.00"
        wait_for(lambda: create(client, wallet, amount_cents=100).amount_sat == 1_250, "the price has changed")
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        held = balances(client)
        assert {amount for (account, _), amount in held.items() if account != "Liabilities:Teller:Opening"} - {
            held.get(("Assets:Reserve:Lightning", "BTC"), 0)
        } == {0}
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_cents(wallet) == 7_760
    assert [key.rpartition(":")[2] for key in chain.booking_keys(txid)] == ["1", "reorg", "2"]


@pytest.mark.slow
def test_update_pending_invoices_an_expired_dollar_invoice_is_declined_by_the_node(bank: Bank) -> None:
    """The price holds as long as the invoice: later nobody can pay it. What was paid in time and seen after the
    expiry is credited all the same (blink-contract.md 3.3 b and g)."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("slow")
        in_time = create(client, wallet, amount_cents=100, expiry_s=60)
        too_late = create(client, wallet, amount_cents=100, expiry_s=60)
    bank.tellerd.process.kill()
    bank.pay([in_time])
    time.sleep(max(0.0, too_late.expires_at.ToSeconds() + 2 - time.time()))
    with pytest.raises(LndError, match="expired"):
        bank.stack.payer.pay(too_late.payment_request)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 100)
        wait_state(client, too_late.payment_hash, invoice_pb2.INVOICE_STATE_EXPIRED)
    document = bank.db[INVOICES].find_one({"_id": too_late.payment_hash})
    assert document is not None
    assert (document["paid"], document["processingCompleted"]) == (False, True)
    assert bank.stack.lnd.lookup_invoice(too_late.payment_hash).state == "CANCELED"
    assert told(bank, too_late.payment_hash) == ["invoice.expired"]
    bank.check_books()


@pytest.mark.slow
def test_a_price_is_not_kept_for_who_waits_and_sees(bank: Bank) -> None:
    """Three dollar invoices are held past their quotes' expiry: one was released before a kill, one nobody has
    released, one has no amount. The first is credited, the second refused and given back, the third priced when it is
    released."""
    with ThreadPoolExecutor(3) as pool:
        with bank.tellerd.client() as client:
            wallet = client.create_dollar_wallet("shop")
            released, unreleased = (create(client, wallet, amount_cents=60, expiry_s=60, hold=True) for _ in range(2))
            priced_later = create(client, wallet, hold=True)
            pay = partial(bank.stack.payer.pay, timeout_s=180)  # held for more than a minute
            in_time, too_late = (pool.submit(pay, one.payment_request) for one in (released, unreleased))
            tip = pool.submit(pay, priced_later.payment_request, amount_msat=1_000_000)
            for one in (released, unreleased, priced_later):
                wait_state(client, one.payment_hash, invoice_pb2.INVOICE_STATE_HELD)
        held_at = time.time()
        # As SettleInvoice writes it, by a daemon that is killed at once.
        bank.tellerd.process.kill()
        bank.db[INVOICES].update_one({"_id": released.payment_hash}, {"$set": {RELEASE: Release.AUTOMATIC.value}})
        over_at = max(held_at + RELEASE_GRACE_S, unreleased.expires_at.ToSeconds()) + 1
        time.sleep(max(0.0, over_at - time.time()))
        assert bank.db[QUOTES].count_documents({"_id": priced_later.payment_hash}) == 0
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        with bank.tellerd.client() as client:
            assert _settle_refused(client, unreleased.payment_hash) == grpc.StatusCode.FAILED_PRECONDITION
            canceled = wait_state(client, unreleased.payment_hash, invoice_pb2.INVOICE_STATE_CANCELED)
            assert canceled.cancel_reason == "quote_expired"
            assert (in_time.result(120).succeeded, too_late.result(30).succeeded) == (True, False)
            wait_cents(client, wallet, 60)
            assert client.invoice(priced_later.payment_hash).state == invoice_pb2.INVOICE_STATE_HELD
            client.invoices.SettleInvoice(
                invoice_pb2.SettleInvoiceRequest(payment_hash=priced_later.payment_hash), timeout=CALL_S
            )
            assert tip.result(120).succeeded
            wait_cents(client, wallet, 120)
    bank.check_books()


def _settle_refused(client: Client, payment_hash: str) -> grpc.StatusCode:
    """How SettleInvoice is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        client.invoices.SettleInvoice(invoice_pb2.SettleInvoiceRequest(payment_hash=payment_hash), timeout=CALL_S)
    return refused.value.code()


def test_ln_receive_usd_amountless(bank: Bank) -> None:
    """The payment is held, priced, settled and credited; a quote is kept before it is settled."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("tips")
        invoice = create(client, wallet)
        assert (invoice.amount_sat, invoice.HasField("amount_cents")) == (0, False)
        assert bank.stack.payer.pay(invoice.payment_request, amount_msat=1_000_999).succeeded
        wait_cents(client, wallet, 60)
        paid = client.invoice(invoice.payment_hash)
        assert (paid.received_cents, paid.received_sat) == (60, 1_000)
    quote = bank.db[QUOTES].find_one({"_id": invoice.payment_hash})
    assert quote is not None
    assert (quote["cents"], quote["sat"], quote["state"]) == (60, 1_000, "used")
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert "cents" not in document
    bank.check_books()


def test_less_than_a_cent_goes_to_the_accounts_btc_wallet(bank: Bank) -> None:
    """16 sats are 0.96 cents at 60,000 dollars."""
    with bank.tellerd.client() as client:
        sats = client.create_wallet("both")
        account = bank.db["wallets"].find_one({"id": sats})
        assert account is not None
        request = wallet_pb2.CreateWalletRequest(
            currency=wallet_pb2.CURRENCY_USD, external_id="both-usd", account_id=account["accountId"]
        )
        wallet = client.wallets.CreateWallet(request, timeout=CALL_S).wallet.wallet_id
        invoice = create(client, wallet)
        assert bank.stack.payer.pay(invoice.payment_request, amount_msat=16_000).succeeded
        bank.wait_balance(sats, 16)
        assert client.balance_cents(wallet) == 0
        assert client.invoice(invoice.payment_hash).state == invoice_pb2.INVOICE_STATE_SETTLED
    bank.check_books()


def test_a_held_dollar_payment_waits_for_a_price(priced_bank: Bank, ticker: Ticker) -> None:
    """Neither settled nor given back while there is none; then credited at the price of then."""
    bank = priced_bank
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("tips")
        invoice = create(client, wallet)
        wait_for(lambda: _refused(client, wallet) is None, "there is a price")
        ticker.usd_per_btc = None
        wait_for(lambda: _refused(client, wallet) is not None, "no price any more")
        with ThreadPoolExecutor(1) as pool:
            paying = pool.submit(bank.stack.payer.pay, invoice.payment_request, amount_msat=1_000_000)
            wait_for(lambda: client.invoice(invoice.payment_hash).state == invoice_pb2.INVOICE_STATE_HELD, "it is held")
            assert client.balance_cents(wallet) == 0
            ticker.usd_per_btc = "30000.00"
            assert paying.result(timeout=120).succeeded
        wait_cents(client, wallet, 30)
    bank.check_books()
