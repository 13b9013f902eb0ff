"""The settle stream of one LND: a thread reads gRPC, Trio takes what has arrived, all at once.

When does a subscription stand? LND sends no header before the first message, so the stream itself says
nothing while nothing settles. LND registers the subscriber as the first thing its handler does, before it
reads the backlog (invoiceregistry.go, SubscribeNotifications). So
- with an index of 1 or more the question does not arise: the backlog is read after the registration and holds
  all that settled before it;
- with 0 there is no backlog, and the handler must have begun. GetInfo is sent after the subscription on the
  same HTTP/2 connection, passes the same interceptors (macaroon, state) and does more than they do, and
  `_HANDLER_START_S` follows. That is no proof: a Go scheduler may do otherwise. What would slip through is
  found by what is built on top: whoever starts with 0 lists afterwards, a hole in the indexes starts a listing,
  and the opening lists the newest invoices again between two equal looks at the funds (`daemon.ingest.opening`).

Which settlements are live? LND marks none, but it gives a stream its whole backlog before anything that happens
meanwhile, in one queue (invoiceregistry.go, deliverBacklogEvents), and a stream without a backlog of added invoices is
told only of those that are added while it stands. So whatever follows the first added invoice was settled by the LND
that runs now, after the stream began: no crash lies between. An AMP invoice that is open may be told for a set that
settled, and is told as SETTLED then.

GetInfo also says whose settlements these are: the answer came over the connection of the stream, so an address
that begins to answer for another node cannot mix up two nodes' events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import grpc
import trio

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection, Wire
from adapters.lnd.invoices import settlements
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import NodePubkey
from daemon.domain.node_events import InvoiceSettled

MAX_BUFFERED: Final = 10_000
"""Settlements read and not yet taken, some 5 MB. Beyond it the thread stops reading; gRPC's flow control then
holds them at LND, whose queue per subscriber has no bound (node-interfaces.md A.1): nothing is lost."""

_HANDLER_START_S: Final = 0.1
"""LND's handler starts in about a millisecond; see above for what it means if it does not. A stream that LND
refuses has ended by then, too."""

_GATHER_S: Final = 0.005
"""Between two takes at least: under load a wake-up of Trio for each settlement would cost more than reading
it. It is less than a commit takes, and the first after a pause is taken at once all the same."""

_THREADS: Final = 1
"""A stream has one reader."""


class Buffer:
    """Between the reading thread and Trio; `wake` is called when the first of a batch arrives."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[InvoiceSettled] = []
        self._broken: str | None = None
        self._closed = False

    def put(self, events: Sequence[InvoiceSettled]) -> bool:
        """Adds events, waiting while the buffer is full; True if Trio has to be woken."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < MAX_BUFFERED)
            first = not self._waiting
            self._waiting.extend(events)
            return first

    def break_off(self, why: str) -> None:
        """No more will come."""
        with self._changed:
            self._broken = why

    @property
    def ended(self) -> str | None:
        """Why no more will come, once everything is taken."""
        with self._changed:
            return None if self._waiting else self._broken

    def has_news(self) -> bool:
        """Whether `take` has something to give or to raise."""
        with self._changed:
            return bool(self._waiting) or self._broken is not None

    def close(self) -> None:
        """Nobody will take any more: a waiting reader goes on, to its end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[InvoiceSettled]:
        """All that has arrived, maybe nothing; raises Unavailable after the last one of a broken stream."""
        with self._changed:
            if not self._waiting and self._broken is not None:
                raise Unavailable(self._broken)
            taken, self._waiting = self._waiting, []
            self._changed.notify_all()
            return taken


class Batches:
    """The iteration: each step takes everything that has arrived."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._arrived = trio.Event()
        self._next_take_at = trio.current_time()

    def wake(self) -> None:
        """Something has arrived, or the stream broke; from Trio's thread."""
        self._arrived.set()

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> Sequence[InvoiceSettled]:
        while True:
            # The next wake-up must find this event, so it is made before the look.
            self._arrived = trio.Event()
            if self._buffer.has_news():
                break
            await self._arrived.wait()
        await trio.sleep_until(self._next_take_at)
        taken = self._buffer.take()
        self._next_take_at = trio.current_time() + _GATHER_S
        return taken


@asynccontextmanager
async def settle_stream(
    connection: Connection, *, after_settle_index: int, info_timeout_s: float, wallet_record: int | None
) -> AsyncIterator[Batches]:
    """See `LightningNode.settlements`; `wallet_record` as in `adapters.lnd.invoices.settlements`. Leaving it ends the
    call, and with it the thread."""
    wire = connection.wire()
    request = pb.InvoiceSubscription(add_index=0, settle_index=after_settle_index)
    # add_index 0: no backlog of added invoices. Millions of them took LND hours (node-interfaces.md A.1).
    call = wire.lightning.SubscribeInvoices(request, metadata=wire.metadata)
    buffer = Buffer()
    batches = Batches(buffer)
    try:
        pubkey = await _ask_pubkey(connection, wire, info_timeout_s)
        async with trio.open_nursery() as nursery:
            to_events = partial(settlements, pubkey=pubkey, wallet_record=wallet_record)
            nursery.start_soon(_read, connection, call, buffer, batches, to_events)
            try:
                await trio.sleep(_HANDLER_START_S)
                refusal = buffer.ended
                if refusal is None:
                    yield batches
            finally:
                buffer.close()
                call.cancel()
                nursery.cancel_scope.cancel()
        if refusal is not None:
            raise Unavailable(refusal)  # outside: the nursery would wrap it in a group
    finally:
        call.cancel()


async def _ask_pubkey(connection: Connection, wire: Wire, timeout_s: float) -> NodePubkey:
    """Whose stream this is. Raises Unavailable."""

    def ask() -> NodePubkey:
        try:
            info = wire.lightning.GetInfo(pb.GetInfoRequest(), timeout=timeout_s, metadata=wire.metadata)
        except grpc.RpcError as error:
            raise connection.failure(error, call="GetInfo") from error
        return NodePubkey(info.identity_pubkey)

    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=trio.CapacityLimiter(_THREADS))


async def _read(
    connection: Connection,
    call: Iterable[pb.Invoice],
    buffer: Buffer,
    batches: Batches,
    to_events: Callable[..., Sequence[InvoiceSettled]],
) -> None:
    """Runs the reading thread; it ends when the call does."""
    token = trio.lowlevel.current_trio_token()

    def read() -> None:
        live = False
        try:
            for invoice in call:
                # An invoice that was added, not settled, gives no events.
                events = to_events(invoice, seen_at_ns=time.monotonic_ns(), live=live)
                live = live or (not events and invoice.state == pb.Invoice.OPEN)
                if events and buffer.put(events):
                    token.run_sync_soon(batches.wake)
            why = f"{connection.name} ended the stream: it is shutting down"
        except grpc.RpcError as error:
            why = str(connection.failure(error, call="SubscribeInvoices"))
        # LND ends the stream with OK when it shuts down cleanly (node-interfaces.md A.0).
        buffer.break_off(why)
        token.run_sync_soon(batches.wake)

    await trio.to_thread.run_sync(read, limiter=trio.CapacityLimiter(_THREADS))
