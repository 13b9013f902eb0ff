"""The port `Beside`: the memory fake and a real Redis; and that Blink's own library and tellerd respect each other.

node-redlock v5 takes a lock on one server by setting the key to a value of its own if it does not exist, with a time
to live, and gives it back by deleting it if it still has that value (blink-contract.md 3.5): `BlinksLock` does so.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis

from adapters.memory.beside import MemoryBeside, MemoryRedis
from adapters.redis import RedisBeside, beside
from daemon import check
from daemon.config import RedisConfig
from daemon.domain.errors import BadInput, Unavailable
from daemon.domain.ports.locks import Announcement, Beside
from regtest.binaries import redis_server
from regtest.redis_server import RedisServer

LONG_MS, SHORT_MS = 60_000, 300


@dataclass
class World:
    """tellerd, another daemon on the same server, and how to wait."""

    ours: Beside
    others: Beside
    sleep: Callable[[float], None]
    fail: Callable[[], None]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(redis_server(), tmp_path_factory.mktemp("redis"))
    running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        clock = [1_000.0]
        memory = MemoryRedis(lambda: clock[0])

        def advance(seconds: float) -> None:
            clock[0] += seconds

        yield World(MemoryBeside(memory), MemoryBeside(memory), advance, lambda: setattr(memory, "away", "gone"))
        return
    running: RedisServer = request.getfixturevalue("server")
    ours, others = RedisBeside.connect(running.url), RedisBeside.connect(running.url)
    with Redis.from_url(running.url) as client:
        client.flushall()

    def fail() -> None:
        running.kill()

    yield World(ours, others, time.sleep, fail)
    ours.close()
    others.close()
    if not running.process.alive:
        running.start()
        running.wait_ready()


def test_a_lock_is_taken_once_and_free_after_its_release(world: World) -> None:
    """Of several names those that nobody holds; the others stay whose they are."""
    assert world.ours.take(["a", "b"], ttl_ms=LONG_MS) == {"a", "b"}
    assert world.others.take(["b", "c"], ttl_ms=LONG_MS) == {"c"}
    world.others.release(["a", "b", "c"])  # only its own
    assert world.others.take(["a", "b"], ttl_ms=LONG_MS) == frozenset()
    world.ours.release(["a", "b"])
    assert world.others.take(["a", "b", "c"], ttl_ms=LONG_MS) == {"a", "b", "c"}
    assert world.ours.take([], ttl_ms=LONG_MS) == frozenset()
    world.ours.release([])


def test_a_lock_that_is_ours_is_prolonged_and_asked_for_again(world: World) -> None:
    """As after an answer that was lost."""
    assert world.ours.take(["a"], ttl_ms=SHORT_MS) == {"a"}
    assert world.ours.take(["a"], ttl_ms=LONG_MS) == {"a"}
    world.sleep(2 * SHORT_MS / 1000)
    assert world.others.take(["a"], ttl_ms=LONG_MS) == frozenset()


def test_a_lock_ends_by_itself(world: World) -> None:
    """Of a process that was killed; whoever has it then keeps it from the first one."""
    assert world.ours.take(["a"], ttl_ms=SHORT_MS) == {"a"}
    world.sleep(2 * SHORT_MS / 1000)
    assert world.others.take(["a"], ttl_ms=LONG_MS) == {"a"}
    world.ours.release(["a"])
    assert world.ours.take(["a"], ttl_ms=LONG_MS) == frozenset()


def test_a_server_that_is_away_is_unavailable(world: World) -> None:
    """For every call."""
    world.fail()
    for call in (
        lambda: world.ours.take(["a"], ttl_ms=LONG_MS),
        lambda: world.ours.release(["a"]),
        lambda: world.ours.announce([Announcement(channel="c", payload={})]),
    ):
        with pytest.raises(Unavailable):
            call()


# --- a real Redis -----------------------------------------------------------------------------------


class BlinksLock:
    """What node-redlock v5 does, with one server."""

    def __init__(self, client: Redis, name: str) -> None:
        self._client, self._name, self._value = client, name, secrets.token_hex(16)

    def take(self) -> bool:
        return bool(self._client.set(self._name, self._value, nx=True, px=LONG_MS))

    def release(self) -> None:
        if self._client.get(self._name) == self._value.encode():
            self._client.delete(self._name)


def test_blinks_locks_and_ours_exclude_each_other(server: RedisServer) -> None:
    """By the literal name, in both directions; each gives back its own only."""
    ours = RedisBeside.connect(server.url)
    with Redis.from_url(server.url) as client:
        client.flushall()
        blinks = BlinksLock(client, "locks:paymenthash:aa")
        assert blinks.take()
        assert ours.take(["locks:paymenthash:aa"], ttl_ms=LONG_MS) == frozenset()
        blinks.release()
        assert ours.take(["locks:paymenthash:aa"], ttl_ms=LONG_MS) == {"locks:paymenthash:aa"}
        assert not blinks.take()
        blinks.release()
        assert client.exists("locks:paymenthash:aa")
        ours.release(["locks:paymenthash:aa"])
        assert blinks.take()
    ours.close()


def test_subscribers_get_messages_as_json(server: RedisServer) -> None:
    """On their channel, in order."""
    ours = RedisBeside.connect(server.url)
    with Redis.from_url(server.url) as client, client.pubsub() as listener:
        listener.subscribe("ACCOUNT_UPDATE_1")
        assert listener.get_message(timeout=10)["type"] == "subscribe"
        ours.announce(
            [
                Announcement(channel="ACCOUNT_UPDATE_2", payload={"not": "for us"}),
                *(Announcement(channel="ACCOUNT_UPDATE_1", payload={"n": number}) for number in range(3)),
            ]
        )
        heard = [json.loads(listener.get_message(timeout=10)["data"]) for _ in range(3)]
    assert heard == [{"n": 0}, {"n": 1}, {"n": 2}]
    ours.close()


def test_a_server_that_hangs_is_unavailable_and_then_answers_what_is_asked(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that came too late is not taken for that of a later question; what it took is ours."""
    others = RedisBeside.connect(server.url)
    monkeypatch.setattr(beside, "TIMEOUT_S", 1.0)  # all but one of the answers must come in time
    ours = RedisBeside.connect(server.url)
    with Redis.from_url(server.url) as client:
        client.flushall()
    assert ours.take(["a", "b"], ttl_ms=LONG_MS) == {"a", "b"}
    server.pause()
    try:
        with pytest.raises(Unavailable):
            ours.take(["a", "b", "c"], ttl_ms=LONG_MS)
    finally:
        server.resume()
    server.wait_ready()
    assert others.take(["c", "d"], ttl_ms=LONG_MS) == {"d"}
    assert ours.take(["c", "d"], ttl_ms=LONG_MS) == {"c"}
    ours.close()
    others.close()


