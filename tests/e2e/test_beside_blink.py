"""Beside Blink's own processes, at a real Redis: a lock that Blink holds delays exactly that settlement."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from adapters.mongo.collections import WALLETS
from regtest.redis_server import RedisServer
from regtest.stack import Stack
from tests.e2e.bank import Bank, wait_for
from tests.e2e.blinks_redis import LOCKED_MS, beside_blink, metric


@pytest.fixture
def beside(stack: Stack, redis: RedisServer, tmp_path: Path) -> Iterator[Bank]:
    bank = Bank(stack, tmp_path, settings=beside_blink(redis))
    try:
        bank.open()
        yield bank
    finally:
        bank.close()


def test_a_lock_that_blink_holds_delays_exactly_that_settlement(beside: Bank, redis: RedisServer) -> None:
    """The payments before and after it are credited at once; it is when Blink has let go, and no lock is left."""
    with beside.tellerd.client() as client, Redis.from_url(redis.url) as blink:
        wallet = client.create_wallet("shop")
        first, second, third = beside.invoices(client, wallet, (1_000, 20_000, 300_000))
        lock = f"locks:paymenthash:{second.payment_hash}"
        assert blink.set(lock, secrets.token_hex(16), nx=True, px=LOCKED_MS)
        beside.pay([first, second, third])
        beside.wait_balance(wallet, 301_000)
        wait_for(lambda: metric(beside, "tellerd_locks_waiting") == 1, "one settlement waits for its turn")
        assert client.balance_sat(wallet) == 301_000
        blink.delete(lock)
        beside.wait_balance(wallet, 321_000)
        wait_for(lambda: blink.keys("locks:*") == [], "no lock is left behind")
    beside.check_books()


def test_subscribers_hear_of_a_payment_as_from_blink(beside: Bank, redis: RedisServer) -> None:
    """Channel and payload, by the payment hash and by the account."""
    with beside.tellerd.client() as client, Redis.from_url(redis.url) as app, app.pubsub() as listener:
        wallet = client.create_wallet("shop")
        document: Any = beside.db[WALLETS].find_one({"id": wallet})
        (invoice,) = beside.invoices(client, wallet, [1_000])
        account = f"ACCOUNT_UPDATE_{document['accountId']}"
        listener.subscribe(f"LN_PAYMENT_STATUS_{invoice.payment_hash}", account)
        assert [listener.get_message(timeout=60)["type"] for _ in range(2)] == ["subscribe"] * 2
        beside.pay([invoice])
        heard = [listener.get_message(timeout=120) for _ in range(2)]
    paid = {"paymentHash": invoice.payment_hash, "status": "Paid"}
    assert {one["channel"].decode(): json.loads(one["data"]) for one in heard} == {
        f"LN_PAYMENT_STATUS_{invoice.payment_hash}": paid,
        account: {"invoice": {"walletId": wallet, **paid}},
    }


def test_while_redis_is_away_settlements_wait_and_none_is_lost(beside: Bank, redis: RedisServer) -> None:
    """Redis is killed, payments come in, the daemon is killed, too: all of them are credited once Redis is back."""
    with beside.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        invoices = beside.invoices(client, wallet, range(1_000, 1_005))
    redis.kill()
    beside.pay(invoices)
    wait_for(lambda: metric(beside, "tellerd_redis_connected") == 0, "the metric says that Redis is away")
    assert beside.settled_count() == 0
    beside.tellerd.process.kill()
    beside.tellerd.start()
    redis.start()
    redis.wait_ready()
    beside.tellerd.wait_ready()
    beside.wait_balance(wallet, sum(range(1_000, 1_005)))
    assert metric(beside, "tellerd_redis_connected") == 1
    beside.check_books()
