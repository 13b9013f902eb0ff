"""Follows one Lightning node: every settlement reaches the inbox, from the position that the books have.

| what the books have for this pubkey | what is done |
| --- | --- |
| nothing, or no opening yet | live stream, complete listing, then the opening in a quiet moment |
| a watermark that the node confirms | the stream from what is proven (htlc_proofs.py): its backlog, then live |
| a watermark that cannot be checked, or zero | live stream and complete listing |
| a watermark that the node contradicts | the same; the node was restored: a new epoch, and listed again |

A settle_index that the node has not reached silences its stream without an error (node-interfaces.md A.0),
hence the check: the invoice that had the watermark's index must be there, with this index or a larger one
(bbolt gives a new one when money comes again to the same invoice).

While the stream stands, gaps are closed by a listing (listing.py says how far). Everything is handed over at
least once and in any order; what is booked already is a success of posting's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog
import trio

from daemon.domain.books import Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Misconfigured
from daemon.domain.identifiers import NodePubkey
from daemon.domain.node_events import InvoiceSettled, ListingCompleted, NodeOpened, NodeRestored
from daemon.domain.ports import Books, LightningNode, Metrics, NodeInfo
from daemon.domain.status import NodeStatus
from daemon.ingest.handover import Handover, Inbox
from daemon.ingest.htlc_proofs import HtlcProofs
from daemon.ingest.listing import Listing, Seen
from daemon.ingest.node_calls import NodeCalls
from daemon.ingest.opening import wait_quiet
from daemon.ingest.pace import Pace
from daemon.posting.board import Board
from daemon.supervision import TaskState

log = structlog.get_logger()


IDENTIFIED: Final = "finding its place"
"""`NodeStatus.state` between a node's word who it is and its stream."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(tz=UTC)


@dataclass(kw_only=True, slots=True)
class LightningFollower:
    """One node of the configuration. `inbox` stays open: it is its owner's."""

    node: LightningNode
    network: str
    books: Books
    board: Board
    inbox: Inbox
    status: NodeStatus
    metrics: Metrics
    adopted: trio.Event
    """Set when the journals that other programs wrote so far are handed over: the opening counts on them."""
    others: Sequence[NodeStatus] = ()
    """Of the other nodes of the configuration: each must be a node of its own."""
    now: Callable[[], datetime] = utc_now
    pace: Pace = field(default_factory=Pace)
    _calls: NodeCalls = field(init=False)
    _books_thread: trio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._calls = NodeCalls(self.node)
        self._books_thread = trio.CapacityLimiter(1)  # two small reads at the start of a connection

    async def run(self, healthy: Callable[[], None]) -> None:
        """Follows until the node is unavailable; never returns.

        Raises Unavailable when the node is away or the stream broke (`daemon.supervision` starts it again),
        Misconfigured if the node is on another network, or is followed under another name.
        """
        try:
            while True:
                self.status.state = "connecting"
                await self._follow(healthy)
        finally:
            self.status.connected = False
            self.status.state = "stopped"
            self.metrics.node_connected(node=self.node.name, connected=False)

    def show(self, state: TaskState) -> None:
        """Puts what the supervisor says into the status."""
        if not state.healthy:
            self.status.state = f"waiting {state.retry_in_s:.0f} s"
            self.status.last_error = state.problem

    async def _follow(self, healthy: Callable[[], None]) -> None:
        """One stream of one node; returns when another node answers at its address, or the stream has to be read
        again."""
        info = await self._identify()
        pubkey = info.pubkey
        cursor = await self._read_cursor(pubkey)
        # Not beyond what is proven: LND may have been killed, and what it had settled just before be lost.
        after = cursor.resume_index if cursor is not None and await self._is_confirmed(cursor) else 0
        async with self.node.settlements(after_settle_index=after) as stream, trio.open_nursery() as nursery:
            connected = _Connected(
                follower=self,
                pubkey=pubkey,
                cursor=cursor,
                resumed=after > 0,
                outcomes_kept=info.stores_final_htlc_resolutions,
                end=nursery.cancel_scope.cancel,
            )
            nursery.start_soon(connected.check_identity)
            self.status.connected_since = self.now()
            self.status.connected = True
            self.status.connections += 1
            self.status.told_settle_index = 0
            self.metrics.node_connected(node=self.node.name, connected=True)
            log.info("lightning.connected", node=self.node.name, pubkey=pubkey, after_settle_index=after)
            healthy()
            nursery.start_soon(connected.forward, stream)
            nursery.start_soon(connected.complete)
            nursery.start_soon(connected.prove)

    async def _identify(self) -> NodeInfo:
        info = await self._calls.get_info()
        if info.network != self.network:
            raise Misconfigured(
                f"{self.node.name} is on {info.network}, tellerd is configured for {self.network}: "
                f'set network = "{info.network}" or the address of another node'
            )
        self._check_one_name(info.pubkey)
        before = self.status.pubkey
        if before is not None and before != info.pubkey:
            self._warn_other_node(before, info.pubkey)
        self.status.pubkey, self.status.state = info.pubkey, IDENTIFIED
        if not info.stores_final_htlc_resolutions:
            self._warn_outcomes_not_kept()
        return info

    def _check_one_name(self, pubkey: NodePubkey) -> None:
        """Two streams of one LND hang it on native SQL (node-interfaces.md A.0), and the comparison with the books
        would count twice what it holds."""
        for other in self.others:
            if other.pubkey == pubkey and (other.connected or other.state == IDENTIFIED):
                raise Misconfigured(
                    f"{other.name} and {self.node.name} are one node, {pubkey}: "
                    "take one of the two out of the configuration"
                )

    async def _read_cursor(self, pubkey: NodePubkey) -> LndCursor | None:
        def read() -> tuple[LndCursor | None, LndCursor | None]:
            facts = self.books.read_facts(Wanted(pubkeys={pubkey}))
            return facts.cursors.get(pubkey), self.books.cursor_of_name(self.node.name)

        cursor, named = await trio.to_thread.run_sync(read, limiter=self._books_thread, abandon_on_cancel=True)
        if cursor is None and named is not None and named.pubkey != pubkey:
            self._warn_other_node(named.pubkey, pubkey)
        if cursor is not None and self.board.cursor(pubkey) is None:
            self.board.publish(cursors=[cursor], sequence=0)
        return cursor

    def _warn_other_node(self, was: NodePubkey, now: NodePubkey) -> None:
        """Another pubkey is another node: its settlements are its own, whatever the old one's position was."""
        problem = (
            f"another node answers at the address of {self.node.name}: it was {was}, it is {now} now; "
            "followed from its own beginning"
        )
        self.status.last_error = problem
        log.warning("lightning.other_pubkey", node=self.node.name, was=was, now=now, detail=problem)

    def _warn_outcomes_not_kept(self) -> None:
        problem = (
            f"{self.node.name} keeps no outcomes of HTLCs: after a crash nobody can say whether settled money has "
            "stayed; start LND with --store-final-htlc-resolutions"
        )
        self.status.last_error = problem
        log.warning("lightning.outcomes_not_kept", node=self.node.name, detail=problem)

    async def _is_confirmed(self, cursor: LndCursor) -> bool:
        """Whether the node still has the settlement that the watermark rests on."""
        if not cursor.opened or cursor.settle_index == 0 or cursor.checkpoint_hash is None:
            return False
        invoice = await self._calls.lookup_invoice(cursor.checkpoint_hash)
        if invoice is None:
            return False
        return any(event.settle_index >= cursor.settle_index for event in invoice.settlements)


