"""kill -9 at any moment loses nothing and doubles nothing (design.md section 3)."""

from __future__ import annotations

import random
import threading
import time

import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from tests.e2e.bank import Bank, wait_for
from tests.e2e.fail_points import POINTS, SHORT_LEASE, Point, held

KILLS = 20
INVOICES = 900
"""More than can be paid while the kills last; what is left over stays unpaid."""


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
    assert all(payment.succeeded for payment in paying.result(timeout=60))
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
        invoices = bank.invoices(client, wallet, [1_000 + number for number in range(INVOICES)])
    paid: list[invoice_pb2.Invoice] = []
    enough = threading.Event()
    payer = threading.Thread(target=_pay_until, args=(bank, invoices, paid, enough))
    payer.start()
    try:
        for kill in range(KILLS):
            seen = len(paid)
            wait_for(lambda seen=seen: len(paid) > seen, "payments come in")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            time.sleep(rng.uniform(0.0, 0.5))
            bank.tellerd.process.kill()
            _check_cursor(bank, kill)
            bank.tellerd.start()
            bank.tellerd.wait_ready()
    finally:
        enough.set()
        payer.join(timeout=60)
    assert len(paid) >= KILLS
    bank.wait_balance(wallet, sum(invoice.amount_sat for invoice in paid))
    print(f"{len(paid)} payments, {bank.settled_count()} credits, {KILLS} kills")
    assert bank.settled_count() == len(paid)
    bank.check_books()


def _pay_until(
    bank: Bank, invoices: list[invoice_pb2.Invoice], paid: list[invoice_pb2.Invoice], enough: threading.Event
) -> None:
    for invoice in invoices:
        if enough.is_set():
            return
        if bank.stack.payer.pay(invoice.payment_request).succeeded:
            paid.append(invoice)


def _check_cursor(bank: Bank, kill: int) -> None:
    """What the cursor says is seen is in the books: every settlement up to it has a credit."""
    cursor = bank.cursor(bank.stack.lnd.pubkey)
    credited = bank.settled_count()
    seen = cursor["settle_index"] - cursor["opening_index"]
    assert credited >= seen, f"kill {kill}: the cursor is {seen} on, the books have {credited} credits"
    bank.check_feed()
