"""Small, readable values for tests: settlements, invoices, legs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import StoredInvoice

NODE = NodePubkey("02" * 33)
OTHER_NODE = NodePubkey("03" * 33)
MORNING_MS = 1_790_000_000_000
"""A moment in September 2026."""


def preimage_of(name: str) -> bytes:
    """32 bytes, the same for the same name."""
    return hashlib.sha256(name.encode()).digest()


def hash_of(name: str) -> PaymentHash:
    """The payment hash of the preimage with this name."""
    return PaymentHash(hashlib.sha256(preimage_of(name)).hexdigest())


def settled(
    name: str,
    index: int,
    received_msat: int,
    *,
    pubkey: NodePubkey = NODE,
    settled_id: str | None = None,
) -> InvoiceSettled:
    """LND's word that the invoice with this name was paid."""
    payment_hash = hash_of(name)
    return InvoiceSettled(
        pubkey=pubkey,
        payment_hash=payment_hash,
        settled_id=settled_id or payment_hash,
        settle_index=index,
        received_msat=received_msat,
        settled_at_ms=MORNING_MS + index * 1000,
        memo=f"memo of {name}",
    )


def invoice(
    name: str,
    wallet_id: str,
    *,
    account_id: str = "account-1",
    pubkey: NodePubkey = NODE,
    currency: Currency = Currency.BTC,
    created_at_ms: int = MORNING_MS,
    payment_request: str | None = "lnbcrt1sample",
) -> StoredInvoice:
    """An open `invoiceusers` document."""
    return StoredInvoice(
        payment_hash=hash_of(name),
        wallet_id=WalletId(wallet_id),
        account_id=AccountId(account_id),
        external_id=f"ext-{name}",
        pubkey=pubkey,
        currency=currency,
        payment_request=payment_request,
        paid=False,
        completed=False,
        created_at=datetime.fromtimestamp(created_at_ms / 1000, tz=UTC),
        preimage=preimage_of(name).hex(),
    )


def moved(source: str, target: str, amount: int, *, currency: str = "BTC") -> tuple[Leg, Leg]:
    """Debit source, credit target."""
    return (
        Leg(account=source, currency=currency, debit=amount),
        Leg(account=target, currency=currency, credit=amount),
    )
