"""Worker threads without threads: `trio.to_thread.run_sync` runs its function in place, in simulated time.

Under a clock that jumps, a task that waits for a real thread counts as blocked, and the clock leaps over
its time-outs (style.md section 4). Here the call takes simulated time before and after it, and the function
runs at one instant between, so every run of a seed is the same. As with threads, a call that may not be
abandoned holds back its caller's cancellation until it has returned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import trio

Latency = Callable[[], float]


@contextmanager
def inline_threads(latency_s: Latency) -> Iterator[None]:
    """Within it, worker threads are simulated; `latency_s` draws the time of each half of a call."""

    async def run_sync(
        sync_fn: Callable[..., Any],
        *args: Any,
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        async with AsyncExitStack() as held:
            if limiter is not None:
                await held.enter_async_context(limiter)
            with trio.CancelScope(shield=not abandon_on_cancel):
                await trio.sleep(latency_s())
                result = sync_fn(*args)
                await trio.sleep(latency_s())
        return result

    with patch.object(trio.to_thread, "run_sync", run_sync):
        yield


@contextmanager
def deterministic_scheduling(seed: int) -> Iterator[None]:
    """Trio shuffles its tasks; here from the seed. A private switch, guarded by a test that runs repeat."""
    internals: Any = trio._core._run
    state: object = internals._r.getstate()
    with patch.object(internals, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        internals._r.seed(seed)
        try:
            yield
        finally:
            internals._r.setstate(state)


def latencies(rng: random.Random, *, stall_p: float, stall_s: float) -> Latency:
    """Milliseconds, and now and then a hang that outlasts the lease."""
    return lambda: stall_s if rng.random() < stall_p else rng.uniform(0.0005, 0.01)
