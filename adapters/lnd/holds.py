"""The watch over hold invoices: thousands of SubscribeSingleInvoice streams, one event loop, one thread of ours.

LND tells ACCEPTED and CANCELED on an invoice's own stream only (node-interfaces.md A.1), and grpcio's synchronous
API needs a thread for each. So here, and nowhere else, grpc.aio runs: in the one event loop of the process
(event_loop.py), over a connection of its own. 5,000 streams were seen to have their first states after 1.6 s, at
208 MiB (A.0).

A stream gives the invoice's present state first, then each change; of one that the node does not know, nothing
until it is added. LND ends it with OK after a final state, and also when it shuts down: any end without a final
state breaks the watch as a whole, and whoever watches begins anew. Messages are reduced to `HoldState` where they
are read; of each invoice only the newest state waits to be taken.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc
import grpc.aio
import trio

from adapters.lnd import event_loop
from adapters.lnd._pb import invoices_pb2 as invoices_pb
from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection
from adapters.lnd.invoices import hold_state
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import HoldState

MAX_WATCHED: Final = 20_000
"""Streams of one node: 715 MiB here, and LND compares each event with all of them (node-interfaces.md A.0, A.2).
Beyond it whoever watches is told so, and has to look up what is held."""

OPEN_AT_ONCE: Final = 100
OPEN_PAUSE_S: Final = 0.01
"""Streams are begun in groups with a pause: at most 10,000 a second, about three times of what LND answers, so that
its own work, and the states that have come already, get their turn."""

_GATHER_S: Final = 0.005
"""Between two takes at least, as for settlements (stream.py); the first after a pause is taken at once."""

_START_S: Final = 60.0
"""An event loop starts in milliseconds; a machine that is starved of its processors was seen to take over 10 s."""

_STOP_S: Final = 5.0
"""Streams end in milliseconds, thousands of them in a second. Those of a loop that hangs are left to the end of the
process, which must not wait for them."""

_METHOD: Final = "/invoicesrpc.Invoices/SubscribeSingleInvoice"


def _read_state(message: bytes) -> HoldState:
    return hold_state(pb.Invoice.FromString(message), seen_at_ns=time.monotonic_ns())


class _Inbox:
    """Between the event loop and Trio: the newest state of each invoice, and how the watch broke."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[PaymentHash, HoldState] = {}
        self._broken: str | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._arrived = trio.Event()

    def put(self, state: HoldState) -> None:
        """A newer state takes the place of one that nobody has taken."""
        with self._lock:
            first = not self._waiting
            self._waiting[state.payment_hash] = state
        if first:
            self._wake()

    def break_off(self, why: str) -> None:
        """No more will come; the first reason counts."""
        with self._lock:
            self._broken = self._broken or why
        self._wake()

    async def take(self) -> Sequence[HoldState]:
        """All that has come, at least one. Raises Unavailable after the last of a broken watch."""
        while True:
            # The next wake-up must find this event, so it is made before the look.
            self._arrived = arrived = trio.Event()
            with self._lock:
                taken, self._waiting = self._waiting, {}
                broken = self._broken
            if taken:
                return list(taken.values())
            if broken is not None:
                raise Unavailable(broken)
            await arrived.wait()

    def _wake(self) -> None:
        try:
            self._token.run_sync_soon(self._set_arrived)
        except trio.RunFinishedError:
            pass  # nobody is left who could wait

    def _set_arrived(self) -> None:
        self._arrived.set()


