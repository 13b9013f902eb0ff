"""What the last commit left, for those who watch: cursors, the feed's end, and who leads.

Written by posting, read from Trio tasks and from API threads alike. It is a convenience, not the
truth: after a restart it is empty until something is read or committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import trio

from daemon.domain.chain import ChainCursor
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey


class Board:
    """Latest cursors and feed sequence, with wake-ups for Trio tasks and for threads."""

    def __init__(self) -> None:
        self._advanced = threading.Condition()
        self._cursors: dict[NodePubkey, LndCursor] = {}
        self._sequence = 0
        self._chain: ChainCursor | None = None
        self._chain_events = 0
        self._changed = trio.Event()

    def publish(
        self,
        *,
        cursors: Iterable[LndCursor] = (),
        sequence: int = 0,
        chain: ChainCursor | None = None,
        chain_events: int = 0,
    ) -> None:
        """Shows what was just committed or read; called from the Trio thread only. `chain_events` are those
        that were decided now."""
        with self._advanced:
            for cursor in cursors:
                self._cursors[cursor.pubkey] = cursor
            self._sequence = max(self._sequence, sequence)
            self._chain = chain or self._chain
            self._chain_events += chain_events
            self._advanced.notify_all()
        self._changed.set()
        self._changed = trio.Event()

    def cursor(self, pubkey: NodePubkey) -> LndCursor | None:
        """The node's cursor as last committed by this process; None if it has not committed one yet."""
        with self._advanced:
            return self._cursors.get(pubkey)

    @property
    def chain(self) -> ChainCursor | None:
        """The chain's cursor as last committed or read by this process."""
        with self._advanced:
            return self._chain

    @property
    def chain_events(self) -> int:
        """How many chain events this process has decided and committed."""
        with self._advanced:
            return self._chain_events

    @property
    def sequence(self) -> int:
        """The largest feed sequence this process has committed or read."""
        with self._advanced:
            return self._sequence

    async def wait_changed(self) -> None:
        """Returns after the next publish."""
        await self._changed.wait()

    def wait_beyond(self, sequence: int, *, timeout_s: float) -> bool:
        """Blocks a thread until the feed is beyond `sequence` or the time is up; True if it is beyond."""
        with self._advanced:
            return self._advanced.wait_for(lambda: self._sequence > sequence, timeout=timeout_s)
