"""Who asks for a look or for a full check now: API threads ask and wait, the rounds in the Trio loop answer.

with requests.open():                      # in the rounds, as long as they run
    with trio.move_on_after(every_s):
        await requests.wait()
    asked = requests.take()
    …
    for request in asked:
        request.answer(Reconciled(look=look, full_check=check if request.full else None))
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import Final

import trio

from daemon.domain.errors import Unavailable
from daemon.domain.reconciliation import Reconciled

MAX_WAITING: Final = 8
"""Callers at once: each holds one of the API's 48 threads for as long as it waits. One look answers all of them."""


class Request:
    """One caller's question, taken once. An answer that nobody waits for any more is let go."""

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self._answer: Future[Reconciled] = Future()

    def answer(self, answer: Reconciled) -> None:
        """Ends the caller's wait."""
        try:
            self._answer.set_result(answer)
        except InvalidStateError:  # the caller has gone
            pass

    def refuse(self, reason: str) -> None:
        """Ends it with Unavailable: the caller may ask again."""
        try:
            self._answer.set_exception(Unavailable(reason))
        except InvalidStateError:  # the caller has gone, or was answered
            pass

    def wait_answer(self, timeout_s: float) -> Reconciled | None:
        """Blocks the caller's thread; None when the time is up."""
        try:
            return self._answer.result(timeout_s)
        except TimeoutError:
            self._answer.cancel()
            return None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the answer."""
        return not self._answer.done()


class ReconciliationRequests:
    """A bounded queue of requests, with a wake-up for the rounds. `ask` is for any thread, the rest for Trio's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[Request] = []
        self._unanswered: list[Request] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._woken = trio.Event()

    def ask(self, *, full: bool, timeout_s: float) -> Reconciled | None:
        """A look that began after the question, with a full check that ended after it where `full`; None when the time
        is up, though what was begun goes on. Raises Unavailable where nothing is compared now."""
        request = Request(full=full)
        with self._lock:
            if self._token is None:
                raise Unavailable(
                    "books and nodes are not compared now: this daemon does not lead, or has just begun to"
                )
            self._unanswered = [one for one in self._unanswered if one.is_wanted]
            if len(self._unanswered) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} callers wait for a comparison already: ask again in a moment")
            self._asked.append(request)
            self._unanswered.append(request)
            self._token.run_sync_soon(self._wake, idempotent=True)
        return request.wait_answer(timeout_s)

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
                request.refuse("the comparison was broken off: this daemon ends, or leads no more; ask again")

    async def wait(self) -> None:
        """Returns when somebody has asked since the last `take`."""
        await self._woken.wait()

    def take(self) -> Sequence[Request]:
        """All that were asked and are still waited for, each once."""
        with self._lock:
            taken, self._asked = self._asked, []
            self._woken = trio.Event()
        return [request for request in taken if request.is_wanted]

    def _wake(self) -> None:
        self._woken.set()
