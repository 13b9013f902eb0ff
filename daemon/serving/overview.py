"""What the page for people shows: this process from memory, the books from the database.

The books are read in a thread of their own, one reading at a time and never more than a tenth of the time: neither
many viewers nor a database that hangs may cost payments anything, or keep health checks from the HTTP port's places.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from daemon.domain.accounts import SUSPENSE
from daemon.domain.books import Gap, GapState, Head
from daemon.domain.chain import Deposit, DepositState
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Unavailable
from daemon.domain.money import Currency
from daemon.domain.ports import LeaseView, StoredEvent, StoreInfo, TrialBalancePage
from daemon.domain.reconciliation import FullCheck, Reconciliation
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.api import Api
from daemon.serving.gate import Role
from daemon.serving.heartbeat import Heartbeat

EVENTS_SHOWN: Final = 20
ACCOUNTS_SHOWN: Final = 50
DEPOSITS_SHOWN: Final = 10
GAPS_SHOWN: Final = 10
"""A page that a person reads at a glance; everything is in the API."""

WAIT_S: Final = 4.0
"""For a reading that is under way; a little more than the database's own deadline (3 s), so that its reason shows."""

MAX_WAITING: Final = 2
"""Viewers who wait at once; the others get the last reading. The port has few places, and health checks need some."""

LEAST_PAUSE_S: Final = 2.0
PAUSE_FACTOR: Final = 9
"""Between two readings: so many times what the last one took, which a million accounts can make a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksView:
    """What the database says, read at about one moment; events and deposits are newest first.

    `deposits` are the first that are not settled, `pending_count` and `pending_sat` count all of them; both are
    nothing without [bitcoind]. `suspense_sat` waits for somebody to say whose it is. `gaps` are the newest that are
    open, `open_gaps` counts all of them.
    """

    read_at: datetime
    store: StoreInfo
    head: Head
    lease: LeaseView | None
    events: Sequence[StoredEvent]
    accounts: TrialBalancePage
    suspense_sat: int
    deposits: Sequence[Deposit]
    pending_count: int
    pending_sat: int
    gaps: Sequence[Gap]
    open_gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationView:
    """Books against nodes, as last compared while nothing moved; `problem` says why that is not done now, empty if it
    is. None is what has not been yet."""

    steady: Reconciliation | None
    full_check: FullCheck | None
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that the page shows. `refusal` says why the API does not serve, None while it does.

    `cursors` stand beside `nodes`, None where this process has read none. `reconciliation` is None on a standby, which
    compares nothing. `books` are the last that could be read,
    None if none could; `books_problem` says why they are not of this moment, empty if they are.
    """

    now: datetime
    network: str
    version: str
    started_at: datetime
    role: Role
    refusal: str | None
    loop_age_s: float
    nodes: Sequence[NodeStatus]
    cursors: Sequence[LndCursor | None]
    chain: ChainStatus | None
    reconciliation: ReconciliationView | None
    books: BooksView | None
    books_problem: str


def read_books(api: Api) -> BooksView:
    """Reads everything, newest head first; blocks. Raises Unavailable."""
    store = api.store.probe()
    head = api.ledger.head()
    events = api.ledger.events(after_sequence=max(0, head.sequence - EVENTS_SHOWN), limit=EVENTS_SHOWN)
    waiting, deposits = (0, 0), list[Deposit]()
    if api.on_chain is not None:
        waiting = api.on_chain.deposits.waiting()
        unsettled = (DepositState.DETECTED, DepositState.CONFIRMED)
        found, _ = api.on_chain.deposits.page(wallet_id=None, states=unsettled, after=None, limit=DEPOSITS_SHOWN)
        deposits = list(found)
    return BooksView(
        read_at=api.now(),
        store=store,
        head=head,
        lease=api.leases.current(),
        events=list(reversed(events)),
        accounts=api.ledger.trial_balance(after=None, limit=ACCOUNTS_SHOWN),
        suspense_sat=api.ledger.balance((SUSPENSE, Currency.BTC.value))[0],
        deposits=deposits,
        pending_count=waiting[0],
        pending_sat=waiting[1],
        gaps=api.gaps.page(states=(GapState.OPEN,), after=None, limit=GAPS_SHOWN)[0],
        open_gaps=sum(count for (_, state), (count, _) in api.gaps.totals().items() if state is GapState.OPEN),
    )


class BooksReader:
    """The last reading, renewed when somebody asks; for any thread."""

    def __init__(self, read: Callable[[], BooksView], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`read` raises Unavailable; anything else it raises, whoever waits for it gets."""
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_WAITING)
        self._running: Future[None] | None = None
        self._last: BooksView | None = None
        self._problem = "not read yet"
        self._next_at = clock()

    def latest(self, *, wait_s: float = WAIT_S) -> tuple[BooksView | None, str]:
        """The newest reading, None if none succeeded, and why it is not of this moment (empty if it is)."""
        with self._lock:
            if self._running is None and self._clock() >= self._next_at:
                self._start()
            running = self._running
        if running is not None and not self._has_ended(running, wait_s):
            return self._last, f"the database has not answered yet, after {wait_s:g} s"
        with self._lock:
            return self._last, self._problem

    def _has_ended(self, running: Future[None], wait_s: float) -> bool:
        if not self._places.acquire(blocking=False):
            return running.done()
        try:
            running.result(timeout=wait_s)
        except TimeoutError:
            return False
        finally:
            self._places.release()
        return True

    def _start(self) -> None:
        self._running = Future()
        # A daemon thread: a database that hangs must not hold up the end of the process.
        threading.Thread(target=self._run, args=(self._running,), name="page", daemon=True).start()

    def _run(self, running: Future[None]) -> None:
        started = self._clock()
        last, problem, bug = self._last, "", None
        try:
            last = self._read()
        except Unavailable as outage:
            problem = str(outage)
        except BaseException as error:  # noqa: ASYNC103, BLE001 (not lost: whoever waits gets it)
            problem, bug = "reading failed, see the log", error
        with self._lock:
            self._last, self._problem, self._running = last, problem, None
            ended = self._clock()
            self._next_at = ended + max(LEAST_PAUSE_S, PAUSE_FACTOR * (ended - started))
        if bug is None:
            running.set_result(None)
        else:
            running.set_exception(bug)


def overview(api: Api, heartbeat: Heartbeat, reader: BooksReader) -> Overview:
    """The present state; takes no longer than `WAIT_S`."""
    books, problem = None, "tellerd starts: the database was not reached yet"
    if api.gate.role is not Role.STARTING:
        books, problem = reader.latest()
    return Overview(
        now=api.now(),
        network=api.network,
        version=api.version,
        started_at=api.started_at,
        role=api.gate.role,
        refusal=api.gate.refusal(),
        loop_age_s=heartbeat.age_s,
        nodes=api.node_statuses,
        cursors=[None if node.pubkey is None else api.board.cursor(node.pubkey) for node in api.node_statuses],
        chain=None if api.on_chain is None else api.on_chain.status,
        reconciliation=_reconciliation(api) if api.gate.role is Role.LEADER else None,
        books=books,
        books_problem=problem,
    )


def _reconciliation(api: Api) -> ReconciliationView:
    status = api.reconciliation
    return ReconciliationView(steady=status.last_steady, full_check=status.last_full, problem=status.problem)
