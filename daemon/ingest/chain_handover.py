"""The way of the chain's events into the inbox of posting; and whether they are in the books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from daemon.domain.chain_events import ChainEvent
from daemon.ingest.handover import Inbox
from daemon.posting.board import Board

MAX_LIST: Final = 250
"""Events handed over at once: one commit's worth."""


class ChainHandover:
    """Hands over in order. The only source of chain events while it lives, so that counting them is enough to
    know which are in the books."""

    def __init__(self, inbox: Inbox, board: Board) -> None:
        self._inbox = inbox
        self._board = board
        self._told = board.chain_events

    async def tell(self, events: Sequence[ChainEvent]) -> None:
        """Hands over; waits while posting has enough to do."""
        for start in range(0, len(events), MAX_LIST):
            chunk = events[start : start + MAX_LIST]
            await self._inbox.send(chunk)
            # Counted after: what a cancelled send has not handed over must not be waited for.
            self._told += len(chunk)

    async def posted(self) -> None:
        """Returns when all that was handed over is in the books."""
        while self._board.chain_events < self._told:
            await self._board.wait_changed()
