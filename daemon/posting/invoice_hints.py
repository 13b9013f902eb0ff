"""Hints from API threads to whoever keeps a node's hold invoices: look at this invoice now.

A hint saves time and nothing else: what is not heard (nobody listens, the process is killed) is found by the next
listing, or by the sweep over open documents.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from daemon.domain.identifiers import NodePubkey, PaymentHash

MAX_HINTS: Final = 10_000
"""Invoices that wait to be looked at, a megabyte; many seconds' worth of calls. More are left to the sweep."""

MAX_ORDINARY: Final = 50_000
"""Ordinary invoices that are remembered: those of the time for which a document counts as new."""


class HintInbox:
    """The hints for one node; for one Trio task."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hashes: dict[PaymentHash, None] = {}
        self._reasons: OrderedDict[PaymentHash, str] = OrderedDict()
        self._token = trio.lowlevel.current_trio_token()
        self._arrived = trio.Event()

    def put(self, payment_hash: PaymentHash) -> None:
        """From any thread."""
        with self._lock:
            if len(self._hashes) >= MAX_HINTS:
                return
            first = not self._hashes
            self._hashes[payment_hash] = None
        if first:
            try:
                self._token.run_sync_soon(self._set_arrived)
            except trio.RunFinishedError:
                pass  # nobody is left who could look

    def note_reason(self, payment_hash: PaymentHash, reason: str) -> None:
        """From any thread."""
        with self._lock:
            self._reasons[payment_hash] = reason
            if len(self._reasons) > MAX_HINTS:
                self._reasons.popitem(last=False)

    async def take(self) -> list[PaymentHash]:
        """All invoices to look at, at least one."""
        while True:
            # The next wake-up must find this event, so it is made before the look.
            self._arrived = arrived = trio.Event()
            with self._lock:
                taken, self._hashes = list(self._hashes), {}
            if taken:
                return taken
            await arrived.wait()

    def take_reason(self, payment_hash: PaymentHash) -> str | None:
        """Why the invoice is being canceled, once, if anybody said so."""
        with self._lock:
            return self._reasons.pop(payment_hash, None)

    def _set_arrived(self) -> None:
        self._arrived.set()


class InvoiceHints:
    """Shared by the API and the keepers of all nodes. `look` and `canceling` are for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inboxes: dict[NodePubkey, HintInbox] = {}
        self._ordinary: OrderedDict[PaymentHash, None] = OrderedDict()

    def look(self, pubkey: NodePubkey, payment_hash: PaymentHash) -> None:
        """The invoice may have changed, or is about to exist."""
        inbox = self._inbox(pubkey)
        if inbox is not None:
            inbox.put(payment_hash)

    def canceling(self, pubkey: NodePubkey, payment_hash: PaymentHash, *, reason: str) -> None:
        """The node is about to be asked to cancel the invoice: said before, so that the reason is known in time."""
        inbox = self._inbox(pubkey)
        if inbox is not None:
            inbox.note_reason(payment_hash, reason)

    def ordinary(self, payment_hash: PaymentHash) -> None:
        """tellerd makes this invoice with its preimage: it need not be watched."""
        with self._lock:
            self._ordinary[payment_hash] = None
            if len(self._ordinary) > MAX_ORDINARY:
                self._ordinary.popitem(last=False)

    def is_ordinary(self, payment_hash: PaymentHash) -> bool:
        """Whether this process has made it as an ordinary one."""
        with self._lock:
            return payment_hash in self._ordinary

    @contextmanager
    def listen(self, pubkey: NodePubkey) -> Iterator[HintInbox]:
        """From here on hints for this node are kept, until they are taken."""
        inbox = HintInbox()
        with self._lock:
            self._inboxes[pubkey] = inbox
        try:
            yield inbox
        finally:
            with self._lock:
                self._inboxes.pop(pubkey, None)

    def _inbox(self, pubkey: NodePubkey) -> HintInbox | None:
        with self._lock:
            return self._inboxes.get(pubkey)
