"""One suite, two stores: the memory fake and MongoDB must not be told apart by any test here."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from pymongo import MongoClient

from adapters.memory import MemoryStore
from adapters.mongo import MongoStore
from daemon.domain import ports
from daemon.domain.books import Changes
from daemon.domain.identifiers import AccountId
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent
from daemon.matching.decide import decide, wanted_by
from daemon.posting.seal import seal
from regtest.mongod import Mongod, forgetting_soon
from regtest.stack import Stack, mongod_only
from tests.contract.another_program import AnotherProgram
from tests.samples import MORNING_MS


@dataclass
class Database:
    """A fresh database: tellerd's ports on it, and another program beside it."""

    books: ports.Books
    leases: ports.Leases
    journals: ports.Journals
    open_invoices: ports.OpenInvoices
    wallets: ports.Wallets
    invoices: ports.Invoices
    ledger: ports.LedgerReader
    deposits: ports.Deposits
    coins: ports.Coins
    addresses: ports.Addresses
    policies: ports.Policies
    scripts: ports.Scripts
    api_keys: ports.ApiKeys
    figures: ports.Figures
    quotes: ports.Quotes
    gaps: ports.Gaps
    lightning_books: ports.LightningBooks
    suspense: ports.Suspense
    audit_log: ports.AuditLog
    foreign_addresses: Callable[[Callable[[str], bytes]], ports.ForeignAddresses]
    another: Any

    def decided(self, *events: NodeEvent) -> Changes:
        """What tellerd would write now for these events."""
        plan = decide(events, self.books.read_facts(wanted_by(events)), price=None)
        return seal(plan, now_ms=MORNING_MS + plan.facts.head.sequence, writer_id=self.books.writer_id)

    def post(self, *events: NodeEvent) -> Changes:
        """Writes it."""
        changes = self.decided(*events)
        self.books.commit(changes)
        return changes

    def balance(self, account: str, currency: str = "BTC") -> int:
        """The account's running balance."""
        return self.ledger.balance((account, currency))[0]

    def new_dollar_wallet(self, external_id: str = "dollars", *, account_id: AccountId | None = None) -> ports.Wallet:
        """A dollar wallet, in this account or with one of its own."""
        return self.wallets.create(account_id=account_id, currency=Currency.USD, external_id=external_id)

    def new_wallet(self, external_id: str = "wallet-1") -> ports.Wallet:
        """A BTC wallet with an account of its own."""
        return self.wallets.create(account_id=None, currency=Currency.BTC, external_id=external_id)


def _database(store: MemoryStore | MongoStore, another: Any) -> Database:
    return Database(
        books=store.books,
        leases=store.leases,
        journals=store.journals,
        open_invoices=store.open_invoices,
        wallets=store.wallets,
        invoices=store.invoices,
        ledger=store.ledger,
        deposits=store.deposits,
        coins=store.coins,
        addresses=store.addresses,
        policies=store.policies,
        scripts=store.scripts,
        api_keys=store.api_keys,
        figures=store.figures,
        quotes=store.quotes,
        gaps=store.gaps,
        lightning_books=store.lightning_books,
        suspense=store.suspense,
        audit_log=store.audit_log,
        foreign_addresses=store.foreign_addresses,
        another=another,
    )


SNAPSHOTS_S: Final = 10
"""Every test has a database of its own. With 1 s a snapshot was refused as too old half a second after its first read,
if something else was written meanwhile; 10 s is long for any test here."""


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """One mongod for the whole run."""
    with mongod_only(*forgetting_soon(snapshots_s=SNAPSHOTS_S)) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def store(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A fresh, initialised database of either kind."""
    if request.param == "memory":
        memory = MemoryStore()
        yield _database(memory, memory.another)
        return
    server: Mongod = request.getfixturevalue("mongod")
    assert server.process.alive, f"mongod ended with code {server.process.exit_code}\n{server.process.log_tail()}"
    name = f"contract_{uuid.uuid4().hex[:12]}"
    with MongoStore.connect(server.url, name) as mongo, MongoClient[dict[str, Any]](server.url) as bare:
        mongo.init()
        mongo.open()
        yield _database(mongo, AnotherProgram(bare[name]))
        bare.drop_database(name)


@pytest.fixture(scope="module")
def lnd_stack() -> Iterator[Stack]:
    """Real nodes, for one module."""
    with Stack() as stack:
        yield stack
