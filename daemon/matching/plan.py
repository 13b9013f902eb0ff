"""What a batch has decided so far; later events of the batch see what earlier ones decided."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field

from daemon.domain.accounts import wallet_account
from daemon.domain.books import BalanceKey, Expectation, Facts, Gap, SuspenseEntry, SuspenseState
from daemon.domain.chain import ChainCursor, Deposit, PendingReceive
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import BlockHash, JournalId, NodePubkey, Outpoint, PaymentHash, Txid, WalletId
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxEvent
from daemon.domain.outcomes import Outcome
from daemon.domain.quotes import Quote


@dataclass(slots=True)
class Step:
    """One fact of a plan: the key it takes, the journal it is booked with, if any, and what is told of it.

    `adopted_id` is set where the journal stands in the ledger already, written by another program. `also_takes` are
    further keys for the same journal and news: they can be asked for by other names.
    """

    key: str
    entry: JournalEntry | None
    events: tuple[OutboxEvent, ...]
    adopted_id: JournalId | None = None
    also_takes: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """Decisions of one batch over the facts it was read from."""

    facts: Facts
    steps: list[Step] = field(default_factory=list)
    paid: list[PaymentHash] = field(default_factory=list)
    closed: list[PaymentHash] = field(default_factory=list)
    """Documents whose invoices can never be paid any more."""
    suspense_new: dict[str, SuspenseEntry] = field(default_factory=dict)
    suspense_assigned: dict[str, SuspenseEntry] = field(default_factory=dict)
    gaps: dict[str, Gap] = field(default_factory=dict)
    cursors: dict[NodePubkey, LndCursor] = field(default_factory=dict)
    deposits: dict[Outpoint, Deposit] = field(default_factory=dict)
    pending: dict[Outpoint, PendingReceive | None] = field(default_factory=dict)
    moved_to: ChainCursor | None = None
    quotes: dict[PaymentHash, Quote] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    received: dict[str, int] = field(default_factory=dict)
    """Settlements, by key: what has arrived in all, where this plan books or raises it."""
    _taken: set[str] = field(default_factory=set)
    _paid: set[PaymentHash] = field(default_factory=set)
    _sums: dict[BalanceKey, int] = field(default_factory=dict)
    _summed: int = 0

    def is_booked(self, key: str) -> bool:
        """Whether the key exists, in the store or by this plan."""
        return key in self._taken or key in self.facts.booked

    def take(self, step: Step) -> None:
        """Adds a fact; its key must be free."""
        for key in (step.key, *step.also_takes):
            if self.is_booked(key):
                raise InvariantViolation(f"idempotency key {key} taken twice")
            self._taken.add(key)
        self.steps.append(step)

    def expectation(self, payment_hash: PaymentHash) -> Expectation | None:
        """The document that waits for this payment, if one exists."""
        return self.facts.expectations.get(payment_hash)

    def is_paid(self, expectation: Expectation) -> bool:
        """Whether the document is marked paid, in the store or by this plan."""
        return expectation.paid or expectation.payment_hash in self._paid

    def mark_paid(self, payment_hash: PaymentHash) -> None:
        """The document will be marked paid in this commit."""
        self.paid.append(payment_hash)
        self._paid.add(payment_hash)

    def waiting_suspense(self, key: str) -> SuspenseEntry | None:
        """The money of this key, if it waits in suspense."""
        entry = self.suspense(key)
        return None if entry is None or entry.state is not SuspenseState.WAITING else entry

    def assigned_to(self, key: str) -> WalletId | None:
        """The wallet that the money of this key was assigned to after it had waited in suspense."""
        entry = self.suspense(key)
        return None if entry is None else entry.assigned_to

    def suspense(self, key: str) -> SuspenseEntry | None:
        """The entry of this key as this plan leaves it."""
        return self.suspense_assigned.get(key) or self.suspense_new.get(key) or self.facts.suspense.get(key)

    def put_suspense(self, entry: SuspenseEntry) -> None:
        """The entry as it is now, written with this commit: new, or changed."""
        exists = entry.key in self.facts.suspense or entry.key in self.suspense_assigned
        (self.suspense_assigned if exists else self.suspense_new)[entry.key] = entry

    def received_msat(self, key: str) -> int | None:
        """What had arrived in all when the settlement was last booked; None where an older record does not say."""
        return self.received.get(key, self.facts.received.get(key))

    def cursor(self, pubkey: NodePubkey) -> LndCursor:
        """Where the node stands after what this plan has decided."""
        cursor = self.cursors.get(pubkey) or self.facts.cursors.get(pubkey)
        return cursor or LndCursor(pubkey=pubkey, name="")

    def move(self, cursor: LndCursor) -> None:
        """The node's new position, written with this commit."""
        self.cursors[cursor.pubkey] = cursor

    def chain_cursor(self) -> ChainCursor | None:
        """Where the chain stands after what this plan has decided."""
        return self.moved_to or self.facts.chain.cursor

    def move_chain(self, cursor: ChainCursor) -> None:
        """The chain's new position, written with this commit."""
        self.moved_to = cursor

    def deposit(self, outpoint: Outpoint) -> Deposit | None:
        """The deposit as this plan leaves it."""
        return self.deposits.get(outpoint) or self.facts.chain.deposits.get(outpoint)

    def put_deposit(self, deposit: Deposit) -> None:
        """The deposit's new state, written with this commit."""
        self.deposits[deposit.outpoint] = deposit

    def deposits_in(self, blocks: Collection[BlockHash]) -> list[Deposit]:
        """Deposits in these blocks, as this plan leaves them."""
        if not blocks:  # as in nearly every move
            return []
        return [one for one in self._all_deposits() if one.block is not None and one.block.hash in blocks]

    def deposits_of(self, txids: Container[Txid]) -> list[Deposit]:
        """Deposits of these txs, as this plan leaves them."""
        return [one for one in self._all_deposits() if one.txid in txids]

    def _all_deposits(self) -> Iterator[Deposit]:
        yield from {**self.facts.chain.deposits, **self.deposits}.values()

    def balance(self, wallet_id: WalletId) -> int:
        """A wallet's balance, in its currency's minor unit, after what this plan has decided, where the facts have it;
        else 0 before."""
        for step in self.steps[self._summed :]:  # each step once, however often somebody asks
            for leg in step.entry.legs if step.entry is not None else ():
                key = (leg.account, leg.currency)
                self._sums[key] = self._sums.get(key, 0) + leg.credit - leg.debit
        self._summed = len(self.steps)
        key = (wallet_account(wallet_id), self.facts.chain.currencies.get(wallet_id, Currency.BTC))
        return self.facts.chain.balances.get(wallet_id, 0) + self._sums.get(key, 0)

    def writes_nothing(self) -> bool:
        """Whether nothing new was decided, so that no commit is needed."""
        moved = any(self.facts.cursors.get(pubkey) != cursor for pubkey, cursor in self.cursors.items())
        wrote = self.steps or self.paid or self.gaps or self.deposits or self.moved_to or self.received
        return not (wrote or moved)