@dataclass(kw_only=True, slots=True)
class _Connected:
    """What runs while one stream stands. `end` ends it; the next one begins anew."""

    follower: LightningFollower
    pubkey: NodePubkey
    cursor: LndCursor | None
    resumed: bool
    outcomes_kept: bool
    end: Callable[[], None]
    _handover: Handover = field(init=False)
    _listing: Listing = field(init=False)
    _proofs: HtlcProofs = field(init=False)

    def __post_init__(self) -> None:
        follower = self.follower
        self._handover = Handover(follower.inbox)
        self._proofs = HtlcProofs(
            calls=follower._calls,
            pubkey=self.pubkey,
            pace=follower.pace,
            now_ms=lambda: int(follower.now().timestamp() * 1000),
            tell=self._handover.tell,
            read_again=self.end,
            outcomes_kept=self.outcomes_kept,
        )
        self._handover.on_settlements = self._proofs.take
        if self.cursor is not None and self.cursor.opened:
            self._proofs.begin(self.cursor.htlc_checked_through)
        self._listing = Listing(
            follower._calls,
            self._handover,
            pubkey=self.pubkey,
            pace=follower.pace,
            on_other_node=self._other_node,
        )

    def _other_node(self) -> None:
        log.warning("lightning.other_node", node=self.follower.node.name, was=self.pubkey)
        self.end()

    async def prove(self) -> None:
        """Follows the HTLCs of what settles to their end."""
        await self._proofs.run()

    async def check_identity(self) -> None:
        """The address may have begun to answer for another node between the first question and the stream."""
        if (await self.follower._calls.get_info()).pubkey != self.pubkey:
            self._other_node()

    async def forward(self, stream: AsyncIterator[Sequence[InvoiceSettled]]) -> None:
        """Hands the stream over as it arrives."""
        async for batch in stream:
            if any(event.pubkey != self.pubkey for event in batch):
                self._other_node()
                return
            status = self.follower.status
            status.last_event_at = self.follower.now()
            newest = max((event.settle_index for event in batch), default=0)
            status.told_settle_index = max(status.told_settle_index, newest)
            await self._handover.settlements(batch)

    async def complete(self) -> None:
        """What the stream alone does not bring: the listing, the opening, then the gaps as they appear."""
        if not self.resumed:
            seen = await self._list_all()
            if self.cursor is None or not self.cursor.opened:
                await self._open(seen)
        self.follower.status.state = "live"
        await self._close_gaps()

    async def _list_all(self) -> Seen:
        """The listing of a node whose stream could not be resumed."""
        self.follower.status.state = "listing"
        cursor = self.cursor
        if cursor is None or not cursor.opened:
            return await self._listing.run()
        seen = await self._listing.run(through_index=cursor.newest_index(), wanted_hash=cursor.checkpoint_hash)
        if _was_restored(cursor, seen):
            newest_index = self._handover.newest_index
            self._warn_restored(cursor, newest_index)
            self._proofs.begin(newest_index)
            await self._handover.tell(NodeRestored(pubkey=self.pubkey, newest_index=newest_index))
            # The old watermark hid what was handed over: the second pass fills the new one.
            seen = await self._listing.run(through_index=newest_index)
        await self._tell_completed(seen)
        return seen

    def _warn_restored(self, cursor: LndCursor, newest_index: int) -> None:
        follower = self.follower
        problem = (
            f"{follower.node.name} does not know settlement {cursor.settle_index} any more, its newest is "
            f"{newest_index}: it was restored from an older state; listed from its beginning"
        )
        follower.status.last_error = problem
        log.warning("lightning.restored", node=follower.node.name, detail=problem)

    async def _tell_completed(self, seen: Seen) -> None:
        self._proofs.close_through(seen.through_index)
        await self._handover.tell(
            ListingCompleted(pubkey=self.pubkey, through_index=seen.through_index, checkpoint_hash=seen.through_hash)
        )

    async def _open(self, seen: Seen) -> None:
        follower = self.follower
        follower.status.state = "waiting for the journals of other programs"
        await follower.adopted.wait()
        follower.status.state = "opening"
        opening = await wait_quiet(
            follower._calls,
            self._listing,
            self._handover,
            last_add_index=seen.last_add_index,
            pace=follower.pace,
            now=follower.now,
        )
        self._proofs.begin(opening.through_index)
        opened_at = follower.now()
        await self._handover.tell(
            NodeOpened(
                pubkey=self.pubkey,
                name=follower.node.name,
                funds_msat=opening.funds_msat,
                movements=opening.movements,
                through_index=opening.through_index,
                checkpoint_hash=opening.checkpoint_hash,
                opened_at_ms=int(opened_at.timestamp() * 1000),
            )
        )
        log.info(
            "lightning.opened",
            node=follower.node.name,
            funds_msat=opening.funds_msat,
            through_index=opening.through_index,
        )

    async def _close_gaps(self) -> None:
        """One pass at a time for gaps that stay; after it a rest as long as it took, the node has other work."""
        pace = self.follower.pace
        standing: tuple[int, int] | None = None
        since = trio.current_time()
        while True:
            await trio.sleep(pace.gap_look_s)
            cursor = self.follower.board.cursor(self.pubkey)
            gap = self._gap(cursor)
            if cursor is None or gap is None or standing is None or gap[0] != standing[0]:
                standing, since = gap, trio.current_time()
            elif trio.current_time() - since >= pace.gap_age_s:
                log.warning("lightning.gap", node=self.follower.node.name, first=gap[0], last=gap[1])
                began = trio.current_time()
                known_index = max(cursor.newest_index(), self._handover.newest_index)
                await self._tell_completed(await self._listing.run(through_index=known_index))
                standing = None
                await trio.sleep(trio.current_time() - began)

    def _gap(self, cursor: LndCursor | None) -> tuple[int, int] | None:
        """The first index that the books lack, else one that they have and that this connection has not brought: its
        HTLCs may be unproven (bbolt gives an invoice another index when money comes again to it)."""
        if cursor is not None and cursor.booked_above:
            return cursor.gaps()[0]
        hole = self._proofs.hole()
        return None if hole is None else (hole, hole)


def _was_restored(cursor: LndCursor, seen: Seen) -> bool:
    """Whether the node has lost the settlement that the watermark rests on, after a complete pass."""
    if cursor.checkpoint_hash is not None:
        return seen.wanted_index < cursor.settle_index
    return seen.newest_index < cursor.settle_index
