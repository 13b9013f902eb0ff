"""Decisions that somebody waits for: API threads ask, posting decides like anything else, and answers after the commit.

with requests.open():                      # as long as posting runs
    intake.start_soon(requests.run, inbox)
    …
    requests.answer(event, outcome)        # posting, when the event is in the books

Whoever is refused, or waits no longer, does not know whether it was decided: what can be asked here must be safe to
ask again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import Final

import trio

from daemon.domain.errors import Unavailable
from daemon.domain.node_events import NodeEvent
from daemon.domain.outcomes import Outcome

MAX_WAITING: Final = 8
"""Callers at once: each holds one of the API's 48 threads until its commit, which takes milliseconds."""


class _Request:
    """One caller's event and where its outcome goes. An outcome that nobody waits for any more is let go."""

    def __init__(self, event: NodeEvent) -> None:
        self.event = event
        self._outcome: Future[Outcome] = Future()

    def answer(self, outcome: Outcome) -> None:
        try:
            self._outcome.set_result(outcome)
        except InvalidStateError:  # the caller has gone
            pass

    def refuse(self, reason: str) -> None:
        try:
            self._outcome.set_exception(Unavailable(reason))
        except InvalidStateError:  # the caller has gone, or was answered
            pass

    def wait_outcome(self, timeout_s: float) -> Outcome | None:
        try:
            return self._outcome.result(timeout_s)
        except TimeoutError:
            self._outcome.cancel()
            return None


class PostingRequests:
    """A bounded list of requests, with a wake-up for whoever hands them to posting. `ask` is for any thread, the rest
    for Trio's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[_Request] = []
        self._unanswered: list[_Request] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._woken = trio.Event()

    def ask(self, event: NodeEvent, *, timeout_s: float) -> Outcome | None:
        """What posting has decided of the event and committed; None when the time is up, though it may be decided
        all the same. Raises Unavailable where nothing is posted now, or no longer."""
        request = _Request(event)
        with self._lock:
            if self._token is None:
                raise Unavailable("nothing is posted now: this daemon does not lead, or has just begun to")
            if len(self._unanswered) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} callers wait for posting already: ask again in a moment")
            self._asked.append(request)
            self._unanswered.append(request)
            self._token.run_sync_soon(self._wake, idempotent=True)
        try:
            return request.wait_outcome(timeout_s)
        finally:
            self._forget(request)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Takes requests meanwhile; at the end whoever still waits is refused."""
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            self._woken = trio.Event()
        try:
            yield
        finally:
            with self._lock:
                self._token = None
                left, self._asked, self._unanswered = self._unanswered, [], []
            for request in left:
                request.refuse("posting has ended, and this may be in the books or not: ask again, it is done once")

    async def run(self, inbox: trio.MemorySendChannel[Sequence[NodeEvent]]) -> None:
        """Hands over what is asked, until it is cancelled."""
        while True:
            await self._woken.wait()
            for request in self._take():
                await inbox.send([request.event])

    def answer(self, event: NodeEvent, outcome: Outcome) -> None:
        """Tells whoever asked for exactly this event what is in the books now."""
        with self._lock:
            waiting = [request for request in self._unanswered if request.event is event]
        for request in waiting:
            request.answer(outcome)

    def _take(self) -> Sequence[_Request]:
        with self._lock:
            taken, self._asked = self._asked, []
            self._woken = trio.Event()
        return taken

    def _forget(self, request: _Request) -> None:
        with self._lock:
            self._unanswered = [one for one in self._unanswered if one is not request]
            self._asked = [one for one in self._asked if one is not request]

    def _wake(self) -> None:
        self._woken.set()
