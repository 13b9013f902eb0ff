"""Dollar wallets and invoices without an amount, over a real gRPC connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import event_pb2, invoice_pb2, ledger_pb2, wallet_pb2
from adapters.prices.fixed import FixedPrice
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import Currency
from daemon.domain.ports import NewInvoice, NodeInvoice, Wallet
from daemon.domain.quotes import Deal, Quote, QuoteState, Unpriced, UnpricedReason
from daemon.posting.pricing import Pricing
from tests.contract.test_grpc_api import CALL_TIMEOUT_S, Caller, connected_to, refused
from tests.unit.serving.bank_in_memory import open_bank


class Dealer:
    """A price that tests set; None: too old."""

    name = "fixed"
    usd_per_btc: str | None = "60000.00"

    def __init__(self) -> None:
        self.asked_expiry_s: list[int] = []

    def age_s(self) -> float | None:
        return 0.0

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        if self.usd_per_btc is None:
            return Unpriced(UnpricedReason.STALE)
        return FixedPrice(Decimal(self.usd_per_btc)).sats_for(amount_cents=amount_cents, expiry_s=expiry_s)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        self.asked_expiry_s.append(expiry_s)
        if self.usd_per_btc is None:
            return Unpriced(UnpricedReason.STALE)
        return FixedPrice(Decimal(self.usd_per_btc)).cents_for(amount_sat=amount_sat, expiry_s=expiry_s)


@pytest.fixture
def dealer() -> Dealer:
    return Dealer()


@pytest.fixture
def caller(dealer: Dealer) -> Iterator[Caller]:
    bank = open_bank()
    pricing = Pricing(dealer=dealer, quotes=bank.store.quotes, now_ms=lambda: int(bank.clock.unix_s() * 1000))
    bank.api = replace(bank.api, pricing=pricing)
    bank.open_books()
    yield from connected_to(bank)


def dollars(caller: Caller) -> Wallet:
    """A dollar wallet."""
    return caller.bank.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")


def create(caller: Caller, wallet: Wallet, **fields: Any) -> invoice_pb2.Invoice:
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet.wallet_id, **fields)
    return caller.invoices.CreateInvoice(request, timeout=CALL_TIMEOUT_S).invoice


def balance(caller: Caller, wallet: Wallet) -> ledger_pb2.GetBalanceResponse:
    return caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=wallet.wallet_id), timeout=CALL_TIMEOUT_S)


def test_a_dollar_invoice_asks_for_the_price_of_the_moment(caller: Caller) -> None:
    """Five minutes by default; the quote has price, source and expiry."""
    wallet = dollars(caller)
    made = create(caller, wallet, amount_cents=100, memo="a coffee")
    assert (made.amount_cents, made.amount_sat, made.HasField("received_cents")) == (100, 1_667, False)
    assert made.currency == wallet_pb2.CURRENCY_USD
    assert made.expires_at.seconds - made.created_at.seconds in (300, 301)
    quote = caller.bank.store.quotes.get(PaymentHash(made.payment_hash))
    assert quote is not None
    assert (quote.cents, quote.sat, quote.price, quote.source) == (100, 1_667, "60000.00", "fixed")
    assert quote.expires_at_ms - quote.created_at_ms == 300_000
    document = caller.bank.store.invoices.get(PaymentHash(made.payment_hash))
    assert document is not None
    assert (document.cents, document.currency) == (100, Currency.USD)


def test_a_paid_dollar_invoice_credits_exactly_its_cents(caller: Caller, dealer: Dealer) -> None:
    """Whatever the price does meanwhile; invoice, balance, transaction and feed say the same."""
    wallet = dollars(caller)
    made = create(caller, wallet, amount_cents=100, memo="a coffee", external_id="order-1")
    dealer.usd_per_btc = "30000.00"
    caller.bank.pay(made.payment_hash)
    paid = caller.invoices.GetInvoice(
        invoice_pb2.GetInvoiceRequest(payment_hash=made.payment_hash), timeout=CALL_TIMEOUT_S
    ).invoice
    assert paid.state == invoice_pb2.INVOICE_STATE_SETTLED
    assert (paid.received_cents, paid.received_sat, paid.amount_cents) == (100, 1_667, 100)
    assert balance(caller, wallet).balance_cents == 100
    (transaction,) = caller.ledger.ListTransactions(
        ledger_pb2.ListTransactionsRequest(wallet_id=wallet.wallet_id), timeout=CALL_TIMEOUT_S
    ).transactions
    assert (transaction.amount_cents, transaction.fee_cents, transaction.memo) == (100, 0, "a coffee")
    assert (transaction.balance_before_cents, transaction.balance_after_cents) == (0, 100)
    assert (transaction.external_id, transaction.payment_hash) == ("order-1", made.payment_hash)
    stream = caller.events.Subscribe(event_pb2.SubscribeRequest(types=["invoice.settled"]), timeout=CALL_TIMEOUT_S)
    told = next(stream).event.invoice_settled
    stream.cancel()
    assert (told.amount_cents, told.amount_sat) == (100, 1_667)
    quote = caller.bank.store.quotes.get(PaymentHash(made.payment_hash))
    assert quote is not None
    assert quote.state is QuoteState.USED


def test_an_overpaid_dollar_invoice_is_told(caller: Caller) -> None:
    """The wallet gets the cents, the feed the excess."""
    wallet = dollars(caller)
    made = create(caller, wallet, amount_cents=100)
    caller.bank.pay(made.payment_hash, 2_000_000)
    assert balance(caller, wallet).balance_cents == 100
    stream = caller.events.Subscribe(event_pb2.SubscribeRequest(types=["invoice.overpaid"]), timeout=CALL_TIMEOUT_S)
    event = next(stream).event
    stream.cancel()
    told = event.invoice_overpaid
    assert (told.quoted_sat, told.amount_sat, told.excess_sat, told.amount_cents) == (1_667, 2_000, 333, 100)
    assert (event.wallet_id, len(told.journal_id)) == (wallet.wallet_id, 24)


def test_a_repeat_returns_the_first_invoice_and_its_price(caller: Caller, dealer: Dealer) -> None:
    """Also while there is no price, and after it has expired; with other cents it is refused."""
    wallet = dollars(caller)
    first = create(caller, wallet, amount_cents=100, external_id="order-1")
    dealer.usd_per_btc = None
    assert create(caller, wallet, amount_cents=100, external_id="order-1") == first
    caller.bank.clock.advance(seconds=301)
    assert create(caller, wallet, amount_cents=100, external_id="order-1").payment_request == first.payment_request
    dealer.usd_per_btc = "60000.00"
    code, text = refused(lambda: create(caller, wallet, amount_cents=101, external_id="order-1"))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert "another amount_cents" in text


def test_without_a_price_nothing_is_made(caller: Caller, dealer: Dealer) -> None:
    """UNAVAILABLE with the reason; neither document nor quote nor invoice is left, and a repeat succeeds later."""
    wallet = dollars(caller)
    dealer.usd_per_btc = None
    code, text = refused(lambda: create(caller, wallet, amount_cents=100, external_id="order-1"))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert "price_stale" in text
    assert caller.bank.store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=1) == ([], None)
    assert not caller.bank.node.list_invoices(after_add_index=0, limit=1).invoices
    dealer.usd_per_btc = "60000.00"
    assert create(caller, wallet, amount_cents=100, external_id="order-1").amount_sat == 1_667


def test_without_a_price_source_a_dollar_wallet_gets_no_invoice(caller: Caller) -> None:
    """FAILED_PRECONDITION names the section to set."""
    bank = open_bank()
    for without in connected_to(bank):
        wallet = dollars(without)
        code, text = refused(lambda: create(without, wallet, amount_cents=100))  # noqa: B023 (used at once)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "set [prices]" in text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount_sat": 16}, "amount_sat: 16 cannot be accepted; at today's price this is less than a cent"),
        ({"amount_sat": 0}, "amount_sat: 0 cannot be accepted; give 1 to 2100000000000000"),
        ({"amount_sat": 2_100_000_000_000_000}, "amount_sat: 2100000000000000 cannot be accepted; at today's price"),
        ({"amount_sat": 1_000, "expiry_s": 301}, "expiry_s: 301 cannot be accepted; give 60 to 300, or 0 for 300"),
        ({"amount_cents": 0}, "amount_cents: 0 cannot be accepted; give 1 to 100000000000"),
        ({"amount_cents": -1}, "amount_cents: -1"),
        ({"amount_cents": 100_000_000_001}, "amount_cents: 100000000001"),
        ({"amount_cents": 100, "expiry_s": 301}, "expiry_s: 301 cannot be accepted; give 60 to 300, or 0 for 300"),
        ({"amount_cents": 100, "expiry_s": 59}, "expiry_s: 59"),
    ],
)
def test_a_bad_dollar_request_names_field_value_and_remedy(caller: Caller, fields: dict[str, Any], said: str) -> None:
    """INVALID_ARGUMENT, and nothing is made."""
    wallet = dollars(caller)
    code, text = refused(lambda: create(caller, wallet, **fields))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert said in text
    assert caller.bank.store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=1) == ([], None)


def test_a_dollar_invoice_in_sats_fixes_its_cents_at_the_price_of_the_moment(caller: Caller, dealer: Dealer) -> None:
    """Exactly the sats are asked for, the cents are what the dealer gives for sats that come within the expiry, and
    that is what the wallet gets."""
    wallet = dollars(caller)
    made = create(caller, wallet, amount_sat=1_000, expiry_s=120)
    assert (made.amount_sat, made.amount_cents) == (1_000, 60)
    assert made.expires_at.seconds - made.created_at.seconds in (120, 121)
    assert dealer.asked_expiry_s == [120]
    quote = caller.bank.store.quotes.get(PaymentHash(made.payment_hash))
    assert quote is not None
    assert (quote.cents, quote.sat) == (60, 1_000)
    assert quote.expires_at_ms - quote.created_at_ms == 120_000
    document = caller.bank.store.invoices.get(PaymentHash(made.payment_hash))
    assert document is not None
    assert (document.cents, document.currency) == (60, Currency.USD)
    dealer.usd_per_btc = "30000.00"
    caller.bank.pay(made.payment_hash)
    assert balance(caller, wallet).balance_cents == 60


def test_the_cents_of_sats_are_rounded_as_blink_rounds(caller: Caller) -> None:
    """The nearest, a half goes down, and a cent at the least: 17 sats are 1.02, 25 are 1.5, 26 are 1.56 cents."""
    wallet = dollars(caller)
    made = [create(caller, wallet, amount_sat=sat) for sat in (17, 25, 26)]
    assert [(one.amount_sat, one.amount_cents) for one in made] == [(17, 1), (25, 1), (26, 2)]


def test_a_repeat_in_sats_returns_the_first_invoice_and_its_cents(caller: Caller, dealer: Dealer) -> None:
    """Whatever the price does, and without one; other sats, and the same amount asked for in cents, are refused."""
    wallet = dollars(caller)
    first = create(caller, wallet, amount_sat=1_000, external_id="order-1")
    for usd_per_btc in ("30000.00", None):
        dealer.usd_per_btc = usd_per_btc
        assert create(caller, wallet, amount_sat=1_000, external_id="order-1") == first
    in_cents = create_priced(caller, dealer, wallet, amount_cents=60, external_id="order-2")
    assert in_cents.amount_sat == 1_000
    for name, fields in (
        ("order-1", {"amount_sat": 1_001}),
        ("order-1", {"amount_cents": 60}),
        ("order-1", {}),
        ("order-2", {"amount_sat": 1_000}),
    ):
        code, text = refused(lambda name=name, fields=fields: create(caller, wallet, external_id=name, **fields))
        assert (code, "another amount" in text) == (grpc.StatusCode.ALREADY_EXISTS, True), text


def create_priced(caller: Caller, dealer: Dealer, wallet: Wallet, **fields: Any) -> invoice_pb2.Invoice:
    """At 60,000 dollars."""
    dealer.usd_per_btc = "60000.00"
    return create(caller, wallet, **fields)


@pytest.mark.parametrize("quote_kept", [True, False])
def test_sats_whose_invoice_did_not_reach_the_node_keep_their_cents_or_are_over(
    caller: Caller, dealer: Dealer, monkeypatch: pytest.MonkeyPatch, quote_kept: bool
) -> None:
    """With its quote kept, a repeat has the first cents, whatever the price; without one, only at a price that gives
    the same: the document's cents are what the wallet gets, and no old price may be taken up later."""
    wallet, node = dollars(caller), caller.bank.node
    add, keep = node.add_invoice, caller.bank.store.quotes.keep

    def away(*_: object, **__: object) -> NodeInvoice:
        raise Unavailable("away")

    monkeypatch.setattr(node, "add_invoice", away)
    if not quote_kept:
        monkeypatch.setattr(caller.bank.store.quotes, "keep", away)
    assert refused(lambda: create(caller, wallet, amount_sat=1_000, external_id="a"))[0] == grpc.StatusCode.UNAVAILABLE
    monkeypatch.setattr(node, "add_invoice", add)
    monkeypatch.setattr(caller.bank.store.quotes, "keep", keep)
    dealer.usd_per_btc = "30000.00"
    if not quote_kept:
        code, text = refused(lambda: create(caller, wallet, amount_sat=1_000, external_id="a"))
        assert (code, "give another external_id" in text) == (grpc.StatusCode.ALREADY_EXISTS, True)
        assert not node.list_invoices(after_add_index=0, limit=1).invoices
        dealer.usd_per_btc = "60000.00"
    made = create(caller, wallet, amount_sat=1_000, external_id="a")
    assert (made.amount_sat, made.amount_cents) == (1_000, 60)


