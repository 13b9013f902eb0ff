"""The HTLCs of settled invoices are followed to their end: what is lost is found, once, whatever breaks in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given
from trio.testing import wait_all_tasks_blocked

from daemon.domain.accounts import GAP, LIGHTNING
from daemon.domain.identifiers import loss_key
from daemon.domain.node_events import HtlcLost, HtlcRef, HtlcsChecked, InvoiceSettled, NodeEvent
from daemon.ingest import htlc_proofs
from daemon.ingest.handover import Handover
from daemon.ingest.htlc_proofs import Unproven
from tests.samples import settled
from tests.unit.ingest.teller import Teller, WatchedNode, eventually


def with_htlc(index: int) -> InvoiceSettled:
    event = settled(f"number {index}", index, 1_000)
    event.htlcs = (HtlcRef(7, index, 1_000),)
    return event


@asynccontextmanager
async def following(teller: Teller) -> AsyncIterator[None]:
    """The node is followed, and its books are opened."""
    async with teller.follow():
        await eventually(lambda: teller.status.state == "live" and (c := teller.cursor()) is not None and c.opened)
        yield


async def proven(teller: Teller, name: str = "first", value_msat: int = 1_000_000) -> None:
    """An invoice is paid, and its HTLC has left its channel."""
    event = teller.node.settle(teller.expected_invoice(name, value_msat))
    await eventually(lambda: teller.proven_through(event.settle_index))


async def credited_unproven(teller: Teller, *names: str, value_msat: int = 1_000_000) -> Sequence[InvoiceSettled]:
    """Invoices are paid, and credited, but their HTLCs stay in their channel, as do all from now on."""
    before_sat = teller.credited_sat
    teller.node.htlcs.resolve_at_once = False
    events = [teller.node.settle(teller.expected_invoice(name, value_msat)) for name in names]
    await eventually(lambda: teller.credited_sat == before_sat + len(names) * value_msat // 1000)
    return events


async def several_looks() -> None:
    """Long enough for some: none of them may change what a test asserts."""
    await trio.sleep(0.05)


def losses(teller: Teller) -> list[str]:
    """The keys of the losses in the books."""
    return [key for key in teller.store.taken_keys() if key.endswith(":lost")]


def gap_kinds(teller: Teller) -> list[str]:
    return sorted(gap.kind for gap in teller.store.known_gaps().values())


class TestLive:
    """While the stream stands, the LND that has settled lives."""

    async def test_what_has_left_its_channel_is_proven_without_a_look_up(self) -> None:
        """However many there are: one list of the channels proves all of them."""
        teller = Teller()
        async with following(teller):
            for number in range(20):
                teller.node.settle(teller.expected_invoice(f"live {number}"))
            await eventually(lambda: teller.proven_through(20))
        assert teller.node.htlcs.asked == []
        assert gap_kinds(teller) == []

    async def test_the_mark_waits_for_what_is_in_the_channel(self) -> None:
        """And for everything above it, too: a new connection has to begin below it."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await credited_unproven(teller, "in its channel")
            await several_looks()
            assert not teller.proven_through(2)
            teller.node.resolve_htlcs()
            await eventually(lambda: teller.proven_through(2))
        assert teller.books_equal_node()

    async def test_in_a_channel_that_closes_each_htlc_is_looked_up(self) -> None:
        """It is in no list any more: its absence says nothing."""
        teller = Teller()
        async with following(teller):
            teller.node.htlcs.is_open = False
            await proven(teller)
        assert teller.node.htlcs.asked == [0]

    async def test_a_busy_node_costs_a_commit_for_each_look_and_an_idle_one_none(self) -> None:
        """The mark is told when it has moved, not otherwise."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await several_looks()
        marks = [event for event in teller.handed_over if isinstance(event, HtlcsChecked)]
        assert [mark.through_index for mark in marks] == [1]


class TestKilled:
    """The connection broke, so LND may have been killed: what is not proven is asked for."""

    async def test_a_loss_is_booked_once_and_books_equal_the_node(self) -> None:
        """Over any number of connections and restarts of the daemon afterwards."""
        teller = Teller(WatchedNode(funds_msat=10_000_000))
        async with following(teller):
            await proven(teller, "kept", 2_000_000)
            await credited_unproven(teller, "lost", value_msat=1_500_500)
            assert not teller.books_equal_node()
            teller.node.kill()
            await eventually(lambda: teller.proven_through(2))
        assert losses(teller) == [loss_key(teller.node.pubkey, teller.node.htlcs.CHANNEL, 1)]
        assert teller.balance(GAP) == -1_501
        assert teller.credited_sat == 3_500
        assert teller.books_equal_node()
        for _ in range(2):
            teller.node.restart()
            async with teller.follow():
                await eventually(lambda: teller.status.state == "live")
                await several_looks()
        assert teller.balance(GAP) == -1_501
        assert gap_kinds(teller) == ["htlc_lost"]

    async def test_what_stayed_is_proven_by_look_ups(self) -> None:
        """A kill that costs nothing: no loss, no gap, and the mark moves on."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await credited_unproven(teller, "a")
            teller.node.resolve_htlcs()
            teller.node.kill()
            await eventually(lambda: teller.proven_through(2))
        assert 1 in teller.node.htlcs.asked
        assert teller.node.subscribed_after[-1] == 1
        assert gap_kinds(teller) == []

    async def test_a_loss_is_found_after_the_daemon_was_away_too(self) -> None:
        """Both were killed: the daemon begins at the mark, not at the watermark, and asks."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await credited_unproven(teller, "lost")
        teller.node.kill()
        async with teller.follow():
            await eventually(lambda: teller.proven_through(2))
        assert teller.node.subscribed_after[-1] == 1
        assert teller.balance(GAP) == -1_000
        assert teller.books_equal_node()

    async def test_the_very_first_settlement_is_found_by_a_listing(self) -> None:
        """The mark is 0, and LND replays nothing for it: the node is listed."""
        teller = Teller()
        async with following(teller):
            await credited_unproven(teller, "lost")
            teller.node.kill()
            await eventually(lambda: teller.proven_through(1))
        assert teller.node.subscribed_after[-1] == 0
        assert teller.balance(GAP) == -1_000
        assert teller.books_equal_node()

    async def test_a_loss_of_the_opening_is_none_of_the_books(self) -> None:
        """What was lost before the opening was read is not in the funds that it read."""
        teller = Teller(WatchedNode(funds_msat=5_000_000))
        teller.node.htlcs.resolve_at_once = False
        teller.node.settle(teller.node.invoice_by_hand(), 1_000_000)
        teller.node.kill()
        async with following(teller):
            await several_looks()
        assert teller.balance(LIGHTNING) == -5_000
        assert losses(teller) == []
        assert teller.books_equal_node()

    async def test_an_htlc_without_an_outcome_is_a_gap_after_its_time(self) -> None:
        """Asked for again and again first: the outcome may come late. Then the mark goes on."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await credited_unproven(teller, "a")
            teller.node.resolve_htlcs()
            teller.node.htlcs.forget_outcomes()
            teller.node.restart()
            await eventually(lambda: teller.proven_through(2))
        assert teller.node.htlcs.asked.count(1) > 1
        assert gap_kinds(teller) == ["htlc_unproven"]
        assert teller.balance(GAP) == 0

    async def test_a_node_that_keeps_no_outcomes_is_warned_of(self) -> None:
        """Status and log say so, what could not be proven is one gap with the count, and the mark moves on."""
        teller = Teller()
        teller.node.htlcs.keeps_outcomes = False
        async with following(teller):
            assert "--store-final-htlc-resolutions" in teller.status.last_error
            await proven(teller)
            await credited_unproven(teller, "a", "b")
            teller.node.kill()
            await eventually(lambda: teller.proven_through(3))
        (gap,) = teller.store.known_gaps().values()
        assert (gap.kind, gap.detail[:31]) == ("htlc_unprovable", "2 HTLCs with 2000000 msat were ")
        assert teller.node.htlcs.asked == []

    async def test_a_loss_is_told_behind_its_settlement(self) -> None:
        """Else posting would not find what it is a loss of."""
        teller = Teller()
        async with following(teller):
            (event,) = await credited_unproven(teller, "lost")
            teller.node.kill()
            await eventually(lambda: teller.proven_through(1))
        lost = next(n for n, e in enumerate(teller.handed_over) if isinstance(e, HtlcLost))
        before = [e for e in teller.handed_over[:lost] if isinstance(e, InvoiceSettled)]
        assert event.settled_id in {e.settled_id for e in before}

    async def test_an_index_that_does_not_come_again_holds_nothing_up(self) -> None:
        """Money came again to an invoice: on bbolt it has a later index, and its old one is a hole for ever. A complete
        listing tells that nothing stands there."""
        teller = Teller()
        async with following(teller):
            await proven(teller)
            again, _ = await credited_unproven(teller, "again", "lost")
        teller.node.resolve_htlcs()
        teller.node.pay_again(again.payment_hash, 500_000, renumber=True)
        teller.node.settle(teller.expected_invoice("lost, too"))
        teller.node.resolve_htlcs()
        async with teller.follow():
            await eventually(lambda: teller.proven_through(5))
        assert teller.credited_sat == 4_500
        assert teller.books_equal_node()

    async def test_more_than_can_wait_is_read_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is forgotten: what was left out comes with the next connection, losses with it."""
        monkeypatch.setattr(htlc_proofs, "MAX_WAITING", 3)
        teller = Teller()
        async with following(teller):
            await proven(teller)
            await credited_unproven(teller, *(f"lost {number}" for number in range(10)))
            teller.node.kill()
            await eventually(lambda: teller.proven_through(11))
        assert teller.balance(GAP) == -10_000
        assert teller.books_equal_node()


async def test_settlements_are_taken_when_posting_has_them() -> None:
    """Not before: a proof or a loss must come behind its settlement."""
    send, recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
    handover = Handover(send)
    taken: list[InvoiceSettled] = []
    handover.on_settlements = taken.extend
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handover.settlements, [with_htlc(1)])
        await wait_all_tasks_blocked()
        assert taken == []
        await recv.receive()
        await wait_all_tasks_blocked()
        assert taken == [with_htlc(1)]


@dataclass
class Model:
    """What was seen and what waits, as plain sets."""

    seen: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)

    def step(self, what: str, index: int) -> None:
        if what == "take" and index not in self.seen:
            self.waiting.add(index)
            self.seen.add(index)
        elif what == "prove":
            self.waiting.discard(index)
        elif what == "close":
            self.seen |= set(range(1, index + 1))

    @property
    def mark(self) -> int:
        mark = 0
        while mark + 1 in self.seen - self.waiting:
            mark += 1
        return mark


steps = st.lists(st.tuples(st.sampled_from(["take", "take", "take", "prove", "prove", "close"]), st.integers(1, 9)))


class TestUnproven:
    """The mark alone."""

    @given(script=steps, most=st.integers(2, 12))
    def test_the_mark_passes_nothing_that_is_missing_or_not_final(
        self, script: list[tuple[str, int]], most: int
    ) -> None:
        """It is the model's where there is room for all, and never beyond it where there is not."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(htlc_proofs, "MAX_WAITING", most)
            unproven, model = Unproven(0), Model()
            for what, index in script:
                if what == "take":
                    unproven.take(with_htlc(index))
                elif what == "prove":
                    unproven.prove(index)
                else:
                    unproven.close_through(index)
                model.step(what, index)
                assert unproven.mark == model.mark if most > 9 else unproven.mark <= model.mark

    def test_what_is_proven_in_any_order_ends_at_the_newest(self) -> None:
        """Also where they come out of order, twice, and one is never proven."""
        unproven = Unproven(4)
        for index in (7, 5, 5, 9, 6, 8, 7, 3):
            unproven.take(with_htlc(index))
        assert (unproven.through, unproven.mark, unproven.hole) == (9, 4, None)
        for index in (9, 5, 7, 8):
            unproven.prove(index)
        assert unproven.mark == 5
        unproven.prove(6)
        assert unproven.mark == 9

    def test_a_missing_index_is_a_hole_until_a_pass_closes_it(self) -> None:
        """The mark stays below it."""
        unproven = Unproven(4)
        for index in (5, 7):
            unproven.take(with_htlc(index))
            unproven.prove(index)
        assert (unproven.mark, unproven.hole) == (5, 6)
        unproven.close_through(6)
        assert (unproven.mark, unproven.hole) == (7, None)

    def test_what_has_no_room_is_left_out_from_the_top(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The mark ends below it, and says that the rest must be read again, but not before the rest is proven."""
        monkeypatch.setattr(htlc_proofs, "MAX_WAITING", 4)
        unproven = Unproven(0)
        for index in range(1, 12):
            unproven.take(with_htlc(index))
        kept = sorted(unproven.waiting)
        assert kept == list(range(1, len(kept) + 1))
        unproven.close_through(11)
        for index in kept:
            assert not unproven.is_left_behind
            unproven.prove(index)
        assert unproven.mark == len(kept)
        assert unproven.is_left_behind
