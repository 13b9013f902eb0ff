"""Whether the Trio loop still turns: a process that hangs must not call itself healthy."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

BEAT_S = 1.0
MAX_AGE_S = 15.0
"""A loop that has not turned for this long hangs: no step of ours computes nearly as long."""


class Heartbeat:
    """Beaten by a Trio task, read by the HTTP server's threads."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        """`on_beat` hears of every beat in the Trio thread, and must not block."""
        self._clock = clock
        self._on_beat = on_beat
        self._beaten_at = clock()

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            self.beat()
            await trio.sleep(BEAT_S)

    def beat(self) -> None:
        """The loop turns."""
        self._beaten_at = self._clock()
        self._on_beat()

    @property
    def age_s(self) -> float:
        """How long ago the loop last turned."""
        return self._clock() - self._beaten_at
