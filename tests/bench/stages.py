"""Where a commit's time goes: posting's own steps, one after another in one process, under a stopwatch."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from adapters.mongo.store import MongoStore
from daemon.domain.money import Price
from daemon.domain.node_events import NodeEvent, NodeOpened
from daemon.matching.decide import decide, wanted_by
from daemon.posting.seal import seal
from tests.bench.samples import PUBKEY, SampleDatabase


class _DatabaseTime(CommandListener):
    """How long the database took to answer each command."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def started(self, event: CommandStartedEvent) -> None:
        """Nothing yet."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Adds it up; all writes are one sum."""
        name = "write" if event.command_name in ("insert", "update", "find") else event.command_name
        self.seconds[name] += event.duration_micros / 1e6

    def failed(self, event: CommandFailedEvent) -> None:
        """The caller raises."""


@dataclass(slots=True)
class _Stopwatch:
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began


def stages(url: str, price: Price, *, batch: int, batches: int) -> list[tuple[str, float]]:
    """Microseconds per settlement that each step takes, in batches of this size; the first batch is warm-up."""
    database = _DatabaseTime()
    client: MongoClient[dict[str, Any]] = MongoClient(
        url, tz_aware=True, uuidRepresentation="standard", event_listeners=[database]
    )
    samples = SampleDatabase(MongoStore(client, "stages"))
    try:
        samples.store.leases.acquire(holder="bench", ttl_s=600)
        opened = NodeOpened(
            pubkey=PUBKEY, name="lnd1", funds_msat=0, through_index=0, checkpoint_hash=None, opened_at_ms=0
        )
        _post(samples, price, [opened, *_events(samples, 1, batch)], _Stopwatch())
        database.seconds.clear()
        watch = _Stopwatch()
        for number in range(1, batches + 1):
            _post(samples, price, _events(samples, 1 + number * batch, batch), watch)
    finally:
        samples.close()
    spent = watch.seconds
    rows = [
        ("read facts, in the database", database.seconds["aggregate"]),
        ("read facts, here", spent["read"] - database.seconds["aggregate"]),
        ("decide", spent["decide"]),
        ("seal", spent["seal"]),
        ("write, in the database", database.seconds["write"]),
        ("write, here", spent["commit"] - database.seconds["write"] - database.seconds["commitTransaction"]),
        ("commit, in the database", database.seconds["commitTransaction"]),
    ]
    return [(name, seconds * 1e6 / (batch * batches)) for name, seconds in rows]


def _events(samples: SampleDatabase, first_index: int, count: int) -> Sequence[NodeEvent]:
    at_ms = time.time_ns() // 1_000_000
    return [sample.settlement(first_index + n, at_ms) for n, sample in enumerate(samples.more(count))]


def _post(
    samples: SampleDatabase,
    price: Price,
    events: Sequence[NodeEvent],
    watch: _Stopwatch,
) -> None:
    books = samples.store.books
    with watch.step("read"):
        facts = books.read_facts(wanted_by(events))
    with watch.step("decide"):
        plan = decide(events, facts, price=price)
    with watch.step("seal"):
        changes = seal(plan, now_ms=time.time_ns() // 1_000_000, writer_id=books.writer_id)
    with watch.step("commit"):
        books.commit(changes)
