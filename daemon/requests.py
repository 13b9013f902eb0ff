"""What API threads ask the Trio loop for: a few at a time, each answered there, or refused, or waited for no longer.

with requests.open():                      # as long as somebody answers
    await requests.wait()
    for request in requests.take():
        request.answer(…)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

import trio

from daemon.domain.errors import Unavailable

MAX_WAITING: Final = 8
"""Callers at once, for posting and for a comparison each: every one holds one of the API's 48 threads as long as it
waits. A commit takes milliseconds, and one look answers all who asked before it."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Request(Generic[Question, Answer]):
    """One caller's question, taken once. An answer that nobody waits for any more is let go."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._answer: Future[Answer] = Future()

    def answer(self, answer: Answer) -> None:
        """Ends the caller's wait."""
        try:
            self._answer.set_result(answer)
        except InvalidStateError:  # the caller has gone, or was answered
            pass

    def refuse(self, reason: str) -> None:
        """Ends it with Unavailable: the caller may ask again."""
        try:
            self._answer.set_exception(Unavailable(reason))
        except InvalidStateError:  # the caller has gone, or was answered
            pass

    def wait_answer(self, timeout_s: float) -> Answer | None:
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


class Requests(Generic[Question, Answer]):
    """A bounded queue of requests, with a wake-up for whoever answers. `ask` is for any thread, the rest for Trio's.

    The words are for who is refused: what he waits for, that there is none now, and that there is none any more.
    """

    def __init__(self, *, waits_for: str, closed: str, ended: str) -> None:
        self._waits_for, self._closed, self._ended = waits_for, closed, ended
        self._lock = threading.Lock()
        self._asked: list[Request[Question, Answer]] = []
        self._taken: list[Request[Question, Answer]] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._woken = trio.Event()

    def ask(self, question: Question, *, timeout_s: float) -> Answer | None:
        """The answer; None when the time is up, though what was begun goes on. Raises Unavailable where nobody answers
        now, or no longer, or too many ask."""
        request: Request[Question, Answer] = Request(question)
        with self._lock:
            if self._token is None:
                raise Unavailable(f"{self._closed}: this daemon does not lead, or has just begun to")
            self._asked, self._taken = _wanted(self._asked), _wanted(self._taken)
            if len(self._asked) + len(self._taken) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} callers wait for {self._waits_for} already: ask again in a moment")
            self._asked.append(request)
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
                left, self._asked, self._taken = [*self._asked, *self._taken], [], []
            for request in left:
                request.refuse(self._ended)

    async def wait(self) -> None:
        """Returns when somebody has asked since the last `take`."""
        await self._woken.wait()

    def take(self) -> Sequence[Request[Question, Answer]]:
        """All that were asked and are still waited for, each once."""
        with self._lock:
            new, self._asked = _wanted(self._asked), []
            self._taken += new
            self._woken = trio.Event()
        return new

    def taken(self) -> Sequence[Request[Question, Answer]]:
        """All that were taken, and may still be waited for."""
        with self._lock:
            return tuple(self._taken)

    def _wake(self) -> None:
        self._woken.set()


def _wanted(requests: Sequence[Request[Question, Answer]]) -> list[Request[Question, Answer]]:
    return [request for request in requests if request.is_wanted]
