"""What a node tells of its money apart from invoices: alike by the fake, by a simulated LND and by a real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.node import LndNode
from adapters.memory import MemoryLightningNode
from daemon.domain.identifiers import PaymentHash, Txid
from daemon.domain.movements import PaymentState, SentPayment, WalletTx
from daemon.domain.ports import LightningNode
from regtest.stack import Stack
from tests.samples import hash_of
from tests.simulated_lnd.server import SimulatedLnd

PATIENCE_S = 60.0
AMOUNT_MSAT = 1_234_567
COINS_SAT = 345_678


class World(Protocol):
    """A node, and what is done with it by hand."""

    @property
    def node(self) -> LightningNode:
        """The port."""
        ...

    def send(self) -> PaymentHash:
        """It pays AMOUNT_MSAT to somebody."""
        ...

    def receive_coins(self) -> Txid:
        """COINS_SAT come to its wallet; not confirmed."""
        ...

    def confirm(self) -> None:
        """A block with all that waits."""
        ...


class MemoryWorld:
    """The fake."""

    def __init__(self) -> None:
        self.node = MemoryLightningNode(funds_msat=1_000_000_000)

    def send(self) -> PaymentHash:
        money = self.node.money
        payment = SentPayment(
            index=len(money.payments) + 1,
            payment_hash=hash_of(f"sent {len(money.payments)}"),
            state=PaymentState.SUCCEEDED,
            sent_msat=AMOUNT_MSAT,
            began_at_ms=int(time.time() * 1000),
        )
        money.payments.append(payment)
        self.node.spend(AMOUNT_MSAT)
        return payment.payment_hash

    def receive_coins(self) -> Txid:
        money = self.node.money
        txid = Txid(hash_of(f"coins {len(money.txs)}"))
        money.txs.append(
            WalletTx(
                txid=txid, amount_sat=COINS_SAT, spent_sat=0, outputs_sat=COINS_SAT, fee_sat=0, height=0, spends=()
            )
        )
        money.wallet_sat += COINS_SAT
        money.moves += 1
        return txid

    def confirm(self) -> None:
        money, self.node.holds.height = self.node.money, self.node.holds.height + 1
        height = self.node.holds.height
        money.txs = [
            WalletTx(
                txid=tx.txid,
                amount_sat=tx.amount_sat,
                spent_sat=0,
                outputs_sat=tx.outputs_sat,
                fee_sat=0,
                height=tx.height or height,
                spends=(),
            )
            for tx in money.txs
        ]
        money.moves += 1


class SimulatedWorld:
    """LndNode over gRPC and TLS, on a server in this process."""

    def __init__(self, lnd: SimulatedLnd) -> None:
        self._money = lnd.node.money
        self._height = int(lnd.node.info().block_height)
        self.node = LndNode(
            name="lnd1", address=lnd.address, tls_cert_file=lnd.tls_cert_file, macaroon_file=lnd.macaroon_file
        )

    def send(self) -> PaymentHash:
        payments = self._money.payments
        payment_hash = hash_of(f"sent {len(payments)}")
        payments.append(
            pb.Payment(
                payment_hash=payment_hash,
                value_msat=AMOUNT_MSAT - 7,
                fee_msat=7,
                status=pb.Payment.SUCCEEDED,
                creation_time_ns=time.time_ns(),
                payment_index=len(payments) + 1,
            )
        )
        return payment_hash

    def receive_coins(self) -> Txid:
        txid = Txid(hash_of(f"coins {len(self._money.txs)}"))
        output = pb.OutputDetail(amount=COINS_SAT, is_our_address=True)
        self._money.txs.append(pb.Transaction(tx_hash=txid, amount=COINS_SAT, output_details=[output]))
        self._money.wallet.total_balance += COINS_SAT
        return txid

    def confirm(self) -> None:
        self._height += 1
        for tx in self._money.txs:
            tx.block_height = tx.block_height or self._height
        self._money.wallet.confirmed_balance = self._money.wallet.total_balance


class RealWorld:
    """LndNode on a real LND with the macaroon that tellerd has; the other one is paid."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.node = LndNode(
            name="lnd1",
            address=stack.lnd.rpc_address,
            tls_cert_file=stack.lnd.tls_cert_file,
            macaroon_file=stack.tellerd_macaroon_file,
        )

    def send(self) -> PaymentHash:
        invoice = self._stack.payer.add_invoice(AMOUNT_MSAT)
        payment = self._stack.lnd.pay(invoice.payment_request)
        assert payment.succeeded, payment.failure_reason
        assert payment.fee_msat == 0
        return PaymentHash(payment.payment_hash)

    def receive_coins(self) -> Txid:
        return Txid(self._stack.bitcoind.send(self._stack.lnd.new_address(), COINS_SAT))

    def confirm(self) -> None:
        self._stack.mine(1)


