"""The rounds: a look each minute, a full check each night, when somebody asks, and when a difference stays unknown.

Runs in the leader only. A look compares each account with its nodes; what it cannot explain, and what is still there
half a minute later, is kept as a gap, one per account, until it is 0 again. Nothing is mended here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Final, Protocol, TypeVar

import structlog
import trio

from daemon.domain.books import Gap, GapState
from daemon.domain.ports import Gaps
from daemon.domain.reconciliation import (
    FullCheck,
    Holding,
    Reconciled,
    Reconciliation,
    ReconciliationAsked,
    ReconciliationStatus,
    Side,
)
from daemon.reconciling.requests import ReconciliationRequests
from daemon.requests import Request

STAYS_S: Final = 30.0
"""A difference that is explained within this time was on its way: between a node's commitment and its event, between
another program's two journals."""

SOON_S: Final = 5.0
"""After a look that a node could not be part of, because it is away or not opened yet: not the whole minute."""

FULL_AGAIN_S: Final = 600.0
"""A full check that a difference has started is not repeated sooner for the same reason."""

UNKNOWN: Final = "unknown_difference"
"""The kind of gap."""

_Answer = TypeVar("_Answer")

log = structlog.get_logger()


class LookedLike(Protocol):
    """What the look at one account has found; `side` None: there is nothing to show, as `problem` says."""

    @property
    def side(self) -> Side | None: ...
    @property
    def steady(self) -> bool: ...
    @property
    def problem(self) -> str: ...


class LightningLookedLike(LookedLike, Protocol):
    """With what the nodes hold, and the feed's position."""

    @property
    def sequence(self) -> int: ...
    @property
    def holdings(self) -> tuple[Holding, ...]: ...


class Lightning(Protocol):
    """`daemon.reconciling.lightning.LightningSide`."""

    async def look(self) -> LightningLookedLike:
        """One look."""
        ...

    async def recheck(self) -> None:
        """Compares what was explained once with the journals of now."""
        ...


class Coins(Protocol):
    """`daemon.reconciling.coins.CoinSide`."""

    async def look(self) -> LookedLike:
        """One look."""
        ...


