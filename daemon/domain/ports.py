"""What tellerd needs of the outside world; `adapters` implements it, `adapters.memory` fakes it.

All calls block and are made from worker threads, unless they are marked async. Every call has a
deadline of its own. `Unavailable` is the only error that stands for an outage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from daemon.domain.books import AccountEffect, BalanceKey, Changes, Facts, Head, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, JournalId, NodePubkey, PaymentHash, WalletId
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import ForeignJournalFound, InvoiceSettled

# --- the Lightning node -----------------------------------------------------------------------------


class InvoiceState(StrEnum):
    """LND's states of an invoice."""

    OPEN = "open"
    SETTLED = "settled"
    CANCELED = "canceled"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """Who a node is: `network` is "mainnet", "testnet", "signet" or "regtest"."""

    pubkey: NodePubkey
    network: str
    version: str
    synced_to_chain: bool
    block_height: int
    stores_final_htlc_resolutions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInvoice:
    """An invoice as LND has it; amounts in msat, times in Unix seconds.

    `settlements` holds one event per settlement: one for an ordinary settled invoice, one per settled
    set of an AMP invoice, none otherwise.
    """

    payment_hash: PaymentHash
    payment_request: str
    state: InvoiceState
    add_index: int
    value_msat: int
    memo: str
    description_hash: bytes
    created_at_s: int
    expiry_s: int
    is_amp: bool
    settlements: tuple[InvoiceSettled, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePage:
    """One page of ListInvoices, ascending by add_index; `next_offset` is 0 after the last page."""

    invoices: tuple[NodeInvoice, ...]
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFunds:
    """What a node holds in its channels, at one moment.

    `funds_msat`: local balances, outgoing HTLCs that are not resolved, commitment fees and anchors where we
    opened the channel, pending opens. `quiet_token` changes with every commitment update. `incoming_hashes`
    are the payment hashes of incoming HTLCs that are not resolved: they are not in the figure, which can be
    trusted only if none of them pays a settled invoice.
    """

    funds_msat: int
    incoming_hashes: tuple[PaymentHash, ...]
    quiet_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """What AddInvoice is asked for: exactly one of memo and description_hash; the preimage is ours."""

    preimage: bytes = field(repr=False)
    value_msat: int
    memo: str
    description_hash: bytes
    expiry_s: int


class LightningNode(Protocol):
    """One LND. Raises Unavailable while it is away, locked, starting or hung; NodeRefused for a refusal."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    def get_info(self) -> NodeInfo:
        """Who it is, now: asked of the node each time."""
        ...

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        """Adds an invoice; if one with this preimage exists already, that one is returned."""
        ...

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """The invoice as it is now; None if the node does not know it."""
        ...

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        """Invoices in any state, ascending by add_index, from the one after `after_add_index`."""
        ...

    def funds(self) -> NodeFunds:
        """What the node holds in channels."""
        ...

    def settlements(
        self, *, after_settle_index: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[InvoiceSettled]]]:
        """The settle stream, in batches as they arrive, duplicates and reorderings included.

        Async, for Trio. 0 means live events only, no backlog. When the context is entered the
        subscription stands: nothing that settles from now on is missed. The iteration raises
        Unavailable when the stream breaks; it never ends by itself: an end with status OK is raised as
        Unavailable, too. An idle connection is checked by keepalive: a hung node is noticed within 30 s.
        """
        ...


# --- the books --------------------------------------------------------------------------------------


class Books(Protocol):
    """The ledger's store. One commit is one transaction, majority and journaled."""

    @property
    def writer_id(self) -> bytes:
        """Five random bytes, fixed at `tellerd init`, in every journal id that tellerd makes: with them
        its own journals are told from those of other programs without a look-up."""
        ...

    def read_facts(self, wanted: Wanted) -> Facts:
        """What is known of these keys, hashes and nodes; the head is read first."""
        ...

    def commit(self, changes: Changes) -> None:
        """Writes everything or nothing.

        Raises LeaseLost if another daemon holds the fence, Conflict if anything else moved (head, key,
        a document's paid mark), CommitUnknown if the outcome is not known, Unavailable if nothing was
        written.
        """
        ...

    def sweep_snapshots(self) -> int:
        """Deletes balance snapshots of medici that hide legs committed since they were taken (design.md
        section 3, Other writers); to be called at start and every few seconds. Returns how many."""
        ...

    def cursor_of_name(self, name: str) -> LndCursor | None:
        """The cursor last written for a node of this name, whatever its pubkey."""
        ...


class Leases(Protocol):
    """The one lease: who posts. Time is the database server's; a lease lives `ttl_s` from its renewal."""

    def acquire(self, *, holder: str, ttl_s: float) -> int | None:
        """Takes the lease if it is free or expired, ends the former holder's server session and raises
        the fence in the head. Returns the new fence, None while another holder's lease is valid."""
        ...

    def renew(self, *, fence: int, ttl_s: float) -> bool:
        """Prolongs the lease; False if it is no longer ours."""
        ...

    def release(self, *, fence: int) -> None:
        """Gives the lease back, so that a standby need not wait; a lost lease is no error."""
        ...

    def current(self) -> LeaseView | None:
        """Who holds the lease, for status."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """The lease document as status shows it."""

    holder: str
    fence: int
    expires_at: datetime


class Journals(Protocol):
    """Journals in the book, whoever wrote them: for adoption."""

    def foreign_journals(self, *, after: JournalId | None, limit: int) -> Sequence[ForeignJournalFound]:
        """Complete journals of other programs with `_id` above `after`, ascending by `_id`, that have no link
        in the chain yet; at most `limit`."""
        ...

    def newest_adopted(self) -> JournalId | None:
        """The largest `_id` of another program's journal that has its link; None if there is none."""
        ...

    def wait_for_hint(self, timeout_s: float) -> bool:
        """Blocks until another program may have written a journal or an invoice document, or the time is
        up; True if there was a hint. Hints may be lost or needless."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvoice:
    """An `invoiceusers` document that is not paid and not closed."""

    payment_hash: PaymentHash
    pubkey: NodePubkey
    created_at: datetime


class OpenInvoices(Protocol):
    """Documents that wait for a payment: for the look-up sweep."""

    def open_invoices(self, *, pubkey: NodePubkey, after: PaymentHash | None, limit: int) -> Sequence[OpenInvoice]:
        """Unpaid, not completed documents of this node, ascending by hash, from the one after `after`."""
        ...

    def open_invoices_since(self, *, pubkey: NodePubkey, since: datetime, limit: int) -> Sequence[OpenInvoice]:
        """The same, those created at or after `since`, newest first."""
        ...


class PriceSource(Protocol):
    """Dollar price of bitcoin."""

    def current(self) -> Price | None:
        """The price now, None if there is none or it is too old. Never blocks."""
        ...


# --- what the API reads and writes ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A wallet (blink-contract.md 1)."""

    wallet_id: WalletId
    account_id: AccountId
    currency: Currency


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvoice:
    """An `invoiceusers` document as the API needs it. `preimage` must never be logged."""

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


class Wallets(Protocol):
    """Wallets and accounts."""

    def create(self, *, account_id: AccountId | None, currency: Currency, external_id: str) -> Wallet:
        """A wallet, once per external_id: a repeat returns the first one; AlreadyExists if its arguments
        differ; NotFound if `account_id` names no account. Without account_id an account is made, too."""
        ...

    def get(self, wallet_id: WalletId) -> Wallet | None:
        """The wallet, None if there is none."""
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

    def get(self, payment_hash: PaymentHash) -> StoredInvoice | None:
        """The document, None if there is none."""
        ...

    def get_by_external_id(self, account_id: AccountId, external_id: str) -> StoredInvoice | None:
        """The account's document with this external_id, None if there is none."""
        ...

    def page(self, *, wallet_id: WalletId, after: str | None, limit: int) -> tuple[Sequence[StoredInvoice], str | None]:
        """A wallet's documents, newest first, and the token of the next page, None after the last."""
        ...

    def settlement(self, payment_hash: PaymentHash) -> Mapping[str, Any] | None:
        """The payload of the invoice's invoice.settled event (`daemon.domain.outbox`), None if there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """One line of the trial balance; `balance` is credit minus debit in minor units."""

    account: str
    currency: str
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialBalancePage:
    """Some accounts, the totals over all (zero, or the books are broken), and the feed's position."""

    rows: Sequence[AccountRow]
    totals: Mapping[str, int]
    sequence: int
    next_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEntry:
    """A journal as one account sees it. `legs_details` is the metadata of its leg in the ledger.

    `delta` and `balance_after` are credit minus debit in minor units; `position` is the place in the chain.
    """

    journal_id: JournalId
    key: str
    position: int
    delta: int
    balance_after: int
    currency: str
    memo: str
    booked_at_ms: int
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A row of the outbox; `payload` as in `daemon.domain.outbox.OutboxEvent`, with `journal_id` added."""

    sequence: int
    id: str
    type: str
    occurred_at_ms: int
    wallet_ids: tuple[str, ...]
    payload: Mapping[str, Any]


class LedgerReader(Protocol):
    """The books, for reading: majority read concern, at most a second behind the last commit."""

    def head(self) -> Head:
        """Where feed and chain end."""
        ...

    def balance(self, key: BalanceKey) -> tuple[int, int]:
        """Balance (credit minus debit; 0 for an unknown account) and the feed sequence it is at least as new as."""
        ...

    def entries(self, *, account: str, before: int | None, limit: int) -> Sequence[AccountEntry]:
        """An account's journals, newest first by place in the chain, those before position `before`."""
        ...

    def trial_balance(self, *, after: str | None, limit: int) -> TrialBalancePage:
        """Balances of all accounts, ascending by name."""
        ...

    def events(self, *, after_sequence: int, limit: int) -> Sequence[StoredEvent]:
        """Outbox rows above a sequence, ascending, without gaps; at most `limit`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """The database server, as it answered just now."""

    replica_set: str
    version: str


class StoreProbe(Protocol):
    """Whether the database answers: for status and readiness."""

    @property
    def database(self) -> str:
        """The database's name in the configuration."""
        ...

    def probe(self) -> StoreInfo:
        """Asks the primary; Unavailable after a deadline of a few seconds if it does not answer."""
        ...


class Metrics(Protocol):
    """What posting and ingest count; implemented over prometheus_client in `daemon.serving.metrics`."""

    def settled(self, *, outcome: str, amount_sat: int, latency_s: float | None) -> None:
        """One settlement was decided and committed."""
        ...

    def committed(self, *, events: int, duration_s: float) -> None:
        """One commit."""
        ...

    def retried(self, *, cause: str) -> None:
        """A commit was tried again."""
        ...

    def node_connected(self, *, node: str, connected: bool) -> None:
        """A node's stream stands or fell."""
        ...

    def cursor_moved(self, cursor: LndCursor) -> None:
        """A node's cursor after a commit: index, open gaps, remainder."""
        ...

    def leading(self, leading: bool) -> None:
        """Whether this process holds the lease."""
        ...


# --- the audit --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedJournal:
    """A journal and its legs as the ledger holds them now; legs in the order of their `_id`."""

    datetime_ms: int
    legs: tuple[Leg, ...]
    leg_ids: tuple[str, ...]
    listed_leg_ids: tuple[str, ...]
    """The legs that the journal document itself names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedLink:
    """A link of the chain, with what it stands for; `journal` is None if the journal is gone.

    `key_journal_id` is the journal that the link's idempotency key names, None if the key is gone.
    """

    journal_id: JournalId
    position: int
    key: str
    previous: str
    hash: str
    foreign: bool
    effects: tuple[AccountEffect, ...]
    journal: AuditedJournal | None
    key_journal_id: str | None


class Audit(Protocol):
    """Everything that `tellerd verify` reads, from one moment."""

    def head(self) -> Head:
        """Where feed and chain end."""
        ...

    def links(self) -> Iterator[AuditedLink]:
        """All links by position."""
        ...

    def balances(self) -> Iterator[AccountRow]:
        """All running balances."""
        ...

    def outbox_sequences(self) -> Iterator[int]:
        """All numbers of the feed, ascending."""
        ...

    def cursors(self) -> Sequence[LndCursor]:
        """All nodes' cursors."""
        ...

    def unlinked_legs(self) -> Iterator[tuple[str, str]]:
        """Legs in the book whose journal has no link: (leg id, journal id)."""
        ...
