"""Wallets and invoices, as the API makes and reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from daemon.domain.accounts import Barred
from daemon.domain.holds import Release
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId
from daemon.domain.money import Currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A wallet (blink-contract.md 1)."""

    wallet_id: WalletId
    account_id: AccountId
    currency: Currency


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTerms:
    """What CreateInvoice was asked for, defaults filled in. `payment_hash` is empty unless the caller gave one.

    Written once, with the document and before anything else: so a repeat with other arguments is told from the first
    call, however far that has come, and what the first one makes is never mixed with what a second one asks for.
    """

    amount_sat: int | None
    amount_cents: int | None
    memo: str
    description_hash: bytes
    expiry_s: int
    hold: bool
    payment_hash: str
    default_expiry: bool = False
    """`expiry_s` is the default of then, which a repeat without one asks for, whatever it is now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvoice:
    """An `invoiceusers` document as the API needs it. `pubkey` is empty where another program's document names no node.
    `preimage` must never be logged."""

    payment_hash: PaymentHash
    wallet_id: WalletId
    account_id: AccountId
    external_id: str
    pubkey: NodePubkey
    currency: Currency
    payment_request: str | None
    paid: bool
    completed: bool
    created_at: datetime
    preimage: str = field(repr=False)
    release: Release | None = None
    """Of a hold invoice that tellerd made: who releases what it holds. The preimage is empty where the caller keeps
    it."""
    cents: int | None = None
    """What a dollar wallet is to get; None for sats, and where the payer decides."""
    asked: AskedTerms | None = None
    """None for other programs' documents, and those of tellerd's first releases."""


class Wallets(Protocol):
    """Wallets and accounts."""

    def create(self, *, account_id: AccountId | None, currency: Currency, external_id: str) -> Wallet:
        """A wallet, once per external_id: a repeat returns the first one; AlreadyExists if its arguments
        differ; NotFound if `account_id` names no account. Without account_id an account is made, too."""
        ...

    def get(self, wallet_id: WalletId) -> Wallet | None:
        """The wallet, None if there is none."""
        ...

    def barred(self, wallet: Wallet) -> Barred | None:
        """Why nothing is credited to the wallets of its account now; None where it is."""
        ...

    def page(
        self, *, account_id: AccountId | None, after: str | None, limit: int
    ) -> tuple[Sequence[Wallet], str | None]:
        """Wallets in order of creation, all or an account's, and the token of the next page, None after the last."""
        ...


class Invoices(Protocol):
    """`invoiceusers` documents."""

    def insert(self, invoice: StoredInvoice) -> None:
        """Writes a document; AlreadyExists if the account has used its external_id or the hash exists."""
        ...

    def set_payment_request(self, payment_hash: PaymentHash, payment_request: str) -> None:
        """Completes a document."""
        ...

    def release(self, payment_hash: PaymentHash, preimage: str | None) -> None:
        """What the invoice holds, or will hold, may be taken from now on; with the preimage, where the caller kept
        it."""
        ...

    def get(self, payment_hash: PaymentHash) -> StoredInvoice | None:
        """The document, None if there is none."""
        ...

    def get_by_external_id(self, account_id: AccountId, external_id: str) -> StoredInvoice | None:
        """The account's document with this external_id, None if there is none."""
        ...

    def page(self, *, wallet_id: WalletId, after: str | None, limit: int) -> tuple[Sequence[StoredInvoice], str | None]:
        """A wallet's documents, newest first, and the token of the next page, None after the last."""
        ...

    def states_told(self, invoice: StoredInvoice) -> Mapping[str, Mapping[str, Any]]:
        """The payloads of what was told of an invoice apart from its settlement, by type: invoice.held, and
        invoice.canceled or invoice.expired."""
        ...

    def settlement(self, payment_hash: PaymentHash) -> Mapping[str, Any] | None:
        """The payload of the invoice's invoice.settled event (`daemon.domain.outbox`), None if there is none."""
        ...
