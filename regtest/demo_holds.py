"""The demo's hold invoice: the payment has arrived, and is taken only when somebody says so."""

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from regtest.demo_payments import paying
from regtest.demo_story import Story, msat, sat
from regtest.lnd_rest import LndRest
from regtest.tellerd import Client, Tellerd

DEPOSIT_SAT = 15_000

HELD_S = 30.0
"""From the payer to HELD: a tenth of a second."""


def show_hold_invoice(story: Story, tellerd: Tellerd, payer: LndRest) -> invoice_pb2.Invoice:
    """One invoice that holds its payment, and is released by call. The invoice, settled and credited."""
    story.step("A hold invoice")
    with tellerd.client() as client:
        wallet_id = client.create_wallet("demo-rental")
        story.show(f"CreateWallet   -> wallet {wallet_id}")
        invoice = client.create_hold_invoice(wallet_id, DEPOSIT_SAT, memo="a key's deposit", external_id="demo-order-3")
        story.show(f"CreateInvoice  -> {sat(invoice.amount_sat)}, hold, {invoice.payment_request[:28]}…")
        with paying(payer, [invoice.payment_request]) as payments:
            held = _wait_held(tellerd, client, invoice)
            balance_sat = client.balance_sat(wallet_id)
            story.claim(
                f"paid and HELD: {msat(held.held_msat)} wait on the node until block {held.expiry_height} at the most, "
                f"the wallet holds {sat(balance_sat)}",
                found=(held.held_msat, balance_sat, payments.ended),
                expected=(DEPOSIT_SAT * 1000, 0, []),
            )
            settled = client.settle_invoice(invoice.payment_hash)
            balance_sat = client.balance_sat(wallet_id)
            story.claim(
                f"SettleInvoice  -> released: {sat(balance_sat)} in the wallet",
                found=(settled.state, settled.received_sat, balance_sat),
                expected=(invoice_pb2.INVOICE_STATE_SETTLED, DEPOSIT_SAT, DEPOSIT_SAT),
            )
            (payment,) = payments.results()
        story.claim(
            "and only now the payer has its proof of payment",
            found=(payment.status, payment.payment_hash),
            expected=("SUCCEEDED", invoice.payment_hash),
        )
    return invoice


def _wait_held(tellerd: Tellerd, client: Client, invoice: invoice_pb2.Invoice) -> invoice_pb2.Invoice:
    """The invoice as soon as its payment is held; NodeError with tellerd's log if not in time."""
    held = invoice_pb2.INVOICE_STATE_HELD
    tellerd.process.wait_until(
        lambda: client.invoice(invoice.payment_hash).state == held, "showing the invoice as HELD", HELD_S
    )
    return client.invoice(invoice.payment_hash)
