"""Lightning receives as Blink's core makes them, and people who pay: for tests of Blink's scenarios and holes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo.collections import ACCOUNTS, INVOICES, OUTBOX, QUOTES, WALLETS
from regtest.lnd_rest import Payment
from regtest.tellerd import Client
from tests.e2e.bank import Bank, wait_for


@dataclass(frozen=True, slots=True)
class BlinksInvoice:
    """A hold invoice whose preimage is in its document."""

    payment_hash: str
    payment_request: str
    preimage: str


def make_hold(bank: Bank, value_msat: int, *, expiry_s: int | None = None) -> BlinksInvoice:
    """A hold invoice on our LND, without a document: what Blink's core does first."""
    preimage = os.urandom(32)
    payment_hash = hashlib.sha256(preimage).hexdigest()
    added = bank.stack.lnd.add_hold_invoice(payment_hash, value_msat, "Blink's", expiry_s=expiry_s)
    return BlinksInvoice(payment_hash, added.payment_request, preimage.hex())


def write_document(
    bank: Bank, invoice: BlinksInvoice, wallet_id: str, *, cents: int | None = None, age_s: int = 0
) -> None:
    """Its `invoiceusers` document, with the preimage in `secret`, as of `age_s` ago: what Blink's core does next."""
    wallet = bank.db[WALLETS].find_one({"id": wallet_id})
    assert wallet is not None
    bank.write_invoice_document(invoice.payment_hash, wallet_id)
    fields: dict[str, object] = {"secret": invoice.preimage, "currency": wallet["currency"]}
    if cents is not None:
        fields["cents"] = cents
    bank.db[INVOICES].update_one({"_id": invoice.payment_hash}, {"$set": fields})
    if age_s:
        age(bank, invoice.payment_hash, age_s)


def blinks_invoice(
    bank: Bank, wallet_id: str, *, value_msat: int = 5_000_000, cents: int | None = None, age_s: int = 0
) -> BlinksInvoice:
    """Both."""
    invoice = make_hold(bank, value_msat)
    write_document(bank, invoice, wallet_id, cents=cents, age_s=age_s)
    return invoice


def age(bank: Bank, payment_hash: str, age_s: int) -> None:
    """Makes a document, and its quote if there is one, older than it is: the quote as of five minutes."""
    then = datetime.now(UTC) - timedelta(seconds=age_s)
    bank.db[INVOICES].update_one({"_id": payment_hash}, {"$set": {"timestamp": then}})
    expired = {"created_at": then, "expires_at": then + timedelta(seconds=300)}
    bank.db[QUOTES].update_one({"_id": payment_hash}, {"$set": expired})


@contextmanager
def paying(bank: Bank, payment_request: str) -> Iterator[Future[Payment]]:
    """Somebody pays; the call ends when the payment is settled or given back."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(bank.stack.payer.pay, payment_request)


def wait_accepted(bank: Bank, payment_hash: str) -> None:
    """Returns when our LND holds the payment."""
    wait_for(lambda: bank.stack.lnd.lookup_invoice(payment_hash).state == "ACCEPTED", "it is held on LND")


def wait_state(client: Client, payment_hash: str, state: invoice_pb2.InvoiceState.ValueType) -> invoice_pb2.Invoice:
    """The invoice, when GetInvoice says that it is in this state."""
    name = invoice_pb2.InvoiceState.Name(state)
    wait_for(lambda: client.invoice(payment_hash).state == state, f"{payment_hash} is {name}")
    return client.invoice(payment_hash)


def wait_cents(client: Client, wallet_id: str, expected: int) -> None:
    """Returns when a dollar wallet holds this, exactly."""
    wait_for(lambda: client.balance_cents(wallet_id) >= expected, f"{expected} cents in {wallet_id}")
    assert client.balance_cents(wallet_id) == expected


def is_paid(bank: Bank, payment_hash: str) -> bool:
    """What the document says."""
    document = bank.db[INVOICES].find_one({"_id": payment_hash})
    assert document is not None
    return bool(document["paid"])


def told(bank: Bank, payment_hash: str) -> list[str]:
    """What the feed says of one invoice, in order."""
    return [row["type"] for row in bank.db[OUTBOX].find({"payload.payment_hash": payment_hash}).sort("_id", 1)]


def dealers(bank: Bank) -> tuple[str, str]:
    """The accounts of the dealer's wallets, in sats and in cents."""
    dealer = bank.db[ACCOUNTS].find_one({"role": "dealer"})
    assert dealer is not None
    wallets = {one["currency"]: one["id"] for one in bank.db[WALLETS].find({"accountId": dealer["id"]})}
    return f"Liabilities:{wallets['BTC']}", f"Liabilities:{wallets['USD']}"