def test_without_a_price_no_invoice_in_sats_is_made_for_a_dollar_wallet(caller: Caller, dealer: Dealer) -> None:
    """UNAVAILABLE, and nothing is left."""
    wallet = dollars(caller)
    dealer.usd_per_btc = None
    code, text = refused(lambda: create(caller, wallet, amount_sat=1_000, external_id="a"))
    assert (code, "price_stale" in text) == (grpc.StatusCode.UNAVAILABLE, True)
    assert caller.bank.store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=1) == ([], None)


def test_cents_are_not_for_a_btc_wallet(caller: Caller) -> None:
    """INVALID_ARGUMENT with the remedy."""
    code, text = refused(lambda: create(caller, caller.bank.wallet(), amount_cents=100))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "the wallet counts in sats: give amount_sat" in text


def test_a_btc_invoice_without_an_amount_takes_what_comes(caller: Caller) -> None:
    """The payer decides; two hours by default, as in Blink; a repeat returns the first."""
    wallet = caller.bank.wallet()
    made = create(caller, wallet, external_id="tips")
    assert (made.amount_sat, made.HasField("amount_cents")) == (0, False)
    assert made.expires_at.seconds - made.created_at.seconds in (7_200, 7_201)
    assert create(caller, wallet, external_id="tips") == made
    code, text = refused(lambda: create(caller, wallet, amount_sat=5, external_id="tips"))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert "amount_sat" in text
    caller.bank.pay(made.payment_hash, 4_321_999)
    assert balance(caller, wallet).balance_sat == 4_321


