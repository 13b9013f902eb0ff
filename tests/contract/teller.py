"""tellerd's books on a real MongoDB, posted to as the daemon does it: store, poster, and the adoption of journals."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adapters.mongo import MongoStore
from daemon.domain.books import Changes
from daemon.domain.identifiers import NodePubkey
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import NodeEvent
from daemon.domain.ports import Wallet
from daemon.matching.decide import decide, wanted_by
from daemon.posting.board import Board
from daemon.posting.poster import Committed, Poster
from daemon.posting.seal import seal
from regtest.mongod import Mongod
from tests.samples import NODE, invoice, node_opened, settled

NOW_MS = time.time_ns() // 1_000_000
"""When everything here is committed: today, because medici's snapshots bear its own clock's time."""

PRICE = Price.from_usd_per_btc(Decimal("60000.00"))


class Uncounted:
    """`daemon.domain.ports.Metrics` that nobody reads."""

    def __getattr__(self, _name: str) -> Any:
        return lambda **_values: None


@dataclass
class Teller:
    """One leader on a database of its own. `price` may be changed between batches."""

    store: MongoStore
    price: Price | None = None

    def __post_init__(self) -> None:
        self.store.init()
        self.store.open()
        fence = self.store.leases.acquire(holder="teller", ttl_s=600)
        assert fence is not None
        self.poster = Poster(
            books=self.store.books,
            prices=self,
            board=Board(),
            metrics=Uncounted(),
            fence=fence,
            now_ms=lambda: NOW_MS,
            rng=random.Random(1),
        )

    def current(self) -> Price | None:
        """`daemon.domain.ports.PriceSource`."""
        return self.price

    def open_node(self, funds_msat: int = 0, *, pubkey: NodePubkey = NODE) -> None:
        """Books the opening balance; settlements from index 1 on are new money."""
        self.post(node_opened(funds_msat, pubkey=pubkey, name=f"lnd-{pubkey[:2]}"))

    def post(self, *events: NodeEvent) -> Committed:
        """One batch, committed."""
        return self.poster.commit(events)

    def sealed(self, *events: NodeEvent) -> Changes:
        """What would be committed for these events now; nothing is written."""
        plan = decide(events, self.store.books.read_facts(wanted_by(events)), price=self.price)
        return seal(plan, now_ms=NOW_MS, writer_id=self.store.books.writer_id)

    def new_wallet(self, external_id: str = "wallet-1") -> Wallet:
        """A BTC wallet with an account of its own."""
        return self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id=external_id)

    def expect(self, name: str, wallet: Wallet) -> None:
        """Writes the invoice of this name, open."""
        self.store.invoices.insert(invoice(name, wallet.wallet_id, account_id=wallet.account_id))

    def receive(self, name: str, wallet: Wallet | None, index: int, received_msat: int) -> None:
        """A payment to the invoice of this name, settled and posted; into suspense without a wallet."""
        if wallet is not None:
            self.expect(name, wallet)
        self.post(settled(name, index, received_msat))

    def adopt(self) -> int:
        """Adopts all journals that other programs wrote; returns how many."""
        found = self.store.journals.foreign_journals(after=None, limit=100)
        self.post(*found)
        return len(found)

    def balance(self, account: str, currency: str = "BTC") -> int:
        """What GetBalance says, in minor units."""
        return self.store.ledger.balance((account, currency))[0]


@contextmanager
def teller_on(server: Mongod) -> Iterator[Teller]:
    """A teller on a fresh database, dropped after use."""
    with MongoStore.connect(server.url, f"teller_{uuid.uuid4().hex[:12]}") as store:
        yield Teller(store)
        store.client.drop_database(store.database)
