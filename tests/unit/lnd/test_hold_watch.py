"""The beginning and the end of a watch of hold invoices, and of its streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Self, cast

import pytest
import trio

from adapters.lnd import event_loop, holds
from adapters.lnd.connection import Connection
from adapters.lnd.holds import hold_watch
from daemon.domain.errors import InvariantViolation
from daemon.domain.ports import HoldState, InvoiceState
from tests.samples import hash_of

PATIENCE_S = 60.0
"""Never reached when all is well."""


def connection_to_nobody(folder: Path) -> Connection:
    return Connection(
        name="lnd1", address="127.0.0.1:1", tls_cert_file=folder / "tls.cert", macaroon_file=folder / "macaroon"
    )


async def test_a_watch_that_is_cancelled_while_it_begins_ends_at_once(tmp_path: Path) -> None:
    """The process ends for a reason of its own, as a node of another network: the watch must not give another one.

    Which of two tasks runs first is chance, so it is tried often enough for both.
    """
    connection = connection_to_nobody(tmp_path)

    async def watch(cancel: trio.CancelScope) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(cancel.cancel)
        async with hold_watch(connection):
            await trio.sleep_forever()

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)


class HungLoop:
    """An event loop that does nothing, until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.gave_up = False

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Blocks."""
        work.close()
        self.gave_up = not self.over.wait(PATIENCE_S)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> HungLoop:
    loop = HungLoop()
    monkeypatch.setattr(event_loop, "shared", lambda: loop)
    monkeypatch.setattr(holds, "_STOP_S", 0.01)
    return loop


async def test_a_loop_that_does_not_start_ends_the_process(
    hung: HungLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is left behind: whoever waited for it would never hear of the violation."""
    monkeypatch.setattr(holds, "_START_S", 0.01)
    with pytest.RaisesGroup(InvariantViolation):
        async with hold_watch(connection_to_nobody(tmp_path)):
            pass
    assert not hung.gave_up
    hung.over.set()


async def test_a_loop_that_hangs_does_not_keep_a_watch_from_being_cancelled(hung: HungLoop, tmp_path: Path) -> None:
    """Nor the process from ending."""
    with trio.move_on_after(0.01) as scope:
        async with hold_watch(connection_to_nobody(tmp_path)):
            pass
    assert scope.cancelled_caught
    assert not hung.gave_up
    hung.over.set()


def state_of(name: str, state: InvoiceState) -> HoldState:
    return HoldState(
        payment_hash=hash_of(name),
        state=state,
        is_hold=True,
        received_msat=0,
        expiry_height=0,
        accepted_at_s=0,
        created_at_s=0,
        expiry_s=3600,
        seen_at_ns=0,
    )


class Channel:
    """In the place of grpc.aio's: the first stream of an invoice ends only after its second one has begun."""

    name = "lnd1"

    def __init__(self) -> None:
        self.first_ended = threading.Event()
        self.second_canceled = threading.Event()
        self._second_began = asyncio.Event()
        self._streams = 0

    def open_async(self) -> tuple[Channel, None]:
        """As `Connection.open_async`."""
        return self, None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def unary_stream(self, *_: object, **__: object) -> Callable[..., AsyncIterator[HoldState]]:
        """What makes a stream."""
        return self._subscribe

    def _subscribe(self, *_: object, **__: object) -> AsyncIterator[HoldState]:
        self._streams += 1
        return self._first() if self._streams == 1 else self._second()

    async def _first(self) -> AsyncIterator[HoldState]:
        yield state_of("a", InvoiceState.CANCELED)
        await self._second_began.wait()
        self.first_ended.set()

    async def _second(self) -> AsyncIterator[HoldState]:
        self._second_began.set()
        yield state_of("a", InvoiceState.OPEN)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.second_canceled.set()
            raise


async def test_the_end_of_an_older_stream_leaves_the_newer_one_of_its_invoice_in_hand() -> None:
    """An invoice that is watched again while its first stream ends: it can still be given up."""
    channel = Channel()
    with trio.fail_after(3 * PATIENCE_S):
        async with hold_watch(cast("Connection", channel)) as watch:
            watch.watch(hash_of("a"))
            (state,) = await anext(watch)
            assert state.is_final
            watch.watch(hash_of("a"))
            assert await trio.to_thread.run_sync(channel.first_ended.wait, PATIENCE_S)
            watch.unwatch(hash_of("a"))
            assert await trio.to_thread.run_sync(channel.second_canceled.wait, PATIENCE_S)
