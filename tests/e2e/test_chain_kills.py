"""kill -9 while blocks come and go: the books end up as the final chain says, once each (design.md section 3)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.mongo import collections as names
from regtest.bitcoind import Bitcoind
from regtest.stack import Stack
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.chain_books import check_books_equal_chain
from tests.e2e.chain_rig import Rig
from tests.e2e.fail_points import Point, held

SHORT_LEASE = "[posting]\nlease_ttl_s = 1.0\n"
"""A killed leader's lease is waited for at every start: one second instead of five, each time."""

POINTS = (
    Point("before taking keys", "insert", names.KEYS, in_transaction=False),
    Point("before moving balances", "update", names.BALANCES, in_transaction=True),
    Point("before moving the cursor", "update", names.CURSORS, in_transaction=True),
    Point("before writing deposits", "update", names.DEPOSITS, in_transaction=True),
    Point("before ending pending receives", "delete", names.PENDING_RECEIVES, in_transaction=True),
    Point("before writing legs", "insert", names.LEGS, in_transaction=True),
    Point("before moving the head", "update", names.HEAD, in_transaction=True),
    Point("before committing", "commitTransaction", None, in_transaction=True),
    Point("after committing", "commitTransaction", None, in_transaction=False, after=True),
)
"""Commands of the chain's commits in their order (adapters.mongo.commit). The first command of a transaction is
held before it opens one."""

KILLS = 8
CUSTOMERS = 5
AMOUNT_SAT = 20_000


class Bench:
    """A bank with customers, and deposits for them."""

    def __init__(self, chain: ChainBank) -> None:
        self.chain = chain
        self.bitcoind = chain.bitcoind
        self.tellerd = chain.bank.tellerd
        self.first_height = chain.bitcoind.height()
        self._paid = 0
        with self.tellerd.client() as client:
            wallets = [client.create_wallet(f"customer-{number}") for number in range(CUSTOMERS)]
            self.owners = {chain.address(client, wallet): wallet for wallet in wallets}

    def pay(self, deposits: int) -> list[str]:
        """So many deposits into the mempool, each of another amount; returns their txids."""
        addresses = list(self.owners)
        txids = []
        for _ in range(deposits):
            self._paid += 1
            txids.append(self.bitcoind.send(addresses[self._paid % CUSTOMERS], AMOUNT_SAT + self._paid))
        return txids

    def reorganise(self, depth: int) -> None:
        """The newest blocks are lost; a longer branch takes their place, with some of their txs in its first block."""
        height = self.bitcoind.height()
        self.bitcoind.rpc("invalidateblock", self.bitcoind.rpc("getblockhash", height - depth + 1))
        self.bitcoind.rpc("generateblock", self.bitcoind.new_address(), self.bitcoind.rpc("getrawmempool")[:1])
        self.bitcoind.mine(depth)

    def start(self) -> None:
        """tellerd again, until it leads."""
        self.tellerd.start()
        self.tellerd.wait_ready()

    def check(self) -> int:
        """The books are what the best chain says; returns how many deposits are credited."""
        return check_books_equal_chain(self.chain, self.owners, from_height=self.first_height)

    def verify(self) -> None:
        """The command's own word."""
        self.chain.bank.command("verify")


