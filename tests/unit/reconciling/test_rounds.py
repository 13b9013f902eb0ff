"""The rounds: what is judged, when a difference becomes a gap, and what makes a full check run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

import pytest
import trio

from adapters.memory import MemoryStore
from daemon.domain.accounts import LIGHTNING, ON_CHAIN
from daemon.domain.books import Gap, GapState
from daemon.domain.errors import Unavailable
from daemon.domain.reconciliation import Item, ItemKind, Reconciled, ReconciliationAsked, ReconciliationStatus, Side
from daemon.reconciling.coins import Looked as CoinsLooked
from daemon.reconciling.deposits import DepositsChecked
from daemon.reconciling.invoices import InvoicesChecked
from daemon.reconciling.lightning import Looked
from daemon.reconciling.requests import ReconciliationRequests
from daemon.reconciling.rounds import FULL_AGAIN_S, STAYS_S, UNKNOWN, Rounds, next_nightly
from tests.unit.callers import FOREVER_S, Caller
from tests.unit.ingest.teller import eventually

NOON = datetime(2026, 9, 22, 12, 0, tzinfo=UTC)
LOOK, FULL_CHECK = ReconciliationAsked(full=False), ReconciliationAsked(full=True)


class FakeLightning:
    """A side that a test writes; `looks` counts."""

    def __init__(self) -> None:
        self.unknown_msat = 0
        self.steady = True
        self.away = ""
        self.looks = 0
        self.rechecks = 0

    async def look(self) -> Looked:
        """What the test has written."""
        await trio.lowlevel.checkpoint()
        self.looks += 1
        if self.away:
            return Looked(side=None, steady=False, sequence=self.looks, problem=self.away)
        sent = Item(kind=ItemKind.SENT, reference="x", amount_msat=-700)
        side = Side(account=LIGHTNING, books_msat=10_000, nodes_msat=9_300 + self.unknown_msat, items=(sent,))
        return Looked(side=side, steady=self.steady, sequence=self.looks)

    async def recheck(self) -> None:
        """Counted."""
        await trio.lowlevel.checkpoint()
        self.rechecks += 1


class FakeCoins:
    """The chain's side, likewise."""

    def __init__(self) -> None:
        self.unknown_msat = 0

    async def look(self) -> CoinsLooked:
        """What the test has written."""
        await trio.lowlevel.checkpoint()
        return CoinsLooked(side=Side(account=ON_CHAIN, books_msat=0, nodes_msat=self.unknown_msat), steady=True)


class FakeInvoices:
    """A pass that ends when the test lets it."""

    def __init__(self) -> None:
        self.passes = 0
        self.may_end = trio.Event()
        self.may_end.set()

    async def run(self) -> InvoicesChecked:
        """One pass."""
        self.passes += 1
        await self.may_end.wait()
        return InvoicesChecked(invoices=5, repeats=1, losses=2, unfinished=("lnd1: hung",))


class FakeDeposits:
    """Likewise."""

    async def run(self) -> DepositsChecked:
        """One pass."""
        await trio.lowlevel.checkpoint()
        return DepositsChecked(deposits=7, gaps=3)


