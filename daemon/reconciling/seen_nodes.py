"""One Lightning node of a look: what was read of it, and what that means beside the books."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from daemon.domain.cursors import LndCursor
from daemon.domain.node_events import MarksMoved
from daemon.domain.ports import LightningBooks, LightningNode
from daemon.domain.reconciliation import Holding, Item
from daemon.ingest.marks import read_marks
from daemon.matching.elsewhere import BookedOutside
from daemon.matching.node_review import Booking, NodeReading, Review, asked_hashes, asked_keys, review
from daemon.reconciling.node_reading import asked, read_in_flight, read_node

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNode:
    """`steady`: it stood still meanwhile, and all of what has moved it was read."""

    name: str
    cursor: LndCursor
    reading: NodeReading
    review: Review
    in_flight: tuple[Item, ...]
    steady: bool

    def holding(self) -> Holding:
        """What it holds."""
        funds = self.reading.funds
        return Holding(
            pubkey=self.cursor.pubkey,
            name=self.name,
            channels_msat=funds.channels_msat,
            closing_msat=funds.closing_msat,
            wallet_msat=funds.wallet_msat,
        )


def see(node: LightningNode, cursor: LndCursor, books: LightningBooks, *, booking: Booking, now_ms: int) -> SeenNode:
    """A node whose cursor has marks. Blocks; raises LndAway, and Unavailable if the store is away."""
    marks = cursor.movements
    if marks is None:
        raise ValueError(f"{node.name} has no marks")
    reading = read_node(node, cursor.pubkey, marks)
    outside = BookedOutside(
        taken=books.taken_by_others(asked_hashes(reading)),
        keys=books.booked(asked_keys(cursor.pubkey, reading)),
    )
    in_flight = read_in_flight(node, cursor.pubkey, reading.funds, forwards_ns=marks.forwards_ns, booked=books.booked)
    return SeenNode(
        name=node.name,
        cursor=cursor,
        reading=reading,
        review=review(cursor, reading, outside, booking=booking, now_ms=now_ms),
        in_flight=in_flight.items,
        steady=reading.steady and reading.complete and in_flight.complete,
    )


def baseline(node: LightningNode, cursor: LndCursor, *, now_ms: int) -> MarksMoved:
    """A node that a release opened which counted its channels only: the rest is taken into the opening now. Blocks;
    raises LndAway."""
    height = asked(node.get_info).block_height
    funds = asked(node.funds)
    marks = asked(lambda: read_marks(node, funds, height=height, now_ns=now_ms * 1_000_000))
    log.info("reconciliation.marked", node=node.name, wallet_msat=funds.wallet_msat, closing_msat=funds.closing_msat)
    return MarksMoved(
        pubkey=cursor.pubkey,
        before=None,
        after=marks,
        opening_msat=funds.wallet_msat + funds.closing_msat,
        at_ms=now_ms,
    )
