"""What a commit is decided on (`Facts`) and what it writes (`Changes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from daemon.domain.accounts import Barred, DealerWallets
from daemon.domain.chain import ChainCursor, Deposit, PendingReceive
from daemon.domain.cursors import LndCursor
from daemon.domain.deposit_terms import ConfirmationPolicy
from daemon.domain.entries import JournalEntry
from daemon.domain.holds import Release
from daemon.domain.identifiers import (
    AccountId,
    BlockHash,
    NodePubkey,
    Outpoint,
    PaymentHash,
    Txid,
    WalletId,
)
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxRow
from daemon.domain.quotes import Quote

GENESIS_HASH = "0" * 64
"""The link before the first one."""

BalanceKey = tuple[str, str]
"""(account, currency)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The one document that every commit moves: who may write, and where feed and chain end."""

    fence: int
    sequence: int = 0
    chain_length: int = 0
    chain_hash: str = GENESIS_HASH


@dataclass(slots=True, kw_only=True)
class Expectation:
    """An `invoiceusers` document (blink-contract.md 1) and whether its wallet exists.

    `wallet_currency` is None where no wallet with this id exists. `account_id` is whose the wallet is, whatever the
    document says, empty where there is none. `pubkey` is the node that the invoice was
    made on, None where the document names none. `preimage` must never be logged.
    """

    payment_hash: PaymentHash
    wallet_id: WalletId
    account_id: AccountId
    external_id: str
    currency: Currency | None
    wallet_currency: Currency | None
    cents: int | None
    paid: bool
    pubkey: NodePubkey | None = None
    preimage: str | None = field(default=None, repr=False)
    completed: bool = False
    """Whether the document is closed: paid, or never to be paid."""
    release: Release | None = None
    """Who releases what is held, None where the document does not say."""
    barred: Barred | None = None
    """Why nothing is credited to the account's wallets now; None where it is."""

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for a payment any more: it was paid, or closed."""
        return self.paid or self.completed

    @property
    def is_in_dollars(self) -> bool:
        """Whether the document and its wallet both count in dollars."""
        return self.currency is Currency.USD and self.wallet_currency is Currency.USD


class SuspenseState(StrEnum):
    """Where money stands that was booked to suspense: it waits, it is a wallet's, or a reorg took it back."""

    WAITING = "waiting"
    ASSIGNED = "assigned"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseChange:
    """One line of an entry's trail, never rewritten: who did what, when and why.

    `by` and `reason` are a person's words; `by` is TELLERD where no person did it. `wallet_id` is whose it became,
    None where it became nobody's.
    """

    at_ms: int
    state: SuspenseState
    by: str
    reason: str
    wallet_id: WalletId | None = None


TELLERD = "tellerd"


@dataclass(slots=True, kw_only=True)
class SuspenseEntry:
    """Money that no wallet expected, or that its wallet must not have. `assigned_to` is None while it waits.

    Of a deposit `outpoint` is set, and `pubkey` and `payment_hash` are empty. `trail` is what happened to it since,
    oldest first; entries of the first releases have none.
    """

    key: str
    pubkey: NodePubkey
    payment_hash: PaymentHash
    amount_sat: int
    received_msat: int
    reason: str
    received_at_ms: int
    assigned_to: WalletId | None = None
    outpoint: Outpoint | None = None
    trail: tuple[SuspenseChange, ...] = ()

    @property
    def state(self) -> SuspenseState:
        """Where it stands."""
        if self.trail:
            return self.trail[-1].state
        return SuspenseState.WAITING if self.assigned_to is None else SuspenseState.ASSIGNED

    def changed(self, change: SuspenseChange) -> SuspenseEntry:
        """The entry after one more change."""
        return replace(self, assigned_to=change.wallet_id or self.assigned_to, trail=(*self.trail, change))


class GapState(StrEnum):
    """Where a gap stands: it waits for a person, its reason is known, or it is over."""

    OPEN = "open"
    EXPLAINED = "explained"
    CLOSED = "closed"


