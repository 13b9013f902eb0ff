"""One suite for hold invoices, three nodes: the memory fake, LndNode on a simulated LND, LndNode on a real LND."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from adapters.memory import MemoryLightningNode
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import (
    HoldState,
    HoldWatch,
    InvoiceState,
    NewHoldInvoice,
    NewInvoice,
    NodeAnswer,
    NodeInvoice,
)
from tests.contract.lightning_world import KINDS, PATIENCE_S, RealWorld, World, wait_until, world_of


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A node of each kind."""
    with world_of(request, tmp_path) as world:
        yield world


def added(world: World, value_msat: int = 1_000_000, *, expiry_s: int = 3600) -> tuple[bytes, NodeInvoice]:
    """A hold invoice on the node, and its preimage, which the node does not know."""
    preimage = os.urandom(32)
    return preimage, world.node.add_hold_invoice(asked(preimage, value_msat, expiry_s=expiry_s))


def asked(preimage: bytes, value_msat: int = 1_000_000, *, expiry_s: int = 3600) -> NewHoldInvoice:
    """A hold invoice to add."""
    return NewHoldInvoice(
        payment_hash=PaymentHash(hashlib.sha256(preimage).hexdigest()),
        value_msat=value_msat,
        memo="a memo",
        description_hash=b"",
        expiry_s=expiry_s,
    )


def found(world: World, invoice: NodeInvoice) -> NodeInvoice:
    """The invoice as the node has it now."""
    now = world.node.lookup_invoice(invoice.payment_hash)
    assert now is not None
    return now


@dataclass
class Reader:
    """Everything that a watch has told."""

    watch: HoldWatch
    told: list[HoldState] = field(default_factory=list)

    async def until(self, payment_hash: PaymentHash, state: InvoiceState) -> HoldState:
        """Reads until the invoice is told to be in this state."""
        while True:
            for one in self.told:
                if (one.payment_hash, one.state) == (payment_hash, state):
                    return one
            with trio.fail_after(PATIENCE_S):
                self.told.extend(await anext(aiter(self.watch)))


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[Reader]:
    """A watch of nothing."""
    async with world.node.hold_watch() as watch:
        yield Reader(watch)


async def in_thread(call: Callable[[], object]) -> None:
    """What blocks: the watch must be served meanwhile."""
    await trio.to_thread.run_sync(call)


def test_an_added_hold_invoice_is_open_and_told_from_an_ordinary_one(world: World) -> None:
    """What was asked for, and `hold` set; an ordinary invoice has none."""
    _, invoice = added(world, 5_000)
    assert (invoice.state, invoice.value_msat, invoice.memo) == (InvoiceState.OPEN, 5_000, "a memo")
    assert invoice.payment_request.startswith("lnbcrt")
    assert invoice.hold is not None
    assert (invoice.hold.state, invoice.hold.received_msat, invoice.hold.expiry_height) == (InvoiceState.OPEN, 0, 0)
    assert found(world, invoice) == invoice
    ordinary = world.node.add_invoice(
        NewInvoice(preimage=os.urandom(32), value_msat=1_000, memo="", description_hash=b"", expiry_s=60)
    )
    assert ordinary.hold is None


def test_a_hash_that_exists_is_answered_with_its_invoice(world: World) -> None:
    """Also when something else is asked for: a repeat after a lost answer must not fail."""
    preimage, first = added(world, 5_000)
    assert world.node.add_hold_invoice(asked(preimage, 9_000)) == first


def test_what_is_held_is_shown_with_its_deadline(world: World) -> None:
    """ACCEPTED, to the msat, with the height at which the HTLC expires."""
    before_s = int(time.time())
    _, invoice = added(world, 1_234_567)
    world.hold(invoice)
    accepted = found(world, invoice)
    assert accepted.state is InvoiceState.ACCEPTED
    assert accepted.settlements == ()
    hold = accepted.hold
    assert hold is not None
    assert (hold.state, hold.is_hold, hold.received_msat) == (InvoiceState.ACCEPTED, True, 1_234_567)
    # LND asks the payer for 80 blocks, the payer adds some of its own.
    assert 80 <= hold.expiry_height - world.node.get_info().block_height <= 100
    assert before_s <= hold.accepted_at_s <= int(time.time())


def test_settling_takes_what_is_held_once(world: World) -> None:
    """With its settlement; again is no error; the preimage is the node's then."""
    preimage, invoice = added(world, 0)
    assert world.node.settle_invoice(preimage) is NodeAnswer.OPEN
    world.hold(invoice, 7_001)
    assert world.node.settle_invoice(preimage) is NodeAnswer.DONE
    assert world.node.settle_invoice(preimage) is NodeAnswer.DONE
    wait_until(lambda: found(world, invoice).state is InvoiceState.SETTLED)
    settled = found(world, invoice)
    assert [event.received_msat for event in settled.settlements] == [7_001]
    assert settled.hold is None
    assert world.node.cancel_invoice(invoice.payment_hash) is NodeAnswer.SETTLED


