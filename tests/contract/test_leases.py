"""The port `Leases`: one holder, a fence that only rises, and time that is the database's."""

from __future__ import annotations

import time

from tests.contract.conftest import Database


def test_a_second_holder_waits_until_the_lease_expires(store: Database) -> None:
    """While a lease is valid nobody else gets it; once it is not renewed in time, the next holder does."""
    first = store.leases.acquire(holder="one", ttl_s=60)
    assert first is not None
    assert store.leases.acquire(holder="two", ttl_s=60) is None
    assert store.leases.renew(fence=first, ttl_s=0.2)
    second = None
    deadline_s = time.monotonic() + 20  # a bound against hanging, far above the lease's 0.2 s
    while second is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
        second = store.leases.acquire(holder="two", ttl_s=60)
    assert second is not None
    assert second > first
    assert not store.leases.renew(fence=first, ttl_s=60)
    assert store.leases.acquire(holder="one", ttl_s=60) is None


def test_renewal_prolongs_the_lease(store: Database) -> None:
    """A renewed lease expires later than it would have."""
    fence = store.leases.acquire(holder="one", ttl_s=60)
    assert fence is not None
    before = store.leases.current()
    assert store.leases.renew(fence=fence, ttl_s=120)
    after = store.leases.current()
    assert before is not None
    assert after is not None
    assert (after.expires_at - before.expires_at).total_seconds() > 50
    assert store.leases.acquire(holder="two", ttl_s=60) is None


def test_acquiring_raises_the_fence_in_the_head(store: Database) -> None:
    """The head carries the new fence as soon as the lease is taken."""
    assert store.ledger.head().fence == 0
    fence = store.leases.acquire(holder="one", ttl_s=5)
    assert fence == store.ledger.head().fence == 1


def test_a_released_lease_is_free_at_once(store: Database) -> None:
    """A standby need not wait for a leader that went in peace; each holder has a fence of its own."""
    first = store.leases.acquire(holder="one", ttl_s=60)
    assert first is not None
    store.leases.release(fence=first)
    assert store.leases.current() is None
    assert store.leases.acquire(holder="two", ttl_s=60) == first + 1


def test_releasing_a_lost_lease_does_not_take_it_from_its_holder(store: Database) -> None:
    """An old fence releases nothing."""
    first = store.leases.acquire(holder="one", ttl_s=60)
    assert first is not None
    store.leases.release(fence=first)
    second = store.leases.acquire(holder="two", ttl_s=60)
    store.leases.release(fence=first)
    held = store.leases.current()
    assert held is not None
    assert (held.holder, held.fence) == ("two", second)


def test_the_same_holder_takes_its_lease_again_with_a_new_fence(store: Database) -> None:
    """A holder that asks again, not knowing that it has the lease, gets it under a higher fence."""
    first = store.leases.acquire(holder="one", ttl_s=60)
    again = store.leases.acquire(holder="one", ttl_s=60)
    assert first is not None
    assert again == first + 1
    assert not store.leases.renew(fence=first, ttl_s=60)


def test_a_holder_may_be_called_anything(store: Database) -> None:
    """A name that looks like an expression of the database stays a name."""
    store.leases.acquire(holder="$expires_at", ttl_s=60)
    held = store.leases.current()
    assert held is not None
    assert held.holder == "$expires_at"


def test_nobody_holds_a_new_lease(store: Database) -> None:
    """After init there is no leader."""
    assert store.leases.current() is None
