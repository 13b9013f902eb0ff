"""Who posts: a lease with a fencing token. The standby waits; the leader renews, or steps down.

The lease says who should post, the fence in the head says who can: a leader that hung past its lease
and goes on finds another fence in its next commit.
"""

from __future__ import annotations

import random

import structlog
import trio

from daemon.domain.errors import LeaseLost, Unavailable
from daemon.domain.ports import Leases

LEASE_TTL_S = 5.0
"""A standby takes over this long after the leader's last renewal: well within the 10 s that are promised."""

_RENEWALS_PER_TTL = 5
"""One lost renewal, or two, must not cost the lease."""

log = structlog.get_logger()


class Leadership:
    """Takes, renews and gives back the lease for one process."""

    def __init__(self, leases: Leases, *, holder: str, ttl_s: float = LEASE_TTL_S, rng: random.Random) -> None:
        self._leases = leases
        self._holder = holder
        self._ttl_s = ttl_s
        self._rng = rng
        self._thread = trio.CapacityLimiter(1)  # lease calls never queue behind commits or reads

    async def wait_acquired(self) -> int:
        """Waits as standby until the lease is ours; returns the fence. An outage is waited out."""
        pause_s = self._ttl_s / _RENEWALS_PER_TTL
        waiting = False
        while True:
            try:
                fence = await trio.to_thread.run_sync(
                    lambda: self._leases.acquire(holder=self._holder, ttl_s=self._ttl_s), limiter=self._thread
                )
            except Unavailable as outage:
                log.warning("lease.unavailable", cause=str(outage))
                fence = None
            if fence is not None:
                log.info("lease.acquired", fence=fence, holder=self._holder)
                return fence
            if not waiting:
                log.info("lease.standby", holder=self._holder)
                waiting = True
            await trio.sleep(pause_s * self._rng.uniform(0.8, 1.2))

    async def keep(self, fence: int) -> None:
        """Renews until cancelled. Raises LeaseLost when it is another's, or could not be renewed in time."""
        last_renewed = trio.current_time()
        while True:
            await trio.sleep(self._ttl_s / _RENEWALS_PER_TTL)
            asked_at = trio.current_time()
            try:
                ours = await trio.to_thread.run_sync(
                    lambda: self._leases.renew(fence=fence, ttl_s=self._ttl_s), limiter=self._thread
                )
            except Unavailable as outage:
                log.warning("lease.not_renewed", cause=str(outage))
                if trio.current_time() - last_renewed > self._ttl_s:
                    raise LeaseLost("the lease could not be renewed in time") from outage
                continue
            if not ours:
                raise LeaseLost("another daemon holds the lease")
            last_renewed = asked_at

    async def give_back(self, fence: int) -> None:
        """Releases the lease, so that a standby need not wait; an unreachable database is no error."""
        with trio.CancelScope(shield=True), trio.move_on_after(self._ttl_s):
            try:
                await trio.to_thread.run_sync(
                    lambda: self._leases.release(fence=fence), limiter=self._thread, abandon_on_cancel=True
                )
            except Unavailable as outage:
                log.warning("lease.not_released", cause=str(outage))
