"""The full pass over a node's invoices: what no stream tells is found, and nothing that is booked is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from daemon.domain.accounts import GAP, LIGHTNING, SUSPENSE, wallet_account
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.node_events import InvoiceSettled, NodeEvent
from daemon.domain.ports import HtlcResolution
from daemon.ingest.handover import Inbox
from daemon.reconciling import invoices
from daemon.reconciling.invoices import InvoiceCheck, InvoicesChecked
from tests.samples import MORNING_MS, OTHER_NODE, invoice, moved
from tests.unit.ingest.teller import Teller, WatchedNode, eventually


class Checked(Teller):
    """A teller whose node can be checked while posting runs; `sent` is what the check has handed over."""

    def __init__(self, node: WatchedNode | None = None) -> None:
        super().__init__(node)
        self._inbox: Inbox | None = None

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Posting only: nothing follows the node."""

        def start(_nursery: trio.Nursery, inbox: Inbox) -> None:
            self._inbox = inbox

        async with self._posting(start):
            yield

    async def check(self, *, patience_s: float = 0.01) -> InvoicesChecked:
        """One pass."""
        assert self._inbox is not None
        return await InvoiceCheck(
            node=self.node,
            books=self.store.books,
            inbox=self._inbox,
            now_ms=lambda: MORNING_MS,
            pause_s=0.0,
            patience_s=patience_s,
            lookups_per_s=10_000.0,
        ).run()


async def opened(node: WatchedNode | None = None) -> Checked:
    """A teller that has been followed and has three credits."""
    teller = Checked(node)
    async with teller.follow():
        await eventually(lambda: teller.status.state == "live" and (c := teller.cursor()) is not None and c.opened)
        for name in "abc":
            teller.node.settle(teller.expected_invoice(name))
        await eventually(lambda: teller.credited_sat == 3_000 and teller.proven_through(3))
    teller.handed_over.clear()
    return teller


async def test_what_is_booked_is_counted_and_nothing_is_handed_over() -> None:
    """A pass over a million invoices must not be a million events."""
    teller = await opened()
    teller.node.invoice_by_hand()
    async with teller.posting():
        assert await teller.check() == InvoicesChecked(invoices=4)
    assert teller.handed_over == []


@pytest.mark.parametrize("renumber", [True, False], ids=["bbolt", "sql"])
async def test_money_that_came_again_is_credited(renumber: bool) -> None:
    """No event tells it: the wallet, books and node are equal after the pass, and after another one."""
    teller = await opened()
    (first, *_) = teller.node._invoices
    teller.node.pay_again(first, 250_500, renumber=renumber)
    assert not teller.books_equal_node()
    async with teller.posting():
        checked = await teller.check()
        assert (checked.repeats, checked.unbooked, checked.unfinished) == (1, 0, ())
        await eventually(lambda: teller.credited_sat == 3_250)
        assert (await teller.check()).repeats == 0
    assert teller.books_equal_node()


async def test_a_settlement_in_no_books_is_handed_over_as_it_is() -> None:
    """Posting decides: here nobody waits for it, and it goes to suspense."""
    teller = await opened()
    teller.node.keysend(7_000)
    async with teller.posting():
        checked = await teller.check()
        assert (checked.invoices, checked.repeats, checked.unbooked) == (4, 0, 1)
        await eventually(lambda: teller.balance(SUSPENSE) == 7)
    assert teller.books_equal_node()


async def test_what_another_program_booked_on_another_node_says_nothing_about_this_one() -> None:
    """The same hash, paid on both: its journal is about the node that the document names."""
    teller = await opened()
    here = teller.node.keysend(7_000)
    document = replace(invoice("there", teller.wallet, pubkey=OTHER_NODE), payment_hash=here.payment_hash)
    teller.store.another.insert_invoice(document)
    teller.store.another.mark_paid(here.payment_hash)
    legs = moved(LIGHTNING, wallet_account(WalletId(teller.wallet)), 7)
    teller.store.another.write_journal(legs, details={"type": "invoice", "hash": here.payment_hash})
    async with teller.posting():
        assert (await teller.check()).unbooked == 1
        await eventually(lambda: teller.balance(SUSPENSE) == 7)
        assert (await teller.check()).unbooked == 0


async def test_what_posting_is_about_to_book_is_not_counted() -> None:
    """The intake is a moment behind the node: at the second look it is in the books."""
    teller = await opened()
    late = teller.node.settle(teller.expected_invoice("on its way"))
    looked = trio.Event()
    reads = 0

    def count_reads(step: str) -> None:
        """The second one is the first look at the page's invoices; what it finds is older than the next commit."""
        nonlocal reads
        reads += step == "read"
        if reads == 2:
            trio.from_thread.run_sync(looked.set)

    async with teller.posting(), trio.open_nursery() as nursery:

        async def post_when_looked_at() -> None:
            await looked.wait()
            assert teller._inbox is not None
            await teller._inbox.send([late])

        nursery.start_soon(post_when_looked_at)
        teller.store.faults.at_step = count_reads
        checked = await teller.check(patience_s=1.0)
    assert (checked.invoices, checked.unbooked) == (4, 0)
    assert teller.credited_sat == 4_000


