"""What moved a node's money apart from invoices: which of it is booked, which is explained, and which is left.

Pure: a reading of one node, and what the books say about it, in; events, gaps and items out. Each tx of the node's
wallet is one of four things: it opens channels of ours, it brings back what a closed one held, it came from or went
to somebody else, or it was there at the opening.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from daemon.domain.books import Gap, GapState
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey, Outpoint, PaymentHash, Txid, channel_cost_key
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.movements import (
    ClosedChannel,
    ClosingChannel,
    Forward,
    MovementMarks,
    OwnChannel,
    PaymentState,
    SentPayment,
    WalletTx,
)
from daemon.domain.node_events import ChannelChange, ChannelCost, MarksMoved, MovementEvent, RoutingIncome
from daemon.domain.ports import NodeFunds
from daemon.domain.reconciliation import Item, ItemKind

SENT_ELSEWHERE: Final = "sent_elsewhere"
WALLET_SENT: Final = "wallet_sent"
WALLET_RECEIVED: Final = "wallet_received"
CHANNEL_PUSH: Final = "channel_push"
"""Kinds of gaps: a payment, coins, and what went to the other side of a channel with its opening, that tellerd did not
book."""

DEEP_BLOCKS: Final = 144
"""Txs are looked at again until so many blocks are above them: no reorg is deeper without somebody noticing."""

_NOT_A_FEE_SAT: Final = 100_000
_NOT_A_FEE_SHARE: Final = 4
"""A close that costs more than 100,000 sat and a quarter of what the channel held is not taken for a fee."""

_ANCHORS_SAT: Final = 660


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """A node in a steady moment, or as steady as could be had.

    `forwards`, `payments` and `txs` are those after the marks; of the payments, those too that were in flight at the
    marks and are known still. `complete` False: there are more of them than one reading takes.
    """

    funds: NodeFunds
    height: int
    steady: bool
    forwards: Sequence[Forward]
    payments: Sequence[SentPayment]
    txs: Sequence[WalletTx]
    closed: Sequence[ClosedChannel]
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOutside:
    """What the books say: sats that other programs' journals took from the Lightning account by payment hash or txid,
    and which of the keys that were asked for exist."""

    taken: Mapping[str, int]
    keys: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What is left to tellerd; else another program's cron books it."""

    routing: bool = True
    channel_fees: bool = True


@dataclass(slots=True, kw_only=True)
class Review:
    """`events` go to posting; `closes`, too, of a steady moment. `gaps` are to be kept; their amounts are not among the
    items. `closing` are channels of which less than a sat may be missing."""

    events: list[MovementEvent] = field(default_factory=list)
    closes: list[ChannelCost] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    closing: list[Outpoint] = field(default_factory=list)


def asked_hashes(reading: NodeReading) -> set[str]:
    """What other programs' journals are looked for by."""
    return {payment.payment_hash for payment in reading.payments} | {tx.txid for tx in reading.txs}


def asked_keys(pubkey: NodePubkey, reading: NodeReading) -> set[str]:
    """The keys that tell whether a channel's opening or close is booked."""
    txids = {tx.txid for tx in reading.txs}
    points = (channel.channel_point for channel in _ours(reading))
    opened = {channel_cost_key(pubkey, point, ChannelChange.OPEN) for point in points if _txid_of(point) in txids}
    return opened | {channel_cost_key(pubkey, one.channel_point, ChannelChange.CLOSE) for one in reading.closed}


def review(cursor: LndCursor, reading: NodeReading, outside: BookedOutside, *, booking: Booking, now_ms: int) -> Review:
    """What the reading means, for a cursor that has marks."""
    marks = cursor.movements
    if marks is None:
        raise ValueError(f"{cursor.pubkey} has no marks")
    return _Reviewer(cursor, marks, reading, outside, booking, now_ms).run()


def recheck(gap: Gap, taken: Mapping[str, int]) -> Gap | None:
    """A gap about money that went or came, with what journals say by now; None if nothing has changed.

    Other programs book whole sats: what is left below one is the fraction that they drop, and waits for nobody.
    """
    amount_msat = gap.moved_msat + taken.get(gap.reference, 0) * MSAT_PER_SAT
    if amount_msat == gap.amount_msat:
        return None
    return replace(gap, amount_msat=amount_msat, state=_state_after(gap, amount_msat))


def _state_after(gap: Gap, amount_msat: int) -> GapState:
    if amount_msat == 0:
        return GapState.CLOSED
    return GapState.EXPLAINED if abs(amount_msat) < MSAT_PER_SAT else gap.state


