"""Callers ask from their threads, the rounds answer from the Trio loop: each caller gets an answer or a reason."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio

from daemon.domain.errors import Unavailable
from daemon.domain.reconciliation import Reconciled
from daemon.reconciling.requests import MAX_WAITING, ReconciliationRequests, Request
from tests.unit.serving.reconciliation_samples import CHECK, look

FOREVER_S = 30.0
"""Never reached when all is well."""

ANSWER = Reconciled(look=look(), full_check=CHECK)


class Caller:
    """One API thread; `result` is what it got."""

    def __init__(self, requests: ReconciliationRequests, *, full: bool = False, timeout_s: float = FOREVER_S) -> None:
        self.result: Reconciled | Unavailable | None = None
        self._ask = partial(requests.ask, full=full, timeout_s=timeout_s)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._ask()
        except Unavailable as outage:
            self.result = outage

    async def ended(self) -> Reconciled | Unavailable | None:
        await trio.to_thread.run_sync(self._thread.join, FOREVER_S)
        assert not self._thread.is_alive()
        return self.result


async def taken(requests: ReconciliationRequests, count: int) -> list[Request]:
    """As many requests as were asked, however they come."""
    found: list[Request] = []
    with trio.fail_after(FOREVER_S):
        while len(found) < count:
            await requests.wait()
            found += requests.take()
    return found


async def test_one_look_answers_all_who_asked_before_it() -> None:
    """Each request is taken once, says what it wants, and is answered."""
    requests = ReconciliationRequests()
    with requests.open():
        callers = [Caller(requests, full=full) for full in (False, True, False)]
        asked = await taken(requests, 3)
        assert requests.take() == []
        assert sorted(request.full for request in asked) == [False, False, True]
        for request in asked:
            request.answer(ANSWER)
        assert [await caller.ended() for caller in callers] == [ANSWER] * 3


async def test_without_rounds_nobody_waits() -> None:
    """On a standby, and after the rounds have ended."""
    requests = ReconciliationRequests()
    with pytest.raises(Unavailable, match="does not lead"):
        requests.ask(full=False, timeout_s=FOREVER_S)
    with requests.open():
        await trio.lowlevel.checkpoint()
    with pytest.raises(Unavailable, match="does not lead"):
        requests.ask(full=False, timeout_s=FOREVER_S)


@pytest.mark.parametrize("is_taken", [False, True])
async def test_who_waits_when_the_rounds_end_is_told(is_taken: bool) -> None:
    """Whether the request was taken or not: no thread is left behind."""
    requests = ReconciliationRequests()
    with requests.open():
        caller = Caller(requests)
        if is_taken:
            await taken(requests, 1)
        else:
            with trio.fail_after(FOREVER_S):
                await requests.wait()
    outage = await caller.ended()
    assert isinstance(outage, Unavailable)
    assert "ask again" in str(outage)


async def test_a_refused_caller_is_told_why() -> None:
    """The rounds' own words."""
    requests = ReconciliationRequests()
    with requests.open():
        caller = Caller(requests)
        (request,) = await taken(requests, 1)
        request.refuse("MongoDB is away")
        assert str(await caller.ended()) == "MongoDB is away"


async def test_who_has_given_up_is_not_worked_for() -> None:
    """His time is up before his request is taken: it is not taken. After it, the answer is let go."""
    requests = ReconciliationRequests()
    with requests.open():
        gone = Caller(requests, timeout_s=0.0)
        assert await gone.ended() is None
        assert requests.take() == []
        late = Caller(requests, timeout_s=0.2)
        (request,) = await taken(requests, 1)
        assert await late.ended() is None
        request.answer(ANSWER)
        request.refuse("nobody hears it")


async def test_only_so_many_wait_at_once() -> None:
    """The others are turned away at once; who has given up, or was answered, keeps no place."""
    requests = ReconciliationRequests()
    with requests.open():
        for _ in range(MAX_WAITING):
            assert requests.ask(full=False, timeout_s=0.0) is None
        callers = [Caller(requests) for _ in range(MAX_WAITING)]
        asked = await taken(requests, MAX_WAITING)
        with pytest.raises(Unavailable, match="wait for a comparison already"):
            requests.ask(full=True, timeout_s=FOREVER_S)
        asked[0].answer(ANSWER)
        one_more = Caller(requests)
        asked += await taken(requests, 1)
        for request in asked:
            request.answer(ANSWER)
        assert [await caller.ended() for caller in [*callers, one_more]] == [ANSWER] * (MAX_WAITING + 1)
