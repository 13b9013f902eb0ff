"""What a node holds and nobody here expects: counted, told once, never touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from structlog.testing import capture_logs

from adapters.memory import MemoryStore
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.money import Currency
from daemon.domain.ports import NewHoldInvoice
from daemon.domain.status import HoldStatus
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.unknown_holds import UnknownHolds
from tests.samples import hash_of, invoice
from tests.unit.ingest.teller import FAST, WatchedNode, eventually


class Bank:
    """A node, and a store with one wallet."""

    def __init__(self) -> None:
        self.node = WatchedNode(funds_msat=0)
        self.store = MemoryStore()
        self.status = HoldStatus(name=self.node.name)
        self.watched: list[PaymentHash] = []
        self.wallet = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="1").wallet_id

    def held(self, name: str) -> PaymentHash:
        """A payment of a hold invoice is held."""
        self.node.add_hold_invoice(
            NewHoldInvoice(
                payment_hash=hash_of(name), value_msat=1_000_000, memo=name, description_hash=b"", expiry_s=3600
            )
        )
        self.node.hold(hash_of(name))
        return hash_of(name)

    def write(self, name: str, pubkey: str = "") -> None:
        """The document, of our node or of another."""
        self.store.another.insert_invoice(
            invoice(name, self.wallet, pubkey=NodePubkey(pubkey) if pubkey else self.node.pubkey)
        )

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """While it runs."""
        holds = UnknownHolds(
            node=self.node.name,
            pubkey=self.node.pubkey,
            calls=NodeCalls(self.node),
            books=self.store.books,
            database=trio.CapacityLimiter(1),
            status=self.status,
            watch=self.watched.append,
            pace=FAST,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holds.run)
            yield
            nursery.cancel_scope.cancel()

    async def looked_again(self) -> None:
        """Returns after a look that has begun from now on."""
        for _ in range(2):
            self.status.unknown = None
            await eventually(lambda: self.status.unknown is not None)


async def test_what_has_no_document_or_another_nodes_is_counted() -> None:
    """Of what has ours, the node is not even asked."""
    bank = Bank()
    ours, nobodys, elsewhere = bank.held("ours"), bank.held("nobody's"), bank.held("elsewhere")
    bank.write("ours")
    bank.write("elsewhere", "03" * 33)
    async with bank.counting():
        await eventually(lambda: bank.status.unknown == 2)
    assert set(bank.node.lookups) == {nobodys, elsewhere}
    assert ours not in bank.node.lookups


async def test_what_is_held_for_a_document_that_is_over_is_watched() -> None:
    """It is ours to give back. What only passes on its way to such an invoice, or is settled already, is not held."""
    bank = Bank()
    held, ordinary = bank.held("held"), bank.node.add("ordinary", 1_000_000)
    bank.node.incoming_hashes = (ordinary,)
    for name in ("held", "ordinary"):
        bank.write(name)
        bank.store.another.mark_paid(hash_of(name))
    async with bank.counting():
        await bank.looked_again()
    assert bank.status.unknown == 0
    assert set(bank.watched) == {held}
    assert {held, ordinary} <= set(bank.node.lookups)


async def test_the_count_follows_what_is_held() -> None:
    """A document that comes, a payment that goes back, another that arrives."""
    bank = Bank()
    for name in ("first", "second"):
        bank.held(name)
    async with bank.counting():
        await eventually(lambda: bank.status.unknown == 2)
        bank.write("first")
        await eventually(lambda: bank.status.unknown == 1)
        bank.node.cancel(hash_of("second"))
        await eventually(lambda: bank.status.unknown == 0)
        bank.held("third")
        await eventually(lambda: bank.status.unknown == 1)


async def test_htlcs_that_no_hold_invoice_holds_do_not_count() -> None:
    """Of an ordinary invoice on its way, of a hold invoice that waits for the other parts, of none at all."""
    bank = Bank()
    ordinary = bank.node.add("ordinary", 1_000_000)
    bank.node.add_hold_invoice(
        NewHoldInvoice(payment_hash=hash_of("in parts"), value_msat=5, memo="", description_hash=b"", expiry_s=3600)
    )
    bank.node.incoming_hashes = (ordinary, hash_of("in parts"), PaymentHash("ee" * 32))
    async with bank.counting():
        await bank.looked_again()
    assert bank.status.unknown == 0
    assert {ordinary, hash_of("in parts"), PaymentHash("ee" * 32)} <= set(bank.node.lookups)


async def test_each_is_told_once_with_what_finds_it() -> None:
    """However often it is seen."""
    bank = Bank()
    nobodys = bank.held("nobody's")
    with capture_logs() as lines:
        async with bank.counting():
            await bank.looked_again()
            bank.held("another")
            await eventually(lambda: bank.status.unknown == 2)
            await bank.looked_again()
    told = [line for line in lines if line["event"] == "hold.unknown"]
    assert [line["payment_hash"] for line in told] == [nobodys, hash_of("another")]
    assert told[0] == {
        "event": "hold.unknown",
        "log_level": "warning",
        "node": "lnd1",
        "payment_hash": nobodys,
        "received_msat": 1_000_000,
        "expiry_height": 230,
    }
