"""The outbox as one subscriber sees it: every row after a sequence, in order, without a gap.

The board wakes a waiting subscriber when this process has committed; the rows are always read from the
store, and read again every second even without a wake-up, for another process may have written them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.domain.errors import InvariantViolation
from daemon.domain.ports import LedgerReader, StoredEvent
from daemon.posting.board import Board

PAGE_ROWS = 500
"""Rows of one read: a subscriber that is far behind holds this many in memory, some 500 kB."""

POLL_S = 1.0
"""How late a row of another process, or the end of the feed, can be noticed."""

_SETTLE_S = 0.02
"""Pause when the board is ahead of what can be read: the commit is not yet visible to majority reads."""


@dataclass(slots=True, eq=False)
class _Subscriber:
    """One that is being served; `sequence` is the last event that it is done with."""

    sequence: int


class Feed:
    """Reads the outbox for subscribers, each in a thread of its own."""

    def __init__(self, ledger: LedgerReader, board: Board, *, poll_s: float = POLL_S) -> None:
        self._ledger = ledger
        self._board = board
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._subscribers: set[_Subscriber] = set()

    def lags(self) -> list[int]:
        """Of each subscriber that is being served: how many events it has not taken, or not been shown, yet."""
        newest = self._board.sequence
        with self._lock:
            # A row of another process can be read before this one knows of it.
            return [max(0, newest - subscriber.sequence) for subscriber in self._subscribers]

    @contextmanager
    def _serving(self, after_sequence: int) -> Iterator[_Subscriber]:
        subscriber = _Subscriber(after_sequence)
        with self._lock:
            self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            with self._lock:
                self._subscribers.remove(subscriber)

    def follow(
        self,
        *,
        after_sequence: int,
        types: Collection[str],
        wallet_ids: Collection[str],
        is_wanted: Callable[[], bool],
    ) -> Iterator[StoredEvent]:
        """Events above a sequence, past ones first, then new ones as they come; blocks between them.

        Empty filters let everything through. Ends when `is_wanted` says so, asked between rows and at
        least once a second. Raises Unavailable, and InvariantViolation for a gap in the outbox.
        """
        only_types, only_wallets = frozenset(types), frozenset(wallet_ids)
        sequence = after_sequence
        with self._serving(after_sequence) as subscriber:
            while is_wanted():
                ahead = self._board.sequence > sequence
                rows = self._ledger.events(after_sequence=sequence, limit=PAGE_ROWS)
                for row in rows:
                    if row.sequence != sequence + 1:
                        raise InvariantViolation(f"outbox: {row.sequence} stands where {sequence + 1} must be")
                    sequence = row.sequence
                    if not is_wanted():
                        return
                    if _passes(row, only_types, only_wallets):
                        yield row
                    subscriber.sequence = sequence
                if not rows and ahead:
                    time.sleep(_SETTLE_S)
                elif not rows:
                    self._board.wait_beyond(sequence, timeout_s=self._poll_s)


def _passes(row: StoredEvent, types: frozenset[str], wallet_ids: frozenset[str]) -> bool:
    if types and row.type not in types:
        return False
    return not wallet_ids or not wallet_ids.isdisjoint(row.wallet_ids)
