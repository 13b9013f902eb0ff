"""The follower: whatever happens to the node, its stream and its indexes, each payment is in the books once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from daemon.domain.accounts import LIGHTNING, OPENING, SUSPENSE
from daemon.domain.errors import Misconfigured
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled, ListingCompleted, NodeEvent, NodeOpened, NodeRestored
from daemon.domain.status import NodeStatus
from daemon.ingest.lightning import IDENTIFIED
from tests.unit.ingest.teller import Once, Teller, WatchedNode, eventually, wait_until

OTHER = "03" * 33


async def opened(teller: Teller) -> None:
    """Waits until the follower is live after an opening."""
    await eventually(lambda: teller.status.state == "live" and (c := teller.cursor()) is not None and c.opened)


async def open_and_stop(teller: Teller) -> None:
    """A first start, then the daemon stops."""
    async with teller.follow():
        await opened(teller)
        teller.node.settle(teller.expected_invoice("before the stop"))
        await eventually(lambda: teller.credited_sat == 1000 and teller.proven_through(1))


class TestFirstStart:
    """Nothing in the books for this node."""

    async def test_what_the_node_held_is_the_opening_balance(self) -> None:
        """Money that nobody expects and that was there before tellerd belongs to the opening, not to suspense."""
        teller = Teller(WatchedNode(funds_msat=5_000_000_000))
        teller.node.settle(teller.node.invoice_by_hand(), 250_500)
        async with teller.follow():
            await opened(teller)
        assert teller.books_equal_node()
        assert teller.balance(OPENING) == 5_000_250
        assert teller.balance(SUSPENSE) == 0

    async def test_an_awaited_payment_from_before_is_credited(self) -> None:
        """The listing finds it; the opening is less by as much."""
        teller = Teller(WatchedNode(funds_msat=1_000_000))
        teller.node.settle(teller.expected_invoice("early", 70_000_000))
        async with teller.follow():
            await opened(teller)
        assert teller.credited_sat == 70_000
        assert teller.balance(OPENING) == 1_000
        assert teller.books_equal_node()

    async def test_no_opening_while_the_htlc_of_a_settled_invoice_is_not_resolved(self) -> None:
        """Credits flow meanwhile; the opening follows in the first quiet moment and is exact."""
        teller = Teller(WatchedNode(funds_msat=8_000_000))
        unresolved = teller.node.settle(teller.node.invoice_by_hand(), 1_000_000)
        teller.node.incoming_hashes = (unresolved.payment_hash,)
        async with teller.follow():
            await eventually(lambda: teller.status.state == "opening")
            teller.node.settle(teller.expected_invoice("meanwhile", 3_000_000))
            await eventually(lambda: teller.credited_sat == 3_000 and teller.node.funds_asked >= 8)
            cursor = teller.cursor()
            assert cursor is not None
            assert not cursor.opened
            teller.node.incoming_hashes = ()
            await opened(teller)
        assert teller.balance(OPENING) == 9_000
        assert teller.books_equal_node()

    async def test_htlcs_that_wait_do_not_hold_up_the_opening(self) -> None:
        """A forwarded HTLC, or one that pays an open invoice, may wait for days: it is not in the funds."""
        teller = Teller(WatchedNode(funds_msat=9_000_000))
        held = teller.node.invoice_by_hand(1_000_000)
        teller.node.incoming_hashes = (held, PaymentHash("ee" * 32))
        async with teller.follow():
            await opened(teller)
        assert teller.balance(OPENING) == 9_000

    async def test_a_settlement_that_the_stream_missed_is_no_double(self) -> None:
        """One that settles unseen while the first listing runs stands in the books once, and books equal the node."""
        teller = Teller(WatchedNode(funds_msat=1_000_000))
        waiting = teller.node.invoice_by_hand(4_000_000)

        def settle_unseen() -> None:
            teller.node.deliver_live = False
            teller.node.settle(waiting)
            teller.node.deliver_live = True

        teller.node.on_page = Once(settle_unseen)  # the page that shows it open has been read
        async with teller.follow():
            await opened(teller)
            teller.node.settle(teller.expected_invoice("next"))
            await eventually(lambda: (c := teller.cursor()) is not None and c.settle_index == 2)
        assert teller.credited_sat == 1000
        assert teller.books_equal_node()

    async def test_no_opening_while_the_channels_move(self) -> None:
        """The node pays: each look shows another commitment. The funds that are booked are those of the end."""
        teller = Teller(WatchedNode(funds_msat=9_000_000))

        def pay() -> None:
            if teller.node.funds_asked < 6:
                teller.node.spend(1_000_000)

        teller.node.on_funds = pay
        async with teller.follow():
            await opened(teller)
        assert teller.balance(OPENING) == 4_000
        assert teller.books_equal_node()

    async def test_no_opening_while_settlements_arrive(self) -> None:
        """An event between the looks, a repeated one, too: the moment is not quiet, and is tried again."""
        teller = Teller(WatchedNode(funds_msat=9_000_000))
        event = teller.node.settle(teller.node.invoice_by_hand(), 1_000_000)
        teller.node.on_funds = Once(lambda: teller.node.send([event]))
        async with teller.follow():
            await opened(teller)
        assert teller.node.funds_asked == 4
        assert teller.books_equal_node()

    async def test_a_stop_before_the_opening_begins_anew(self) -> None:
        """What was credited before the stop is not doubled."""
        teller = Teller(WatchedNode(funds_msat=1_000_000))
        early = teller.node.settle(teller.expected_invoice("early", 2_000_000))
        teller.node.incoming_hashes = (early.payment_hash,)
        async with teller.follow():
            await eventually(lambda: teller.credited_sat == 2_000)
        teller.node.incoming_hashes = ()
        async with teller.follow():
            await opened(teller)
        assert teller.credited_sat == 2_000
        assert teller.books_equal_node()


class TestResume:
    """The books have a watermark of this node."""

    async def test_what_settled_meanwhile_comes_from_the_backlog(self) -> None:
        """The stream begins at the watermark; no listing is needed."""
        teller = Teller()
        await open_and_stop(teller)
        for name in ("a", "b", "c"):
            teller.node.settle(teller.expected_invoice(name))
        pages = teller.node.pages
        async with teller.follow():
            await eventually(lambda: teller.credited_sat == 4000)
        assert teller.node.subscribed_after[-1] == 1
        assert teller.node.pages == pages
        assert teller.books_equal_node()

    async def test_a_zero_watermark_lists(self) -> None:
        """LND never replays index 1, and 0 means no backlog: only a listing finds the first settlement."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
        teller.node.settle(teller.expected_invoice("the very first"))
        async with teller.follow():
            await eventually(lambda: teller.credited_sat == 1000)
        assert teller.node.subscribed_after[-1] == 0

    async def test_a_renumbered_checkpoint_is_confirmed(self) -> None:
        """bbolt gives an invoice a new, larger index when money comes to it again: that is no restored node."""
        teller = Teller()
        await open_and_stop(teller)
        payment_hash = next(iter(teller.node._invoices))
        known = teller.node._invoices[payment_hash]
        again = replace(known.settlements[0], settle_index=7)
        teller.node._invoices[payment_hash] = replace(known, settlements=(again,))
        teller.node.burn_settle_index(6)
        async with teller.follow():
            await eventually(lambda: teller.status.state == "live")
        assert teller.node.subscribed_after[-1] == 1
        assert not any(isinstance(event, NodeRestored) for event in teller.handed_over)

    async def test_a_restored_node_begins_a_new_epoch(self) -> None:
        """The index that the books have would silence it: it is listed, and followed from its beginning."""
        teller = Teller()
        await open_and_stop(teller)
        for name in ("a", "b"):
            teller.node.settle(teller.expected_invoice(name))
        teller.node.restore_empty()
        teller.node.settle(teller.expected_invoice("after the restore"))
        async with teller.follow():
            await eventually(lambda: teller.credited_sat == 2000)
            teller.node.settle(teller.expected_invoice("live"))
            await eventually(lambda: teller.credited_sat == 3000)
            await eventually(lambda: (c := teller.cursor()) is not None and c.settle_index == 2)
        cursor = teller.cursor()
        assert cursor is not None
        assert cursor.epoch == 1
        assert teller.node.subscribed_after[-1] == 0
        assert "restored" in teller.status.last_error

    async def test_a_checkpoint_that_settled_anew_tells_a_restored_node(self) -> None:
        """The invoice is there, but with a smaller index than the books have: it settled after the restore."""
        teller = Teller()
        await open_and_stop(teller)
        async with teller.follow():
            await eventually(lambda: teller.status.state == "live")
            teller.node.settle(teller.expected_invoice("checkpoint"))
            await eventually(lambda: teller.credited_sat == 2000)
        teller.node.restore_empty()
        teller.node.settle(teller.node.add("checkpoint", 1_000_000))
        async with teller.follow():
            await eventually(lambda: (c := teller.cursor()) is not None and c.epoch == 1 and c.settle_index == 1)
            teller.node.settle(teller.expected_invoice("live"))
            await eventually(lambda: teller.credited_sat == 3000)

    async def test_a_node_replaced_behind_a_silent_stream_is_noticed(self) -> None:
        """Resumed, and nothing comes: the node is asked once more who it is."""
        teller = Teller()
        await open_and_stop(teller)
        teller.node.on_subscribe = Once(lambda: teller.node.replace_by_empty(OTHER, funds_msat=2_000_000))
        async with teller.follow():
            await eventually(lambda: teller.status.pubkey == OTHER)
            await opened(teller)

    async def test_another_pubkey_is_another_node(self) -> None:
        """Said clearly; its settlements get keys and a cursor of their own, nothing is silenced."""
        teller = Teller()
        await open_and_stop(teller)
        first = teller.node.pubkey
        teller.node.replace_by_empty(OTHER, funds_msat=2_000_000)
        async with teller.follow():
            await opened(teller)
            teller.node.settle(teller.expected_invoice("on the new node"))
            await eventually(lambda: teller.credited_sat == 2000)
        assert first in teller.status.last_error
        assert OTHER in teller.status.last_error
        old, new = teller.cursor(first), teller.cursor(NodePubkey(OTHER))
        assert old is not None
        assert new is not None
        assert (old.settle_index, new.settle_index) == (1, 1)
        assert new.booked_msat == 3_000_000