@dataclass(slots=True, kw_only=True)
class Gap:
    """Something that does not add up: counted, never mended silently.

    `amount_msat` is above zero where the nodes hold more than the books say. `reference` names it outside, as a
    payment hash or a txid; `node` is the LND's name or "bitcoind", where it is one's. `moved_msat` is what the node was
    seen to move, of which `amount_msat` is not accounted for (yet); 0 where it is no movement.
    """

    key: str
    kind: str
    detail: str
    amount_msat: int
    seen_at_ms: int
    state: GapState = GapState.OPEN
    reference: str = ""
    node: str = ""
    moved_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What posting knows of the books without reading: where its own last commit left the head and cursors.

    Another daemon may have posted since: then the head is another, and the next commit on this one fails.
    """

    head: Head
    cursors: Mapping[NodePubkey, LndCursor]


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What a batch needs to know."""

    keys: set[str] = field(default_factory=set)
    payment_hashes: set[PaymentHash] = field(default_factory=set)
    pubkeys: set[NodePubkey] = field(default_factory=set)
    opening: bool = False
    """A node is opened: all nodes' cursors and the Lightning account's balance are needed, too."""
    chain: bool = False
    """The chain's facts are needed (`Facts.chain`)."""
    outpoints: set[Outpoint] = field(default_factory=set)
    """Deposits, and whether another program has booked them."""
    gone_txids: set[Txid] = field(default_factory=set)
    """All deposits of these txs."""
    disconnected: set[BlockHash] = field(default_factory=set)
    """All deposits in these blocks, and the balances of all wallets that the batch is about."""
    wallet_ids: set[WalletId] = field(default_factory=set)
    """Wallets whose currency is needed; those of deposits that are read come by themselves."""
    known: Known | None = None
    """The head and the cursors that need not be read; not together with `opening`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DollarFacts:
    """What credits to dollar wallets rest on; read only where a batch has an invoice of one.

    `quotes` are those of the wanted payment hashes. `btc_wallets` are the BTC wallets of the accounts of these
    invoices. `dealer` is None where a database has none: then no dollar wallet can be credited.
    """

    dealer: DealerWallets | None = None
    quotes: Mapping[PaymentHash, Quote] = field(default_factory=dict)
    btc_wallets: Mapping[AccountId, WalletId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """What decisions on deposits rest on.

    `policy` is the newest one, None where none was ever set: then the configuration's counts. `bank_owner` is
    the wallet that gets the fees. `currencies` has the wallets that exist. `booked_elsewhere` are outputs that
    another program has booked as an on-chain receive (a leg with this hash and vout and type "onchain_receipt"
    that is not ours). `balances` are credit minus debit in the minor unit of the wallet's currency. `dealer` is read
    where one of the wallets counts in dollars. `barred` are wallets that nothing is credited to, of those asked for.
    """

    cursor: ChainCursor | None = None
    policy: ConfirmationPolicy | None = None
    bank_owner: WalletId | None = None
    deposits: Mapping[Outpoint, Deposit] = field(default_factory=dict)
    currencies: Mapping[WalletId, Currency] = field(default_factory=dict)
    booked_elsewhere: frozenset[Outpoint] = frozenset()
    balances: Mapping[WalletId, int] = field(default_factory=dict)
    dealer: DealerWallets | None = None
    barred: Mapping[WalletId, Barred] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Facts:
    """What the store holds of what a batch needs to know, read with majority.

    `booked` are the keys that exist. `booked_elsewhere` are payment hashes that another program has
    booked as a Lightning receive (a leg with this hash and type "invoice" that no key of ours covers).
    `lightning_balance` is the Lightning account's (credit minus debit, sats), read only where `Wanted.opening`.
    """

    head: Head
    booked: set[str]
    expectations: Mapping[PaymentHash, Expectation]
    suspense: Mapping[str, SuspenseEntry]
    cursors: Mapping[NodePubkey, LndCursor]
    booked_elsewhere: set[PaymentHash]
    lightning_balance: int = 0
    chain: ChainFacts = field(default_factory=ChainFacts)
    received: Mapping[str, int] = field(default_factory=dict)
    """Of booked settlements, by key: how many msat had arrived in all when last booked. Absent in older records."""
    booked_elsewhere_sat: Mapping[PaymentHash, int] = field(default_factory=dict)
    """What other programs' journals of `booked_elsewhere` took from the Lightning account, in sats."""
    dollars: DollarFacts = field(default_factory=DollarFacts)

    def is_booked_elsewhere(self, pubkey: NodePubkey, payment_hash: PaymentHash) -> bool:
        """Whether another program has booked what this node received with this hash. It books what came to the node
        that the invoice's document names: the same hash, paid on another node, is money of its own."""
        expectation = self.expectations.get(payment_hash)
        is_here = expectation is None or expectation.pubkey in (None, pubkey)
        return is_here and payment_hash in self.booked_elsewhere


@dataclass(slots=True, kw_only=True)
class KeyRecord:
    """An idempotency key that a commit takes, the journal booked for it, and the last event told of it.

    `received_msat`: of a settlement, what has arrived in all; None of everything else.
    """

    key: str
    journal_id: str | None
    sequence: int | None
    received_msat: int | None = None


@dataclass(slots=True, kw_only=True)
class AccountEffect:
    """What one journal does to one account: `delta` is credit minus debit."""

    account: str
    currency: str
    delta: int


@dataclass(slots=True, kw_only=True)
class SealedEntry:
    """A journal entry with its id and its place in the chain.

    `foreign` entries were written by another program: they get a link and move balances, but no
    documents in the ledger's collections. `hash` is SHA-256 over `previous` and the entry
    (`daemon.posting.chain`). `effects` are summed per account and currency, in order of first leg.
    """

    journal_id: str
    entry: JournalEntry
    foreign: bool
    position: int
    previous: str
    hash: str
    effects: tuple[AccountEffect, ...]


@dataclass(slots=True, kw_only=True)
class Changes:
    """All writes of one commit. `before` is the head it was decided on; another head refuses it."""

    before: Head
    after: Head
    committed_at_ms: int
    keys: Sequence[KeyRecord]
    paid: Sequence[PaymentHash]
    deltas: Mapping[BalanceKey, int]
    outbox: Sequence[OutboxRow]
    entries: Sequence[SealedEntry]
    suspense_new: Sequence[SuspenseEntry]
    suspense_assigned: Sequence[SuspenseEntry]
    """Entries that exist: assigned, or larger because money came again."""
    gaps: Sequence[Gap]
    cursors: Sequence[LndCursor]
    chain_cursor: ChainCursor | None = None
    """The chain's new position, None where it did not move."""
    deposits: Sequence[Deposit] = ()
    """Written whole, new or changed."""
    pending: Mapping[Outpoint, PendingReceive | None] = field(default_factory=dict)
    """The projection for Blink's readers: written, or None where it goes."""
    closed: Sequence[PaymentHash] = ()
    """Documents whose invoices can never be paid any more; one that is paid stays as it is."""
    received: Mapping[str, int] = field(default_factory=dict)
    """Settlements, by keys that exist: money came again, and this is what has arrived in all."""
    quotes: Sequence[Quote] = ()
    """Quotes that are used by this commit, written whole: what is kept is what was credited."""
