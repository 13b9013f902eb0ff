"""`MemoryStore`: the whole database of tellerd in memory, with the same sub-objects as `MongoStore`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from adapters.memory.addresses import MemoryAddresses
from adapters.memory.another_program import AnotherProgram
from adapters.memory.api_keys import MemoryApiKeys
from adapters.memory.audit_log import MemoryAuditLog
from adapters.memory.books import MemoryBooks
from adapters.memory.coins import MemoryCoins
from adapters.memory.deposits import MemoryDeposits
from adapters.memory.faults import CommitFaults
from adapters.memory.figures import MemoryFigures
from adapters.memory.foreign_addresses import MemoryForeignAddresses
from adapters.memory.gaps import MemoryGaps
from adapters.memory.invoices import MemoryInvoices, MemoryOpenInvoices
from adapters.memory.journals import MemoryJournals
from adapters.memory.leases import MemoryLeases
from adapters.memory.ledger import MemoryLedger
from adapters.memory.lightning_books import MemoryLightningBooks
from adapters.memory.policies import MemoryPolicies
from adapters.memory.quotes import MemoryQuotes
from adapters.memory.scripts import MemoryScripts
from adapters.memory.state import LedgerJournal, Link, Tables
from adapters.memory.suspense import MemorySuspense
from adapters.memory.wallets import MemoryWallets
from daemon.domain.accounts import DealerWallets
from daemon.domain.books import Gap, KeyRecord, SuspenseEntry
from daemon.domain.chain import PendingReceive
from daemon.domain.entries import Leg
from daemon.domain.identifiers import Outpoint, WalletId
from daemon.domain.money import Currency

MEMORY_WRITER_ID = bytes.fromhex("7e11e7d000")
"""What `tellerd init` draws at random, fixed here so that runs repeat."""


@dataclass(frozen=True, slots=True)
class LinkedJournal:
    """A journal with its place in the chain."""

    link: Link
    journal: LedgerJournal
    legs: tuple[Leg, ...]


class MemoryStore:
    """Everything a daemon keeps; it outlives the daemons that a test starts and kills on it.

    `another` acts as another program on the same database, `faults` plans what goes wrong around commits.
    `now_s` is the database server's clock in Unix seconds.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.time) -> None:
        self._tables = Tables(now_s)
        self.faults = CommitFaults()
        self.books = MemoryBooks(self._tables, self.faults, MEMORY_WRITER_ID)
        self.leases = MemoryLeases(self._tables)
        self.journals = MemoryJournals(self._tables)
        self.open_invoices = MemoryOpenInvoices(self._tables)
        self.wallets = MemoryWallets(self._tables)
        self.invoices = MemoryInvoices(self._tables)
        self.ledger = MemoryLedger(self._tables)
        self.deposits = MemoryDeposits(self._tables)
        self.coins = MemoryCoins(self._tables, MEMORY_WRITER_ID)
        self.lightning_books = MemoryLightningBooks(self._tables, MEMORY_WRITER_ID)
        self.addresses = MemoryAddresses(self._tables)
        self.policies = MemoryPolicies(self._tables)
        self.scripts = MemoryScripts(self._tables)
        self.api_keys = MemoryApiKeys(self._tables)
        self.figures = MemoryFigures(self._tables)
        self.quotes = MemoryQuotes(self._tables)
        self.gaps = MemoryGaps(self._tables)
        self.suspense = MemorySuspense(self._tables)
        self.audit_log = MemoryAuditLog(self._tables)
        self.another = AnotherProgram(self._tables)
        self._tables.bank_owner = self._make_bank_owner()
        self._tables.dealer = self._make_dealer()

    def _make_bank_owner(self) -> WalletId:
        """As `tellerd init` makes it."""
        return self.wallets.create(account_id=None, currency=Currency.BTC, external_id="system:bankowner").wallet_id

    def _make_dealer(self) -> DealerWallets:
        """Two wallets of one account, as `tellerd init` makes them."""
        btc = self.wallets.create(account_id=None, currency=Currency.BTC, external_id="system:dealer:BTC")
        usd = self.wallets.create(account_id=btc.account_id, currency=Currency.USD, external_id="system:dealer:USD")
        return DealerWallets(btc=btc.wallet_id, usd=usd.wallet_id)

    def foreign_addresses(self, script_of: Callable[[str], bytes]) -> MemoryForeignAddresses:
        """Addresses that `another` wrote; `script_of` raises ValueError for what is no address here."""
        return MemoryForeignAddresses(self._tables, script_of)

    def taken_keys(self) -> dict[str, KeyRecord]:
        """All idempotency keys, with the journal and the feed row each one stands for."""
        with self._tables.lock:
            return dict(self._tables.keys)

    def chain(self) -> list[LinkedJournal]:
        """Every journal that has its link, in order, as the ledger holds it."""
        with self._tables.lock:
            return [
                LinkedJournal(
                    link=link,
                    journal=self._tables.journals[link.journal_id],
                    legs=tuple(
                        self._tables.legs[leg_id].leg for leg_id in self._tables.journals[link.journal_id].leg_ids
                    ),
                )
                for link in self._tables.links.values()
            ]

    def known_suspense(self) -> dict[str, SuspenseEntry]:
        """All money that ever waited in suspense."""
        with self._tables.lock:
            return dict(self._tables.suspense)

    def pending_receives(self) -> dict[Outpoint, PendingReceive]:
        """What Blink's readers see of deposits that are not settled."""
        with self._tables.lock:
            return dict(self._tables.pending)

    def known_gaps(self) -> dict[str, Gap]:
        """All that ever did not add up."""
        with self._tables.lock:
            return dict(self._tables.gaps)
