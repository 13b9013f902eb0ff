"""Restart with backoff: the one place where an outage is waited out.

Only `Unavailable` is waited out, alone or in an exception group that holds nothing else. Every other error
goes on: better stopped than wrong.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from daemon.domain.errors import Unavailable

BACKOFF_S: Final = (0.5, 15.0)
"""First and longest pause. A node that restarts is back within seconds; one that is away for long costs a
call every quarter of a minute, and is followed again as soon after it is back."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """Healthy, or waiting to be started again: then with the problem and the pause."""

    healthy: bool
    problem: str = ""
    retry_in_s: float = 0.0


def ignore_state(_state: TaskState) -> None:
    """For tasks whose state nobody shows."""


async def keep_running(
    task: Callable[[Callable[[], None]], Awaitable[None]],
    *,
    name: str,
    rng: random.Random,
    on_state: Callable[[TaskState], None] = ignore_state,
    backoff_s: tuple[float, float] = BACKOFF_S,
) -> None:
    """Runs `task` until it returns, again after every outage.

    The task is given a callback to call once it is in order: that resets the backoff, which doubles from its
    first to its longest pause; of each pause a random half is left out, so that many tasks do not come back
    at one moment. Everything but Unavailable propagates.
    """
    first_s, longest_s = backoff_s
    pause_s = first_s
    failing = False

    def healthy() -> None:
        nonlocal pause_s, failing
        pause_s = first_s
        if failing:
            log.info("task.recovered", task=name)
        failing = False
        on_state(TaskState(healthy=True))

    while True:
        try:
            await task(healthy)
        except Unavailable as outage:
            problem = str(outage)
        except BaseExceptionGroup as group:
            problem = _outage_of(group)
        else:
            return
        wait_s = pause_s * rng.uniform(0.5, 1.0)
        failing = True
        on_state(TaskState(healthy=False, problem=problem, retry_in_s=wait_s))
        log.warning("task.waiting", task=name, cause=problem, retry_in_s=round(wait_s, 2))
        await trio.sleep(wait_s)
        pause_s = min(2 * pause_s, longest_s)


def _outage_of(group: BaseExceptionGroup[BaseException]) -> str:
    """What the outages of a group say; raises what is left of a group that holds anything else."""
    outages, rest = group.split(Unavailable)
    if outages is None:
        raise group
    if rest is not None:
        # An outage beside a cancellation is no news: the task was to end anyway. Beside an error it is part
        # of the story and goes on with it.
        raise rest if rest.split(trio.Cancelled)[1] is None else group
    return "; ".join(dict.fromkeys(str(one) for one in _leaves(outages)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for one in group.exceptions:
        found.extend(_leaves(one) if isinstance(one, BaseExceptionGroup) else [one])
    return found
