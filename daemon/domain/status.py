"""How a Lightning node is followed, for status and for the choice of a node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from daemon.domain.identifiers import NodePubkey


@dataclass(slots=True, kw_only=True)
class NodeStatus:
    """Written by the node's follower in the Trio thread, read from API threads one field at a time.

    `pubkey` is None until the node was reached; `connected` says that it answers and that its
    settlements are followed, `connected_since` since when; `state` and `last_error` are for people to read.
    """

    name: str
    pubkey: NodePubkey | None = None
    connected: bool = False
    connected_since: datetime | None = None
    state: str = "starting"
    last_event_at: datetime | None = None
    last_error: str = ""
