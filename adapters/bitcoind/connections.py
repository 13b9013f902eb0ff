"""Keep-alive HTTP connections to one address: a few, each used by one thread at a time.

bitcoind closes a connection that was idle for 30 s (rpcservertimeout), maybe in the moment when the next request
is on its way (node-interfaces.md B.7). Everything that is asked here only reads, so a request that was met by a
connection closed like this is sent once more, on a new one.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from adapters.bitcoind.errors import MAX_TEXT, HttpFailure

_Connection = TypeVar("_Connection", bound=http.client.HTTPConnection)
_Answer = TypeVar("_Answer")

_HUNG_UP: Final = (ConnectionResetError, BrokenPipeError)
"""How a connection that the other side has closed fails; http.client.RemoteDisconnected is one of them."""


class Connections(Generic[_Connection]):
    """At most `size` connections made by `make`. One that failed in any way is not used again."""

    def __init__(self, make: Callable[[], _Connection], *, size: int, wait_s: float) -> None:
        self._make = make
        self._wait_s = wait_s
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many connections have failed so far: who answers after one may be another, restarted node."""
        return self._failures

    def exchange(self, use: Callable[[_Connection], _Answer]) -> _Answer:
        """One request and its answer. Raises what `use` raises, or TimeoutError if no connection becomes free."""
        if not self._free.acquire(timeout=self._wait_s):
            raise TimeoutError("all connections are in use")
        try:
            idle = self._take()
            if idle is not None:
                try:
                    return self._use(idle, use)
                except _HUNG_UP:
                    self.close()  # the other idle ones are as old, or older
            return self._use(self._make(), use)
        finally:
            self._free.release()

    def close(self) -> None:
        """Closes the idle ones; a later request opens a new one."""
        with self._lock:
            closed, self._idle = self._idle, []
        for connection in closed:
            connection.close()

    def _take(self) -> _Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _use(self, connection: _Connection, use: Callable[[_Connection], _Answer]) -> _Answer:
        try:
            answer = use(connection)
        except BaseException:
            connection.close()
            with self._lock:
                self._failures += 1
            raise
        with self._lock:
            self._idle.append(connection)
        return answer


def check_length(response: http.client.HTTPResponse, *, max_bytes: int) -> None:
    """Raises HttpFailure for an answer that is too long, or that does not say how long it is (bitcoind always does)."""
    if response.length is None or response.length > max_bytes:
        raise HttpFailure(response.status, f"an answer of {response.length} bytes, where {max_bytes} are the most")


def text_of(response: http.client.HTTPResponse) -> str:
    """The beginning of an answer's text, in one line."""
    return " ".join(response.read(MAX_TEXT).decode(errors="replace").split())
