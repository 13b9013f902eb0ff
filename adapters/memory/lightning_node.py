"""A Lightning node in memory that behaves as LND was seen to behave (node-interfaces.md A.0, A.1)."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import InvoicePage, InvoiceState, NewInvoice, NodeFunds, NodeInfo, NodeInvoice

MAX_PENDING_BATCHES = 100_000
"""LND's queue per subscriber has no bound; the fake's stops a test that never reads."""


class _Subscriber:
    """One stream: what it has not read yet, and how it ends."""

    def __init__(self, after_settle_index: int) -> None:
        self.after_settle_index = after_settle_index
        self.pending: deque[Sequence[InvoiceSettled]] = deque()
        self.broken: str | None = None
        self.token = trio.lowlevel.current_trio_token()
        self.wake = trio.Event()

    def notify(self) -> None:
        """Wakes the reader, from its own thread or any other."""
        try:
            here = trio.lowlevel.current_trio_token() is self.token
        except RuntimeError:
            here = False
        if here:
            self.wake.set()
        else:
            self.token.run_sync_soon(self.wake.set)


class MemoryLightningNode:
    """See `daemon.domain.ports.LightningNode`; the other methods are the outside world's.

    `deliver_live` False keeps settlements from the streams (LND does not, the network may): a test then
    sends what it likes, in any order and as often as it likes, with `send`.
    """

    def __init__(
        self,
        *,
        name: str = "lnd1",
        pubkey: str = "02" * 33,
        funds_msat: int = 0,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._pubkey = NodePubkey(pubkey)
        self._now_s = now_s
        self._lock = threading.RLock()
        self._funds_msat = funds_msat
        self._invoices: dict[PaymentHash, NodeInvoice] = {}
        self._next_settle_index = 1
        self._made_by_hand = 0
        self._commitments = 0
        self._away: str | None = None
        self._subscribers: list[_Subscriber] = []
        self.deliver_live = True
        self.incoming_hashes: tuple[PaymentHash, ...] = ()

    # --- the port ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    def get_info(self) -> NodeInfo:
        with self._reachable():
            return NodeInfo(
                pubkey=self._pubkey,
                network="regtest",
                version="0.21.3-beta memory",
                synced_to_chain=True,
                block_height=150,
                stores_final_htlc_resolutions=True,
            )

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        with self._reachable():
            payment_hash = PaymentHash(hashlib.sha256(invoice.preimage).hexdigest())
            known = self._invoices.get(payment_hash)
            return known or self._add(payment_hash, invoice)

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        with self._reachable():
            return self._invoices.get(payment_hash)

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        with self._reachable():
            rest = [i for i in self._invoices.values() if i.add_index > after_add_index]
            page = tuple(rest[:limit])
            return InvoicePage(invoices=page, next_offset=page[-1].add_index if len(rest) > limit else 0)

    def funds(self) -> NodeFunds:
        with self._reachable():
            return NodeFunds(
                funds_msat=self._funds_msat,
                incoming_hashes=self.incoming_hashes,
                quiet_token=f"{self._pubkey}:{self._commitments}",
            )

    @asynccontextmanager
    async def settlements(self, *, after_settle_index: int) -> AsyncIterator[AsyncIterator[Sequence[InvoiceSettled]]]:
        await trio.lowlevel.checkpoint()
        with self._reachable():
            subscriber = _Subscriber(after_settle_index)
            # LND replays nothing for 0, and never what has an index of 1 (node-interfaces.md A.1).
            if after_settle_index and (backlog := self.settled_after(after_settle_index)):
                subscriber.pending.append(backlog)
            self._subscribers.append(subscriber)
        try:
            yield _Batches(subscriber)
        finally:
            with self._lock:
                self._subscribers.remove(subscriber)

    # --- the outside world ------------------------------------------------------------------------

    @property
    def pubkey(self) -> NodePubkey:
        """Its identity now."""
        return self._pubkey

    @property
    def newest_settle_index(self) -> int:
        """The index last given to a settlement, or burnt."""
        with self._lock:
            return self._next_settle_index - 1

    def settled_after(self, settle_index: int) -> list[InvoiceSettled]:
        """What has been settled with a higher index, by index."""
        with self._lock:
            events = [event for invoice in self._invoices.values() for event in invoice.settlements]
        return sorted(
            (event for event in events if event.settle_index > settle_index),
            key=lambda event: event.settle_index,
        )

    def settle(self, payment_hash: PaymentHash, received_msat: int | None = None) -> InvoiceSettled:
        """A payer pays an open invoice; its value unless told otherwise."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            if invoice.state is not InvoiceState.OPEN:
                raise ValueError(f"invoice {payment_hash} is {invoice.state}, not open")
            event = InvoiceSettled(
                pubkey=self._pubkey,
                payment_hash=payment_hash,
                settled_id=payment_hash,
                settle_index=self._next_settle_index,
                received_msat=invoice.value_msat if received_msat is None else received_msat,
                settled_at_ms=int(self._now_s()) * 1000,
                memo=invoice.memo,
            )
            self._next_settle_index += 1
            self._invoices[payment_hash] = replace(invoice, state=InvoiceState.SETTLED, settlements=(event,))
            self._move_funds(event.received_msat)
            if self.deliver_live:
                self.send([event])
            return event

    def invoice_by_hand(self, value_msat: int = 0, memo: str = "by hand") -> PaymentHash:
        """Somebody makes an invoice on the node itself: no document expects it."""
        with self._lock:
            self._made_by_hand += 1
            preimage = hashlib.sha256(f"{self._pubkey} by hand {self._made_by_hand}".encode()).digest()
            asked = NewInvoice(
                preimage=preimage, value_msat=value_msat, memo=memo, description_hash=b"", expiry_s=86_400
            )
            return self.add_by_another(asked)

    def keysend(self, received_msat: int) -> InvoiceSettled:
        """Money arrives without an invoice."""
        return self.settle(self.invoice_by_hand(memo=""), received_msat)

    def add_by_another(self, asked: NewInvoice) -> PaymentHash:
        """Another program adds an invoice with a preimage of its own; it reaches the node whenever it is up."""
        with self._lock:
            return self._add(PaymentHash(hashlib.sha256(asked.preimage).hexdigest()), asked).payment_hash

    def cancel(self, payment_hash: PaymentHash) -> None:
        """An open invoice expires or is canceled: no stream tells it."""
        with self._lock:
            self._invoices[payment_hash] = replace(self._invoices[payment_hash], state=InvoiceState.CANCELED)

    def spend(self, amount_msat: int) -> None:
        """The node pays somebody."""
        with self._lock:
            self._move_funds(-amount_msat)

    def burn_settle_index(self, count: int = 1) -> None:
        """Indexes that no settlement will ever have (node-interfaces.md A.1: permanent gaps exist)."""
        with self._lock:
            self._next_settle_index += count

    def send(self, batch: Sequence[InvoiceSettled]) -> None:
        """Delivers a batch to every stream, whatever was delivered before.

        As in LND, a stream that was asked for beyond an index never hears of it: one whose index the node
        has not reached yet is silent without an error (node-interfaces.md A.0).
        """
        with self._lock:
            for subscriber in self._subscribers:
                heard = [e for e in batch if e.settle_index > subscriber.after_settle_index]
                if heard and subscriber.broken is None:
                    if len(subscriber.pending) >= MAX_PENDING_BATCHES:
                        raise OverflowError("nobody reads the memory node's stream")
                    subscriber.pending.append(heard)
                    subscriber.notify()

    def streams(self) -> int:
        """How many streams stand now."""
        with self._lock:
            return sum(subscriber.broken is None for subscriber in self._subscribers)

    def disconnect(self, *, lose_pending: bool = False, why: str = "stream broken") -> None:
        """Breaks all streams; what was on its way is still read first unless it is lost, too."""
        with self._lock:
            for subscriber in self._subscribers:
                if lose_pending:
                    subscriber.pending.clear()
                subscriber.broken = why
                subscriber.notify()

    def go_away(self, why: str = "connection refused") -> None:
        """Stopped, locked or hung: every call raises Unavailable, all streams break."""
        with self._lock:
            self._away = why
            self.disconnect(lose_pending=True, why=why)

    def come_back(self) -> None:
        """Reachable again, with all it knew."""
        with self._lock:
            self._away = None

    def restart(self) -> None:
        """Goes away and comes back."""
        self.go_away("restarting")
        self.come_back()

    def replace_by_empty(self, pubkey: str, *, funds_msat: int = 0) -> None:
        """Another node, that knows nothing, answers at the same address."""
        self._lose_all(NodePubkey(pubkey), funds_msat)

    def restore_empty(self, *, funds_msat: int = 0) -> None:
        """The same node from its seed: same pubkey, no invoices, indexes from 1."""
        self._lose_all(self._pubkey, funds_msat)

    # --- inside -----------------------------------------------------------------------------------

    def _lose_all(self, pubkey: NodePubkey, funds_msat: int) -> None:
        with self._lock:
            self.disconnect(lose_pending=True, why="node replaced")
            self._pubkey = pubkey
            self._invoices = {}
            self._next_settle_index = 1
            self._funds_msat = funds_msat
            self._commitments += 1

    def _reachable(self) -> threading.RLock:
        if self._away is not None:
            raise Unavailable(f"{self._name}: {self._away}")
        return self._lock

    def _add(self, payment_hash: PaymentHash, asked: NewInvoice) -> NodeInvoice:
        invoice = NodeInvoice(
            payment_hash=payment_hash,
            payment_request=f"lnbcrt1memory{payment_hash}",
            state=InvoiceState.OPEN,
            add_index=len(self._invoices) + 1,
            value_msat=asked.value_msat,
            memo=asked.memo,
            description_hash=asked.description_hash,
            created_at_s=int(self._now_s()),
            expiry_s=asked.expiry_s,
            is_amp=False,
            settlements=(),
        )
        self._invoices[payment_hash] = invoice
        return invoice

    def _move_funds(self, delta_msat: int) -> None:
        self._funds_msat += delta_msat
        self._commitments += 1


class _Batches:
    """The iteration over one stream: never ends by itself, raises Unavailable when the stream breaks."""

    def __init__(self, subscriber: _Subscriber) -> None:
        self._subscriber = subscriber

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> Sequence[InvoiceSettled]:
        subscriber = self._subscriber
        await trio.lowlevel.checkpoint()
        while not subscriber.pending:
            if subscriber.broken is not None:
                raise Unavailable(f"memory node: {subscriber.broken}")
            subscriber.wake = trio.Event()
            # Between the look above and this line another thread may have sent something.
            if subscriber.pending or subscriber.broken is not None:
                continue
            await subscriber.wake.wait()
        return subscriber.pending.popleft()