class _Streams:
    """The side of the event loop. What begins with an underscore runs in its thread."""

    def __init__(self, connection: Connection, inbox: _Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._to_open: deque[PaymentHash] = deque()  # bounded by the watch
        self._tasks: dict[PaymentHash, asyncio.Task[None]] = {}
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None
        self._stopping = False

    def run(self) -> None:
        """Serves the streams from the shared event loop and blocks meanwhile; returns after `stop`."""
        try:
            event_loop.shared().run(self._run())
        except Unavailable as problem:  # a file that cannot be read
            self._inbox.break_off(str(problem))
        finally:
            self._started.set()

    def wait_started(self) -> None:
        """Blocks until `open`, `end` and `stop` may be called."""
        if not self._started.wait(_START_S):
            raise InvariantViolation("the event loop of the hold invoices does not start")

    def open(self, payment_hash: PaymentHash) -> None:
        """Begins a stream soon; from any thread."""
        self.call_soon(lambda: self._take_order(payment_hash, begin=True))

    def end(self, payment_hash: PaymentHash) -> None:
        """Ends a stream soon; from any thread."""
        self.call_soon(lambda: self._take_order(payment_hash, begin=False))

    def stop(self) -> None:
        """Ends all streams soon; from any thread, also before they have begun."""
        self._stopping = True  # first: a loop that is only just beginning looks at it, and is not reached otherwise
        self.call_soon(self._stop)

    def call_soon(self, what: Callable[[], None]) -> None:
        """Runs it in the loop's thread; not at all if the process is about to end."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            pass  # the loop has ended with the process

    def _stop(self) -> None:
        self._stopping = True
        self._wake()

    def _take_order(self, payment_hash: PaymentHash, *, begin: bool) -> None:
        if begin:
            self._to_open.append(payment_hash)
            self._wake()
        elif payment_hash in self._tasks:
            self._tasks.pop(payment_hash).cancel()
        elif payment_hash in self._to_open:
            self._to_open.remove(payment_hash)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    async def _run(self) -> None:
        channel, metadata = self._connection.open_async()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        subscribe = channel.unary_stream(
            _METHOD,
            request_serializer=invoices_pb.SubscribeSingleInvoiceRequest.SerializeToString,
            response_deserializer=_read_state,
        )
        # A mistake in one of them ends all, and with them the process.
        async with channel, asyncio.TaskGroup() as group:
            while not self._stopping:
                self._news.clear()
                for _ in range(min(OPEN_AT_ONCE, len(self._to_open))):
                    payment_hash = self._to_open.popleft()
                    request = invoices_pb.SubscribeSingleInvoiceRequest(r_hash=bytes.fromhex(payment_hash))
                    stream = aiter(subscribe(request, metadata=metadata))
                    self._tasks[payment_hash] = group.create_task(self._follow(payment_hash, stream))
                if self._to_open:
                    await asyncio.sleep(OPEN_PAUSE_S)
                else:
                    await self._news.wait()
            for task in self._tasks.values():
                task.cancel()

    async def _follow(self, payment_hash: PaymentHash, stream: AsyncIterator[HoldState]) -> None:
        last: HoldState | None = None
        try:
            async for state in stream:
                last = state
                self._inbox.put(state)
        except grpc.aio.AioRpcError as error:
            self._inbox.break_off(str(self._connection.failure(error, call="SubscribeSingleInvoice")))
            self._stop()
            return
        if last is None or not last.is_final:
            # LND ends its streams with OK when it shuts down cleanly (node-interfaces.md A.0).
            self._inbox.break_off(f"{self._connection.name} ended a hold invoice's stream: it is shutting down")
            self._stop()
            return
        if self._tasks.get(payment_hash) is asyncio.current_task():  # and not a newer one's
            del self._tasks[payment_hash]


class LndHoldWatch:
    """See `daemon.domain.ports.HoldWatch`."""

    def __init__(self, streams: _Streams, inbox: _Inbox) -> None:
        self._streams = streams
        self._inbox = inbox
        self._watched: set[PaymentHash] = set()
        self._next_take_at = trio.current_time()

    def watch(self, payment_hash: PaymentHash, *, held: bool = False) -> bool:
        if payment_hash in self._watched:
            return True
        if len(self._watched) >= MAX_WATCHED and not held:
            return False
        self._watched.add(payment_hash)
        self._streams.open(payment_hash)
        return True

    def unwatch(self, payment_hash: PaymentHash) -> None:
        if payment_hash in self._watched:
            self._watched.remove(payment_hash)
            self._streams.end(payment_hash)

    @property
    def watched(self) -> int:
        return len(self._watched)

    def __aiter__(self) -> LndHoldWatch:
        return self

    async def __anext__(self) -> Sequence[HoldState]:
        await trio.sleep_until(self._next_take_at)
        taken = await self._inbox.take()
        self._next_take_at = trio.current_time() + _GATHER_S
        self._watched.difference_update(state.payment_hash for state in taken if state.is_final)
        return taken


@asynccontextmanager
async def hold_watch(connection: Connection) -> AsyncIterator[LndHoldWatch]:
    """See `LightningNode.hold_watch`. Leaving it ends all streams."""
    inbox = _Inbox()
    streams = _Streams(connection, inbox)
    running = trio.CancelScope(shield=True)

    async def run() -> None:
        with running:
            await trio.to_thread.run_sync(streams.run, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            # Abandoned when cancelled: then the streams may never begin, and there is nothing to wait for.
            await trio.to_thread.run_sync(streams.wait_started, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
            yield LndHoldWatch(streams, inbox)
        finally:
            streams.stop()
            running.deadline = trio.current_time() + _STOP_S
