"""Two daemons on one database: one posts, the other waits, and takes over when the first hangs."""

from __future__ import annotations

import time

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, ledger_pb2
from regtest.tellerd import CALL_S, READY_S, Tellerd
from tests.e2e.bank import Bank, wait_for
from tests.e2e.fail_points import POINTS, Point, held

TAKEOVER_S = 10.0
"""What tellerd promises; the lease of the configuration's default is 5 s."""

_MID_COMMIT = [point for point in POINTS if point.name in ("before writing the journal", "before committing")]


@pytest.fixture
def standby(bank: Bank) -> Tellerd:
    """A second daemon of the bank, waiting."""
    daemon = bank.standby("standby")
    daemon.start()
    daemon.process.wait_until(lambda: "standby" in daemon.get("/readyz").text, "waiting as standby", READY_S)
    return daemon


def _role(daemon: Tellerd) -> int:
    with daemon.client() as client:
        return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).role


def test_a_standby_serves_status_and_health_only(bank: Bank, standby: Tellerd) -> None:
    """The second daemon waits: GetStatus and /healthz answer, everything else says where to go."""
    assert _role(bank.tellerd) == admin_pb2.ROLE_LEADER
    assert _role(standby) == admin_pb2.ROLE_STANDBY
    assert standby.get("/healthz").status == 200
    assert standby.get("/readyz").status == 503
    with standby.client() as client, pytest.raises(grpc.RpcError, match="standby") as refused:
        client.ledger.TrialBalance(ledger_pb2.TrialBalanceRequest(), timeout=CALL_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_leader_that_hangs_is_replaced(bank: Bank, standby: Tellerd) -> None:
    """The leader is stopped past its lease: the standby posts within 10 s; the leader goes on as standby."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, [1_000, 2_000, 4_000])
    bank.pay(invoices[:1])
    bank.wait_balance(wallet, 1_000)
    bank.tellerd.process.pause()
    stopped_at = time.monotonic()
    bank.pay(invoices[1:2])
    wait_for(lambda: bank.settled_count() == 2, "the standby posts", timeout_s=TAKEOVER_S)
    print(f"\nposted by the standby {time.monotonic() - stopped_at:.1f} s after the leader hung")
    bank.tellerd.process.resume()
    wait_for(lambda: _role(bank.tellerd) == admin_pb2.ROLE_STANDBY, "the old leader stands by")
    bank.pay(invoices[2:])
    bank.wait_balance(wallet, 7_000, through=standby)
    bank.check_books(through=standby)


@pytest.mark.parametrize("point", _MID_COMMIT, ids=str)
def test_a_leader_that_hangs_in_a_commit_is_replaced(bank: Bank, standby: Tellerd, point: Point) -> None:
    """Stopped with its transaction open on the server: in the books within 10 s, once, and the standby leads."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        first, second = bank.invoices(client, wallet, [1_000, 2_000])
    bank.pay([first])
    bank.wait_balance(wallet, 1_000)
    with held(bank.db.client, bank.database, point, for_ms=3_000) as holding:
        paying = bank.start_paying([second])
        holding.wait_reached()
        assert holding.open_transactions() >= 1
        bank.tellerd.process.pause()
        stopped_at = time.monotonic()
    assert all(payment.succeeded for payment in paying.result(timeout=120))
    # What was held before the commit itself is committed by the server although the leader hangs.
    wait_for(lambda: bank.settled_count() == 2, "the payment is posted", timeout_s=TAKEOVER_S)
    standby.wait_ready()
    print(f"\nposted, and led by the standby, {time.monotonic() - stopped_at:.1f} s after the leader hung")
    bank.tellerd.process.resume()
    wait_for(lambda: _role(bank.tellerd) == admin_pb2.ROLE_STANDBY, "the old leader stands by")
    bank.wait_balance(wallet, 3_000, through=standby)
    bank.check_books(through=standby)


def test_a_leader_that_ends_hands_over_at_once(bank: Bank, standby: Tellerd) -> None:
    """SIGTERM gives the lease back: the standby leads without waiting for it to expire."""
    bank.tellerd.process.stop()
    stopped_at = time.monotonic()
    standby.wait_ready()
    print(f"\nready {time.monotonic() - stopped_at:.1f} s after the leader ended")
    assert bank.tellerd.process.exit_code == 0
    with standby.client() as client:
        wallet = client.create_wallet("alice")
        bank.pay(bank.invoices(client, wallet, [1_000]))
    bank.wait_balance(wallet, 1_000, through=standby)
    bank.check_books(through=standby)
