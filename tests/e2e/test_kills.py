"""kill -9 at any moment loses nothing and doubles nothing (design.md section 3)."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time

import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from tests.e2e.bank import Bank, wait_for
from tests.e2e.fail_points import POINTS, SHORT_LEASE, Point, held

KILLS = 20
AHEAD = 40
"""Invoices that wait for their payer when a daemon is killed: so payments go on while nobody looks."""


@pytest.mark.parametrize("bank", [SHORT_LEASE], indirect=True)
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_at_a_point_of_the_commit(bank: Bank, point: Point, killed_in_a_transaction: list[str]) -> None:
    """Killed just there, started again: the payment is in the books, once."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        first, second = bank.invoices(client, wallet, [1_000, 2_000])
    bank.pay([first])
    bank.wait_balance(wallet, 1_000)
    with held(bank.db.client, bank.database, point) as holding:
        paying = bank.start_paying([second])
        holding.wait_reached()
        open_now = holding.open_transactions()
        bank.tellerd.process.kill()
        if point.in_transaction:
            assert open_now >= 1, "no transaction was open when the daemon was killed"
            killed_in_a_transaction.append(point.name)
        bank.tellerd.start()  # while the server still holds the dead daemon's command
        bank.tellerd.wait_ready()
    assert all(payment.succeeded for payment in paying.result(timeout=120))
    bank.wait_balance(wallet, 3_000)
    bank.check_books()


@pytest.mark.parametrize("bank", [SHORT_LEASE], indirect=True)
def test_killed_twenty_times_while_payments_come_in(bank: Bank) -> None:
    """SIGKILL at random moments under payments: nothing lost, nothing doubled, the cursor never ahead of the books."""
    seed = random.randrange(1 << 32)
    print(f"\nseed {seed}")
    rng = random.Random(seed)
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
    amounts_sat = itertools.cycle(range(1_000, 1_100))
    unpaid: queue.SimpleQueue[invoice_pb2.Invoice] = queue.SimpleQueue()
    paid: list[invoice_pb2.Invoice] = []
    enough = threading.Event()
    payer = threading.Thread(target=_pay_until, args=(bank, unpaid, paid, enough))
    payer.start()
    try:
        for kill in range(KILLS):
            with bank.tellerd.client() as client:
                while unpaid.qsize() < AHEAD:
                    unpaid.put(client.create_invoice(wallet, next(amounts_sat)))
            seen = len(paid)
            wait_for(lambda seen=seen: len(paid) > seen, "payments come in")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            time.sleep(rng.uniform(0.0, 0.5))
            bank.tellerd.process.kill()
            _check_cursor(bank, kill)
            bank.tellerd.start()
            bank.tellerd.wait_ready()
    finally:
        enough.set()
        payer.join()
    assert len(paid) >= KILLS
    bank.wait_balance(wallet, sum(invoice.amount_sat for invoice in paid))
    print(f"{len(paid)} payments, {bank.settled_count()} credits, {KILLS} kills")
    assert bank.settled_count() == len(paid)
    bank.check_books()


def _pay_until(
    bank: Bank,
    unpaid: queue.SimpleQueue[invoice_pb2.Invoice],
    paid: list[invoice_pb2.Invoice],
    enough: threading.Event,
) -> None:
    while not enough.is_set():
        try:
            invoice = unpaid.get(timeout=0.1)
        except queue.Empty:
            continue
        if bank.stack.payer.pay(invoice.payment_request).succeeded:
            paid.append(invoice)


def _check_cursor(bank: Bank, kill: int) -> None:
    """What the cursor says is seen is in the books: every settlement up to it has a credit."""
    cursor = bank.cursor(bank.stack.lnd.pubkey)
    credited = bank.settled_count()
    seen = cursor["settle_index"] - cursor["opening_index"]
    assert credited >= seen, f"kill {kill}: the cursor is {seen} on, the books have {credited} credits"
    bank.check_feed()