class TestStream:
    """While the stream stands, and when it breaks."""

    async def test_duplicates_and_reorderings_are_booked_once(self) -> None:
        """As LND sends them under load."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            teller.node.deliver_live = False
            events = [teller.node.settle(teller.expected_invoice(name)) for name in "abcd"]
            for event in (events[2], events[0], events[2], events[3], events[1], events[0]):
                teller.node.send([event])
            await eventually(lambda: teller.credited_sat == 4000)
            await eventually(lambda: (c := teller.cursor()) is not None and c.settle_index == 4)
        assert teller.books_equal_node()

    async def test_a_broken_stream_is_taken_up_again(self) -> None:
        """What settles while the node is away is credited after it is back; status says what is wrong meanwhile."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            teller.node.settle(teller.expected_invoice("a"))
            await eventually(lambda: teller.credited_sat == 1000)
            waiting = teller.expected_invoice("b")
            teller.node.go_away("lnd1 is locked: unlock it")
            await eventually(lambda: not teller.status.connected and "unlock it" in teller.status.last_error)
            teller.node.settle(waiting)
            teller.node.come_back()
            await eventually(lambda: teller.credited_sat == 2000)
            assert teller.status.connected
        assert teller.metrics.connected[:2] == [True, False]
        assert teller.status.connections == teller.metrics.connected.count(True) >= 2

    async def test_the_newest_settle_index_that_was_told_is_in_the_status(self) -> None:
        """Whatever order they come in; what an earlier connection told does not count any more."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            assert teller.status.told_settle_index == 0
            teller.node.deliver_live = False
            events = [teller.node.settle(teller.expected_invoice(name)) for name in "abc"]
            for event in (events[2], events[0], events[1]):
                teller.node.send([event])
            await eventually(lambda: teller.credited_sat == 3000)
            assert teller.status.told_settle_index == 3
            await eventually(lambda: teller.proven_through(3))  # else the next connection tells them once more
            teller.node.go_away("restarting")
            await eventually(lambda: not teller.status.connected)
            teller.node.come_back()
            await eventually(lambda: teller.status.connected)
            assert teller.status.told_settle_index == 0

    async def test_a_wrong_network_is_a_mistake_in_the_configuration(self) -> None:
        """Not waited out: it will not mend itself."""
        teller = Teller()
        teller.node.network = "mainnet"
        send, _recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
        with pytest.raises(Misconfigured, match=r"mainnet.*regtest"):
            await teller.follower(send).run(lambda: None)

    async def test_one_node_under_two_names_is_refused(self) -> None:
        """Two streams of one LND hang it on native SQL, and what it holds would be counted twice."""
        teller = Teller()
        send, _recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
        second = teller.follower(send)
        first = NodeStatus(name="first", pubkey=teller.node.pubkey)
        second.others = [first]
        for state, connected in ((IDENTIFIED, False), ("live", True)):
            first.state, first.connected = state, connected
            with pytest.raises(Misconfigured, match=r"first and lnd1 are one node"):
                await second.run(lambda: None)

    async def test_a_node_that_has_moved_to_another_entry_is_followed_there(self) -> None:
        """The entry at which it stood before is not connected any more, whatever it tries."""
        teller = Teller()
        moved_from = NodeStatus(name="first", pubkey=teller.node.pubkey, state="connecting")
        teller.others = [moved_from]
        async with teller.follow():
            await opened(teller)

    async def test_a_node_replaced_between_question_and_stream(self) -> None:
        """Nothing of the new node is booked under the old one's name."""
        teller = Teller(WatchedNode(funds_msat=1_000_000))
        first = teller.node.pubkey
        teller.node.on_subscribe = Once(lambda: teller.node.replace_by_empty(OTHER, funds_msat=2_000_000))
        async with teller.follow():
            await opened(teller)
        assert teller.cursor(first) is None
        new = teller.cursor(NodePubkey(OTHER))
        assert new is not None
        assert new.booked_msat == 2_000_000

    async def test_a_page_of_a_replaced_node_is_not_handed_over(self) -> None:
        """The address begins to answer for another node in the middle of a listing: its page is nobody's yet."""
        teller = Teller(WatchedNode(funds_msat=0))
        teller.node.settle(teller.node.invoice_by_hand(), 5_000)
        first = teller.node.pubkey

        def replace_unnoticed() -> None:
            """The stream stays as it is, and the question after its start has been answered."""
            wait_until(lambda: teller.node.infos_asked == 2)
            teller.node._pubkey = NodePubkey(OTHER)
            teller.node._invoices = {}

        teller.node.on_page = Once(replace_unnoticed)
        async with teller.follow():
            await opened(teller)
        assert teller.cursor(first) is None
        assert not any(isinstance(event, InvoiceSettled) for event in teller.handed_over)


