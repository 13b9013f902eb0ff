"""Calls of bitcoind and of the store for the reconciliation, from Trio: one at a time, each on a worker thread.

The chain's follower asks bitcoind, too, and payments come first: so nothing here asks in parallel. What bitcoind
cannot answer is told apart from what the store cannot: a look goes on without bitcoind, not without the books.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

import trio

from daemon.domain.errors import BlockPruned, NodeRefused, TellerdError, Unavailable

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class BitcoindAway(TellerdError):
    """bitcoind does not answer, or refuses; the reason is for people."""


@dataclass(frozen=True, slots=True)
class BitcoindCalls:
    """Runs what blocks."""

    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    async def run(
        self, call: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """The call's answer; its errors as they are. Reads, and observations that may be repeated: a call whose caller
        is cancelled is left to its deadline."""
        return await trio.to_thread.run_sync(
            partial(call, *args, **kwargs), limiter=self.limiter, abandon_on_cancel=True
        )

    async def ask(
        self, call: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """The same, for a call that asks bitcoind alone: raises BitcoindAway, or BlockPruned."""
        try:
            return await self.run(call, *args, **kwargs)
        except BlockPruned:
            raise
        except (Unavailable, NodeRefused) as problem:
            raise BitcoindAway(str(problem)) from problem
