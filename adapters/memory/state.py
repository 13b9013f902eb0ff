"""What the database would hold: plain tables under one lock, shared by the store's sub-objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from daemon.domain.accounts import Barred, DealerWallets
from daemon.domain.api_keys import ApiKey
from daemon.domain.audit_log import AuditEntry
from daemon.domain.books import BalanceKey, Gap, Head, KeyRecord, SuspenseEntry
from daemon.domain.chain import ChainCursor, Deposit, PendingReceive
from daemon.domain.coins import SpentCoin
from daemon.domain.cursors import LndCursor
from daemon.domain.deposit_terms import PolicyChange
from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, JournalId, NodePubkey, Outpoint, PaymentHash, WalletId
from daemon.domain.outbox import OutboxRow
from daemon.domain.ports import AccountEntry, StoredInvoice, Wallet
from daemon.domain.quotes import Quote

FOREIGN_WRITER = "f0" * 5
"""The middle of another program's journal ids, where tellerd's carry the writer id."""


@dataclass(slots=True, kw_only=True)
class LedgerLeg:
    """One document of `medici_transactions`; ids ascend in the order of writing."""

    leg_id: int
    journal_id: JournalId
    leg: Leg
    details: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class LedgerJournal:
    """One document of `medici_journals`."""

    journal_id: JournalId
    datetime_ms: int
    memo: str
    leg_ids: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Link:
    """A journal's place in the chain."""

    journal_id: JournalId
    key: str
    hash: str
    foreign: bool


@dataclass(slots=True, kw_only=True)
class BalanceSnapshot:
    """One of medici's snapshots: the sum of `counted`, standing for all legs up to `through_leg_id`."""

    account: str
    currency: str
    through_leg_id: int
    counted: frozenset[int]


@dataclass(slots=True, kw_only=True)
class InvoiceDocument:
    """One document of `invoiceusers`."""

    invoice: StoredInvoice
    cents: int | None


@dataclass(slots=True, kw_only=True)
class LeaseDocument:
    """The lease."""

    holder: str
    fence: int
    expires_at_s: float


@dataclass(slots=True, kw_only=True)
class WalletDocument:
    """A wallet and the request that made it."""

    wallet: Wallet
    external_id: str
    asked_account_id: AccountId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnchainAddress:
    """One element of `wallets.onchain`; one with a pubkey is an LND's."""

    address: str
    pubkey: str | None = None


@dataclass(slots=True, kw_only=True)
class ScriptDocument:
    """A script and its wallet; `key_id` and `index` where tellerd derived it."""

    address: str
    wallet_id: WalletId
    key_id: str | None = None
    index: int = -1
    unscanned: bool = False


@dataclass(slots=True)
class Tables:
    """All collections. Hold `lock` while touching any; `hinted` shares it."""

    now_s: Callable[[], float]
    lock: threading.RLock = field(default_factory=threading.RLock)
    head: Head = field(default_factory=lambda: Head(fence=0))
    lease: LeaseDocument | None = None
    keys: dict[str, KeyRecord] = field(default_factory=dict)
    balances: dict[BalanceKey, int] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)
    journals: dict[JournalId, LedgerJournal] = field(default_factory=dict)
    legs: dict[int, LedgerLeg] = field(default_factory=dict)
    legs_by_hash: dict[str, list[int]] = field(default_factory=dict)
    links: dict[JournalId, Link] = field(default_factory=dict)
    account_entries: dict[str, list[AccountEntry]] = field(default_factory=dict)
    snapshots: list[BalanceSnapshot] = field(default_factory=list)
    cursors: dict[NodePubkey, LndCursor] = field(default_factory=dict)
    suspense: dict[str, SuspenseEntry] = field(default_factory=dict)
    gaps: dict[str, Gap] = field(default_factory=dict)
    invoices: dict[PaymentHash, InvoiceDocument] = field(default_factory=dict)
    accounts: dict[AccountId, WalletId | None] = field(default_factory=dict)
    barred: dict[AccountId, Barred] = field(default_factory=dict)
    wallets: dict[WalletId, WalletDocument] = field(default_factory=dict)
    bank_owner: WalletId | None = None
    dealer: DealerWallets | None = None
    onchain: dict[WalletId, list[OnchainAddress]] = field(default_factory=dict)
    changed_wallets: list[WalletId] = field(default_factory=list)
    chain_cursor: ChainCursor | None = None
    deposits: dict[Outpoint, Deposit] = field(default_factory=dict)
    coins: dict[Outpoint, SpentCoin] = field(default_factory=dict)
    pending: dict[Outpoint, PendingReceive] = field(default_factory=dict)
    scripts: dict[bytes, ScriptDocument] = field(default_factory=dict)
    next_index: dict[str, int] = field(default_factory=dict)
    policies: list[PolicyChange] = field(default_factory=list)
    api_keys: dict[str, ApiKey] = field(default_factory=dict)
    quotes: dict[PaymentHash, Quote] = field(default_factory=dict)
    audit: dict[str, AuditEntry] = field(default_factory=dict)
    hints: int = 0
    hinted: threading.Condition = field(init=False)
    _last_leg_id: int = 0

    def __post_init__(self) -> None:
        self.hinted = threading.Condition(self.lock)

    def now(self) -> datetime:
        """The database server's time."""
        return datetime.fromtimestamp(self.now_s(), tz=UTC)

    def add_leg(self, journal_id: JournalId, leg: Leg, details: Mapping[str, Any]) -> int:
        """Writes a leg under the next id."""
        self._last_leg_id += 1
        stored = LedgerLeg(leg_id=self._last_leg_id, journal_id=journal_id, leg=leg, details=details)
        self.legs[stored.leg_id] = stored
        payment_hash = details.get("hash")
        if isinstance(payment_hash, str):
            self.legs_by_hash.setdefault(payment_hash, []).append(stored.leg_id)
        return stored.leg_id

    def add_address(self, wallet_id: WalletId, address: OnchainAddress) -> None:
        """Appends to a wallet's `onchain` and wakes whoever waits for that."""
        self.onchain.setdefault(wallet_id, []).append(address)
        self.changed_wallets.append(wallet_id)
        self.hinted.notify_all()

    def hint(self) -> None:
        """Wakes whoever waits for another program's writes."""
        self.hints += 1
        self.hinted.notify_all()
