"""Callers ask from their threads, posting answers after its commit: each caller gets an outcome or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest
import trio

from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.node_events import NodeEvent, SuspenseAssigned
from daemon.domain.outcomes import AssignmentProblem, NotAssigned, Outcome
from daemon.posting.requests import PostingRequests
from daemon.requests import MAX_WAITING
from tests.unit.callers import FOREVER_S, Caller


def asked(key: str) -> SuspenseAssigned:
    return SuspenseAssigned(key=key, wallet_id=WalletId("wallet"), by="ann", reason="why", at_ms=1)


def outcome(key: str) -> Outcome:
    return NotAssigned(key, AssignmentProblem.NO_ENTRY)


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
        callers = {key: Caller(requests, asked(key)) for key in "abc"}
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
            caller = Caller(requests, asked("a"))
            await received(inbox, 1)
            nursery.cancel_scope.cancel()
    outage = await caller.ended()
    assert isinstance(outage, Unavailable)
    assert "ask again" in str(outage)


async def test_what_its_caller_has_given_up_is_not_handed_over() -> None:
    """If nobody has taken it yet."""
    requests = PostingRequests()
    send, inbox = trio.open_memory_channel[Sequence[NodeEvent]](MAX_WAITING)
    with requests.open(), closing(send), closing(inbox):
        assert requests.ask(asked("gone"), timeout_s=0.0) is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.run, send)
            wanted = Caller(requests, asked("wanted"))
            events = await received(inbox, 1)
            assert list(events) == ["wanted"]
            requests.answer(events["wanted"], outcome("wanted"))
            assert await wanted.ended() == outcome("wanted")
            nursery.cancel_scope.cancel()
