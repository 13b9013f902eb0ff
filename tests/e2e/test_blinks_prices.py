"""Dollars at the prices of Blink's own servers, on real nodes: its dealer is asked for each amount, its price feed for
what is only shown; while the dealer is away nothing is guessed from the feed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo.collections import LEGS, QUOTES
from adapters.prices._pb import dealer_pb2
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client, Tellerd
from tests.blinks_prices import Servers, serving
from tests.e2e.bank import Bank, wait_for
from tests.e2e.receives import dealers, wait_cents

QUOTE_S: Final = 300
"""How long a dollar invoice lives, and its price with it."""

BLINK: Final = 'source = "blink"\nprice_address = "{feed}"\ndealer_address = "{dealer}"\nrefresh_s = 1\nmax_age_s = 60'


class Blink:
    """The price feed says 50,000 dollars, the dealer's mid price is 60,100: nothing is hidden behind equal numbers."""

    def __init__(self) -> None:
        self.servers = Servers(price=50_000.0)
        self._feed, self._dealer = ExitStack(), ExitStack()
        self.feed_address = self._feed.enter_context(serving(self.servers, dealer=False))
        self.dealer_address = self._dealer.enter_context(serving(self.servers, feed=False))

    def stop_dealer(self) -> None:
        """Nothing listens at its address any more."""
        self._dealer.close()

    def start_dealer(self) -> None:
        """At the address of before."""
        port = int(self.dealer_address.rpartition(":")[2])
        self._dealer.enter_context(serving(self.servers, feed=False, port=port))

    def close(self) -> None:
        """Ends both."""
        self._dealer.close()
        self._feed.close()

    def use(self, tellerd: Tellerd) -> None:
        """Puts these prices into the daemon's configuration; they count from the next start on."""
        section = BLINK.format(feed=self.feed_address, dealer=self.dealer_address)
        fixed = re.compile(r'^source = "fixed"\nusd_per_btc = .*$', re.MULTILINE)
        text, found = fixed.subn(section, tellerd.config_file.read_text())
        assert found == 1
        tellerd.config_file.write_text(text)


@pytest.fixture
def blink() -> Iterator[Blink]:
    """Both servers."""
    running = Blink()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def priced_bank(stack: Stack, tmp_path: Path, blink: Blink) -> Iterator[Bank]:
    """A bank that asks them, with a price."""
    bank = Bank(stack, tmp_path)
    try:
        blink.use(bank.tellerd)
        bank.open()
        wait_for(lambda: shown_price(bank) == 60_100, "there is the dealer's price")
        yield bank
    finally:
        bank.close()


def shown_price(bank: Bank) -> float | None:
    """Dollars per bitcoin, as the metrics have it."""
    return metric(bank, "tellerd_price_dollars_per_bitcoin")


