"""The Lightning side: everything that the LNDs hold, against the Lightning account.

A look reads the books, each node, and the books again; it is steady where nothing moved meanwhile. What has moved the
nodes' money apart from invoices is dealt with on the way: posting books it, or a gap says what it was, and then it is
looked at again, until nothing is left to be told (`daemon.matching.node_review`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import trio

from daemon.domain.accounts import LIGHTNING
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import channel_cost_key
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.node_events import ChannelCost, MovementEvent
from daemon.domain.ports import LightningBooks, LightningNode, LightningTotals
from daemon.domain.reconciliation import Holding, Item, ItemKind, Side
from daemon.ingest.handover import Inbox
from daemon.matching.node_review import Booking
from daemon.reconciling.lightning_gaps import LightningGaps
from daemon.reconciling.node_reading import LndAway, asked
from daemon.reconciling.seen_nodes import SeenNode, baseline, see

TRIES: Final = 8
"""Of one look: under load a moment without a commit is rare, and what is told to posting takes a try of its own."""

QUIET_S: Final = 0.3
"""Before the books are read for the second time: what a node settled before it was read is posted by then."""

RETRY_S: Final = 0.5
"""Between tries."""

POSTED_S: Final = 10.0
"""What was told to posting is waited for so long; it takes milliseconds, unless the database is away."""

POLL_S: Final = 0.05
"""Between looks whether it is posted."""

YOUNG_MS: Final = 7 * 86_400_000
"""Explained gaps up to a week old are compared with the journals at every look; the older ones by the full check."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look has found. `side` is None where a node is away or not opened, as `problem` says."""

    side: Side | None
    steady: bool
    sequence: int
    holdings: tuple[Holding, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """`again`: nothing is to be concluded yet; first `events` are told to posting."""

    looked: Looked
    again: bool
    events: Sequence[MovementEvent] = ()


@dataclass(kw_only=True, slots=True)
class LightningSide:
    """All LNDs of the configuration against the account that they have in common."""

    nodes: Sequence[LightningNode]
    books: LightningBooks
    gaps: LightningGaps
    inbox: Inbox
    booking: Booking
    now_ms: Callable[[], int]
    quiet_s: float = QUIET_S
    retry_s: float = RETRY_S
    _thread: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def look(self) -> Looked:
        """One look, tried a few times until it is steady. Raises Unavailable if the store is away."""
        await self._run(partial(self.gaps.recheck, since_ms=self.now_ms() - YOUNG_MS))
        found = Looked(side=None, steady=False, sequence=0, problem="not looked yet")
        for left in reversed(range(TRIES)):
            try:
                tried = await self._try()
            except LndAway as away:
                return _nothing(await self._run(self.books.totals), str(away))
            found = tried.looked
            if not tried.again:
                break
            if tried.events:
                await self._post(tried.events)
            if left:
                await trio.sleep(0 if tried.events else self.retry_s)
        return found

    async def recheck(self) -> None:
        """Compares old gaps with what journals say by now, too: a part of the full check."""
        await self._run(self.gaps.recheck)

    async def _try(self) -> _Try:
        """One try. Raises LndAway."""
        before = await self._run(self.books.totals)
        cursors = await self._run(partial(self._cursors, before))
        missing = [node.name for node, cursor in zip(self.nodes, cursors, strict=True) if cursor is None]
        if missing:
            problem = f"the books of {', '.join(missing)} are not opened yet"
            return _Try(looked=_nothing(before, problem), again=False)
        seen: list[SeenNode] = []
        events: list[MovementEvent] = []
        for node, cursor in zip(self.nodes, cursors, strict=True):
            if cursor is not None and cursor.movements is None:
                events.append(await self._run(partial(baseline, node, cursor, now_ms=self.now_ms())))
            elif cursor is not None:
                see_it = partial(see, node, cursor, self.books, booking=self.booking, now_ms=self.now_ms())
                seen.append(await self._run(see_it))
        events += [event for one in seen for event in one.review.events]
        gaps = [gap for one in seen for gap in one.review.gaps]
        if await self._run(partial(self.gaps.keep, gaps)) or events:
            problem = "what has moved is not in the books yet"
            return _Try(looked=_nothing(before, problem), again=True, events=events)
        await trio.sleep(self.quiet_s)
        return await self._compare(before, seen)

    async def _compare(self, before: LightningTotals, seen: Sequence[SeenNode]) -> _Try:
        """The books again; the closes of a steady moment are booked, and it is looked at again."""
        side = await self._run(partial(self._side, before, seen))
        after = await self._run(self.books.totals)
        steady = (before.sequence, before.balance_sat) == (after.sequence, after.balance_sat)
        steady = steady and all(one.steady for one in seen)
        side, closes = _with_fractions(side, seen) if steady else (side, [])
        holdings = tuple(one.holding() for one in seen)
        looked = Looked(side=side, steady=steady, sequence=before.sequence, holdings=holdings)
        return _Try(looked=looked, again=bool(closes) or not steady, events=closes)

    def _cursors(self, totals: LightningTotals) -> list[LndCursor | None]:
        """Each node's, None where it is not opened; by pubkey, for another node may answer at the old address."""
        opened = {cursor.pubkey: cursor for cursor in totals.cursors if cursor.opened}
        return [opened.get(asked(node.get_info).pubkey) for node in self.nodes]

    async def _post(self, events: Sequence[MovementEvent]) -> None:
        """Hands over, and waits until it is in the books."""
        before = await self._run(self.books.totals)
        await self.inbox.send(events)
        with trio.move_on_after(POSTED_S):
            while not await self._run(partial(self._is_posted, events, before)):  # noqa: ASYNC110 (only the books tell)
                await trio.sleep(POLL_S)

    def _is_posted(self, events: Sequence[MovementEvent], before: LightningTotals) -> bool:
        costs = {
            channel_cost_key(event.pubkey, event.channel_point, event.change)
            for event in events
            if isinstance(event, ChannelCost)
        }
        was = {cursor.pubkey: cursor.movements for cursor in before.cursors}
        now = {cursor.pubkey: cursor.movements for cursor in self.books.totals().cursors}
        moved = {event.pubkey for event in events if not isinstance(event, ChannelCost)}
        return all(now.get(pubkey) != was.get(pubkey) for pubkey in moved) and costs <= set(self.books.booked(costs))

    def _side(self, totals: LightningTotals, seen: Sequence[SeenNode]) -> Side:
        pubkeys = {one.cursor.pubkey for one in seen}
        items = [item for one in seen for item in (*one.review.items, *one.in_flight)]
        items += self.gaps.items()
        items += self._booked_by_others(totals)
        items += [
            # Its money is nobody's to look at; the books hold it until somebody decides.
            Item(kind=ItemKind.GAP, reference=cursor.pubkey, amount_msat=-cursor.booked_msat)
            for cursor in totals.cursors
            if cursor.pubkey not in pubkeys and cursor.booked_msat
        ]
        return Side(
            account=LIGHTNING,
            books_msat=-totals.balance_sat * MSAT_PER_SAT + sum(one.remainder_msat for one in totals.cursors),
            nodes_msat=sum(one.reading.funds.funds_msat for one in seen),
            items=tuple(items),
        )

    def _booked_by_others(self, totals: LightningTotals) -> Iterable[Item]:
        """What Blink's jobs book without a hash: escrow for commitment fees, which is in the channels all the same, and
        routing income and channel fees where they are left to it."""
        types = ["escrow"]
        types += [] if self.booking.routing else ["routing_fee"]
        types += [] if self.booking.channel_fees else ["fee"]
        opened = [cursor.opened_at_ms for cursor in totals.cursors if cursor.opened_at_ms is not None]
        taken = self.books.taken_as(types, since_ms=min(opened)) if opened else {}
        for name, amount_sat in taken.items():
            if amount_sat:
                reference = f"booked by another program: {name}"
                yield Item(kind=ItemKind.OTHERS, reference=reference, amount_msat=amount_sat * MSAT_PER_SAT)

    async def _run(self, call: Callable[[], _Answer]) -> _Answer:
        """Reads, and observations that may be repeated: a call whose caller is cancelled is left to its deadline."""
        return await trio.to_thread.run_sync(call, limiter=self._thread, abandon_on_cancel=True)


def _nothing(totals: LightningTotals, problem: str) -> Looked:
    return Looked(side=None, steady=False, sequence=totals.sequence, problem=problem)


def _with_fractions(side: Side, seen: Sequence[SeenNode]) -> tuple[Side, list[ChannelCost]]:
    """The side of a steady moment, and the closes that are over in it.

    An output on the chain holds no fraction of a sat: of each channel that closes less than one is lost beside the
    fees. It is what the rest of the difference comes to, and it is part of the first close that is over.
    """
    closing = [point for one in seen for point in one.review.closing]
    closes = [close for one in seen for close in one.review.closes]
    costs = [
        Item(kind=ItemKind.CLOSING, reference=close.channel_point, amount_msat=-close.cost_msat) for close in closes
    ]
    side = replace(side, items=(*side.items, *costs))
    fraction_msat = -side.unknown_msat
    if not 0 < fraction_msat < MSAT_PER_SAT * len(closing):
        return side, closes
    item = Item(kind=ItemKind.CLOSING, reference=closing[0], amount_msat=-fraction_msat)
    if closes:
        closes[0] = replace(closes[0], cost_msat=closes[0].cost_msat + fraction_msat)
    return replace(side, items=(*side.items, item)), closes