_Channel = OwnChannel | ClosingChannel | ClosedChannel


def _ours(reading: NodeReading) -> Iterator[_Channel]:
    """All channels that this node has opened."""
    every: list[_Channel] = [*reading.funds.channels, *reading.funds.closing, *reading.closed]
    return (channel for channel in every if channel.opened_by_us)


def _txid_of(outpoint: Outpoint) -> Txid:
    return Txid(outpoint.partition(":")[0])


class _Reviewer:
    """One review; the parts add to it."""

    def __init__(
        self,
        cursor: LndCursor,
        marks: MovementMarks,
        reading: NodeReading,
        outside: BookedOutside,
        booking: Booking,
        now_ms: int,
    ) -> None:
        self._cursor, self._pubkey, self._marks, self._reading = cursor, cursor.pubkey, marks, reading
        self._outside, self._booking, self._now_ms = outside, booking, now_ms
        self._new_txs = {
            tx.txid: tx for tx in reading.txs if tx.txid not in marks.known_txids and not 0 < tx.height <= marks.height
        }
        self._after = marks
        self._found = Review()

    def run(self) -> Review:
        self._forwards()
        self._payments()
        self._openings()
        returns = _Returns(self._reading, self._new_txs)
        self._closings(returns)
        self._wallet()
        self._pushes_to_us()
        self._move_marks()
        return self._found

    def _forwards(self) -> None:
        forwards = self._reading.forwards
        if forwards:
            through_ns = forwards[-1].at_ns
            self._found.events.append(
                RoutingIncome(
                    pubkey=self._pubkey,
                    before_ns=self._marks.forwards_ns,
                    through_ns=through_ns,
                    forwards=len(forwards),
                    fee_msat=sum(one.fee_msat for one in forwards),
                    books=self._booking.routing,
                )
            )
            # The event moves the mark, in the same commit as the journal.
            self._marks = replace(self._marks, forwards_ns=through_ns)
            self._after = self._marks

    def _payments(self) -> None:
        in_flight: list[tuple[int, PaymentHash]] = []
        for payment in self._reading.payments:
            taken_msat = self._outside.taken.get(payment.payment_hash, 0) * MSAT_PER_SAT
            if payment.state is PaymentState.IN_FLIGHT:
                in_flight.append((payment.index, payment.payment_hash))
                self._item(ItemKind.IN_FLIGHT, payment.payment_hash, taken_msat)
            elif payment.state is PaymentState.SUCCEEDED and taken_msat != payment.sent_msat:
                self._gap(
                    f"payment:{payment.index}",
                    SENT_ELSEWHERE,
                    f"payment {payment.payment_hash} was sent by another program",
                    reference=payment.payment_hash,
                    moved_msat=-payment.sent_msat,
                    at_ms=payment.began_at_ms,
                )
        newest = max((payment.index for payment in self._reading.payments), default=0)
        self._after = replace(
            self._after,
            payments_index=max(newest, self._marks.payments_index),
            payments_open=tuple(sorted(in_flight)),
        )

    def _openings(self) -> None:
        """Funding txs: the miner's fee, once it is confirmed; what else they paid is money sent."""
        funded: dict[Txid, dict[Outpoint, _Channel]] = {}
        for channel in _ours(self._reading):
            funded.setdefault(_txid_of(channel.channel_point), {})[channel.channel_point] = channel
        for txid, channels in funded.items():
            tx = self._new_txs.pop(txid, None)
            if tx is None:
                continue
            capacity_sat = sum(channel.capacity_sat for channel in channels.values())
            cost_sat = tx.fee_sat or -tx.amount_sat - capacity_sat
            self._cost_of_opening(tx, min(channels), cost_sat)
            for channel in channels.values():
                if isinstance(channel, OwnChannel) and channel.pushed_sat:
                    self._push(channel, -channel.pushed_sat, confirmed=tx.height > 0)
            self._moved(tx, tx.amount_sat + capacity_sat + cost_sat)

    def _cost_of_opening(self, tx: WalletTx, point: Outpoint, cost_sat: int) -> None:
        if channel_cost_key(self._pubkey, point, ChannelChange.OPEN) in self._outside.keys:
            return
        if not tx.height:
            self._item(ItemKind.IN_FLIGHT, point, -cost_sat * MSAT_PER_SAT)
            return
        self._found.events.append(
            ChannelCost(
                pubkey=self._pubkey,
                channel_point=point,
                change=ChannelChange.OPEN,
                txid=tx.txid,
                cost_msat=cost_sat * MSAT_PER_SAT,
                at_ms=self._now_ms,
                books=self._booking.channel_fees,
            )
        )

    def _push(self, channel: OwnChannel, amount_sat: int, *, confirmed: bool) -> None:
        """Money that changed sides with the opening of a channel; no payment tells it."""
        point, amount_msat = channel.channel_point, amount_sat * MSAT_PER_SAT
        if not confirmed:
            self._item(ItemKind.SENT if amount_sat < 0 else ItemKind.RECEIVED, point, amount_msat)
            return
        side = "the other side" if amount_sat < 0 else "this node"
        detail = f"given to {side} with the opening of channel {point}"
        self._gap(f"push:{point}", CHANNEL_PUSH, detail, reference=point, moved_msat=amount_msat)

    def _pushes_to_us(self) -> None:
        for channel in self._reading.funds.channels:
            is_known = _txid_of(channel.channel_point) in self._marks.known_txids
            is_old = 0 < channel.height <= self._marks.height
            if channel.pushed_sat and not (channel.opened_by_us or is_known or is_old):
                self._push(channel, channel.pushed_sat, confirmed=channel.height > 0)

    def _closings(self, returns: _Returns) -> None:
        """Channels that close: what they held, less what has come back, is the cost as soon as all of it has."""
        closing = {one.channel_point: one for one in self._reading.funds.closing}
        closed = {one.channel_point: one for one in self._reading.closed}
        held = dict(self._marks.closing)
        for point, channel in closing.items():
            held.setdefault(point, channel.held_sat)
        for point, end in closed.items():
            key = channel_cost_key(self._pubkey, point, ChannelChange.CLOSE)
            if end.close_height > self._marks.height and point not in held and key not in self._outside.keys:
                held[point] = returns.held_sat(end)
        self._after = replace(self._after, closing=held)
        for points in returns.together(held):
            self._close(points, held, closing, closed, returns)
        for txid in list(returns.txids):
            self._new_txs.pop(txid, None)

    def _close(
        self,
        points: Sequence[Outpoint],
        held: Mapping[Outpoint, int],
        closing: Mapping[Outpoint, ClosingChannel],
        closed: Mapping[Outpoint, ClosedChannel],
        returns: _Returns,
    ) -> None:
        """Channels whose outputs were swept together are over together."""
        self._found.closing += points
        held_sat = sum(held[point] for point in points)
        back_sat, confirmed = returns.came_back_sat(points)
        if not confirmed or any(point not in closed or point in closing for point in points):
            to_come_sat = sum(closing[point].to_come_sat for point in points if point in closing)
            self._item(ItemKind.CLOSING, points[0], (to_come_sat + back_sat - held_sat) * MSAT_PER_SAT)
            return
        ends = [closed[point] for point in points]
        cost_sat = held_sat + sum(end.htlcs_sat for end in ends) - back_sat
        self._found.closes.append(
            ChannelCost(
                pubkey=self._pubkey,
                channel_point=points[0],
                change=ChannelChange.CLOSE,
                txid=ends[0].closing_txid,
                cost_msat=cost_sat * MSAT_PER_SAT,
                at_ms=self._now_ms,
                resolved=tuple(points),
                is_fee=not any(end.breach for end in ends) and _is_fee(cost_sat, held_sat),
                books=self._booking.channel_fees,
            )
        )

    def _wallet(self) -> None:
        """What is left: coins that came, or went."""
        for tx in self._new_txs.values():
            self._moved(tx, tx.amount_sat)

    def _moved(self, tx: WalletTx, amount_sat: int) -> None:
        if amount_sat == 0:
            return
        amount_msat = amount_sat * MSAT_PER_SAT
        if not tx.height:  # it may still be replaced: kept when it is in a block
            taken_msat = self._outside.taken.get(tx.txid, 0) * MSAT_PER_SAT
            side = ItemKind.SENT if amount_sat < 0 else ItemKind.RECEIVED
            self._item(side, tx.txid, amount_msat + taken_msat)
            return
        kind, verb = (WALLET_SENT, "sent from") if amount_sat < 0 else (WALLET_RECEIVED, "received in")
        detail = f"{verb} the wallet of {self._cursor.name} by tx {tx.txid}"
        self._gap(f"tx:{tx.txid}", kind, detail, reference=tx.txid, moved_msat=amount_msat)

    def _gap(
        self, name: str, kind: str, detail: str, *, reference: str, moved_msat: int, at_ms: int | None = None
    ) -> None:
        """Kept with what no journal accounts for; closed where that is nothing."""
        amount_msat = moved_msat + self._outside.taken.get(reference, 0) * MSAT_PER_SAT
        self._found.gaps.append(
            Gap(
                key=f"ln:{self._pubkey}:{name}",
                kind=kind,
                detail=detail,
                amount_msat=amount_msat,
                seen_at_ms=at_ms or self._now_ms,
                state=GapState.EXPLAINED if amount_msat else GapState.CLOSED,
                reference=reference,
                node=self._cursor.name,
                moved_msat=moved_msat,
            )
        )

    def _item(self, kind: ItemKind, reference: str, amount_msat: int) -> None:
        if amount_msat:
            self._found.items.append(Item(kind=kind, reference=reference, amount_msat=amount_msat))

    def _move_marks(self) -> None:
        """The height stays while a channel closes, whose txs are looked at until the end; else it follows in steps."""
        deep = self._reading.height - DEEP_BLOCKS
        if not self._after.closing and deep - self._marks.height >= DEEP_BLOCKS:
            self._after = replace(self._after, height=deep, known_txids=self._still_unconfirmed())
        if self._after != self._marks:
            self._found.events.append(MarksMoved(pubkey=self._pubkey, before=self._marks, after=self._after))

    def _still_unconfirmed(self) -> frozenset[Txid]:
        """Of the txs that were there at the opening, those that are not below the new height."""
        there = {tx.txid for tx in self._reading.txs if not 0 < tx.height <= self._reading.height - DEEP_BLOCKS}
        return self._marks.known_txids & there


