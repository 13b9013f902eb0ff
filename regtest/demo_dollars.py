"""The demo's dollar invoice: sats come in, and the wallet gets the cents that were promised."""

from collections.abc import Callable

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from regtest.demo_books import MainBook
from regtest.demo_story import Story, dollars, sat, short
from regtest.lnd_rest import LndRest
from regtest.tellerd import Tellerd

PRICE_CENTS = 250
PRICE_SAT = 4_167
"""$2.50 at the configuration's 60,000 dollars a bitcoin, rounded."""

LIGHTNING = "Assets:Reserve:Lightning"


def show_dollar_invoice(
    story: Story, tellerd: Tellerd, payer: LndRest, book: MainBook, wait_credited: Callable[[str], None]
) -> invoice_pb2.Invoice:
    """One invoice in cents, from its quote to the four legs; `wait_credited` returns when a hash is. The invoice."""
    story.step("A dollar invoice")
    with tellerd.client() as client:
        wallet_id = client.create_dollar_wallet("demo-dollars")
        story.show(f"CreateWallet   -> wallet {wallet_id}, in US dollars")
        invoice = client.create_dollar_invoice(wallet_id, PRICE_CENTS, memo="a sandwich", external_id="demo-order-2")
        quote = book.quote_of(invoice.payment_hash)
        story.show(f"CreateInvoice  -> {dollars(invoice.amount_cents)}, {invoice.payment_request[:28]}…")
        story.claim(
            f"the quote: {dollars(quote['cents'])} for {sat(quote['sat'])} at {quote['price']} dollars a bitcoin, "
            f"until {quote['expires_at']:%H:%M:%S} UTC, as long as the invoice",
            found=(quote["cents"], quote["sat"], invoice.amount_sat, int(quote["expires_at"].timestamp())),
            expected=(PRICE_CENTS, PRICE_SAT, PRICE_SAT, invoice.expires_at.ToSeconds()),
        )
        payment = payer.pay(invoice.payment_request)
        story.claim(
            f"the other LND has paid {sat(payment.value_msat // 1000)}: payment hash {short(payment.payment_hash)}",
            found=(payment.status, payment.payment_hash, payment.value_msat),
            expected=("SUCCEEDED", invoice.payment_hash, PRICE_SAT * 1000),
        )
        wait_credited(invoice.payment_hash)
        legs = book.legs_of(invoice.payment_hash)
        story.show("", *book.shown(legs), "")
        dealer_btc, dealer_usd = book.dealer_accounts()
        story.claim(
            "four legs: the dealer's bitcoin wallet takes the sats, its dollar wallet gives the cents",
            found=[(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs],
            expected=[
                (LIGHTNING, "BTC", PRICE_SAT, 0),
                (dealer_usd, "USD", PRICE_CENTS, 0),
                (dealer_btc, "BTC", 0, PRICE_SAT),
                (f"Liabilities:{wallet_id}", "USD", 0, PRICE_CENTS),
            ],
        )
        balance_cents = client.balance_cents(wallet_id)
        story.claim(
            f"GetBalance     -> {dollars(balance_cents)}, exactly the quote's cents",
            found=balance_cents,
            expected=PRICE_CENTS,
        )
    return invoice
