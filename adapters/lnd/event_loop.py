"""The one asyncio event loop of the process, in a thread of its own: grpc.aio needs it to live as long as the process.

grpc.aio has one poller for all event loops. Where a loop was closed, what was still on its way to it makes the poller
fail in every loop that comes after (measured: thousands of "Event loop is closed" after streams were cancelled). So
there is one loop, shared by all nodes, started when it is first needed and ended with the process.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from typing import Any, Final

_END_S: Final = 2.0
"""For what runs when the process ends; nothing in it is worth more."""


class EventLoop:
    """A running loop; `shared` gives the only one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc.aio", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in the loop and blocks until it has ended; raises what it raised."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)


_lock = threading.Lock()
_shared: list[EventLoop] = []


def shared() -> EventLoop:
    """The process's loop, started with the first call."""
    with _lock:
        if not _shared:
            _shared.append(EventLoop())
        return _shared[0]
