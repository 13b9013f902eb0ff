"""A Lightning node in memory that behaves as LND was seen to behave (node-interfaces.md A.0, A.1)."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from adapters.memory.hold_invoices import MemoryHolds, hold_state
from adapters.memory.node_money import MemoryMoney
from adapters.memory.waking import Waking
from daemon.domain.errors import NodeRefused, Unavailable
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.movements import ClosedChannel, Forward, SentPayment, WalletTx
from daemon.domain.node_events import HtlcRef, InvoiceSettled
from daemon.domain.ports import (
    HoldPage,
    HoldWatch,
    HtlcResolution,
    IncomingHtlcs,
    InvoicePage,
    InvoiceState,
    NewHoldInvoice,
    NewInvoice,
    NodeAnswer,
    NodeFunds,
    NodeInfo,
    NodeInvoice,
)

MAX_PENDING_BATCHES = 100_000
"""LND's queue per subscriber has no bound; the fake's stops a test that never reads."""


class _Subscriber:
    """One stream: what it has not read yet, and how it ends."""

    def __init__(self, after_settle_index: int) -> None:
        self.after_settle_index = after_settle_index
        self.pending: deque[Sequence[InvoiceSettled]] = deque()
        self.broken: str | None = None
        self.waking = Waking()


class MemoryLightningNode:
    """See `daemon.domain.ports.LightningNode`; the other methods are the outside world's.

    `deliver_live` False keeps settlements from the streams (LND does not, the network may): a test then
    sends what it likes, in any order and as often as it likes, with `send`. `htlcs.resolve_at_once` False leaves the
    HTLCs of what settles in their channel, and their money out of the funds, until `resolve_htlcs` or `kill`.
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
        self.htlcs = MemoryHtlcs()
        self.holds = MemoryHolds()
        self.money = MemoryMoney()
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
                block_height=self.holds.height,
                stores_final_htlc_resolutions=self.htlcs.keeps_outcomes,
            )

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        with self._reachable():
            self._check_length(invoice.preimage, "preimage")
            payment_hash = PaymentHash(hashlib.sha256(invoice.preimage).hexdigest())
            known = self._invoices.get(payment_hash)
            return known or self._change(self._add(payment_hash, invoice))

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        with self._reachable():
            return self._invoices.get(payment_hash)

    def add_hold_invoice(self, invoice: NewHoldInvoice) -> NodeInvoice:
        with self._reachable():
            self._check_length(bytes.fromhex(invoice.payment_hash), "hash")
            known = self._invoices.get(invoice.payment_hash)
            if known is not None:
                return known
            # What differs from an ordinary one is that nobody told the preimage.
            asked = NewInvoice(
                preimage=b"",
                value_msat=invoice.value_msat,
                memo=invoice.memo,
                description_hash=invoice.description_hash,
                expiry_s=invoice.expiry_s,
            )
            added = self._add(invoice.payment_hash, asked)
            return self._change(replace(added, hold=replace(hold_state(added), is_hold=True)))

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        with self._reachable():
            payment_hash = PaymentHash(hashlib.sha256(preimage).hexdigest())
            self.holds.settle_calls.append(payment_hash)
            invoice = self._invoices.get(payment_hash)
            if invoice is None:
                return NodeAnswer.UNKNOWN
            match invoice.state:
                case InvoiceState.OPEN:
                    return NodeAnswer.OPEN
                case InvoiceState.CANCELED:
                    return NodeAnswer.CANCELED
                case InvoiceState.ACCEPTED if invoice.hold is not None:
                    self._invoices[payment_hash] = replace(invoice, state=InvoiceState.OPEN, hold=None)
                    self.settle(payment_hash, invoice.hold.received_msat)
            return NodeAnswer.DONE

    def cancel_invoice(self, payment_hash: PaymentHash) -> NodeAnswer:
        with self._reachable():
            invoice = self._invoices.get(payment_hash)
            if invoice is None:
                return NodeAnswer.UNKNOWN
            if invoice.state is InvoiceState.SETTLED:
                return NodeAnswer.SETTLED
            if invoice.state is not InvoiceState.CANCELED:
                self.cancel(payment_hash)
            return NodeAnswer.DONE

    def pending_holds(self, *, after_add_index: int, limit: int) -> HoldPage:
        with self._reachable():
            pending = (InvoiceState.OPEN, InvoiceState.ACCEPTED)
            rest = [i for i in self._invoices.values() if i.add_index > after_add_index and i.state in pending]
            page = rest[:limit]
            return HoldPage(
                holds=tuple(invoice.hold for invoice in page if invoice.hold is not None),
                next_offset=page[-1].add_index if len(rest) > limit else 0,
            )

    @asynccontextmanager
    async def hold_watch(self) -> AsyncIterator[HoldWatch]:
        with self._reachable():
            watching = self.holds.open(self._invoices.get)
        async with watching as watch:
            yield watch

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        with self._reachable():
            rest = [i for i in self._invoices.values() if i.add_index > after_add_index]
            page = tuple(rest[:limit])
            return InvoicePage(invoices=page, next_offset=page[-1].add_index if len(rest) > limit else 0)

    def funds(self) -> NodeFunds:
        with self._reachable():
            pending = self.htlcs.incoming().pending
            unresolved = (
                event.payment_hash
                for invoice in self._invoices.values()
                for event in invoice.settlements
                if any((htlc.chan_id, htlc.htlc_index) in pending for htlc in event.htlcs)
            )
            return NodeFunds(
                channels_msat=self._funds_msat,
                closing_msat=self.money.closing_sat * MSAT_PER_SAT,
                wallet_msat=self.money.wallet_sat * MSAT_PER_SAT,
                incoming_hashes=(*self.incoming_hashes, *unresolved),
                incoming_htlcs=tuple(sorted(pending)),
                channels=tuple(self.money.channels),
                closing=tuple(self.money.closing),
                quiet_token=f"{self._pubkey}:{self._commitments}:{self.money.moves}",
            )

    def forwards(self, *, after_ns: int, limit: int) -> Sequence[Forward]:
        with self._reachable():
            return self.money.forwards_after(after_ns, limit)

    def payments(self, *, after_index: int, limit: int) -> Sequence[SentPayment]:
        with self._reachable():
            return self.money.payments_after(after_index, limit)

    def newest_payments(self, *, limit: int) -> Sequence[SentPayment]:
        with self._reachable():
            return self.money.payments[-limit:]

    def wallet_txs(self, *, from_height: int) -> Sequence[WalletTx]:
        with self._reachable():
            return self.money.txs_from(from_height)

    def closed_channels(self) -> Sequence[ClosedChannel]:
        with self._reachable():
            return list(self.money.closed)

    def incoming_htlcs(self) -> IncomingHtlcs:
        with self._reachable():
            held = (invoice.payment_hash for invoice in self._invoices.values() if _is_held(invoice))
            return replace(self.htlcs.incoming(), final_hashes=frozenset((*self.incoming_hashes, *held)))

    def htlc_resolution(self, chan_id: int, htlc_index: int) -> HtlcResolution | None:
        with self._reachable():
            return self.htlcs.resolution(chan_id, htlc_index)

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

    def settle(
        self, payment_hash: PaymentHash, received_msat: int | None = None, *, wallet_named: str | None = None
    ) -> InvoiceSettled:
        """A payer pays an open invoice; its value unless told otherwise."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            if invoice.state is not InvoiceState.OPEN:
                raise ValueError(f"invoice {payment_hash} is {invoice.state}, not open")
            amount_msat = invoice.value_msat if received_msat is None else received_msat
            return self._settled(invoice, payment_hash, amount_msat, wallet_named)

    def hold(self, payment_hash: PaymentHash, received_msat: int | None = None, *, expiry_height: int = 0) -> None:
        """A payer's HTLC arrives for an open hold invoice: its value, and 80 blocks from now, unless told otherwise."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            if invoice.state is not InvoiceState.OPEN or invoice.hold is None:
                raise ValueError(f"invoice {payment_hash} is no open hold invoice")
            amount_msat = invoice.value_msat if received_msat is None else received_msat
            held = self.holds.accepted(invoice, amount_msat, expiry_height, int(self._now_s()))
            self._change(replace(invoice, state=InvoiceState.ACCEPTED, hold=held))

    def pay_again(self, payment_hash: PaymentHash, amount_msat: int, *, renumber: bool) -> InvoiceSettled:
        """Somebody who has the preimage sends money to a settled invoice: no stream tells it. bbolt gives it a new
        settle_index (`renumber`), native SQL keeps the old one (node-interfaces.md A.0)."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            (first,) = invoice.settlements
            event = replace(
                first,
                settle_index=self._next_settle_index if renumber else first.settle_index,
                received_msat=first.received_msat + amount_msat,
                htlcs=(*first.htlcs, self._arrived(amount_msat)),
            )
            self._next_settle_index += renumber
            self._invoices[payment_hash] = replace(invoice, settlements=(event,))
            return event

    def resolve_htlcs(self) -> None:
        """What is pending in the channel ends as LND says it does: the money has come."""
        with self._lock:
            self._move_funds(self.htlcs.resolve(HtlcResolution.SETTLED))

    def kill(self) -> None:
        """SIGKILL and a new start: HTLCs that were pending are failed back, their invoices stay settled."""
        with self._lock:
            self.restart()
            self.htlcs.resolve(HtlcResolution.FAILED)
            self._commitments += 1

    def invoice_by_hand(self, value_msat: int = 0, memo: str = "by hand") -> PaymentHash:
        """Somebody makes an invoice on the node itself: no document expects it."""
        with self._lock:
            self._made_by_hand += 1
            preimage = hashlib.sha256(f"{self._pubkey} by hand {self._made_by_hand}".encode()).digest()
            asked = NewInvoice(
                preimage=preimage, value_msat=value_msat, memo=memo, description_hash=b"", expiry_s=86_400
            )
            return self.add_by_another(asked)

    def keysend(self, received_msat: int, *, wallet_named: str | None = None) -> InvoiceSettled:
        """Money arrives without an invoice; its payer names a wallet, or does not."""
        return self.settle(self.invoice_by_hand(memo=""), received_msat, wallet_named=wallet_named)

    def amp_invoice_by_hand(self, value_msat: int = 0, memo: str = "by hand") -> PaymentHash:
        """The same as `invoice_by_hand`, of an AMP invoice."""
        with self._lock:
            payment_hash = self.invoice_by_hand(value_msat, memo)
            self._invoices[payment_hash] = replace(self._invoices[payment_hash], is_amp=True)
            return payment_hash

    def settle_amp_set(self, payment_hash: PaymentHash, received_msat: int | None = None) -> InvoiceSettled:
        """A payer pays an AMP invoice, which others have paid before him or not."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            if not invoice.is_amp or invoice.state is InvoiceState.CANCELED:
                raise ValueError(f"invoice {payment_hash} is no AMP invoice that can be paid")
            number = len(invoice.settlements) + 1
            set_id = hashlib.sha256(f"{payment_hash} {number}".encode()).hexdigest()
            return self._settled(invoice, set_id, invoice.value_msat if received_msat is None else received_msat, None)

    def add_by_another(self, asked: NewInvoice) -> PaymentHash:
        """Another program adds an invoice with a preimage of its own; it reaches the node whenever it is up."""
        with self._lock:
            return self._add(PaymentHash(hashlib.sha256(asked.preimage).hexdigest()), asked).payment_hash

    def cancel(self, payment_hash: PaymentHash) -> None:
        """An open or held invoice expires or is canceled: no stream but its own tells it."""
        with self._lock:
            invoice = self._invoices[payment_hash]
            hold = invoice.hold and replace(invoice.hold, state=InvoiceState.CANCELED, expiry_height=0, accepted_at_s=0)
            canceled = replace(invoice, state=InvoiceState.CANCELED, hold=hold)
            self._change(canceled)

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
                    subscriber.waking.wake()

    def streams(self) -> int:
        """How many streams stand now."""
        with self._lock:
            return sum(subscriber.broken is None for subscriber in self._subscribers)

    def disconnect(self, *, lose_pending: bool = False, why: str = "stream broken") -> None:
        """Breaks all streams; what was on its way is still read first unless it is lost, too."""
        with self._lock:
            self.holds.break_off(why)
            for subscriber in self._subscribers:
                if lose_pending:
                    subscriber.pending.clear()
                subscriber.broken = why
                subscriber.waking.wake()

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

    def _check_length(self, given: bytes, what: str) -> None:
        if len(given) != 32:
            raise NodeRefused(f"{self._name} refused: invalid {what} length of {len(given)}, want 32")

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

    def _settled(
        self, invoice: NodeInvoice, settled_id: str, amount_msat: int, wallet_named: str | None
    ) -> InvoiceSettled:
        event = InvoiceSettled(
            pubkey=self._pubkey,
            payment_hash=invoice.payment_hash,
            settled_id=settled_id,
            settle_index=self._next_settle_index,
            received_msat=amount_msat,
            settled_at_ms=int(self._now_s()) * 1000,
            memo=invoice.memo,
            htlcs=(self._arrived(amount_msat),),
            wallet_named=wallet_named,
        )
        self._next_settle_index += 1
        settled = replace(invoice, state=InvoiceState.SETTLED, settlements=(*invoice.settlements, event))
        self._invoices[invoice.payment_hash] = settled
        if self.deliver_live:
            self.send([replace(event, live=True)])
        self.holds.tell(settled)
        return event

    def _arrived(self, amount_msat: int) -> HtlcRef:
        htlc = self.htlcs.add(amount_msat, int(self._now_s()))
        if self.htlcs.resolve_at_once:
            self._move_funds(self.htlcs.resolve(HtlcResolution.SETTLED))
        return htlc

    def _change(self, invoice: NodeInvoice) -> NodeInvoice:
        self._invoices[invoice.payment_hash] = invoice
        self.holds.tell(invoice)
        return invoice

    def _move_funds(self, delta_msat: int) -> None:
        self._funds_msat += delta_msat
        self._commitments += 1


