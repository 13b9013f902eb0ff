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

import structlog
import trio

from daemon.domain.accounts import LIGHTNING
from daemon.domain.books import Gap, GapState
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import channel_cost_key
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.node_events import ChannelCost, MarksMoved, MovementEvent
from daemon.domain.ports import Gaps, LightningBooks, LightningNode, LightningTotals
from daemon.domain.reconciliation import Holding, Item, ItemKind, Side
from daemon.ingest.handover import Inbox
from daemon.ingest.marks import read_marks
from daemon.matching.movements import CHANNEL_FEE, CHANNEL_LOSS, ROUTING_INCOME
from daemon.matching.node_review import (
    CHANNEL_PUSH,
    SENT_ELSEWHERE,
    WALLET_RECEIVED,
    WALLET_SENT,
    BookedOutside,
    Booking,
    NodeReading,
    Review,
    asked_hashes,
    asked_keys,
    recheck,
    review,
)
from daemon.reconciling.node_reading import LndAway, asked, read_in_flight, read_node

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

RECHECKED: Final = 1_000
"""Of these so many of each kind at a look, the newest; of the older ones as many in a full check."""

SHOWN: Final = 50
"""Gaps of a kind that are an item each; the others are one sum."""

KINDS: Final = {
    SENT_ELSEWHERE: ItemKind.SENT,
    WALLET_SENT: ItemKind.SENT,
    WALLET_RECEIVED: ItemKind.RECEIVED,
    CHANNEL_PUSH: ItemKind.SENT,
    CHANNEL_FEE: ItemKind.SENT,
    ROUTING_INCOME: ItemKind.RECEIVED,
    CHANNEL_LOSS: ItemKind.GAP,
    "paid_without_journal": ItemKind.GAP,
    "paid_again_elsewhere": ItemKind.GAP,
}
"""Gaps whose amounts are part of this side's difference, and what they explain it as."""

RECHECKED_KINDS: Final = (SENT_ELSEWHERE, WALLET_SENT, WALLET_RECEIVED, "paid_without_journal")

_WAITING: Final = (GapState.OPEN, GapState.EXPLAINED)

