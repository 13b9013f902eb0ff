"""Channels that close: what they held, less what has come back of it, is the cost as soon as all of it has.

Pure. What comes back is told by txs of the node's wallet: closing txs, and what spends their outputs. Channels whose
outputs one tx spends are over together: whose part of the cost is whose nobody can say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from daemon.domain.identifiers import NodePubkey, Outpoint, Txid, channel_cost_key, txid_of
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.movements import ClosedChannel, ClosingChannel, MovementMarks, WalletTx
from daemon.domain.node_events import ChannelChange, ChannelCost
from daemon.domain.reconciliation import Item, ItemKind

_NOT_A_FEE_SAT: Final = 100_000
_NOT_A_FEE_SHARE: Final = 4
"""A close that costs more than 100,000 sat and a quarter of what the channel held is not taken for a fee."""

_ANCHORS_SAT: Final = 660


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosesReading:
    """One node's channels that close, or have closed; `txs` of its wallet that are not told yet; `keys` of costs that
    are booked; `marks` of the node."""

    pubkey: NodePubkey
    closing: Mapping[Outpoint, ClosingChannel]
    closed: Mapping[Outpoint, ClosedChannel]
    txs: Mapping[Txid, WalletTx]
    keys: Collection[str]
    marks: MovementMarks

    def is_over(self, point: Outpoint) -> bool:
        """Whether nothing of the channel is outstanding, as its node says."""
        return point in self.closed and point not in self.closing


@dataclass(slots=True, kw_only=True)
class Closes:
    """`held` is what each channel held that was not over at the marks, in sat: `over` is the cost of those that are
    over now, and `items` explain what the others lack. `points` are all of them; `txids` are of the txs that bring it
    back."""

    held: Mapping[Outpoint, int]
    txids: Collection[Txid]
    points: list[Outpoint] = field(default_factory=list)
    over: list[ChannelCost] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


def review_closes(reading: ClosesReading, *, books_fees: bool, now_ms: int) -> Closes:
    """What the reading means; `books_fees`: such costs are tellerd's to book."""
    returns = _Returns([*reading.closing.values(), *reading.closed.values()], reading.txs)
    held = _held(reading, returns)
    found = Closes(held=held, txids=returns.txids)
    for points in returns.together(held):
        found.points += points
        held_sat = sum(held[point] for point in points)
        back_sat, confirmed = returns.came_back_sat(points)
        if confirmed and all(reading.is_over(point) for point in points):
            found.over.append(_cost(reading, points, held_sat, back_sat, books_fees=books_fees, now_ms=now_ms))
            continue
        to_come_sat = sum(reading.closing[point].to_come_sat for point in points if point in reading.closing)
        if lacks_sat := held_sat - to_come_sat - back_sat:
            item = Item(kind=ItemKind.CLOSING, reference=points[0], amount_msat=-lacks_sat * MSAT_PER_SAT)
            found.items.append(item)
    return found


def _held(reading: ClosesReading, returns: _Returns) -> dict[Outpoint, int]:
    """By the marks, which remember it; else as it was when the close was first seen."""
    held = dict(reading.marks.closing)
    for point, channel in reading.closing.items():
        held.setdefault(point, channel.held_sat)
    for point, end in reading.closed.items():
        key = channel_cost_key(reading.pubkey, point, ChannelChange.CLOSE)
        if end.close_height > reading.marks.height and point not in held and key not in reading.keys:
            held[point] = returns.held_sat(end)
    return held


def _cost(
    reading: ClosesReading, points: Sequence[Outpoint], held_sat: int, back_sat: int, *, books_fees: bool, now_ms: int
) -> ChannelCost:
    """Of channels that are over together."""
    ends = [reading.closed[point] for point in points]
    cost_sat = held_sat + sum(end.htlcs_sat for end in ends) - back_sat
    return ChannelCost(
        pubkey=reading.pubkey,
        channel_point=points[0],
        change=ChannelChange.CLOSE,
        txid=ends[0].closing_txid,
        cost_msat=cost_sat * MSAT_PER_SAT,
        at_ms=now_ms,
        resolved=tuple(points),
        is_fee=not any(end.breach for end in ends) and _is_fee(cost_sat, held_sat),
        books=books_fees,
    )


def _is_fee(cost_sat: int, held_sat: int) -> bool:
    return cost_sat <= max(_NOT_A_FEE_SAT, held_sat // _NOT_A_FEE_SHARE)


class _Returns:
    """Txs that bring back what channels held: closing txs, and what spends their outputs."""

    def __init__(self, ends: Sequence[ClosingChannel | ClosedChannel], txs: Mapping[Txid, WalletTx]) -> None:
        self._closing_txids = {one.channel_point: one.closing_txid for one in ends if one.closing_txid is not None}
        self._txs = txs
        self._points_of: dict[Txid, set[Outpoint]] = {}
        for point, txid in self._closing_txids.items():
            self._points_of.setdefault(txid, set()).add(point)
        self._follow()

    @property
    def txids(self) -> Collection[Txid]:
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
                parents = (self._points_of.get(txid_of(spent), set()) for spent in tx.spends)
                points = {point for of_parent in parents for point in of_parent}
                points |= {Outpoint(spent) for spent in tx.spends if spent in self._closing_txids}
                known = self._points_of.get(txid, set())
                if points - known:
                    self._points_of[txid] = known | points
                    grown = True