@pytest.fixture(scope="module")
def bench(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One for all kills of tellerd: each test leaves it with books that are equal to the chain."""
    chain = ChainBank(stack, tmp_path_factory.mktemp("kills"), sections=SHORT_LEASE)
    try:
        chain.open()
        yield Bench(chain)
    finally:
        chain.close()


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_at_a_point_of_a_chain_commit(bench: Bench, point: Point, killed_in_a_transaction: list[str]) -> None:
    """Killed just there while one deposit settles, one confirms and one is seen, started again: each stands where
    the chain says, credited once."""
    bank = bench.chain.bank
    settling = bench.pay(1)
    bench.bitcoind.mine(1)
    bench.chain.wait_followed()
    confirming = bench.pay(1)
    with held(bank.db.client, bank.database, point) as holding:
        bench.bitcoind.mine(1)
        seen = bench.pay(1)
        holding.wait_reached()
        open_now = holding.open_transactions()
        bench.tellerd.process.kill()
        if point.in_transaction:
            assert open_now >= 1, "no transaction was open when the daemon was killed"
            killed_in_a_transaction.append(f"chain: {point.name}")
        bench.start()  # while the server still holds the dead daemon's command
    bench.check()
    wait_for(lambda: bench.chain.told(seen[0]) == ["deposit.detected"], "the unmined deposit is seen")
    assert bench.chain.told(settling[0]) == ["deposit.detected", "deposit.confirmed", "deposit.settled"]
    wait_for(lambda: bench.chain.told(confirming[0])[-1] == "deposit.confirmed", "the mined deposit is confirmed")


def test_killed_again_and_again_while_blocks_come_and_go(bench: Bench) -> None:
    """SIGKILL at random moments under deposits, blocks and reorgs: after each start the books go on to where the
    chain is, and no credit is lost or doubled."""
    seed = random.randrange(1 << 32)
    print(f"\nseed {seed}")
    rng = random.Random(seed)
    credited = 0
    for kill in range(KILLS):
        for _ in range(3):
            bench.pay(rng.randrange(1, 5))
            bench.bitcoind.mine(1)
        if kill:
            time.sleep(rng.uniform(0.0, 0.2))
            bench.reorganise(depth=rng.randrange(1, 4))
        else:  # however slow the machine is, once there are credits that a reorg takes back
            bench.check()
            bench.reorganise(depth=3)
        time.sleep(rng.uniform(0.0, 0.3))
        bench.tellerd.process.kill()
        if kill % 2:
            bench.reorganise(depth=rng.randrange(1, 4))  # unseen
        bench.start()
        time.sleep(rng.uniform(0.0, 0.1))
    bench.bitcoind.mine(2)
    credited = bench.check()
    bench.verify()
    told = bench.chain.bank.db[names.OUTBOX].count_documents({"type": "deposit.reversed"})
    print(f"{credited} credits stand, {told} were reversed, {KILLS} kills")
    assert told > 0, "no credit was taken back: nothing was tried"


BITCOIND_KILLS = 3
BLOCKS_MOST = 2_000
"""Blocks come in until the last kill: some ten between two of them, more on a busy machine."""


def test_bitcoind_killed_while_blocks_come_in(stack: Stack, tmp_path: Path) -> None:
    """SIGKILL while it connects blocks with deposits from its peer: it comes back lower, loads them again, and
    nothing is reversed, lost or doubled; the reorg that its peer makes at last is followed."""
    seed = random.randrange(1 << 32)
    print(f"\nseed {seed}")
    rng = random.Random(seed)
    rig = Rig(stack, tmp_path)
    try:
        rig.open()
        with rig.bank.tellerd.client() as client:
            addresses = [rig.new_address(client) for _ in range(CUSTOMERS)]
            rig.bitcoind.rpc("gettxoutsetinfo")  # flushes: not back before tellerd's first block
            enough = threading.Event()
            with ThreadPoolExecutor(1) as miner, finally_set(enough):
                mining = miner.submit(_mine_deposits, rig.other, addresses, enough)
                for _ in range(BITCOIND_KILLS):
                    height = rig.bitcoind.height()
                    wait_for(lambda height=height: rig.bitcoind.height() > height, "blocks come in")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    time.sleep(rng.uniform(0.0, 0.3))
                    rig.bitcoind.kill()
                    rig.bitcoind.start()
                    rig.bitcoind.wait_ready()
                    rig.bitcoind.connect(rig.other)
                enough.set()
                mining.result()
            rig.in_step()
            rig.wait_live(client)
            rig.check()
            told = rig.bank.db[names.OUTBOX].count_documents({"type": "deposit.reversed"})
            assert told == 0, "a bitcoind that came back lower was taken for a reorg"
            rig.other.rpc("invalidateblock", rig.other.rpc("getblockhash", rig.other.height() - 2))
            rig.other.rpc("generateblock", rig.other.new_address(), [])
            rig.other.mine(3)
            rig.in_step()
            rig.wait_live(client)
            rig.check()
            assert rig.bank.db[names.OUTBOX].count_documents({"type": "deposit.reversed"}) > 0
            rig.bank.command("verify")
    finally:
        rig.close()


@contextmanager
def finally_set(event: threading.Event) -> Iterator[None]:
    """However the block ends, whoever waits for the event goes on."""
    try:
        yield
    finally:
        event.set()


def _mine_deposits(bitcoind: Bitcoind, addresses: list[str], enough: threading.Event) -> None:
    for number in range(BLOCKS_MOST):
        if enough.is_set():
            return
        for extra in range(2):
            bitcoind.send(addresses[(number + extra) % len(addresses)], AMOUNT_SAT + 2 * number + extra)
        bitcoind.mine(1)
        time.sleep(0.1)