_Answer = TypeVar("_Answer")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look has found. `side` is None where a node is away or not opened, as `problem` says."""

    side: Side | None
    steady: bool
    sequence: int
    holdings: tuple[Holding, ...] = ()
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class _Seen:
    """One node, with its review."""

    node: LightningNode
    cursor: LndCursor
    reading: NodeReading
    review: Review
    in_flight: tuple[Item, ...]
    complete: bool


@dataclass(kw_only=True, slots=True)
class LightningSide:
    """All LNDs of the configuration against the account that they have in common."""

    nodes: Sequence[LightningNode]
    books: LightningBooks
    gaps: Gaps
    inbox: Inbox
    booking: Booking
    now_ms: Callable[[], int]
    quiet_s: float = QUIET_S
    retry_s: float = RETRY_S
    _thread: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def look(self) -> Looked:
        """One look, tried a few times until it is steady. Raises Unavailable if the store is away."""
        await self._recheck_young()
        found = Looked(side=None, steady=False, sequence=0, problem="not looked yet")
        for left in reversed(range(TRIES)):
            try:
                found, events = await self._try()
            except LndAway as away:
                totals = await self._run(self.books.totals)
                return Looked(side=None, steady=False, sequence=totals.sequence, problem=str(away))
            if events is None and (found.steady or found.side is None):
                break
            if events:
                await self._post(events)
            if left:
                await trio.sleep(0 if events else self.retry_s)
        return found

    async def recheck(self) -> None:
        """Compares old gaps with what journals say by now, too: a part of the full check."""
        await self._recheck(lambda _gap: True)

    async def _recheck_young(self) -> None:
        since_ms = self.now_ms() - YOUNG_MS
        await self._recheck(lambda gap: gap.seen_at_ms >= since_ms)

    async def _recheck(self, wanted: Callable[[Gap], bool]) -> None:
        def compare() -> None:
            for kind in RECHECKED_KINDS:
                gaps = [gap for gap in self.gaps.by_kind(kind, states=_WAITING, limit=RECHECKED) if wanted(gap)]
                taken = self.books.taken_by_others([gap.reference for gap in gaps if gap.moved_msat])
                changed = [new for gap in gaps if gap.moved_msat and (new := recheck(gap, taken)) is not None]
                if changed:
                    self.gaps.put(changed)

        await self._run(compare)

    async def _try(self) -> tuple[Looked, Sequence[MovementEvent] | None]:
        """One try; what posting has to be told, or nothing, before there is to be another; None if there is not."""
        before = await self._run(self.books.totals)
        cursors = await self._run(partial(self._cursors, before))
        missing = [node.name for node, cursor in zip(self.nodes, cursors, strict=True) if cursor is None]
        if missing:
            problem = f"the books of {', '.join(missing)} are not opened yet"
            return Looked(side=None, steady=False, sequence=before.sequence, problem=problem), None
        seen: list[_Seen] = []
        events: list[MovementEvent] = []
        for node, cursor in zip(self.nodes, cursors, strict=True):
            if cursor is not None and cursor.movements is None:
                events.append(await self._run(partial(self._baseline, node, cursor)))
            elif cursor is not None:
                seen.append(await self._run(partial(self._see, node, cursor)))
        events += [event for one in seen for event in one.review.events]
        if await self._keep([gap for one in seen for gap in one.review.gaps]) or events:
            problem = "what has moved is not in the books yet"
            return Looked(side=None, steady=False, sequence=before.sequence, problem=problem), events
        await trio.sleep(self.quiet_s)
        return await self._compare(before, seen)

    async def _compare(
        self, before: LightningTotals, seen: Sequence[_Seen]
    ) -> tuple[Looked, Sequence[MovementEvent] | None]:
        side = await self._run(partial(self._side, before, seen))
        after = await self._run(self.books.totals)
        steady = all(one.reading.steady and one.complete for one in seen)
        steady = steady and (before.sequence, before.balance_sat) == (after.sequence, after.balance_sat)
        side, closes = _with_fractions(side, seen) if steady else (side, [])
        holdings = tuple(_holding(one) for one in seen)
        return Looked(side=side, steady=steady, sequence=before.sequence, holdings=holdings), closes or None

    def _cursors(self, totals: LightningTotals) -> list[LndCursor | None]:
        """Each node's, None where it is not opened; by pubkey, for another node may answer at the old address."""
        opened = {cursor.pubkey: cursor for cursor in totals.cursors if cursor.opened}
        return [opened.get(asked(node.get_info).pubkey) for node in self.nodes]

    def _baseline(self, node: LightningNode, cursor: LndCursor) -> MarksMoved:
        """A node that a release opened which counted its channels only: the rest is taken into the opening now."""
        height = asked(node.get_info).block_height
        funds = asked(node.funds)
        marks = asked(lambda: read_marks(node, funds, height=height, now_ns=self.now_ms() * 1_000_000))
        log.info(
            "reconciliation.marked", node=node.name, wallet_msat=funds.wallet_msat, closing_msat=funds.closing_msat
        )
        return MarksMoved(
            pubkey=cursor.pubkey,
            before=None,
            after=marks,
            opening_msat=funds.wallet_msat + funds.closing_msat,
            at_ms=self.now_ms(),
        )

    def _see(self, node: LightningNode, cursor: LndCursor) -> _Seen:
        marks = cursor.movements
        if marks is None:
            raise ValueError(f"{node.name} has no marks")
        reading = read_node(node, cursor.pubkey, marks)
        outside = BookedOutside(
            taken=self.books.taken_by_others(asked_hashes(reading)),
            keys=self.books.booked(asked_keys(cursor.pubkey, reading)),
        )
        reviewed = review(cursor, reading, outside, booking=self.booking, now_ms=self.now_ms())
        in_flight = read_in_flight(
            node, cursor.pubkey, reading.funds, forwards_ns=marks.forwards_ns, booked=self.books.booked
        )
        return _Seen(
            node=node,
            cursor=cursor,
            reading=reading,
            review=reviewed,
            in_flight=in_flight.items,
            complete=reading.complete and in_flight.complete,
        )

    async def _keep(self, gaps: Sequence[Gap]) -> bool:
        """Writes what is new; True if something was. What balances out is written only where it was kept before."""

        def keep() -> bool:
            known = self.gaps.get([gap.key for gap in gaps])
            new = [gap for gap in gaps if _differs(gap, known.get(gap.key))]
            if new:
                self.gaps.put(new)
            return bool(new)

        return await self._run(keep) if gaps else False

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

    def _side(self, totals: LightningTotals, seen: Sequence[_Seen]) -> Side:
        pubkeys = {one.cursor.pubkey for one in seen}
        items = [item for one in seen for item in (*one.review.items, *one.in_flight)]
        items += self._gap_items()
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

    def _gap_items(self) -> Iterable[Item]:
        """The newest of each kind one by one, the others as a sum."""
        for (kind, state), (count, amount_msat) in self.gaps.totals().items():
            if kind not in KINDS or not amount_msat:
                continue
            shown = self.gaps.by_kind(kind, states=[state], limit=SHOWN)
            for gap in shown:
                if gap.amount_msat:
                    yield Item(
                        kind=_item_kind(kind, gap.amount_msat),
                        reference=gap.reference or gap.key,
                        amount_msat=gap.amount_msat,
                    )
            rest_msat = amount_msat - sum(gap.amount_msat for gap in shown)
            if rest_msat:
                reference = f"{count - len(shown)} older: {kind}"
                yield Item(kind=_item_kind(kind, rest_msat), reference=reference, amount_msat=rest_msat)

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


def _item_kind(kind: str, amount_msat: int) -> ItemKind:
    found = KINDS[kind]
    return ItemKind.RECEIVED if found is ItemKind.SENT and amount_msat > 0 else found


def _differs(gap: Gap, known: Gap | None) -> bool:
    if known is None:
        return gap.state is not GapState.CLOSED
    if known.state is GapState.CLOSED and known.amount_msat:
        return False  # a person has closed it: what accounts for it names neither hash nor txid
    return (gap.amount_msat, gap.state, gap.moved_msat) != (known.amount_msat, known.state, known.moved_msat)


def _holding(seen: _Seen) -> Holding:
    funds = seen.reading.funds
    return Holding(
        pubkey=seen.cursor.pubkey,
        name=seen.node.name,
        channels_msat=funds.channels_msat,
        closing_msat=funds.closing_msat,
        wallet_msat=funds.wallet_msat,
    )


def _with_fractions(side: Side, seen: Sequence[_Seen]) -> tuple[Side, list[ChannelCost]]:
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
