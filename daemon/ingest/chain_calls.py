"""The calls of the chain's follower from Trio: each on a worker thread, a few at a time.

They change nothing at the node, so a call whose caller is cancelled is left to its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar

import trio

_MAX_CALLS: Final = 4
"""Of one bitcoind at once: it has four threads for RPC by default in older versions, and other programs ask, too."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ChainCalls:
    """Runs what blocks."""

    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_MAX_CALLS))

    async def run(
        self, call: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """The call's answer; its errors as they are."""
        return await trio.to_thread.run_sync(
            partial(call, *args, **kwargs), limiter=self.limiter, abandon_on_cancel=True
        )