def test_a_quote_is_kept_before_the_node_has_the_invoice(
    caller: Caller, dealer: Dealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node is away: a repeat asks it for the same sats, whatever the price is then."""
    wallet = dollars(caller)
    node = caller.bank.node
    add = node.add_invoice

    def away(invoice: NewInvoice) -> NodeInvoice:
        raise Unavailable("alice is away")

    monkeypatch.setattr(node, "add_invoice", away)
    code, _ = refused(lambda: create(caller, wallet, amount_cents=100, external_id="order-1"))
    assert code == grpc.StatusCode.UNAVAILABLE
    dealer.usd_per_btc = "30000.00"
    monkeypatch.setattr(node, "add_invoice", add)
    made = create(caller, wallet, amount_cents=100, external_id="order-1")
    assert (made.amount_sat, made.amount_cents) == (1_667, 100)


def test_a_quote_that_expired_before_the_node_had_the_invoice_is_over(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another price would be another answer: the caller takes another external_id."""
    wallet = dollars(caller)
    node = caller.bank.node
    add = node.add_invoice

    def away(invoice: NewInvoice) -> NodeInvoice:
        raise Unavailable("alice is away")

    monkeypatch.setattr(node, "add_invoice", away)
    refused(lambda: create(caller, wallet, amount_cents=100, external_id="order-1"))
    monkeypatch.setattr(node, "add_invoice", add)
    caller.bank.clock.advance(seconds=300)
    code, text = refused(lambda: create(caller, wallet, amount_cents=100, external_id="order-1"))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert "give another external_id" in text
    assert not node.list_invoices(after_add_index=0, limit=1).invoices


def keep_quote(caller: Caller, wallet: Wallet, payment_hash: PaymentHash, *, cents: int, sat: int, price: str) -> None:
    """A quote that is in the store already, of a document that is gone."""
    now_ms = int(caller.bank.clock.unix_s() * 1000)
    gone = Quote(
        payment_hash=payment_hash,
        wallet_id=wallet.wallet_id,
        cents=cents,
        sat=sat,
        price=price,
        source="fixed",
        created_at_ms=now_ms,
        expires_at_ms=now_ms + 300_000,
    )
    caller.bank.store.quotes.keep(gone)


def test_a_quote_over_other_cents_is_never_an_invoices_price(caller: Caller) -> None:
    """It is of a document that is gone: a hash of the caller's own may come again with other cents."""
    wallet, payment_hash = dollars(caller), PaymentHash("ab" * 32)
    keep_quote(caller, wallet, payment_hash, cents=100, sat=1_667, price="60000.00")
    made = create(caller, wallet, amount_cents=200, hold=True, payment_hash=payment_hash)
    assert (made.amount_sat, made.amount_cents) == (3_333, 200)
    kept = caller.bank.store.quotes.get(payment_hash)
    assert kept is not None
    assert (kept.cents, kept.sat) == (200, 3_333)


def test_a_quote_over_other_sats_is_never_an_invoices_price(caller: Caller) -> None:
    """Of a document that is gone, and by chance over the same cents: exactly the sats are asked for all the same."""
    wallet, payment_hash = dollars(caller), PaymentHash("ab" * 32)
    keep_quote(caller, wallet, payment_hash, cents=60, sat=1_001, price="59940.06")
    made = create(caller, wallet, amount_sat=1_000, hold=True, payment_hash=payment_hash)
    assert (made.amount_sat, made.amount_cents) == (1_000, 60)


def test_a_dollar_invoice_without_an_amount_holds_its_payment_to_price_it(caller: Caller, dealer: Dealer) -> None:
    """A hold invoice on the node, made without a price and without a quote; a repeat returns it."""
    wallet = dollars(caller)
    dealer.usd_per_btc = None
    made = create(caller, wallet, external_id="tips")
    assert (made.amount_sat, made.HasField("amount_cents")) == (0, False)
    assert made.expires_at.seconds - made.created_at.seconds in (7_200, 7_201)
    on_node = caller.bank.node.lookup_invoice(PaymentHash(made.payment_hash))
    assert on_node is not None
    assert on_node.hold is not None
    assert caller.bank.store.quotes.get(PaymentHash(made.payment_hash)) is None
    assert create(caller, wallet, external_id="tips") == made
