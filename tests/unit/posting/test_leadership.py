"""Who posts: the lease is waited for, renewed, and given back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from adapters.memory import MemoryStore
from daemon.domain.errors import LeaseLost, Unavailable
from daemon.domain.ports import Leases, LeaseView
from daemon.posting.leadership import LEASE_TTL_S, Leadership

PERIOD_S = LEASE_TTL_S / 5
"""Between two renewals."""


@dataclass
class Scripted:
    """A lease whose answers are given: True, False, or an outage; afterwards the last one again and again."""

    answers: list[bool | None]
    asked_at: list[float] = field(default_factory=list)
    released: list[int] = field(default_factory=list)

    def _answer(self) -> bool:
        self.asked_at.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise Unavailable("away")
        return answer

    def acquire(self, *, holder: str, ttl_s: float) -> int | None:
        """The fence 7, or not."""
        return 7 if self._answer() else None

    def renew(self, *, fence: int, ttl_s: float) -> bool:
        """The next answer."""
        assert (fence, ttl_s) == (7, LEASE_TTL_S)
        return self._answer()

    def release(self, *, fence: int) -> None:
        """Kept; an outage if that is the next answer."""
        self._answer()
        self.released.append(fence)

    def current(self) -> LeaseView | None:
        """Nobody asks."""
        raise NotImplementedError


def leadership(leases: Leases, holder: str = "one") -> Leadership:
    """A process that may lead."""
    return Leadership(leases, holder=holder, rng=random.Random(1))


def gaps(times: list[float]) -> Iterator[float]:
    """Between one and the next."""
    return (later - earlier for earlier, later in itertools.pairwise(times))


async def test_a_free_lease_is_taken_at_once(autojump_clock: MockClock) -> None:
    """No standby is waited for that does not exist."""
    store = MemoryStore(now_s=trio.current_time)
    fence = await leadership(store.leases).wait_acquired()
    assert fence == store.ledger.head().fence == 1
    assert trio.current_time() == 0.0


async def test_a_standby_takes_over_soon_after_the_lease_expires(autojump_clock: MockClock) -> None:
    """A leader that is gone without a word is replaced within its lease and one period, jitter included."""
    store = MemoryStore(now_s=trio.current_time)
    await leadership(store.leases, "one").wait_acquired()
    fence = await leadership(store.leases, "two").wait_acquired()
    assert fence == 2
    assert LEASE_TTL_S <= trio.current_time() <= LEASE_TTL_S + 1.2 * PERIOD_S


async def test_a_standby_waits_while_the_leader_renews(autojump_clock: MockClock) -> None:
    """However long; and it takes over soon after the leader gave the lease back."""
    store = MemoryStore(now_s=trio.current_time)
    leader, standby = leadership(store.leases, "one"), leadership(store.leases, "two")
    fence = await leader.wait_acquired()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader.keep, fence)
        with trio.move_on_after(1_000) as waiting:
            await standby.wait_acquired()
        assert waiting.cancelled_caught
        nursery.cancel_scope.cancel()
    await leader.give_back(fence)
    given_back_s = trio.current_time()
    assert await standby.wait_acquired() == fence + 1
    assert trio.current_time() == given_back_s


async def test_an_outage_is_waited_out_by_a_standby(autojump_clock: MockClock) -> None:
    """A database that is away is asked again, at the same pace."""
    leases = Scripted([None, False, None, True])
    assert await leadership(leases).wait_acquired() == 7
    assert len(leases.asked_at) == 4
    assert all(0.8 * PERIOD_S <= gap <= 1.2 * PERIOD_S for gap in gaps(leases.asked_at))


async def test_a_leader_renews_several_times_within_a_lease(autojump_clock: MockClock) -> None:
    """Five times, so that one or two lost renewals cost nothing."""
    leases = Scripted([True])
    with trio.move_on_after(10 * LEASE_TTL_S):
        await leadership(leases).keep(7)
    assert len(leases.asked_at) >= 49
    assert max(gaps(leases.asked_at)) == pytest.approx(PERIOD_S)


async def test_a_lease_that_is_anothers_ends_leadership_at_once(autojump_clock: MockClock) -> None:
    """The first renewal that is refused is the last."""
    leases = Scripted([True, True, False])
    with pytest.raises(LeaseLost, match="another daemon"):
        await leadership(leases).keep(7)
    assert len(leases.asked_at) == 3


async def test_a_short_outage_does_not_end_leadership(autojump_clock: MockClock) -> None:
    """Renewals that fail for less than the lease's life are tried again."""
    leases = Scripted([True, None, None, None, True, None, None, None, True, False])
    with pytest.raises(LeaseLost, match="another daemon"):
        await leadership(leases).keep(7)
    assert len(leases.asked_at) == 10


async def test_an_outage_longer_than_the_lease_ends_leadership(autojump_clock: MockClock) -> None:
    """Who could not renew in time must take it that a standby leads now."""
    leases = Scripted([True, None])
    with pytest.raises(LeaseLost, match="in time"):
        await leadership(leases).keep(7)
    assert LEASE_TTL_S <= trio.current_time() - leases.asked_at[0] <= LEASE_TTL_S + 2 * PERIOD_S


async def test_giving_back_survives_cancellation_and_outages(autojump_clock: MockClock) -> None:
    """A drain that is out of time still releases the lease; an unreachable database is no error."""
    leases = Scripted([True])
    with trio.CancelScope() as scope:
        scope.cancel()
        await leadership(leases).give_back(7)
    assert leases.released == [7]
    await leadership(Scripted([None])).give_back(7)
