"""How the nodes are followed, for status and for the choice of a Lightning node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from daemon.domain.chain import BlockRef
from daemon.domain.identifiers import NodePubkey


@dataclass(slots=True, kw_only=True)
class NodeStatus:
    """Written by the node's follower in the Trio thread, read from API threads one field at a time.

    `pubkey` is None until the node was reached; `connected` says that it answers and that its
    settlements are followed, `connected_since` since when; `state` and `last_error` are for people to read.
    `connections` counts how often that began. `told_settle_index` is the newest one that this connection's stream
    has brought, 0 before the first.
    """

    name: str
    pubkey: NodePubkey | None = None
    connected: bool = False
    connected_since: datetime | None = None
    connections: int = 0
    told_settle_index: int = 0
    state: str = "starting"
    last_event_at: datetime | None = None
    last_error: str = ""


@dataclass(slots=True, kw_only=True)
class HoldStatus:
    """A node's hold invoices, as their keeper sees them; read like `NodeStatus`.

    `nearest_deadline_blocks`: so many blocks until the first of what is held is decided whatever is missing, None
    while nothing is held. `unknown`: how many payments the node holds that nobody here expects, None until they were
    counted.
    """

    name: str
    watched: int = 0
    held: int = 0
    held_msat: int = 0
    nearest_deadline_blocks: int | None = None
    unknown: int | None = None

    def clear(self) -> None:
        """Nobody looks now."""
        self.watched = self.held = self.held_msat = 0
        self.nearest_deadline_blocks = self.unknown = None


HintsState = Literal["off", "live", "silent"]
"""What the node pushes: nothing is configured; it arrives; nothing has come yet, or less than there was to tell."""


@dataclass(slots=True, kw_only=True)
class ChainStatus:
    """How bitcoind is followed; written by its follower in the Trio thread, read from API threads as `NodeStatus`.

    `tip` is the node's, `cursor` the last block in the books. `catch_up_blocks_per_s` is 0 unless the books are
    being brought up to the tip. `connections` counts how often the node was reached. `halted` means that the
    follower has given up until a person has looked.
    """

    name: str = "bitcoind"
    connected: bool = False
    connected_since: datetime | None = None
    connections: int = 0
    state: str = "starting"
    tip: BlockRef | None = None
    cursor: BlockRef | None = None
    hints: HintsState = "off"
    catch_up_blocks_per_s: int = 0
    last_error: str = ""
    halted: bool = False

    @property
    def blocks_behind(self) -> int | None:
        """How many blocks the books are behind the node; None while either is unknown.

        0 also when the node is behind the books, as it is for a while after a crash (node-interfaces.md B.6).
        """
        tip, cursor = self.tip, self.cursor
        return None if tip is None or cursor is None else max(0, tip.height - cursor.height)