def _is_held(invoice: NodeInvoice) -> bool:
    return invoice.state is InvoiceState.ACCEPTED and invoice.hold is not None


class MemoryHtlcs:
    """The incoming HTLCs of the node's one channel. `keeps_outcomes` is LND's --store-final-htlc-resolutions;
    `is_open` False: the channel closes, and lists nothing."""

    CHANNEL: Final = 150 << 40
    """A short channel id: block, tx, output."""

    def __init__(self) -> None:
        self.resolve_at_once = True
        self.keeps_outcomes = True
        self.is_open = True
        self.asked: list[int] = []
        self._outcomes: dict[int, HtlcResolution | None] = {}
        self._pending: dict[int, int] = {}

    def add(self, amount_msat: int, settled_at_s: int) -> HtlcRef:
        """An HTLC comes in."""
        index = len(self._outcomes)
        self._outcomes[index], self._pending[index] = None, amount_msat
        return HtlcRef(self.CHANNEL, index, amount_msat, settled_at_s)

    def resolve(self, outcome: HtlcResolution) -> int:
        """All that are pending end so; what they were, in msat."""
        resolved, self._pending = self._pending, {}
        self._outcomes.update(dict.fromkeys(resolved, outcome))
        return sum(resolved.values())

    def forget_outcomes(self) -> None:
        """As if they had ended before the node kept outcomes."""
        self._outcomes = dict.fromkeys(self._outcomes)

    def incoming(self) -> IncomingHtlcs:
        """See `LightningNode.incoming_htlcs`."""
        pending = frozenset((self.CHANNEL, index) for index in self._pending)
        return IncomingHtlcs(
            open_channels=frozenset({self.CHANNEL} if self.is_open else ()),
            pending=pending if self.is_open else frozenset(),
        )

    def resolution(self, chan_id: int, htlc_index: int) -> HtlcResolution | None:
        """See `LightningNode.htlc_resolution`."""
        self.asked.append(htlc_index)
        known = self.keeps_outcomes and chan_id == self.CHANNEL
        return self._outcomes.get(htlc_index) if known else None


class _Batches:
    """The iteration over one stream: never ends by itself, raises Unavailable when the stream breaks."""

    def __init__(self, subscriber: _Subscriber) -> None:
        self._subscriber = subscriber

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> Sequence[InvoiceSettled]:
        subscriber = self._subscriber
        await subscriber.waking.wait_until(lambda: bool(subscriber.pending) or subscriber.broken is not None)
        if not subscriber.pending:
            raise Unavailable(f"memory node: {subscriber.broken}")
        return subscriber.pending.popleft()
