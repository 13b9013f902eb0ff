"""Callers ask from their threads and are answered from the Trio loop: each gets an answer or a reason."""

from __future__ import annotations

import pytest
import trio

from daemon.domain.errors import Unavailable
from daemon.requests import MAX_WAITING, Request, Requests
from tests.unit.callers import FOREVER_S, Caller


def kitchen() -> Requests[str, str]:
    return Requests(waits_for="tea", closed="there is no tea", ended="the kitchen is closed; ask again")


async def taken(requests: Requests[str, str], count: int) -> list[Request[str, str]]:
    """As many requests as were asked, however they come."""
    found: list[Request[str, str]] = []
    with trio.fail_after(FOREVER_S):
        while len(found) < count:
            await requests.wait()
            found += requests.take()
    return found


async def test_each_question_is_taken_once_and_each_caller_gets_its_answer() -> None:
    """Also where two ask the same."""
    requests = kitchen()
    with requests.open():
        callers = [Caller(requests, question) for question in ("black", "green", "black")]
        asked = await taken(requests, 3)
        assert requests.take() == []
        assert sorted(request.question for request in asked) == ["black", "black", "green"]
        for request in asked:
            request.answer(request.question.upper())
            request.answer("a second time")
        assert [await caller.ended() for caller in callers] == ["BLACK", "GREEN", "BLACK"]


async def test_where_nobody_answers_nobody_waits() -> None:
    """Neither before anybody does, nor after."""
    requests = kitchen()
    for _ in range(2):
        with pytest.raises(Unavailable, match="there is no tea"):
            requests.ask("black", timeout_s=FOREVER_S)
        with requests.open():
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_taken", [False, True])
async def test_who_waits_at_the_end_is_told(is_taken: bool) -> None:
    """Whether the request was taken or not: no thread is left behind."""
    requests = kitchen()
    with requests.open():
        caller = Caller(requests, "black")
        if is_taken:
            await taken(requests, 1)
        else:
            with trio.fail_after(FOREVER_S):
                await requests.wait()
    outage = await caller.ended()
    assert isinstance(outage, Unavailable)
    assert str(outage) == "the kitchen is closed; ask again"


async def test_a_refused_caller_is_told_why() -> None:
    """In the words of whoever answers."""
    requests = kitchen()
    with requests.open():
        caller = Caller(requests, "black")
        (request,) = await taken(requests, 1)
        request.refuse("MongoDB is away")
        assert str(await caller.ended()) == "MongoDB is away"


async def test_who_has_given_up_is_not_worked_for() -> None:
    """His time is up before his request is taken: it is not taken. After it, the answer is let go."""
    requests = kitchen()
    with requests.open():
        assert requests.ask("gone", timeout_s=0.0) is None
        with trio.fail_after(FOREVER_S):
            await requests.wait()
        assert requests.take() == []
    request = Request[str, str]("late")
    assert request.wait_answer(0.0) is None
    request.answer("LATE")
    request.refuse("nobody hears it")


async def test_only_so_many_wait_at_once() -> None:
    """The others are turned away at once; who has given up, or was answered, keeps no place."""
    requests = kitchen()
    with requests.open():
        for _ in range(MAX_WAITING):
            assert requests.ask("gone", timeout_s=0.0) is None
        callers = [Caller(requests, "black") for _ in range(MAX_WAITING)]
        asked = await taken(requests, MAX_WAITING)
        with pytest.raises(Unavailable, match="wait for tea already"):
            requests.ask("one too many", timeout_s=FOREVER_S)
        asked[0].answer("BLACK")
        one_more = Caller(requests, "black")
        asked += await taken(requests, 1)
        for request in asked:
            request.answer("BLACK")
        assert [await caller.ended() for caller in [*callers, one_more]] == ["BLACK"] * (MAX_WAITING + 1)
