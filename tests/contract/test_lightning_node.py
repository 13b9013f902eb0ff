"""One suite, three nodes: the memory fake, LndNode on a simulated LND over gRPC, LndNode on a real LND."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import (
    HtlcResolution,
    InvoiceState,
    NewInvoice,
    NodeFunds,
    NodeInvoice,
)
from tests.contract.lightning_world import KINDS, PATIENCE_S, World, wait_until, world_of


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A node of each kind."""
    with world_of(request, tmp_path) as world:
        yield world


def asked(value_msat: int = 1_000_000, *, preimage: bytes | None = None) -> NewInvoice:
    """An invoice to add; its preimage is new unless one is given."""
    return NewInvoice(
        preimage=preimage or os.urandom(32), value_msat=value_msat, memo="a memo", description_hash=b"", expiry_s=3600
    )


async def pay(world: World, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
    """Pays in a thread: the stream must be read meanwhile."""
    await trio.to_thread.run_sync(lambda: world.pay(invoice, amount_msat))


def paid(world: World, value_msat: int = 1_000_000) -> InvoiceSettled:
    """An invoice that was added and paid; its settlement as the node lists it."""
    invoice = world.node.add_invoice(asked(value_msat))
    world.pay(invoice)
    found = world.node.lookup_invoice(invoice.payment_hash)
    assert found is not None
    return found.settlements[0]


async def next_of(stream: AsyncIterator[Sequence[InvoiceSettled]], *wanted: PaymentHash) -> list[InvoiceSettled]:
    """Reads until all wanted hashes have come; everything read."""
    read: list[InvoiceSettled] = []
    with trio.fail_after(PATIENCE_S):
        while not set(wanted) <= {event.payment_hash for event in read}:
            read.extend(await anext(stream))
    return read


def unseen(event: InvoiceSettled) -> InvoiceSettled:
    """Without the moment when it was read."""
    return replace(event, seen_at_ns=0)


def test_a_node_says_who_it_is(world: World) -> None:
    """The pubkey is a compressed key in lower-case hex; asked twice it is the same."""
    info = world.node.get_info()
    assert info.network == "regtest"
    assert len(bytes.fromhex(info.pubkey)) == 33
    assert info.pubkey == info.pubkey.lower()
    assert world.node.get_info().pubkey == info.pubkey


def test_an_added_invoice_is_found(world: World) -> None:
    """It is open, has our preimage's hash and what was asked for; a look-up finds the same."""
    request = asked(5_000)
    added = world.node.add_invoice(request)
    assert added.payment_hash == hashlib.sha256(request.preimage).hexdigest()
    assert added.state is InvoiceState.OPEN
    assert (added.value_msat, added.memo, added.expiry_s) == (5_000, "a memo", 3600)
    assert added.payment_request.startswith("lnbcrt")
    assert added.settlements == ()
    assert world.node.lookup_invoice(added.payment_hash) == added


def test_adding_a_preimage_again_returns_the_first_invoice(world: World) -> None:
    """Also when something else is asked for: a repeat after a lost answer must not fail."""
    request = asked(5_000)
    first = world.node.add_invoice(request)
    assert world.node.add_invoice(asked(9_000, preimage=request.preimage)) == first


def test_an_unknown_hash_is_none(world: World) -> None:
    """That is an answer, not an error."""
    assert world.node.lookup_invoice(PaymentHash(os.urandom(32).hex())) is None


def test_pages_hold_every_invoice_once_in_order(world: World) -> None:
    """Whatever their state; the last page says so."""
    added = [world.node.add_invoice(asked()) for _ in range(5)]
    world.pay(added[1])
    listed: list[NodeInvoice] = []
    offset = added[0].add_index - 1
    for _ in range(10):
        page = world.node.list_invoices(after_add_index=offset, limit=2)
        assert len(page.invoices) <= 2
        listed += page.invoices
        offset = page.next_offset
        if offset == 0:
            break
    assert offset == 0
    assert [one.payment_hash for one in listed] == [one.payment_hash for one in added]
    assert [one.state for one in listed[:2]] == [InvoiceState.OPEN, InvoiceState.SETTLED]


def test_a_page_of_nothing_is_the_last(world: World) -> None:
    """Beyond the newest invoice there is nothing."""
    newest = world.node.add_invoice(asked())
    page = world.node.list_invoices(after_add_index=newest.add_index, limit=10)
    assert page.invoices == ()
    assert page.next_offset == 0


def test_a_settled_invoice_carries_its_settlement(world: World) -> None:
    """In the look-up and in the list alike, to the msat."""
    before_s = int(time.time())
    event = paid(world, 1_234_567)
    assert event.pubkey == world.node.get_info().pubkey
    assert event.settled_id == event.payment_hash
    assert event.received_msat == 1_234_567
    assert event.settle_index > 0
    assert event.memo == "a memo"
    assert before_s <= event.settled_at_ms // 1000 <= int(time.time())
    found = world.node.lookup_invoice(event.payment_hash)
    assert found is not None
    assert found.state is InvoiceState.SETTLED
    page = world.node.list_invoices(after_add_index=found.add_index - 1, limit=1)
    assert page.invoices[0].settlements == (event,)


def test_an_invoice_without_amount_settles_with_what_was_paid(world: World) -> None:
    """The amount is the payer's."""
    invoice = world.node.add_invoice(asked(0))
    world.pay(invoice, 7_001)
    found = world.node.lookup_invoice(invoice.payment_hash)
    assert found is not None
    assert [event.received_msat for event in found.settlements] == [7_001]


def test_the_htlcs_of_a_settlement_end_as_settled(world: World) -> None:
    """Each is named with its amount and moment; gone from its channel it has an outcome, and so it stays."""
    before_s = int(time.time())
    event = paid(world, 1_234_567)
    assert sum(htlc.amt_msat for htlc in event.htlcs) == 1_234_567
    assert all(before_s <= htlc.settled_at_s <= int(time.time()) for htlc in event.htlcs)
    places = {(htlc.chan_id, htlc.htlc_index) for htlc in event.htlcs}
    wait_until(lambda: not world.node.incoming_htlcs().pending & places)
    assert {htlc.chan_id for htlc in event.htlcs} <= world.node.incoming_htlcs().open_channels
    for chan_id, htlc_index in places:
        assert world.node.htlc_resolution(chan_id, htlc_index) is HtlcResolution.SETTLED


def test_an_htlc_that_never_was_has_no_outcome(world: World) -> None:
    """Nor one in a channel that is not the node's; ids of aliases are more than 63 bits."""
    (htlc,) = paid(world).htlcs
    assert world.node.htlc_resolution(htlc.chan_id, htlc.htlc_index + 10_000) is None
    assert world.node.htlc_resolution(16_000_000 << 40, 0) is None


async def test_money_that_comes_again_is_in_the_invoice_and_in_no_event(world: World) -> None:
    """What has arrived in all grows, its HTLCs with it; each group of them has a moment of its own."""
    request = asked(4_000)
    first = await trio.to_thread.run_sync(world.node.add_invoice, request)
    live = await trio.to_thread.run_sync(world.node.add_invoice, asked())
    await pay(world, first)
    async with world.node.settlements(after_settle_index=0) as stream:
        await trio.sleep(1.1)  # LND's moments are whole seconds
        await trio.to_thread.run_sync(lambda: world.pay_again(first.payment_hash, request.preimage, 5_500))
        found = await trio.to_thread.run_sync(world.node.lookup_invoice, first.payment_hash)
        await pay(world, live)
        told = await next_of(stream, live.payment_hash)
    assert found is not None
    (event,) = found.settlements
    assert event.received_msat == 9_500
    assert [htlc.amt_msat for htlc in sorted(event.htlcs, key=lambda one: one.settled_at_s)] == [4_000, 5_500]
    assert len({htlc.settled_at_s for htlc in event.htlcs}) == 2
    assert first.payment_hash not in {one.payment_hash for one in told}


async def test_every_set_of_an_amp_invoice_is_a_settlement_of_its_own(world: World) -> None:
    """Each with an index, an amount and HTLCs; told once each; look-up and list have all of them."""
    payment_hash = await trio.to_thread.run_sync(world.add_amp, 5_000)
    told: list[InvoiceSettled] = []
    async with world.node.settlements(after_settle_index=0) as stream:
        for _ in range(3):
            await trio.to_thread.run_sync(world.pay_set, payment_hash)
            told += await next_of(stream, payment_hash)
    assert {event.payment_hash for event in told} == {payment_hash}
    assert len({event.settled_id for event in told} - {payment_hash}) == 3
    assert [event.received_msat for event in told] == [5_000] * 3
    assert [sum(htlc.amt_msat for htlc in event.htlcs) for event in told] == [5_000] * 3
    indexes = [event.settle_index for event in told]
    assert indexes == sorted(set(indexes))
    found = await trio.to_thread.run_sync(world.node.lookup_invoice, payment_hash)
    assert found is not None
    assert found.is_amp
    in_order = sorted(found.settlements, key=lambda event: event.settle_index)
    assert in_order == [unseen(event) for event in told]
    page = await trio.to_thread.run_sync(lambda: world.node.list_invoices(after_add_index=found.add_index - 1, limit=1))
    assert sorted(page.invoices[0].settlements, key=lambda event: event.settle_index) == in_order


async def test_a_spontaneous_payment_names_a_wallet_or_none(world: World) -> None:
    """By the record that is configured: told live, and listed the same."""
    newest = await trio.to_thread.run_sync(world.node.add_invoice, asked())
    async with world.node.settlements(after_settle_index=0) as stream:
        told: list[InvoiceSettled] = []
        for number, record in enumerate((None, "wallet-7", "")):
            await trio.to_thread.run_sync(world.keysend, 3_000 + number, record)
            with trio.fail_after(PATIENCE_S):
                while len(told) <= number:
                    told.extend(await anext(stream))
    assert [(event.received_msat, event.wallet_named) for event in told] == [
        (3_000, None),
        (3_001, "wallet-7"),
        (3_002, ""),
    ]
    page = await trio.to_thread.run_sync(lambda: world.node.list_invoices(after_add_index=newest.add_index, limit=10))
    assert [one.settlements for one in page.invoices] == [(unseen(event),) for event in told]


async def test_only_what_settles_while_the_stream_stands_is_live(world: World) -> None:
    """The backlog is not, whenever it settled: the node may have been killed since."""
    first, *backlog = [await trio.to_thread.run_sync(paid, world) for _ in range(4)]
    async with world.node.settlements(after_settle_index=first.settle_index) as stream:
        replayed = await next_of(stream, *[event.payment_hash for event in backlog])
        invoice = await trio.to_thread.run_sync(world.node.add_invoice, asked())
        await pay(world, invoice)
        told = await next_of(stream, invoice.payment_hash)
    assert [event.live for event in replayed] == [False] * 3
    assert [event.live for event in told] == [True]


def test_funds_grow_by_what_was_received(world: World) -> None:
    """To the msat, once nothing is in flight; the token changes then, and only then."""
    paid(world)  # on the real channel the first payment makes the payer's output, and ours, appear
    before = _quiet_funds(world)
    assert _quiet_funds(world).quiet_token == before.quiet_token
    for value_msat in (3_000_500, 1_000_499):
        paid(world, value_msat)
    wait_until(lambda: _quiet_funds(world).funds_msat == before.funds_msat + 4_000_999)
    assert _quiet_funds(world).quiet_token != before.quiet_token


def _quiet_funds(world: World) -> NodeFunds:
    wait_until(lambda: not world.node.funds().incoming_hashes)
    return world.node.funds()


async def test_the_stream_tells_what_settles(world: World) -> None:
    """Live, with all that a look-up tells, and when it was seen."""
    began_ns = time.monotonic_ns()
    invoice = await trio.to_thread.run_sync(world.node.add_invoice, asked())
    async with world.node.settlements(after_settle_index=0) as stream:
        await pay(world, invoice)
        told = await next_of(stream, invoice.payment_hash)
    found = await trio.to_thread.run_sync(world.node.lookup_invoice, invoice.payment_hash)
    assert found is not None
    assert [unseen(event) for event in told] == list(found.settlements)
    assert all(event.seen_at_ns == 0 or began_ns < event.seen_at_ns <= time.monotonic_ns() for event in told)


async def test_zero_is_no_backlog(world: World) -> None:
    """What settled before is not told: a first start has to list."""
    earlier = await trio.to_thread.run_sync(paid, world)
    later = await trio.to_thread.run_sync(world.node.add_invoice, asked())
    async with world.node.settlements(after_settle_index=0) as stream:
        await pay(world, later)
        told = await next_of(stream, later.payment_hash)
    assert earlier.payment_hash not in {event.payment_hash for event in told}


async def test_the_backlog_begins_after_the_index(world: World) -> None:
    """All with a larger index, none of the others; then live ones on the same stream."""
    first, *rest = [await trio.to_thread.run_sync(paid, world) for _ in range(3)]
    live = await trio.to_thread.run_sync(world.node.add_invoice, asked())
    async with world.node.settlements(after_settle_index=first.settle_index) as stream:
        backlog = await next_of(stream, *[event.payment_hash for event in rest])
        await pay(world, live)
        await next_of(stream, live.payment_hash)
    assert {unseen(event).payment_hash for event in backlog} == {event.payment_hash for event in rest}


async def test_leaving_the_stream_ends_it(world: World) -> None:
    """Cancelled while nothing comes: it is left, and the node can be asked."""
    with trio.fail_after(PATIENCE_S):
        with trio.move_on_after(0.2) as scope:
            async with world.node.settlements(after_settle_index=0) as stream:
                scope.deadline = trio.current_time() + 0.2
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
    await trio.to_thread.run_sync(world.node.get_info)


async def test_a_node_that_goes_away_breaks_the_stream(world: World) -> None:
    """A clean shutdown, too: the iteration never just ends. What settles afterwards is told by the next stream."""
    before = await trio.to_thread.run_sync(paid, world)
    await trio.to_thread.run_sync(paid, world)
    with trio.fail_after(120):
        async with (
            world.node.settlements(after_settle_index=before.settle_index) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(trio.to_thread.run_sync, world.restart)
            with pytest.raises(Unavailable):
                async for _ in stream:
                    pass
        invoice = await _add_when_back(world)
        async with world.node.settlements(after_settle_index=before.settle_index) as stream:
            await pay(world, invoice)
            await next_of(stream, invoice.payment_hash)


async def _add_when_back(world: World) -> NodeInvoice:
    """gRPC connects again by itself, within two seconds."""
    while True:
        try:
            return await trio.to_thread.run_sync(world.node.add_invoice, asked())
        except Unavailable:
            await trio.sleep(0.1)