async def test_a_set_that_waits_is_assigned_although_a_later_one_has_paid_the_document() -> None:
    """The document came after the first set, and the second was faster than the look-up of open documents."""
    teller = await opened()
    payment_hash = teller.node.amp_invoice_by_hand()
    first = teller.node.settle_amp_set(payment_hash, 5_000)
    async with teller.posting():
        assert teller._inbox is not None
        await teller._inbox.send([first])
        await eventually(lambda: teller.balance(SUSPENSE) == 5)
        assert await teller.check() == InvoicesChecked(invoices=4)  # nobody waits for it
        document = replace(invoice("late", teller.wallet, pubkey=teller.node.pubkey), payment_hash=payment_hash)
        teller.store.another.insert_invoice(document)
        await teller._inbox.send([teller.node.settle_amp_set(payment_hash, 7_000)])
        await eventually(lambda: teller.credited_sat == 3_007)
        teller.handed_over.clear()
        assert await teller.check() == InvoicesChecked(invoices=4)
        await eventually(lambda: teller.credited_sat == 3_012)
        assert teller.handed_over == [first]
        teller.handed_over.clear()
        await teller.check()
    assert (teller.handed_over, teller.balance(SUSPENSE)) == ([], 0)
    assert teller.books_equal_node()


async def test_what_the_opening_has_is_passed_over() -> None:
    """Settled before tellerd's first start: in no books one by one, and not handed over one by one at each pass."""
    node = WatchedNode(funds_msat=0)
    node.settle(node.invoice_by_hand(), 5_000)
    teller = await opened(node)
    async with teller.posting():
        checked = await teller.check()
    assert (checked.invoices, checked.unbooked) == (4, 0)
    assert teller.handed_over == []


async def test_a_repeat_whose_htlc_is_in_its_channel_waits_for_the_next_pass() -> None:
    """It may still be failed back."""
    teller = await opened()
    (first, *_) = teller.node._invoices
    teller.node.htlcs.resolve_at_once = False
    teller.node.pay_again(first, 250_000, renumber=False)
    async with teller.posting():
        assert (await teller.check()).repeats == 0
        teller.node.resolve_htlcs()
        assert (await teller.check()).repeats == 1
        await eventually(lambda: teller.credited_sat == 3_250)
    assert teller.books_equal_node()


async def test_a_repeat_that_was_failed_back_is_a_loss() -> None:
    """Of money that comes again the stream tells nothing, so the pass asks how its HTLCs ended."""
    teller = await opened()
    (first, *_) = teller.node._invoices
    teller.node.htlcs.resolve_at_once = False
    teller.node.pay_again(first, 250_000, renumber=False)
    teller.node.htlcs.resolve(HtlcResolution.FAILED)
    async with teller.posting():
        checked = await teller.check()
        assert (checked.repeats, checked.losses) == (1, 1)
        await eventually(lambda: teller.balance(GAP) == -250)
    assert teller.credited_sat == 3_250
    assert teller.books_equal_node()


async def test_a_record_of_an_older_release_is_filled_and_credits_nothing() -> None:
    """What had arrived by then is taken as booked; from then on it is compared."""
    teller = await opened()
    (first, *_) = teller.node._invoices
    keys = teller.store._tables.keys
    for key, record in keys.items():
        keys[key] = replace(record, received_msat=None)
    async with teller.posting():
        assert (await teller.check()).repeats == 0
        await eventually(lambda: sum(isinstance(event, InvoiceSettled) for event in teller.handed_over) == 3)
        await eventually(lambda: sum(record.received_msat is not None for record in keys.values()) == 3)
        assert teller.credited_sat == 3_000
        teller.node.pay_again(first, 250_000, renumber=False)
        assert (await teller.check()).repeats == 1
        await eventually(lambda: teller.credited_sat == 3_250)


async def test_a_node_that_goes_away_leaves_the_pass_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, with what was compared until then: the other nodes and the chain are still checked."""
    monkeypatch.setattr(invoices, "PAGE", 1)
    teller = await opened()
    teller.node.on_page = lambda: teller.node.go_away("lnd1 is locked") if teller.node.pages == pages + 2 else None
    pages = teller.node.pages
    async with teller.posting():
        checked = await teller.check()
    assert checked.invoices == 1
    assert len(checked.unfinished) == 1
    assert "lnd1 is locked" in checked.unfinished[0]


async def test_another_node_at_its_address_ends_the_pass() -> None:
    """Its invoices are not compared with the first one's books."""
    teller = await opened()
    teller.node.on_page = lambda: teller.node.replace_by_empty("03" * 33)
    async with teller.posting():
        checked = await teller.check()
    assert checked.invoices == 0
    assert "another node" in checked.unfinished[0]
    assert teller.handed_over == []


async def test_books_that_are_away_are_an_outage() -> None:
    """The supervisor waits them out: nothing can be concluded about any node."""
    teller = await opened()

    def away(_step: str) -> None:
        raise Unavailable("MongoDB is away")

    send, _recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
    teller._inbox = send
    teller.store.faults.at_step = away
    with pytest.raises(Unavailable, match="MongoDB"):
        await teller.check()