@dataclass
class World:
    """The rounds with fakes around them, a store in memory, and a clock that a test sets."""

    lightning: FakeLightning = field(default_factory=FakeLightning)
    coins: FakeCoins = field(default_factory=FakeCoins)
    invoices: FakeInvoices = field(default_factory=FakeInvoices)
    status: ReconciliationStatus = field(default_factory=ReconciliationStatus)
    requests: ReconciliationRequests = field(default_factory=ReconciliationRequests)
    store: MemoryStore = field(default_factory=MemoryStore)
    now: datetime = NOON
    every_s: float = 0.001

    def rounds(self) -> Rounds:
        """As the composition root builds them."""
        return Rounds(
            lightning=self.lightning,
            invoices=[self.invoices],
            coins=self.coins,
            deposits=FakeDeposits(),
            gaps=self.store.gaps,
            requests=self.requests,
            status=self.status,
            now=lambda: self.now,
            every_s=self.every_s,
            nightly_at=time(3, 0),
        )

    def pass_time(self, seconds: float) -> None:
        """The wall clock."""
        self.now += timedelta(seconds=seconds)

    def gap(self, account: str = LIGHTNING) -> Gap | None:
        """What is kept of the account's difference."""
        return self.store.gaps.get([f"reconciliation:{account}"]).get(f"reconciliation:{account}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as a test needs it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.rounds().run, lambda: None)
            await eventually(lambda: self.status.looks > 0)
            yield
            nursery.cancel_scope.cancel()

    async def looked_again(self, times: int = 2) -> None:
        """Returns after so many more looks have begun and one less has ended."""
        before = self.status.looks
        await eventually(lambda: self.status.looks >= before + times)


async def in_thread(call: Callable[[], Reconciled | None]) -> Reconciled | None:
    """As an API thread asks."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


async def test_a_difference_that_stays_is_kept_and_one_that_goes_is_not() -> None:
    """It is a gap half a minute after it was first seen in a steady look, with its newest amount; 0 closes it."""
    world = World()
    rounds = world.rounds()
    world.lightning.unknown_msat = -400
    await rounds.look()
    assert (world.gap(), world.status.unknown_since_ms) == (None, int(NOON.timestamp() * 1000))
    world.pass_time(STAYS_S)
    world.lightning.unknown_msat = -500
    await rounds.look()
    gap = world.gap()
    assert gap is not None
    assert (gap.kind, gap.state, gap.amount_msat) == (UNKNOWN, GapState.OPEN, -500)
    assert gap.seen_at_ms == int(NOON.timestamp() * 1000)
    world.lightning.unknown_msat = 0
    await rounds.look()
    gap = world.gap()
    assert gap is not None
    assert (gap.state, gap.amount_msat) == (GapState.CLOSED, 0)
    assert world.status.unknown_since_ms is None


async def test_a_difference_that_comes_and_goes_is_no_gap() -> None:
    """What was on its way is there by the next look: the half minute begins anew."""
    world = World()
    rounds = world.rounds()
    for unknown_msat in (-400, 0, -400):
        world.lightning.unknown_msat = unknown_msat
        await rounds.look()
        world.pass_time(STAYS_S - 1)
    assert world.gap() is None


async def test_a_moment_that_is_not_steady_is_shown_and_not_judged() -> None:
    """Neither does it open a gap, nor close one."""
    world = World()
    rounds = world.rounds()
    world.lightning.unknown_msat = -400
    for steady in (False, True, False):
        world.lightning.steady = steady
        await rounds.look()
        world.pass_time(STAYS_S)
    assert world.gap() is None
    assert (world.status.looks, world.status.unsteady_looks) == (3, 2)
    assert world.status.last is not None
    assert world.status.last_steady is not None
    assert (world.status.last.steady, world.status.last_steady.unknown_msat) == (False, -400)


async def test_the_sides_are_judged_each_for_itself() -> None:
    """A node that is away does not hide what the chain lacks; and signs do not cancel out."""
    world = World()
    rounds = world.rounds()
    world.lightning.away, world.coins.unknown_msat = "lnd1: hung", 400
    for _ in range(2):
        await rounds.look()
        world.pass_time(STAYS_S)
    assert world.status.problem == "lnd1: hung"
    assert world.status.last is not None
    assert [side.account for side in world.status.last.sides] == [ON_CHAIN]
    chain = world.gap(ON_CHAIN)
    assert chain is not None
    assert (chain.amount_msat, world.gap()) == (400, None)


async def test_a_difference_that_stays_starts_a_full_check() -> None:
    """Once, and again only after ten minutes."""
    world = World()
    async with world.running():
        await world.looked_again()
        assert world.invoices.passes == 0
        world.lightning.unknown_msat = 1
        await world.looked_again()
        world.pass_time(STAYS_S)
        await eventually(lambda: world.invoices.passes == 1)
        world.pass_time(FULL_AGAIN_S - STAYS_S)
        await world.looked_again(4)
        assert world.invoices.passes == 1
        world.pass_time(STAYS_S)
        await eventually(lambda: world.invoices.passes == 2)


async def test_every_night_there_is_a_full_check() -> None:
    """At the time of day that is configured; what was found is told by node."""
    world = World()
    async with world.running():
        world.now = NOON.replace(hour=23)
        await world.looked_again()
        assert world.invoices.passes == 0
        world.now = NOON.replace(day=23, hour=3)
        await eventually(lambda: world.status.last_full is not None)
        await world.looked_again()
        assert world.invoices.passes == world.lightning.rechecks == 1
    full = world.status.last_full
    assert full is not None
    assert (full.invoices, full.deposits, full.repeats, full.losses, full.gaps) == (5, 7, 1, 2, 3)
    assert full.unfinished == ("lnd1: hung",)


async def test_who_asks_gets_a_look_that_began_after_the_question() -> None:
    """And does not wait for the minute."""
    world = World(every_s=3600.0)
    async with world.running():
        world.lightning.unknown_msat = 77
        answer = await in_thread(lambda: world.requests.ask(LOOK, timeout_s=10.0))
    assert answer is not None
    assert (answer.look.unknown_msat, answer.full_check) == (77, None)


async def test_looks_go_on_while_a_full_check_runs_and_who_asked_for_it_gets_both() -> None:
    """A pass over a million invoices takes minutes."""
    world = World()
    world.invoices.may_end = trio.Event()
    answers: list[Reconciled | None] = []
    async with world.running(), trio.open_nursery() as asking:

        async def ask() -> None:
            answers.append(await in_thread(lambda: world.requests.ask(FULL_CHECK, timeout_s=10.0)))

        asking.start_soon(ask)
        await eventually(lambda: world.invoices.passes == 1)
        await world.looked_again(3)
        assert answers == []
        world.lightning.unknown_msat = 77
        world.invoices.may_end.set()
    (answer,) = answers
    assert answer is not None
    assert answer.full_check is not None
    assert (answer.look.unknown_msat, answer.full_check.invoices) == (77, 5)


async def test_who_asks_where_nothing_is_compared_is_told() -> None:
    """On a standby nobody waits; who does when the rounds end is told to ask again."""
    world = World()
    world.invoices.may_end = trio.Event()
    with pytest.raises(Unavailable, match="does not lead"):
        world.requests.ask(LOOK, timeout_s=FOREVER_S)
    async with world.running():
        caller = Caller(world.requests, FULL_CHECK)
        await eventually(lambda: world.invoices.passes == 1)
    outage = await caller.ended()
    assert isinstance(outage, Unavailable)
    assert "ask again" in str(outage)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOON, NOON.replace(day=23, hour=3)),
        (NOON.replace(hour=2), NOON.replace(hour=3)),
        (NOON.replace(hour=3), NOON.replace(day=23, hour=3)),
    ],
)
def test_the_next_night_is_after_now(now: datetime, expected: datetime) -> None:
    """Today's if it is still to come."""
    assert next_nightly(now, time(3, 0)) == expected
