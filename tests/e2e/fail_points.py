"""MongoDB's fail points: a command of the server is held, so that a test can act just then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pymongo import MongoClient

from adapters.mongo import collections as names

_BEFORE: Final = "failCommand"
_AFTER: Final = "waitAfterCommandFinishesExecution"

SHORT_LEASE: Final = "\n[posting]\nlease_ttl_s = 1.0\n"
"""For a bank whose daemon is killed: a start waits for the killed leader's lease, one second instead of five."""

HELD_MS: Final = 6_000
"""How long a command is held at the most: longer than a successor needs to take over."""

REACHED_MS: Final = 120_000
"""A payment takes 0.1 s, a daemon that has just become leader some seconds, many times that on a busy machine."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in or around the commit: before this command on this collection, or after it."""

    name: str
    command: str
    collection: str | None
    in_transaction: bool
    after: bool = False

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


POINTS: Final = (
    # Of the head and the cursors the daemon knows what its last commit left: it begins with the keys.
    Point("before reading facts", "aggregate", names.KEYS, in_transaction=False),
    Point("before marking paid", "update", names.INVOICES, in_transaction=False),
    Point("before taking keys", "insert", names.KEYS, in_transaction=True),
    Point("before moving balances", "update", names.BALANCES, in_transaction=True),
    Point("before telling", "insert", names.OUTBOX, in_transaction=True),
    Point("before moving the cursor", "update", names.CURSORS, in_transaction=True),
    Point("before linking", "insert", names.LINKS, in_transaction=True),
    Point("before writing legs", "insert", names.LEGS, in_transaction=True),
    Point("before reading leg ids", "find", names.LEGS, in_transaction=True),
    Point("before writing the journal", "insert", names.JOURNALS, in_transaction=True),
    Point("before writing proofs", "insert", names.LEG_METADATA, in_transaction=True),
    Point("before moving the head", "update", names.HEAD, in_transaction=True),
    Point("before committing", "commitTransaction", None, in_transaction=True),
    Point("after committing", "commitTransaction", None, in_transaction=False, after=True),
)
"""The commands of one commit in their order (adapters.mongo.commit). The first command of a transaction is held
before it opens one."""


@contextmanager
def held(client: MongoClient[dict[str, Any]], database: str, point: Point, *, for_ms: int = HELD_MS) -> Iterator[Held]:
    """Holds the first command that comes to the point, until the end of the block."""
    fail_point: str
    mode: Any
    data: dict[str, Any]
    if point.after:
        fail_point, mode, data = _AFTER, "alwaysOn", {"commands": [point.command]}
    else:
        fail_point, mode = _BEFORE, {"times": 1}
        data = {"failCommands": [point.command], "blockConnection": True, "blockTimeMS": for_ms}
        if point.collection is not None:
            data["namespace"] = f"{database}.{point.collection}"
    reply = client.admin.command({"configureFailPoint": fail_point, "mode": mode, "data": data})
    try:
        yield Held(client, fail_point, int(reply["count"]))
    finally:
        client.admin.command({"configureFailPoint": fail_point, "mode": "off"})


@contextmanager
def slowed(client: MongoClient[dict[str, Any]], database: str, point: Point, *, by_ms: int) -> Iterator[None]:
    """Every command that comes to the point takes so much longer, until the end of the block."""
    slowly = {"failCommands": [point.command], "blockConnection": True, "blockTimeMS": by_ms}
    data = {**slowly, "namespace": f"{database}.{point.collection}"}
    client.admin.command({"configureFailPoint": _BEFORE, "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": _BEFORE, "mode": "off"})


@dataclass(frozen=True, slots=True)
class Held:
    """A fail point that is set."""

    client: MongoClient[dict[str, Any]]
    fail_point: str
    entered_before: int

    def wait_reached(self) -> None:
        """Returns when a command is held; an error of the server if none comes in time."""
        self.client.admin.command(
            {
                "waitForFailPoint": self.fail_point,
                "timesEntered": self.entered_before + 1,
                "maxTimeMS": REACHED_MS,
            }
        )

    def open_transactions(self) -> int:
        """Transactions that are open on the server now."""
        return int(self.client.admin.command("serverStatus")["transactions"]["currentOpen"])
