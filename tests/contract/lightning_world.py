"""A Lightning node under test, of three kinds, and what the outside world does to it: for suites that all of them pass.

The memory fake; LndNode on a simulated LND over gRPC and TLS; LndNode on a real LND with the macaroon that tellerd has.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from adapters.lnd.node import LndNode
from adapters.memory import MemoryLightningNode
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import LightningNode, NodeInvoice
from regtest.stack import Stack
from tests.simulated_lnd.server import SimulatedLnd

KINDS: Final = ["memory", "simulated", pytest.param("lnd", marks=pytest.mark.regtest)]
"""Parameters of a `world` fixture."""

WALLET_RECORD = 696_969
PATIENCE_S = 30.0  # how long a test waits for what must come; it decides nothing else


class World(Protocol):
    """A node under test, and what the outside world does to it. All of it blocks."""

    @property
    def node(self) -> LightningNode:
        """The port."""
        ...

    def pay(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        """Somebody pays an invoice; with an amount if it has none."""
        ...

    def pay_again(self, payment_hash: PaymentHash, preimage: bytes, amount_msat: int) -> None:
        """Somebody who has the preimage sends money to a settled invoice."""
        ...

    def add_amp(self, value_msat: int) -> PaymentHash:
        """Somebody makes an AMP invoice on the node."""
        ...

    def pay_set(self, payment_hash: PaymentHash) -> None:
        """Somebody pays an AMP invoice."""
        ...

    def keysend(self, amount_msat: int, record: str | None) -> None:
        """Money arrives without an invoice; the record that names a wallet has this text."""
        ...

    def hold(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        """A payer's HTLC arrives and is held when this returns; the amount is for an invoice that has none."""
        ...

    def restart(self) -> None:
        """The node goes away, cleanly, and is back when this returns."""
        ...


class MemoryWorld:
    """The fake."""

    def __init__(self) -> None:
        self.node = MemoryLightningNode(funds_msat=1_000_000_000)

    def pay(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        self.node.settle(invoice.payment_hash, amount_msat)

    def pay_again(self, payment_hash: PaymentHash, preimage: bytes, amount_msat: int) -> None:
        self.node.pay_again(payment_hash, amount_msat, renumber=True)

    def add_amp(self, value_msat: int) -> PaymentHash:
        return self.node.amp_invoice_by_hand(value_msat)

    def pay_set(self, payment_hash: PaymentHash) -> None:
        self.node.settle_amp_set(payment_hash)

    def keysend(self, amount_msat: int, record: str | None) -> None:
        self.node.keysend(amount_msat, wallet_named=record)

    def hold(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        self.node.hold(invoice.payment_hash, amount_msat)

    def restart(self) -> None:
        self.node.restart()


class SimulatedWorld:
    """LndNode on a server in this process."""

    def __init__(self, lnd: SimulatedLnd) -> None:
        self._lnd = lnd
        self.node = LndNode(
            name="lnd1",
            address=lnd.address,
            tls_cert_file=lnd.tls_cert_file,
            macaroon_file=lnd.macaroon_file,
            wallet_record=WALLET_RECORD,
        )

    def pay(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        self._lnd.node.settle([bytes.fromhex(invoice.payment_hash)], received_msat=amount_msat)

    def pay_again(self, payment_hash: PaymentHash, preimage: bytes, amount_msat: int) -> None:
        self._lnd.node.pay_again(bytes.fromhex(payment_hash), amount_msat, renumber=True)

    def add_amp(self, value_msat: int) -> PaymentHash:
        (r_hash,) = self._lnd.node.make_invoices(1, value_msat=value_msat)
        return PaymentHash(r_hash.hex())

    def pay_set(self, payment_hash: PaymentHash) -> None:
        r_hash = bytes.fromhex(payment_hash)
        invoice = self._lnd.node.find(r_hash)
        assert invoice is not None
        self._lnd.node.settle_amp_set(r_hash, os.urandom(32).hex(), received_msat=invoice.value_msat)

    def keysend(self, amount_msat: int, record: str | None) -> None:
        self._lnd.node.keysend(amount_msat, {} if record is None else {WALLET_RECORD: record.encode()})

    def hold(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        self._lnd.holds.pay(bytes.fromhex(invoice.payment_hash), amount_msat)

    def restart(self) -> None:
        self._lnd.stop(ending=None)
        self._lnd.start()


class RealWorld:
    """LndNode on a real LND; another one pays."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._payers: list[threading.Thread] = []
        self.node = LndNode(
            name="lnd1",
            address=stack.lnd.rpc_address,
            tls_cert_file=stack.lnd.tls_cert_file,
            macaroon_file=stack.tellerd_macaroon_file,
            wallet_record=WALLET_RECORD,
        )

    def pay(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        payment = self._stack.payer.pay(invoice.payment_request, amount_msat=amount_msat)
        assert payment.succeeded, payment.failure_reason

    def pay_again(self, payment_hash: PaymentHash, preimage: bytes, amount_msat: int) -> None:
        # LND pays no hash twice: it has to forget that it did.
        payer, paid = self._stack.payer, base64.urlsafe_b64encode(bytes.fromhex(payment_hash)).decode()
        payer.call("DELETE", f"/v1/payment?payment_hash={paid}")
        payment = payer.keysend(self._stack.lnd.pubkey, amount_msat, preimage=preimage.hex())
        assert payment.succeeded, payment.failure_reason

    def add_amp(self, value_msat: int) -> PaymentHash:
        return PaymentHash(self._stack.lnd.add_amp_invoice(value_msat).payment_hash)

    def pay_set(self, payment_hash: PaymentHash) -> None:
        request = self._stack.lnd.lookup_invoice(payment_hash).payment_request
        payment = self._stack.payer.pay_amp(request)
        assert payment.succeeded, payment.failure_reason

    def keysend(self, amount_msat: int, record: str | None) -> None:
        records = {} if record is None else {WALLET_RECORD: record.encode()}
        payment = self._stack.payer.keysend(self._stack.lnd.pubkey, amount_msat, records=records)
        assert payment.succeeded, payment.failure_reason

    def hold(self, invoice: NodeInvoice, amount_msat: int | None = None) -> None:
        # The payer's call ends when the invoice is settled or canceled: with the test's last step, or at the end.
        payer = threading.Thread(
            target=lambda: self._stack.payer.pay(invoice.payment_request, amount_msat=amount_msat), daemon=True
        )
        payer.start()
        self._payers.append(payer)
        wait_until(lambda: self._stack.lnd.lookup_invoice(invoice.payment_hash).state == "ACCEPTED")

    def restart(self) -> None:
        self._stack.lnd.restart()
        self._stack.wait_payable()

    def close(self) -> None:
        """What is still held goes back."""
        for hold in self.node.pending_holds(after_add_index=0, limit=1000).holds:
            self.node.cancel_invoice(hold.payment_hash)
        for payer in self._payers:
            payer.join(PATIENCE_S)
        self.node.close()


@contextmanager
def world_of(request: pytest.FixtureRequest, folder: Path) -> Iterator[World]:
    """A node of the kind that the fixture's parameter names; the real one, `lnd_stack`, keeps its history from test to
    test."""
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param == "simulated":
        with SimulatedLnd(folder) as lnd:
            simulated = SimulatedWorld(lnd)
            yield simulated
            simulated.node.close()
    else:
        real = RealWorld(request.getfixturevalue("lnd_stack"))
        yield real
        real.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """For what a node needs a moment for."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)
