"""Decisions that somebody waits for: API threads ask, posting decides like anything else, and answers after the commit.

with requests.open():                      # as long as posting runs
    intake.start_soon(requests.run, inbox)
    …
    requests.answer(event, outcome)        # posting, when the event is in the books

Whoever is refused, or waits no longer, does not know whether it was decided: what can be asked here must be safe to
ask again.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from daemon.domain.node_events import NodeEvent
from daemon.domain.outcomes import Outcome
from daemon.requests import Requests


class PostingRequests(Requests[NodeEvent, Outcome]):
    """Events to decide; each is answered with what is in the books of it."""

    def __init__(self) -> None:
        super().__init__(
            waits_for="posting",
            closed="nothing is posted now",
            ended="posting has ended, and this may be in the books or not: ask again, it is done once",
        )

    async def run(self, inbox: trio.MemorySendChannel[Sequence[NodeEvent]]) -> None:
        """Hands over what is asked, until it is cancelled."""
        while True:
            await self.wait()
            for request in self.take():
                await inbox.send([request.question])

    def answer(self, event: NodeEvent, outcome: Outcome) -> None:
        """Tells whoever asked for exactly this event what is in the books now."""
        for request in self.taken():
            if request.question is event:
                request.answer(outcome)