def test_canceling_gives_back_what_is_held(world: World) -> None:
    """Also an open one; again is no error; a canceled one cannot be settled."""
    preimage, held = added(world)
    _, open_ = added(world)
    world.hold(held)
    for invoice in (held, open_):
        assert world.node.cancel_invoice(invoice.payment_hash) is NodeAnswer.DONE
        assert world.node.cancel_invoice(invoice.payment_hash) is NodeAnswer.DONE
        assert found(world, invoice).state is InvoiceState.CANCELED
    assert world.node.settle_invoice(preimage) is NodeAnswer.CANCELED
    assert found(world, held).settlements == ()


def test_an_invoice_that_the_node_does_not_know(world: World) -> None:
    """Is an answer, not an error."""
    assert world.node.settle_invoice(os.urandom(32)) is NodeAnswer.UNKNOWN
    assert world.node.cancel_invoice(PaymentHash(os.urandom(32).hex())) is NodeAnswer.UNKNOWN


def test_pending_holds_are_those_that_can_still_be_paid_or_settled(world: World) -> None:
    """Page by page, each once; neither ordinary ones nor those that are over."""
    first = added(world)[1]
    held, open_, canceled = (added(world)[1] for _ in range(3))
    world.node.add_invoice(
        NewInvoice(preimage=os.urandom(32), value_msat=1_000, memo="", description_hash=b"", expiry_s=60)
    )
    last = added(world)[1]
    world.hold(held)
    world.node.cancel_invoice(canceled.payment_hash)
    listed: list[HoldState] = []
    offset = first.add_index
    for _ in range(10):
        page = world.node.pending_holds(after_add_index=offset, limit=2)
        listed += page.holds
        offset = page.next_offset
        if offset == 0:
            break
    assert offset == 0
    states = [(hold.payment_hash, hold.state) for hold in listed]
    assert states == [
        (held.payment_hash, InvoiceState.ACCEPTED),
        (open_.payment_hash, InvoiceState.OPEN),
        (last.payment_hash, InvoiceState.OPEN),
    ]


async def test_the_watch_tells_the_present_state_and_each_change(world: World) -> None:
    """From open to held to settled; after that the invoice is not watched any more."""
    preimage, invoice = await trio.to_thread.run_sync(added, world)
    async with watching(world) as reader:
        assert reader.watch.watch(invoice.payment_hash)
        assert reader.watch.watch(invoice.payment_hash)
        assert reader.watch.watched == 1
        first = await reader.until(invoice.payment_hash, InvoiceState.OPEN)
        assert (first.is_hold, first.received_msat, first.expiry_s) == (True, 0, 3600)
        await in_thread(lambda: world.hold(invoice))
        held = await reader.until(invoice.payment_hash, InvoiceState.ACCEPTED)
        assert (held.is_hold, held.received_msat) == (True, 1_000_000)
        assert held.expiry_height > 0
        await in_thread(lambda: world.node.settle_invoice(preimage))
        await reader.until(invoice.payment_hash, InvoiceState.SETTLED)
        assert reader.watch.watched == 0


async def test_what_is_held_already_is_told_at_once(world: World) -> None:
    """A daemon that comes back must not wait for a change."""
    _, invoice = await trio.to_thread.run_sync(added, world)
    await in_thread(lambda: world.hold(invoice))
    async with watching(world) as reader:
        reader.watch.watch(invoice.payment_hash)
        await reader.until(invoice.payment_hash, InvoiceState.ACCEPTED)
        await in_thread(lambda: world.node.cancel_invoice(invoice.payment_hash))
        canceled = await reader.until(invoice.payment_hash, InvoiceState.CANCELED)
        assert (canceled.is_hold, canceled.received_msat, canceled.expiry_height) == (True, 1_000_000, 0)


async def test_an_invoice_can_be_watched_before_it_is_made(world: World) -> None:
    """So that nothing can come between its making and the watch."""
    preimage = os.urandom(32)
    request = asked(preimage)
    async with watching(world) as reader:
        reader.watch.watch(request.payment_hash)
        await trio.sleep(0.2)  # the stream stands on the node; if it should not yet, the test shows less
        await in_thread(lambda: world.node.add_hold_invoice(request))
        told = await reader.until(request.payment_hash, InvoiceState.OPEN)
        assert told.is_hold