class TestGaps:
    """Indexes that the stream skipped."""

    async def test_a_settlement_that_the_stream_lost_is_found_by_a_pass(self) -> None:
        """Only its index is missing from the row: a complete listing brings it."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            teller.node.deliver_live = False
            teller.node.settle(teller.expected_invoice("lost"))
            teller.node.deliver_live = True
            teller.node.settle(teller.expected_invoice("seen"))
            await eventually(lambda: teller.credited_sat == 2000)
            await eventually(lambda: (c := teller.cursor()) is not None and c.gaps() == () and c.settle_index == 2)
        assert teller.books_equal_node()

    async def test_an_index_that_never_existed_is_stepped_over_after_a_pass(self) -> None:
        """Permanent gaps exist; the watermark does not wait for ever, and the next start can trust it."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            teller.node.settle(teller.expected_invoice("a"))
            teller.node.burn_settle_index(3)
            teller.node.settle(teller.expected_invoice("b"))
            await eventually(lambda: teller.proven_through(5))
        cursor = teller.cursor()
        assert cursor is not None
        assert cursor.checkpoint_hash is not None
        async with teller.follow():
            await eventually(lambda: teller.status.state == "live")
        assert teller.node.subscribed_after[-1] == 5

    async def test_a_pass_closes_no_gap_that_it_did_not_know_of(self) -> None:
        """What settles unseen on a page that was read already is not covered: the watermark stays below it."""
        teller = Teller()
        async with teller.follow():
            await opened(teller)
            late = teller.expected_invoice("settles while the pass runs")
            teller.node.deliver_live = False
            teller.node.settle(teller.expected_invoice("lost"))
            teller.node.deliver_live = True

            def settle_two() -> None:
                teller.node.deliver_live = False
                teller.node.settle(late)  # on the page that is on its way already
                teller.node.deliver_live = True
                teller.node.settle(teller.expected_invoice("seen live meanwhile"))

            teller.node.on_page = Once(settle_two)
            teller.node.settle(teller.expected_invoice("seen"))
            await eventually(lambda: teller.credited_sat == 4000)
            await eventually(lambda: (c := teller.cursor()) is not None and c.settle_index == 4)
        completed = [event.through_index for event in teller.handed_over if isinstance(event, ListingCompleted)]
        assert completed[0] == 2
        assert teller.books_equal_node()

    async def test_what_is_handed_over_before_the_opening_is_everything_before_it(self) -> None:
        """NodeOpened comes behind every settlement up to its index, in the inbox itself."""
        teller = Teller()
        for number in range(1200):
            teller.node.settle(teller.node.invoice_by_hand(), 1_000 + number)
        async with teller.follow():
            await opened(teller)
        kinds = [type(event) for event in teller.handed_over]
        opening = teller.handed_over[kinds.index(NodeOpened)]
        assert isinstance(opening, NodeOpened)
        before = {
            e.settle_index for e in teller.handed_over[: kinds.index(NodeOpened)] if isinstance(e, InvoiceSettled)
        }
        assert opening.through_index == 1200
        assert before == set(range(1, 1201))
        assert teller.balance(LIGHTNING) == -teller.node.funds().funds_msat // 1000 + (
            1 if teller.node.funds().funds_msat % 1000 else 0
        )
