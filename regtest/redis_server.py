"""A Redis that keeps nothing on disk: locks and messages are gone when it is killed, as on a host that has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from regtest.process import Node, NodeError, NodeProcess, take_port

READY_S: Final = 120.0
"""It is up within a tenth of a second."""


class RedisServer(Node):
    """One redis-server on loopback."""

    def __init__(self, command: tuple[str, ...], folder: Path) -> None:
        """`command` is the program (regtest.binaries.redis_server())."""
        self.data_folder = folder.absolute()
        self.port = take_port()
        flags: tuple[str, ...] = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        flags += ("--dir", str(self.data_folder))
        self.process = NodeProcess("redis-server", (*command, *flags), self.data_folder / "redis.log")

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def wait_ready(self) -> None:
        """Return when it answers; NodeError if not in time."""
        self.process.wait_until(self._answers, "ready", READY_S)

    def _answers(self) -> bool:
        with Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except RedisError as not_yet:
                raise NodeError(str(not_yet)) from not_yet
