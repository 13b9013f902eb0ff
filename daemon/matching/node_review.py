"""What moved a node's money apart from invoices: which of it is booked, which is explained, and which is left.

Pure: a reading of one node, and what the books say about it, in; events, gaps and items out. Each tx of the node's
wallet is one of four things: it opens channels of ours, it brings back what a closed one held, it came from or went
to somebody else, or it was there at the opening.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from daemon.domain.books import Gap, GapState
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey, Outpoint, PaymentHash, Txid, channel_cost_key, txid_of
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
from daemon.matching.channel_closes import ClosesReading, review_closes
from daemon.matching.elsewhere import CHANNEL_PUSH, SENT_ELSEWHERE, WALLET_RECEIVED, WALLET_SENT, BookedOutside

DEEP_BLOCKS: Final = 144
"""Txs are looked at again until so many blocks are above them: no reorg is deeper without somebody noticing."""


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
    opened = {channel_cost_key(pubkey, point, ChannelChange.OPEN) for point in points if txid_of(point) in txids}
    return opened | {channel_cost_key(pubkey, one.channel_point, ChannelChange.CLOSE) for one in reading.closed}


def review(cursor: LndCursor, reading: NodeReading, outside: BookedOutside, *, booking: Booking, now_ms: int) -> Review:
    """What the reading means, for a cursor that has marks."""
    marks = cursor.movements
    if marks is None:
        raise ValueError(f"{cursor.pubkey} has no marks")
    return _Reviewer(cursor, marks, reading, outside, booking, now_ms).run()


_Channel = OwnChannel | ClosingChannel | ClosedChannel


def _ours(reading: NodeReading) -> Iterator[_Channel]:
    """All channels that this node has opened."""
    every: list[_Channel] = [*reading.funds.channels, *reading.funds.closing, *reading.closed]
    return (channel for channel in every if channel.opened_by_us)


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
        self._closes()
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
            taken_msat = self._outside.taken_msat(payment.payment_hash)
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
            funded.setdefault(txid_of(channel.channel_point), {})[channel.channel_point] = channel
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
            is_known = txid_of(channel.channel_point) in self._marks.known_txids
            is_old = 0 < channel.height <= self._marks.height
            if channel.pushed_sat and not (channel.opened_by_us or is_known or is_old):
                self._push(channel, channel.pushed_sat, confirmed=channel.height > 0)

    def _closes(self) -> None:
        reading = ClosesReading(
            pubkey=self._pubkey,
            closing={one.channel_point: one for one in self._reading.funds.closing},
            closed={one.channel_point: one for one in self._reading.closed},
            txs=self._new_txs,
            keys=self._outside.keys,
            marks=self._marks,
        )
        closes = review_closes(reading, books_fees=self._booking.channel_fees, now_ms=self._now_ms)
        self._found.closing += closes.points
        self._found.closes += closes.over
        self._found.items += closes.items
        self._after = replace(self._after, closing=closes.held)
        for txid in closes.txids:
            del self._new_txs[txid]

    def _wallet(self) -> None:
        """What is left: coins that came, or went."""
        for tx in self._new_txs.values():
            self._moved(tx, tx.amount_sat)

    def _moved(self, tx: WalletTx, amount_sat: int) -> None:
        if amount_sat == 0:
            return
        amount_msat = amount_sat * MSAT_PER_SAT
        if not tx.height:  # it may still be replaced: kept when it is in a block
            taken_msat = self._outside.taken_msat(tx.txid)
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
        amount_msat = moved_msat + self._outside.taken_msat(reference)
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