def _is_fee(cost_sat: int, held_sat: int) -> bool:
    return cost_sat <= max(_NOT_A_FEE_SAT, held_sat // _NOT_A_FEE_SHARE)


class _Returns:
    """Txs that bring back what channels held: closing txs, and what spends their outputs."""

    def __init__(self, reading: NodeReading, txs: Mapping[Txid, WalletTx]) -> None:
        ends: list[ClosingChannel | ClosedChannel] = [*reading.funds.closing, *reading.closed]
        self._closing_txids = {one.channel_point: one.closing_txid for one in ends if one.closing_txid is not None}
        self._txs = txs
        self._points_of: dict[Txid, set[Outpoint]] = {}
        for point, txid in self._closing_txids.items():
            self._points_of.setdefault(txid, set()).add(point)
        self._follow()

    @property
    def txids(self) -> Iterable[Txid]:
        """All of them."""
        return [txid for txid in self._txs if txid in self._points_of]

    def together(self, points: Collection[Outpoint]) -> Iterator[list[Outpoint]]:
        """These channels, those together whose outputs were spent by one tx; each group sorted."""
        left = set(points)
        while left:
            group = {min(left)}
            grown = True
            while grown:
                near = {one for txid in self.txids for one in self._points_of[txid] if self._points_of[txid] & group}
                grown = bool((near & left) - group)
                group |= near & left
            left -= group
            yield sorted(group)

    def came_back_sat(self, points: Collection[Outpoint]) -> tuple[int, bool]:
        """What the wallet has got of them, fees taken off, and whether all of it is confirmed."""
        txs = [self._txs[txid] for txid in self.txids if self._points_of[txid] & set(points)]
        # LND never calls a commitment tx of its own confirmed; it pays the wallet nothing.
        return sum(tx.amount_sat for tx in txs), all(tx.height for tx in txs if tx.amount_sat)

    def held_sat(self, channel: ClosedChannel) -> int:
        """What a channel must have held of which nobody saw how it closed.

        The closing tx tells where the wallet knows it: what it lacks of the capacity was the miner's, out of the
        part of whoever opened the channel.
        """
        tx = self._txs.get(channel.closing_txid)
        if tx is None or not channel.opened_by_us:
            return channel.settled_sat
        anchors_sat = 0 if tx.amount_sat else _ANCHORS_SAT
        return channel.settled_sat + channel.capacity_sat - tx.outputs_sat + anchors_sat

    def _follow(self) -> None:
        """Sweeps, and sweeps of what txs of two stages left: until none is new."""
        grown = True
        while grown:
            grown = False
            for txid, tx in self._txs.items():
                parents = (self._points_of.get(_txid_of(spent), set()) for spent in tx.spends)
                points = {point for of_parent in parents for point in of_parent}
                points |= {Outpoint(spent) for spent in tx.spends if spent in self._closing_txids}
                known = self._points_of.get(txid, set())
                if points - known:
                    self._points_of[txid] = known | points
                    grown = True