class InvoicesCheckedLike(Protocol):
    """What a pass over a node's invoices has found."""

    @property
    def invoices(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def losses(self) -> int: ...
    @property
    def unfinished(self) -> tuple[str, ...]: ...


class InvoiceCheck(Protocol):
    """`daemon.reconciling.invoices.InvoiceCheck`, of one node."""

    async def run(self) -> InvoicesCheckedLike:
        """One pass."""
        ...


class DepositsCheckedLike(Protocol):
    """What a pass over all deposits has found."""

    @property
    def deposits(self) -> int: ...
    @property
    def gaps(self) -> int: ...
    @property
    def unfinished(self) -> tuple[str, ...]: ...


class DepositCheck(Protocol):
    """`daemon.reconciling.deposits.DepositCheck`."""

    async def run(self) -> DepositsCheckedLike:
        """One pass."""
        ...


@dataclass(kw_only=True, slots=True)
class Rounds:
    """`coins` and `deposits` are None where no chain is followed. `now` is the wall clock, in UTC."""

    lightning: Lightning
    invoices: Sequence[InvoiceCheck]
    coins: Coins | None
    deposits: DepositCheck | None
    gaps: Gaps
    requests: ReconciliationRequests
    status: ReconciliationStatus
    now: Callable[[], datetime]
    every_s: float
    nightly_at: time
    stays_s: float = STAYS_S
    _busy: trio.Lock = field(default_factory=trio.Lock)
    """Looks take turns: one of the full check's end, and the minute's."""
    _thread: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))
    _unknown_since_ms: dict[str, int] = field(default_factory=dict)
    _full_wanted: trio.Event = field(default_factory=trio.Event)
    _full_asked: list[Request[ReconciliationAsked, Reconciled]] = field(default_factory=list)
    _full_for_unknown_at_ms: int | None = None

    async def run(self, healthy: Callable[[], None]) -> None:
        """Never returns. Raises Unavailable when the store is away (`daemon.supervision` starts it again)."""
        self._unknown_since_ms.clear()
        self._full_asked.clear()
        self._full_wanted = trio.Event()
        with self.requests.open():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._full_checks)
                await self._looks(healthy)

    async def _looks(self, healthy: Callable[[], None]) -> None:
        tonight = next_nightly(self.now(), self.nightly_at)
        while True:
            asked = self.requests.take()
            look = await self.look()
            healthy()
            for request in asked:
                if request.question.full:
                    self._full_asked.append(request)
                    self._full_wanted.set()
                else:
                    request.answer(Reconciled(look=look))
            if self.now() >= tonight:
                tonight = next_nightly(self.now(), self.nightly_at)
                self._full_wanted.set()
            if self._stays_unknown():
                self._full_wanted.set()
            with trio.move_on_after(min(self.every_s, SOON_S) if self.status.problem else self.every_s):
                await self.requests.wait()

    async def look(self) -> Reconciliation:
        """Compares every account with its nodes, and shows and keeps what is found."""
        async with self._busy:
            lightning = await self.lightning.look()
            coins = None if self.coins is None else await self.coins.look()
            found: list[LookedLike] = [lightning] if coins is None else [lightning, coins]
            look = Reconciliation(
                at_ms=self._now_ms(),
                sequence=lightning.sequence,
                steady=all(one.steady for one in found),
                sides=tuple(one.side for one in found if one.side is not None),
                holdings=lightning.holdings,
            )
            self._show(look, "; ".join(one.problem for one in found if one.problem))
            for one in found:
                if one.steady and one.side is not None:
                    await self._judge(one.side)
            self.status.unknown_since_ms = min(self._unknown_since_ms.values(), default=None)
            return look

    def _show(self, look: Reconciliation, problem: str) -> None:
        status = self.status
        status.last, status.problem = look, problem
        status.looks += 1
        if look.steady:
            status.last_steady = look
        else:
            status.unsteady_looks += 1

    async def _judge(self, side: Side) -> None:
        """A steady side: a gap where the difference stays unknown, and none where it is 0."""
        if side.unknown_msat == 0:
            self._unknown_since_ms.pop(side.account, None)
            await self._run(lambda: self._close_gap(side.account))
            return
        now_ms = self._now_ms()
        since_ms = self._unknown_since_ms.setdefault(side.account, now_ms)
        if now_ms - since_ms >= self.stays_s * 1000:
            await self._run(lambda: self._keep_gap(side, since_ms))

    def _keep_gap(self, side: Side, since_ms: int) -> None:
        key = _gap_key(side.account)
        known = self.gaps.get([key]).get(key)
        is_open = known is not None and known.state is GapState.OPEN
        if is_open and known is not None and known.amount_msat == side.unknown_msat:
            return
        log.warning("reconciliation.unknown", account=side.account, unknown_msat=side.unknown_msat)
        detail = (
            f"the nodes' {side.nodes_msat} msat less the books' {side.books_msat} msat, and nothing explains the rest"
        )
        gap = Gap(
            key=key,
            kind=UNKNOWN,
            detail=detail,
            amount_msat=side.unknown_msat,
            seen_at_ms=since_ms,
            reference=side.account,
        )
        self.gaps.put([gap])

    def _close_gap(self, account: str) -> None:
        key = _gap_key(account)
        known = self.gaps.get([key]).get(key)
        if known is not None and known.state is not GapState.CLOSED:
            log.info("reconciliation.explained", account=account, was_msat=known.amount_msat)
            self.gaps.put([replace(known, state=GapState.CLOSED, amount_msat=0)])

    def _stays_unknown(self) -> bool:
        """Whether a full check is due because of a difference; once, and then every ten minutes."""
        now_ms = self._now_ms()
        since_ms = min(self._unknown_since_ms.values(), default=None)
        if since_ms is None or now_ms - since_ms < self.stays_s * 1000:
            return False
        last_ms = self._full_for_unknown_at_ms
        if last_ms is not None and now_ms - last_ms < FULL_AGAIN_S * 1000:
            return False
        self._full_for_unknown_at_ms = now_ms
        return True

    async def _full_checks(self) -> None:
        """One at a time; who asks while one runs gets the next, for his question may be newer than what it has seen."""
        while True:
            await self._full_wanted.wait()
            self._full_wanted = trio.Event()
            asked, self._full_asked = self._full_asked, []
            check = await self._full_check()
            self.status.last_full = check
            look = await self.look()
            for request in asked:
                request.answer(Reconciled(look=look, full_check=check))

    async def _full_check(self) -> FullCheck:
        began_at_ms = self._now_ms()
        log.info("reconciliation.full_check_began")
        await self.lightning.recheck()
        invoices = [await check.run() for check in self.invoices]
        deposits = None if self.deposits is None else await self.deposits.run()
        unfinished = [why for one in invoices for why in one.unfinished]
        check = FullCheck(
            began_at_ms=began_at_ms,
            ended_at_ms=self._now_ms(),
            invoices=sum(one.invoices for one in invoices),
            repeats=sum(one.repeats for one in invoices),
            losses=sum(one.losses for one in invoices),
            deposits=0 if deposits is None else deposits.deposits,
            gaps=0 if deposits is None else deposits.gaps,
            unfinished=(*unfinished, *(() if deposits is None else deposits.unfinished)),
        )
        log.info(
            "reconciliation.full_check_ended",
            invoices=check.invoices,
            deposits=check.deposits,
            repeats=check.repeats,
            losses=check.losses,
            gaps=check.gaps,
            unfinished=list(check.unfinished),
        )
        return check

    def _now_ms(self) -> int:
        return int(self.now().timestamp() * 1000)

    async def _run(self, call: Callable[[], _Answer]) -> _Answer:
        """Observations that may be repeated: a call whose caller is cancelled is left to its deadline."""
        return await trio.to_thread.run_sync(call, limiter=self._thread, abandon_on_cancel=True)


def next_nightly(now: datetime, at: time) -> datetime:
    """The next moment after `now` with this time of day, in UTC."""
    tonight = datetime.combine(now.date(), at, tzinfo=now.tzinfo)
    return tonight if tonight > now else tonight + timedelta(days=1)


def _gap_key(account: str) -> str:
    return f"reconciliation:{account}"
