"""API threads that ask the Trio loop for something (`daemon.requests`)."""

from __future__ import annotations

import threading
from functools import partial
from typing import Generic

import trio

from daemon.domain.errors import Unavailable
from daemon.requests import Answer, Question, Requests

FOREVER_S = 30.0
"""Never reached when all is well."""


class Caller(Generic[Question, Answer]):
    """One API thread, which asks at once; `result` is what it got."""

    def __init__(
        self, requests: Requests[Question, Answer], question: Question, *, timeout_s: float = FOREVER_S
    ) -> None:
        self.result: Answer | Unavailable | None = None
        self._ask = partial(requests.ask, question, timeout_s=timeout_s)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._ask()
        except Unavailable as outage:
            self.result = outage

    async def ended(self) -> Answer | Unavailable | None:
        """What it got, when it has."""
        await trio.to_thread.run_sync(self._thread.join, FOREVER_S)
        assert not self._thread.is_alive()
        return self.result
