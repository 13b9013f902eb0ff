"""keep_running: outages are waited out, everything else goes on. Under a clock that jumps: nothing here waits."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.supervision import TaskState, keep_running


class WholePauses(random.Random):
    """Takes nothing off a pause."""

    def uniform(self, a: float, b: float) -> float:
        """The upper bound."""
        return b


class Flaky:
    """A task that goes through a script: an error to raise, "healthy", or "done"; keeps the times of its starts."""

    def __init__(self, *script: BaseException | str) -> None:
        self.script = list(script)
        self.started_at: list[float] = []

    async def run(self, healthy: Callable[[], None]) -> None:
        """One start."""
        self.started_at.append(trio.current_time())
        while True:
            step = self.script.pop(0)
            if step == "healthy":
                healthy()
            elif step == "done":
                return
            elif isinstance(step, BaseException):
                raise step
            await trio.lowlevel.checkpoint()

    def pauses(self) -> list[float]:
        """Between starts."""
        return [round(b - a, 6) for a, b in zip(self.started_at, self.started_at[1:], strict=False)]


def away(text: str = "away") -> Unavailable:
    """An outage."""
    return Unavailable(text)


async def run(task: Flaky, states: list[TaskState] | None = None, rng: random.Random | None = None) -> None:
    """keep_running with whole pauses and recorded states."""
    seen = [] if states is None else states
    await keep_running(task.run, name="task", rng=rng or WholePauses(), on_state=seen.append)


async def test_pauses_double_up_to_the_cap(autojump_clock: MockClock) -> None:
    """The pauses are 0.5 s, doubled each time, never more than 15 s."""
    task = Flaky(*[away() for _ in range(8)], "done")
    await run(task)
    assert task.pauses() == [0.5, 1, 2, 4, 8, 15, 15, 15]


async def test_a_healthy_task_starts_over_with_the_first_pause(autojump_clock: MockClock) -> None:
    """Backoff is reset once the task was in order."""
    task = Flaky(away(), away(), "healthy", away(), "done")
    await run(task)
    assert task.pauses() == [0.5, 1, 0.5]


async def test_jitter_takes_off_at_most_half(autojump_clock: MockClock) -> None:
    """Each pause lies between half and all of what backoff says, and they differ."""
    task = Flaky(*[away() for _ in range(12)], "done")
    await run(task, rng=random.Random(7))
    late = task.pauses()[5:]
    assert all(7.5 <= pause <= 15 for pause in late)
    assert len(set(late)) == len(late)


async def test_states_tell_the_problem_and_the_recovery(autojump_clock: MockClock) -> None:
    """on_state sees each outage with its text and pause, and each recovery."""
    states: list[TaskState] = []
    await run(Flaky(away("lnd1 is locked"), "healthy", "done"), states)
    assert states == [
        TaskState(healthy=False, problem="lnd1 is locked", retry_in_s=0.5),
        TaskState(healthy=True),
    ]


async def test_a_group_of_outages_is_an_outage(autojump_clock: MockClock) -> None:
    """Groups of groups, too, as nurseries make them; each text is told once."""
    states: list[TaskState] = []
    group = BaseExceptionGroup("outer", [away("a"), BaseExceptionGroup("inner", [away("b"), away("a")])])
    await run(Flaky(group, "done"), states)
    assert [state.problem for state in states] == ["a; b"]


async def test_a_group_with_another_error_goes_on_whole(autojump_clock: MockClock) -> None:
    """A broken invariant is not waited out because an outage came with it."""
    task = Flaky(BaseExceptionGroup("both", [away("the outage"), InvariantViolation("the books")]), "done")
    with pytest.RaisesGroup(Unavailable, InvariantViolation):
        await run(task)
    assert len(task.started_at) == 1


@pytest.mark.parametrize("error", [InvariantViolation("x"), ValueError("x"), KeyError("x")])
async def test_everything_else_goes_on(autojump_clock: MockClock, error: Exception) -> None:
    """Only Unavailable is waited out."""
    task = Flaky(error, "done")
    with pytest.raises(type(error)):
        await run(task)
    assert len(task.started_at) == 1


async def test_an_outage_while_being_cancelled_is_no_error(autojump_clock: MockClock) -> None:
    """A task that breaks while it is cancelled ends as cancelled: a shutdown is not spoilt."""

    async def breaks_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise away("stream broken by its own cancellation")

    async def task(_healthy: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(breaks_when_cancelled)

    with trio.move_on_after(1) as scope:
        await keep_running(task, name="task", rng=WholePauses())
    assert scope.cancelled_caught


async def test_cancelling_ends_a_pause(autojump_clock: MockClock) -> None:
    """Nothing is waited for at shutdown."""
    with trio.move_on_after(0.1) as scope:
        await run(Flaky(away(), "done"))
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(0.1)