@pytest.fixture(scope="module")
def lnd_stack() -> Iterator[Stack]:
    """Real nodes for this module; ours can pay."""
    with Stack(push_sat=1_000_000) as stack:
        yield stack


@pytest.fixture(params=["memory", "simulated", pytest.param("lnd", marks=pytest.mark.regtest)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A node of each kind; the real one keeps its history from test to test."""
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param == "simulated":
        with SimulatedLnd(tmp_path) as lnd:
            simulated = SimulatedWorld(lnd)
            yield simulated
            simulated.node.close()
    else:
        real = RealWorld(request.getfixturevalue("lnd_stack"))
        yield real
        real.node.close()


def soon(condition: Callable[[], bool]) -> None:
    """A real LND hears of a tx, and of a block, a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_payments_are_told_in_order_and_from_any_place(world: World) -> None:
    """With their hash, and all that has left the node; a page is no longer than asked for."""
    sent = [world.send() for _ in range(3)]
    first, second, third = world.node.newest_payments(limit=3)
    assert [first.payment_hash, second.payment_hash, third.payment_hash] == sent
    assert first.index < second.index < third.index
    assert (first.sent_msat, first.state) == (AMOUNT_MSAT, PaymentState.SUCCEEDED)
    assert abs(first.began_at_ms / 1000 - time.time()) < PATIENCE_S
    assert list(world.node.payments(after_index=first.index, limit=10)) == [second, third]
    assert list(world.node.payments(after_index=first.index, limit=1)) == [second]
    assert list(world.node.payments(after_index=third.index, limit=10)) == []


def test_coins_count_from_the_moment_in_which_the_wallet_knows_them(world: World) -> None:
    """Confirming changes what is told of the tx, and not what the node holds."""
    before = world.node.funds()
    txid = world.receive_coins()
    soon(lambda: world.node.funds().wallet_msat == before.wallet_msat + COINS_SAT * 1000)
    height = world.node.get_info().block_height
    (tx,) = [one for one in world.node.wallet_txs(from_height=height + 1) if one.txid == txid]
    assert (tx.amount_sat, tx.height, tx.spent_sat) == (COINS_SAT, 0, 0)
    world.confirm()
    soon(lambda: txid in {one.txid for one in world.node.wallet_txs(from_height=0) if one.height})
    (tx,) = [one for one in world.node.wallet_txs(from_height=height + 1) if one.txid == txid]
    assert tx.height == height + 1
    assert txid not in {one.txid for one in world.node.wallet_txs(from_height=height + 2)}
    after = world.node.funds()
    assert (after.wallet_msat, after.funds_msat - before.funds_msat) == (
        before.wallet_msat + COINS_SAT * 1000,
        COINS_SAT * 1000,
    )
    assert after.quiet_token != before.quiet_token


def test_what_has_not_happened_is_not_told(world: World) -> None:
    """No forward, no channel closed: the calls are allowed, and empty."""
    assert list(world.node.forwards(after_ns=0, limit=10)) == []
    assert list(world.node.closed_channels()) == []
    assert world.node.funds().closing == ()
