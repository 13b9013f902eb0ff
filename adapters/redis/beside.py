"""`daemon.domain.ports.Beside` over one Redis server."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from daemon.domain.errors import BadInput, Unavailable
from daemon.domain.ports.locks import Announcement

TIMEOUT_S: Final = 3.0
"""Of a connection and of an answer: Redis answers a batch's locks in a millisecond."""

_TAKE: Final = """
local taken = {}
for i, name in ipairs(KEYS) do
  local holder = redis.call("get", name)
  if not holder or holder == ARGV[1] then
    redis.call("set", name, ARGV[1], "px", ARGV[2])
    taken[#taken + 1] = i
  end
end
return taken
"""
"""One value for the process's life: what was taken by a call whose answer was lost is found to be ours."""

_RELEASE: Final = """
for _, name in ipairs(KEYS) do
  if redis.call("get", name) == ARGV[1] then redis.call("del", name) end
end
return 0
"""


class RedisBeside:
    """One server; the URL may hold a password and is never shown. Safe for any number of threads."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._value = secrets.token_hex(16)

    @classmethod
    def connect(cls, url: str) -> Self:
        """Does no I/O; raises BadInput for what is no URL of Redis."""
        try:
            client = Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # the caller waits and asks again, and says so in the log
                client_name="tellerd",
            )
            pool = client.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # connects later; an option of the URL may be none
        except (ValueError, TypeError, RedisError):
            raise BadInput(field="redis.url", value="(not shown)", remedy="use redis://host:port/0") from None
        return cls(client)

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def take(self, names: Sequence[str], *, ttl_ms: int) -> frozenset[str]:
        """See the port."""
        if not names:
            return frozenset()
        with _mapped("taking locks"):
            taken: Any = self._client.eval(_TAKE, len(names), *names, self._value, str(ttl_ms))
        return frozenset(names[number - 1] for number in taken)

    def release(self, names: Sequence[str]) -> None:
        """See the port."""
        if names:
            with _mapped("giving locks back"):
                self._client.eval(_RELEASE, len(names), *names, self._value)

    def announce(self, messages: Sequence[Announcement]) -> None:
        """See the port."""
        if not messages:
            return
        with _mapped("publishing"):
            pipeline = self._client.pipeline(transaction=False)
            for message in messages:
                pipeline.publish(message.channel, json.dumps(message.payload, separators=(",", ":")))
            pipeline.execute()


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Whatever Redis says no with is waited out: nothing of it changes what is in the books."""
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"Redis, {what}: {type(error).__name__}: {str(error)[:200]}") from error
