"""Beside Blink's own processes on the chain, at a real Redis and a real bitcoind: a deposit is settled under Blink's
lock on its output, and whoever listens to its account hears of it as from Blink (blink-contract.md 3.4, 3.5, 3.7)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from adapters.mongo import collections as names
from regtest.redis_server import RedisServer
from regtest.stack import Stack
from tests.e2e.bank import wait_for
from tests.e2e.blinks_redis import LOCKED_MS, beside_blink, metric
from tests.e2e.chain_bank import ChainBank
from tests.e2e.coins import make_coin, spend
from tests.e2e.fail_points import Point, held

MOST_LOCKED_MS: Final = 30_000
"""As long as a lock of tellerd's may outlive it."""

SETTLING: Final = Point("before writing the legs of a deposit", "insert", names.LEGS, in_transaction=True)


@pytest.fixture
def beside(stack: Stack, redis: RedisServer, tmp_path: Path) -> Iterator[ChainBank]:
    """A bank on a chain of its own, at this Redis; its books are checked when the test is done."""
    chain = ChainBank(stack, tmp_path, sections=beside_blink(redis))
    try:
        chain.open()
        yield chain
        chain.check_books()
        chain.bank.check_books()
    finally:
        chain.close()


def refused_locks(chain: ChainBank) -> float:
    """How often tellerd has found a lock to be another's."""
    refused = metric(chain.bank, "tellerd_locks_refused_total")
    assert refused >= 0, "the metric is there"
    return refused


def test_a_lock_that_blink_holds_delays_exactly_that_deposit(beside: ChainBank, redis: RedisServer) -> None:
    """Of three outputs of one tx to one wallet the locked one waits, tried again and again; the two others, a deposit
    of later blocks and a Lightning payment are credited meanwhile; it is once Blink has let go, and no lock is left."""
    chain = beside
    with chain.bank.tellerd.client() as client, Redis.from_url(redis.url) as blink:
        wallet, other = client.create_wallet("shop"), client.create_wallet("other")
        address = chain.address(client, wallet)
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(address, n) for n in (10_000, 20_000, 40_000)])
        lock, value = f"locks:onchaintxhash:{tx.txid}:1", secrets.token_hex(16).encode()
        assert blink.set(lock, value, nx=True, px=LOCKED_MS)
        chain.broadcast(tx)
        for vout in range(3):
            chain.wait_state(tx.txid, vout, "detected")
        chain.bitcoind.mine(2)
        for vout in (0, 2):
            chain.wait_state(tx.txid, vout, "settled")
        later = chain.send(chain.address(client, other), 100_000)
        chain.bitcoind.mine(2)
        chain.wait_state(*later, "settled")
        chain.bank.pay([client.create_invoice(other, 1_000)])
        chain.bank.wait_balance(other, 98_000)
        refused = refused_locks(chain)
        wait_for(lambda: refused_locks(chain) >= refused + 2, "the locked one is tried again")
        assert (chain.state(tx.txid, 1), client.balance_sat(wallet)) == ("confirmed", 44_000)
        assert [one["vout"] for one in chain.pending(wallet)] == [1]
        assert blink.get(lock) == value, "Blink's lock is Blink's to give back"
        blink.delete(lock)
        chain.wait_state(tx.txid, 1, "settled")
        assert client.balance_sat(wallet) == 61_000
        wait_for(lambda: blink.keys("locks:*") == [], "no lock is left behind")
    assert sorted(chain.booking_keys(tx.txid)) == [f"chain:{tx.txid}:{vout}:1" for vout in range(3)]


def test_lock_service_nobody_else_gets_the_lock_while_tellerd_settles_a_deposit(
    beside: ChainBank, redis: RedisServer
) -> None:
    """From before its journal until after the commit the key is there as node-redlock would have made it, and Blink's
    try fails; afterwards Blink gets it at once."""
    chain = beside
    with chain.bank.tellerd.client() as client, Redis.from_url(redis.url) as blink:
        wallet = client.create_wallet("shop")
        txid, vout = chain.send(chain.address(client, wallet), 500_000)
        lock = f"locks:onchaintxhash:{txid}:{vout}"
        chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "confirmed")
        assert blink.keys("locks:*") == [], "what is not settled needs no lock"
        with held(chain.bank.db.client, chain.bank.database, SETTLING) as holding:
            chain.bitcoind.mine(1)
            holding.wait_reached()
            assert blink.keys("locks:*") == [lock.encode()]
            found: Any = blink.get(lock)
            assert re.fullmatch(r"[0-9a-f]{32}", found.decode())
            remaining_ms: Any = blink.pttl(lock)
            assert 0 < remaining_ms <= MOST_LOCKED_MS
            assert not blink.set(lock, secrets.token_hex(16), nx=True, px=LOCKED_MS)
            assert client.balance_sat(wallet) == 0
        chain.wait_state(txid, vout, "settled")
        wait_for(lambda: bool(blink.set(lock, "Blink's", nx=True, px=LOCKED_MS)), "Blink gets the lock")
        assert client.balance_sat(wallet) == 497_000


def test_subscribers_hear_of_a_deposit_as_from_blink(beside: ChainBank, redis: RedisServer) -> None:
    """To the account, in its wallet's currency and less the fee: pending when it is seen, received when it is settled;
    nothing in between, and nothing of dust."""
    chain = beside
    with chain.bank.tellerd.client() as client, Redis.from_url(redis.url) as app, app.pubsub() as listener:
        wallet, dollars = client.create_wallet("shop"), client.create_dollar_wallet("saver")
        accounts = {one["id"]: one["accountId"] for one in chain.bank.db[names.WALLETS].find()}
        listener.psubscribe("*")
        assert (listener.get_message(timeout=60) or {})["type"] == "psubscribe"
        in_sats, in_cents = chain.address(client, wallet), chain.address(client, dollars)
        outputs = [(in_sats, 4_999), (in_sats, 500_000)]
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), outputs)
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 1, "detected")
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 1, "confirmed")
        chain.bitcoind.mine(1)
        for vout in range(2):
            chain.wait_state(tx.txid, vout, "settled")
        second, vout = chain.send(in_cents, 100_000)
        chain.wait_state(second, vout, "detected")
        chain.bitcoind.mine(2)
        chain.wait_state(second, vout, "settled")
        heard = [listener.get_message(timeout=120) or {} for _ in range(4)]
        assert listener.get_message(timeout=2) is None

    def update(of: str, kind: str, amount: int, currency: str, txid: str) -> tuple[str, dict[str, Any]]:
        transaction = {"txNotificationType": kind, "amount": amount, "currency": currency, "txHash": txid}
        return f"ACCOUNT_UPDATE_{accounts[of]}", {"transaction": {"walletId": of, **transaction}}

    assert [(one["channel"].decode(), json.loads(one["data"])) for one in heard] == [
        update(wallet, "onchain_receipt_pending", 497_000, "BTC", tx.txid),
        update(wallet, "onchain_receipt", 497_000, "BTC", tx.txid),
        update(dollars, "onchain_receipt_pending", 5_820, "USD", second),
        update(dollars, "onchain_receipt", 5_820, "USD", second),
    ]
