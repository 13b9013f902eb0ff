"""Callers ask from their threads, posting answers after its commit: each caller gets an outcome or a reason."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import pytest
import trio

from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.node_events import NodeEvent, SuspenseAssigned
from daemon.domain.outcomes import AssignmentProblem, NotAssigned, Outcome
from daemon.posting.requests import MAX_WAITING, PostingRequests

FOREVER_S = 30.0
"""Never reached when all is well."""


def asked(key: str) -> SuspenseAssigned:
    return SuspenseAssigned(key=key, wallet_id=WalletId("wallet"), by="ann", reason="why", at_ms=1)


def outcome(key: str) -> Outcome:
    return NotAssigned(key, AssignmentProblem.NO_ENTRY)


class Caller:
    """One API thread; `result` is what it got."""

    def __init__(self, requests: PostingRequests, key: str = "a", *, timeout_s: float = FOREVER_S) -> None:
        self.result: Outcome | Unavailable | None = None
        self._ask = partial(requests.ask, asked(key), timeout_s=timeout_s)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._ask()
        except Unavailable as outage:
            self.result = outage

    async def ended(self) -> Outcome | Unavailable | None:
        await trio.to_thread.run_sync(self._thread.join, FOREVER_S)
        assert not self._thread.is_alive()
        return self.result


async def received(inbox: trio.MemoryReceiveChannel[Sequence[NodeEvent]], count: int) -> dict[str, NodeEvent]:
    """As many events as were asked, by key."""
    found: dict[str, NodeEvent] = {}
    with trio.fail_after(FOREVER_S):
        while len(found) < count:
            (event,) = await inbox.receive()
            assert isinstance(event, SuspenseAssigned)
            found[event.key] = event
    return found


async def test_each_caller_gets_the_outcome_of_his_own_event(nursery: trio.Nursery) -> None:
    """Also where two ask for the very same thing: an event is told from an equal one."""
    requests = PostingRequests()
    send, inbox = trio.open_memory_channel[Sequence[NodeEvent]](MAX_WAITING)
    with requests.open(), closing(send), closing(inbox):
        nursery.start_soon(requests.run, send)
        callers = {key: Caller(requests, key) for key in "abc"}
        events = await received(inbox, 3)
        requests.answer(asked("a"), outcome("of somebody else"))
        for key, event in events.items():
            requests.answer(event, outcome(key))
        assert {key: await caller.ended() for key, caller in callers.items()} == {key: outcome(key) for key in "abc"}
        nursery.cancel_scope.cancel()


async def test_without_posting_nobody_waits() -> None:
    """On a standby, and after posting has ended."""
    requests = PostingRequests()
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not lead"):
            requests.ask(asked("a"), timeout_s=FOREVER_S)
        with requests.open():
            await trio.lowlevel.checkpoint()


async def test_who_waits_when_posting_ends_is_told_to_ask_again() -> None:
    """Whether the event was decided or not is not known to him."""
    requests = PostingRequests()
    send, inbox = trio.open_memory_channel[Sequence[NodeEvent]](1)
    with closing(send), closing(inbox), requests.open():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.run, send)
            caller = Caller(requests)
            await received(inbox, 1)
            nursery.cancel_scope.cancel()
    outage = await caller.ended()
    assert isinstance(outage, Unavailable)
    assert "ask again" in str(outage)


async def test_only_so_many_wait_and_who_has_given_up_keeps_no_place() -> None:
    """Nor is his event handed over if nobody has taken it yet; an outcome that comes too late is let go."""
    requests = PostingRequests()
    send, inbox = trio.open_memory_channel[Sequence[NodeEvent]](2 * MAX_WAITING)
    with requests.open(), closing(send), closing(inbox):
        for _ in range(MAX_WAITING):
            assert requests.ask(asked("gone"), timeout_s=0.0) is None
        callers = [Caller(requests, str(number)) for number in range(MAX_WAITING)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.run, send)
            events = await received(inbox, MAX_WAITING)
            assert "gone" not in events
            with pytest.raises(Unavailable, match="wait for posting already"):
                requests.ask(asked("one too many"), timeout_s=FOREVER_S)
            for key, event in events.items():
                requests.answer(event, outcome(key))
                requests.answer(event, outcome("a second time"))
            assert [await caller.ended() for caller in callers] == [outcome(str(n)) for n in range(MAX_WAITING)]
            nursery.cancel_scope.cancel()