def test_a_url_with_an_option_that_does_not_exist_is_refused_at_once() -> None:
    """And not by a crash when the first payment is posted."""
    with pytest.raises(BadInput, match=r"redis\.url"):
        RedisBeside.connect("redis://:hunter2@127.0.0.1:1/0?famly=4")


def test_a_password_is_in_no_error(tmp_path: Path) -> None:
    """Neither of a URL that is none, nor of a server that does not answer."""
    with pytest.raises(BadInput) as refused:
        RedisBeside.connect("redis//:hunter2@host")
    away = RedisBeside.connect(f"unix://:hunter2@{tmp_path}/nothing.sock")
    with pytest.raises(Unavailable) as outage:
        away.take(["a"], ttl_ms=LONG_MS)
    assert "hunter2" not in f"{refused.value}{outage.value}"


def test_check_tries_a_lock(server: RedisServer) -> None:
    """`tellerd check` says that Redis answers, and leaves nothing there; or that it does not, without the password."""
    good = check.redis(RedisConfig(url=SecretStr(server.url)))
    assert (good.good, good.line) == (True, "ok      redis: a lock was taken and given back")
    with Redis.from_url(server.url) as client:
        assert client.keys("locks:tellerd-check:*") == []
    ill = check.redis(RedisConfig(url=SecretStr("redis://:hunter2@127.0.0.1:1/0")))
    assert not ill.good
    assert "start Redis, or mend redis.url" in ill.line
    assert "hunter2" not in ill.line