async def test_an_ordinary_invoice_says_that_it_is_none(world: World) -> None:
    """The watch itself tells which are held ones."""
    request = NewInvoice(preimage=os.urandom(32), value_msat=1_000, memo="", description_hash=b"", expiry_s=60)
    invoice = await trio.to_thread.run_sync(world.node.add_invoice, request)
    async with watching(world) as reader:
        reader.watch.watch(invoice.payment_hash)
        told = await reader.until(invoice.payment_hash, InvoiceState.OPEN)
        assert not told.is_hold


async def test_an_invoice_that_is_not_watched_any_more_is_not_told(world: World) -> None:
    """Others still are."""
    left, kept = [(await trio.to_thread.run_sync(added, world))[1] for _ in range(2)]
    async with watching(world) as reader:
        for invoice in (left, kept):
            reader.watch.watch(invoice.payment_hash)
            await reader.until(invoice.payment_hash, InvoiceState.OPEN)
        reader.watch.unwatch(left.payment_hash)
        assert reader.watch.watched == 1
        await trio.sleep(0.2)  # the stream ends on the node; if it should not yet, the test would fail for nothing
        await in_thread(lambda: world.node.cancel_invoice(left.payment_hash))
        await in_thread(lambda: world.node.cancel_invoice(kept.payment_hash))
        await reader.until(kept.payment_hash, InvoiceState.CANCELED)
        assert not [one for one in reader.told if (one.payment_hash, one.state) == (left.payment_hash, "canceled")]


async def test_no_more_are_watched_than_may_be_save_what_is_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory here and time there; but what is held has to be decided."""
    monkeypatch.setattr("adapters.lnd.holds.MAX_WATCHED", 1)
    if isinstance(world.node, MemoryLightningNode):
        world.node.holds.max_watched = 1
    first, second = [(await trio.to_thread.run_sync(added, world))[1] for _ in range(2)]
    await in_thread(lambda: world.hold(second))
    async with watching(world) as reader:
        assert reader.watch.watch(first.payment_hash)
        assert not reader.watch.watch(second.payment_hash)
        assert reader.watch.watched == 1
        assert reader.watch.watch(second.payment_hash, held=True)
        assert reader.watch.watched == 2
        await reader.until(second.payment_hash, InvoiceState.ACCEPTED)


async def test_an_invoice_that_expires_is_told(world: World) -> None:
    """LND cancels it then; the memory node and the simulated one are told to."""
    _, invoice = await trio.to_thread.run_sync(lambda: added(world, expiry_s=5))  # it is watched long before
    async with watching(world) as reader:
        reader.watch.watch(invoice.payment_hash)
        await reader.until(invoice.payment_hash, InvoiceState.OPEN)
        if not isinstance(world, RealWorld):
            await in_thread(lambda: world.node.cancel_invoice(invoice.payment_hash))
        await reader.until(invoice.payment_hash, InvoiceState.CANCELED)


async def test_a_node_that_goes_away_breaks_the_watch(world: World) -> None:
    """A clean shutdown, too, which ends the streams with OK; the next watch has everything again."""
    hashes = [(await trio.to_thread.run_sync(added, world))[1].payment_hash for _ in range(3)]
    with trio.fail_after(120):
        async with watching(world) as reader, trio.open_nursery() as nursery:
            for payment_hash in hashes:
                reader.watch.watch(payment_hash)
                await reader.until(payment_hash, InvoiceState.OPEN)
            nursery.start_soon(trio.to_thread.run_sync, world.restart)
            with pytest.raises(Unavailable):
                await reader.until(hashes[0], InvoiceState.SETTLED)
        await _all_are_told_again(world, hashes)


async def _all_are_told_again(world: World, hashes: Sequence[PaymentHash]) -> None:
    """gRPC connects again by itself, within two seconds."""
    while True:
        try:
            async with watching(world) as reader:
                for payment_hash in hashes:
                    reader.watch.watch(payment_hash)
                for payment_hash in hashes:
                    await reader.until(payment_hash, InvoiceState.OPEN)
                return
        except* Unavailable:
            await trio.sleep(0.1)


async def test_leaving_the_watch_ends_it(world: World) -> None:
    """Cancelled while nothing comes: it is left, and the node can be asked."""
    _, invoice = await trio.to_thread.run_sync(added, world)
    with trio.fail_after(PATIENCE_S):
        with trio.move_on_after(0.3) as scope:
            async with watching(world) as reader:
                reader.watch.watch(invoice.payment_hash)
                await reader.until(invoice.payment_hash, InvoiceState.SETTLED)
        assert scope.cancelled_caught
    await trio.to_thread.run_sync(world.node.get_info)
