"""The audit trail: every entry is written once, no call waits for it, and what is lost is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from daemon.domain.audit_log import AuditEntry
from daemon.domain.errors import Unavailable
from daemon.serving import audit_trail
from daemon.serving.audit_trail import BATCH, MAX_WAITING, AuditTrail, is_audited
from daemon.serving.keys import Caller
from daemon.serving.scopes import SCOPES

FOREVER_S = 30.0
"""Never reached when all is well."""


@dataclass
class Log:
    """What is written; `may_write` holds writers up, `failures` are raised first, one a try."""

    written: list[AuditEntry] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    tries: int = 0
    may_write: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)

    def append(self, entries: Sequence[AuditEntry]) -> None:
        self.began.set()
        assert self.may_write.wait(FOREVER_S)
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.written += entries
        self.batches.append(len(entries))

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[AuditEntry], str | None]:
        raise NotImplementedError


@dataclass
class Trail:
    """A trail into a log, and what it says it has lost."""

    log: Log = field(default_factory=Log)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trail = AuditTrail(self.log, on_lost=self.lost.append, now_ms=lambda: 1_790_000_000_123, retry_s=0.0)

    def note(self, number: int = 0) -> None:
        caller = Caller(key_id="tlr_aaaaaaaa", name="core API")
        self.trail.note(method="s/M", caller=caller, peer="ipv4:1", code="OK", subjects={"external_id": str(number)})

    def numbers(self) -> list[int]:
        return [int(entry.subjects["external_id"]) for entry in self.log.written]


@contextmanager
def opened() -> Iterator[Trail]:
    """Ended at the end, whatever happened."""
    world = Trail()
    try:
        yield world
    finally:
        world.log.may_write.set()
        world.trail.close()


def test_every_call_but_a_readers_is_audited() -> None:
    """By the table of scopes; a method without a rule, too."""
    audited = {method.rpartition("/")[2] for method in SCOPES if is_audited(method)}
    assert {"CreateWallet", "CreateInvoice", "GetAddress", "SetConfirmationPolicy", "CreateApiKey"} <= audited
    assert not {name for name in audited if name.startswith(("GetStatus", "GetBalance", "Watch", "Subscribe"))}
    assert is_audited("tellerd.v1.SomeService/Forgotten")


def test_an_entry_says_who_called_what_and_how_it_ended() -> None:
    """With an id that sorts by time."""
    with opened() as world:
        world.log.may_write.set()
        world.note(7)
        assert world.trail.wait_written(FOREVER_S)
        (entry,) = world.log.written
    assert (entry.key_id, entry.key_name, entry.peer, entry.code) == ("tlr_aaaaaaaa", "core API", "ipv4:1", "OK")
    assert (entry.method, entry.at_ms, entry.subjects) == ("s/M", 1_790_000_000_123, {"external_id": "7"})
    assert entry.entry_id.startswith("1790000000123-")


def test_calls_do_not_wait_for_a_database_that_hangs() -> None:
    """They return while the first write hangs; then all is written in order, in bounded batches."""
    with opened() as world:
        world.note(0)
        assert world.log.began.wait(FOREVER_S)
        for number in range(1, 2 * BATCH + 2):
            world.note(number)
        assert world.log.written == []
        world.log.may_write.set()
        assert world.trail.wait_written(FOREVER_S)
        assert world.numbers() == list(range(2 * BATCH + 2))
        assert world.log.batches == [1, BATCH, BATCH, 1]
    assert world.lost == []


def test_an_outage_is_waited_out() -> None:
    """The same entries are written when the database is back, and those after them."""
    with opened() as world:
        world.log.failures = [Unavailable("away"), Unavailable("away")]
        world.log.may_write.set()
        world.note(1)
        assert world.trail.wait_written(FOREVER_S)
        world.note(2)
        assert world.trail.wait_written(FOREVER_S)
        assert (world.numbers(), world.log.tries) == ([1, 2], 4)
    assert world.lost == []


def test_what_cannot_be_written_does_not_stop_what_can() -> None:
    """A bug in one entry costs its batch, which is counted, and nothing after it."""
    with opened() as world:
        world.log.failures = [ValueError("too large")]
        world.log.may_write.set()
        world.note(1)
        assert world.trail.wait_written(FOREVER_S)
        world.note(2)
        assert world.trail.wait_written(FOREVER_S)
        assert world.numbers() == [2]
    assert world.lost == [1]


def test_more_than_can_wait_is_lost_and_counted() -> None:
    """The newest: what was first is written."""
    with opened() as world:
        world.note(0)
        assert world.log.began.wait(FOREVER_S)
        for number in range(1, MAX_WAITING + 4):
            world.note(number)
        assert sum(world.lost) == 3
        world.log.may_write.set()
        assert world.trail.wait_written(FOREVER_S)
        assert world.numbers() == list(range(MAX_WAITING + 1))


def test_the_end_writes_what_waits() -> None:
    """And a call that ends later is counted as lost."""
    world = Trail()
    world.log.may_write.set()
    for number in range(5):
        world.note(number)
    world.trail.close()
    assert world.numbers() == [0, 1, 2, 3, 4]
    world.note(5)
    assert (world.lost, world.numbers()) == ([1], [0, 1, 2, 3, 4])


def test_the_end_waits_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a database that hangs: what it has not taken is counted."""
    monkeypatch.setattr(audit_trail, "CLOSE_S", 0.05)
    world = Trail()
    world.note(1)
    assert world.log.began.wait(FOREVER_S)
    world.note(2)
    world.trail.close()
    assert world.lost == [2]
    world.log.may_write.set()
