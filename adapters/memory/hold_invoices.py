"""Watches over the memory node's single invoices, as LND's SubscribeSingleInvoice streams tell of them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from adapters.memory.waking import Waking
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import HoldState, InvoiceState, NodeInvoice

MAX_WATCHED = 20_000
"""As adapters.lnd has it; a test may lower it."""


def hold_state(invoice: NodeInvoice) -> HoldState:
    """What the invoice's own stream says of it."""
    return invoice.hold or HoldState(
        payment_hash=invoice.payment_hash,
        state=invoice.state,
        is_hold=False,
        received_msat=0,
        expiry_height=0,
        accepted_at_s=0,
        created_at_s=invoice.created_at_s,
        expiry_s=invoice.expiry_s,
    )


class MemoryHoldWatch:
    """See `daemon.domain.ports.HoldWatch`."""

    def __init__(self, look_up: Callable[[PaymentHash], NodeInvoice | None], max_watched: int) -> None:
        self._look_up = look_up
        self._max_watched = max_watched
        self._lock = threading.Lock()
        self._watched: set[PaymentHash] = set()
        self._waiting: dict[PaymentHash, HoldState] = {}
        self._broken: str | None = None
        self._waking = Waking()

    def watch(self, payment_hash: PaymentHash, *, held: bool = False) -> bool:
        if payment_hash in self._watched:
            return True
        if len(self._watched) >= self._max_watched and not held:
            return False
        self._watched.add(payment_hash)
        invoice = self._look_up(payment_hash)
        if invoice is not None:
            self.tell(invoice)
        return True

    def unwatch(self, payment_hash: PaymentHash) -> None:
        self._watched.discard(payment_hash)
        with self._lock:
            self._waiting.pop(payment_hash, None)

    @property
    def watched(self) -> int:
        return len(self._watched)

    def tell(self, invoice: NodeInvoice) -> None:
        """The invoice has changed; from any thread, under the node's lock."""
        if invoice.payment_hash in self._watched:
            with self._lock:
                self._waiting[invoice.payment_hash] = hold_state(invoice)
            self._waking.wake()

    def break_off(self, why: str) -> None:
        """The node is gone."""
        self._broken = why
        self._waking.wake()

    def __aiter__(self) -> MemoryHoldWatch:
        return self

    async def __anext__(self) -> Sequence[HoldState]:
        await self._waking.wait_until(lambda: bool(self._waiting) or self._broken is not None)
        if not self._waiting:
            raise Unavailable(f"memory node: {self._broken}")
        with self._lock:
            taken, self._waiting = list(self._waiting.values()), {}
        self._watched.difference_update(state.payment_hash for state in taken if state.is_final)
        return taken


class MemoryHolds:
    """All watches of a node. `height` is its newest block."""

    def __init__(self) -> None:
        self.height = 150
        self.max_watched = MAX_WATCHED
        self.settle_calls: list[PaymentHash] = []
        """Payment hashes of every SettleInvoice."""
        self._watches: list[MemoryHoldWatch] = []

    @asynccontextmanager
    async def open(self, look_up: Callable[[PaymentHash], NodeInvoice | None]) -> AsyncIterator[MemoryHoldWatch]:
        """One watch."""
        await trio.lowlevel.checkpoint()
        watch = MemoryHoldWatch(look_up, self.max_watched)
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    def tell(self, invoice: NodeInvoice) -> None:
        """An invoice has changed."""
        for watch in self._watches:
            watch.tell(invoice)

    def break_off(self, why: str) -> None:
        """The node is gone."""
        for watch in self._watches:
            watch.break_off(why)

    @property
    def watched(self) -> int:
        """Invoices that are watched now, of all watches."""
        return sum(watch.watched for watch in self._watches)

    def accepted(self, invoice: NodeInvoice, received_msat: int, expiry_height: int, now_s: int) -> HoldState:
        """The state of an invoice for which an HTLC is held."""
        return HoldState(
            payment_hash=invoice.payment_hash,
            state=InvoiceState.ACCEPTED,
            is_hold=True,
            received_msat=received_msat,
            expiry_height=expiry_height or self.height + 80,
            accepted_at_s=now_s,
            created_at_s=invoice.created_at_s,
            expiry_s=invoice.expiry_s,
        )
