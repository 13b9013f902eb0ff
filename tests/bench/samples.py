"""What is paid in a bench: wallets, `invoiceusers` documents, and the settlements that belong to them."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.quotes import quote_of
from adapters.mongo.schema import wallet_document
from adapters.mongo.store import MongoStore
from daemon.domain.books import Expectation
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.quotes import Quote
from tests.simulated_lnd.node import preimage_of

PUBKEY: Final = NodePubkey("02" * 33)
VALUE_MSAT: Final = 1_000_000
CENTS: Final = 60
"""What they cost at 60,000 dollars."""
MEMO: Final = "simulated"
"""As the simulated node's own invoices have it."""

_WALLETS: Final = 100

_OLD: Final = timedelta(hours=1)
"""Documents look this old: the daemon looks up new ones at once, which is not what is measured."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One invoice of the simulated node, with its place among them (1, 2, …)."""

    number: int
    wallet: Document

    @property
    def in_dollars(self) -> bool:
        """Whether its wallet counts in dollars."""
        return bool(self.wallet["currency"] == Currency.USD)

    @property
    def preimage(self) -> bytes:
        """The simulated node's."""
        return preimage_of(self.number)

    @property
    def payment_hash(self) -> PaymentHash:
        """SHA-256 of the preimage."""
        return PaymentHash(hashlib.sha256(self.preimage).hexdigest())

    def document(self) -> Document:
        """The `invoiceusers` document, as CreateInvoice leaves it."""
        payment_hash = self.payment_hash
        return {
            **({"cents": CENTS} if self.in_dollars else {}),
            "_id": payment_hash,
            "walletId": self.wallet["id"],
            "accountId": self.wallet["accountId"],
            "secret": self.preimage.hex(),
            "currency": self.wallet["currency"],
            "timestamp": datetime.now(UTC) - _OLD,
            "selfGenerated": True,
            "pubkey": PUBKEY,
            "paid": False,
            "processingCompleted": False,
            "externalId": payment_hash,
            "__v": 0,
            "paymentRequest": f"lnbcrt1simulated{payment_hash}" + "q" * 200,
        }

    def quote(self) -> Document:
        """Its quote, as CreateInvoice leaves it; for a dollar wallet."""
        return quote_of(
            Quote(
                payment_hash=self.payment_hash,
                wallet_id=WalletId(self.wallet["id"]),
                cents=CENTS,
                sat=VALUE_MSAT // 1000,
                price="60000.00",
                source="fixed",
                created_at_ms=time.time_ns() // 1_000_000,
                expires_at_ms=time.time_ns() // 1_000_000 + 300_000,
            )
        )

    def expectation(self) -> Expectation:
        """The document as the daemon reads it."""
        payment_hash = self.payment_hash
        return Expectation(
            payment_hash=payment_hash,
            wallet_id=WalletId(self.wallet["id"]),
            account_id=AccountId(self.wallet["accountId"]),
            external_id=payment_hash,
            currency=Currency(self.wallet["currency"]),
            wallet_currency=Currency(self.wallet["currency"]),
            cents=CENTS if self.in_dollars else None,
            paid=False,
            pubkey=PUBKEY,
            preimage=self.preimage.hex(),
        )

    def settlement(self, settle_index: int, at_ms: int) -> InvoiceSettled:
        """LND's word that it was paid."""
        return InvoiceSettled(
            pubkey=PUBKEY,
            payment_hash=self.payment_hash,
            settled_id=self.payment_hash,
            settle_index=settle_index,
            received_msat=VALUE_MSAT,
            settled_at_ms=at_ms,
            memo=MEMO,
        )


class SampleDatabase:
    """A database as `tellerd init` leaves it, with wallets and unpaid documents."""

    def __init__(self, store: MongoStore) -> None:
        self.store = store
        self.store.init()
        self.store.open()
        self.db = self.store.db
        self._wallets = {
            currency: [wallet_document(str(uuid.uuid4()), currency) for _ in range(_WALLETS)] for currency in Currency
        }
        for wallets in self._wallets.values():
            self.db[names.WALLETS].insert_many(wallets)
        self._made = 0

    def more(self, count: int, currency: Currency = Currency.BTC) -> Sequence[Sample]:
        """The next samples, to wallets of this currency; their documents are written."""
        wallets = self._wallets[currency]
        samples = [Sample(n, wallets[n % _WALLETS]) for n in range(self._made + 1, self._made + count + 1)]
        self._made += count
        if currency is Currency.USD:
            self.db[names.QUOTES].insert_many([sample.quote() for sample in samples], ordered=False)
        self.db[names.INVOICES].insert_many([sample.document() for sample in samples], ordered=False)
        return samples

    def close(self) -> None:
        """Closes the connections; the data stays."""
        self.store.close()