def metric(bank: Bank, name: str) -> float | None:
    """Now; None if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", bank.tellerd.get("/metrics").text, re.MULTILINE)
    return None if found is None else float(found[1])


def amountless(client: Client, wallet_id: str) -> invoice_pb2.Invoice:
    """An invoice that takes any amount."""
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet_id)
    return client.invoices.CreateInvoice(request, timeout=CALL_S).invoice


def test_a_dollar_invoice_is_booked_at_the_dealers_price(priced_bank: Bank, blink: Blink) -> None:
    """He is asked for the invoice's cents and life; its payer sends the sats he named, and the legs are those of
    blink-contract.md 2.5. The mid price is only written beside what is in sats."""
    bank = priced_bank
    with bank.tellerd.client() as client:
        wallet, in_sats = client.create_dollar_wallet("shop"), client.create_wallet("in-sats")
        assert shown_price(bank) == 60_100
        invoice = client.create_dollar_invoice(wallet, 100, external_id="order-1")
        assert (invoice.amount_sat, invoice.amount_cents) == (1_670, 100)
        asked = [one for one in blink.servers.asked if isinstance(one, dealer_pb2.GetSatsFromCentsForFutureBuyRequest)]
        assert [(one.amount_in_cents, one.time_in_seconds) for one in asked] == [(100, QUOTE_S)]
        bank.pay([invoice, client.create_invoice(in_sats, 10_000)])
        wait_cents(client, wallet, 100)
        bank.wait_balance(in_sats, 10_000)
    dealer_btc, dealer_usd = dealers(bank)
    legs = list(bank.db[LEGS].find({"hash": invoice.payment_hash}).sort("_id", 1))
    assert [(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs] == [
        ("Assets:Reserve:Lightning", "BTC", 1_670, 0),
        (dealer_usd, "USD", 100, 0),
        (dealer_btc, "BTC", 0, 1_670),
        (f"Liabilities:{wallet}", "USD", 0, 100),
    ]
    assert {(leg["type"], leg["satsAmount"], leg["centsAmount"]) for leg in legs} == {("invoice", 1_670, 100)}
    quote = bank.db[QUOTES].find_one({"_id": invoice.payment_hash})
    assert quote is not None
    assert (quote["cents"], quote["sat"], quote["price"], quote["source"]) == (100, 1_670, "59880.24", "blink")
    beside = bank.db[LEGS].find_one({"accounts": f"Liabilities:{in_sats}"})
    assert beside is not None
    assert (beside["credit"], beside["centsAmount"]) == (10_000, 601)
    bank.check_books()


def test_while_the_dealer_is_away_a_dollar_payment_is_held_and_then_credited_at_his_price(
    priced_bank: Bank, blink: Blink
) -> None:
    """The feed has a price all the while, and wallets in sats are credited with it beside: no cents are made of it.
    Once he answers, the payment is settled with the cents that he gives then."""
    bank = priced_bank
    with bank.tellerd.client() as client, ThreadPoolExecutor(1) as pool:
        wallet, in_sats = client.create_dollar_wallet("tips"), client.create_wallet("in-sats")
        invoice = amountless(client, wallet)
        blink.stop_dealer()
        wait_for(lambda: shown_price(bank) == 50_000, "the feed stands in for what is shown")
        with pytest.raises(grpc.RpcError, match="dealer_away") as refused:
            client.create_dollar_invoice(wallet, 100)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        paying = pool.submit(bank.stack.payer.pay, invoice.payment_request, amount_msat=1_000_000)
        wait_for(lambda: client.invoice(invoice.payment_hash).state == invoice_pb2.INVOICE_STATE_HELD, "it is held")
        bank.pay([client.create_invoice(in_sats, 10_000)])
        bank.wait_balance(in_sats, 10_000)
        refusals = 'tellerd_quotes_total{outcome="dealer_away"}'
        before = metric(bank, refusals) or 0.0
        wait_for(lambda: (metric(bank, refusals) or 0.0) >= before + 1, "he is asked again")
        assert (paying.done(), client.balance_cents(wallet)) == (False, 0)
        assert client.invoice(invoice.payment_hash).state == invoice_pb2.INVOICE_STATE_HELD
        blink.servers.cents = 61
        blink.start_dealer()
        assert paying.result(timeout=120).succeeded
        wait_cents(client, wallet, 61)
    beside = bank.db[LEGS].find_one({"accounts": f"Liabilities:{in_sats}"})
    assert beside is not None
    assert (beside["credit"], beside["centsAmount"]) == (10_000, 500)
    dealer_btc, dealer_usd = dealers(bank)
    legs = list(bank.db[LEGS].find({"hash": invoice.payment_hash}).sort("_id", 1))
    assert [(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs] == [
        ("Assets:Reserve:Lightning", "BTC", 1_000, 0),
        (dealer_usd, "USD", 61, 0),
        (dealer_btc, "BTC", 0, 1_000),
        (f"Liabilities:{wallet}", "USD", 0, 61),
    ]
    bank.check_books()
