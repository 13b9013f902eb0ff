"""What is away comes back: bitcoind, its messages, its cookie, its blocks. Every deposit is found, and Lightning
goes on meanwhile."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.mongo.collections import OUTBOX, WALLETS
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.process import take_port
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import XPUB, ChainBank
from tests.e2e.chain_books import check_books_equal_chain
from tests.e2e.zmq_relay import ZmqRelay

AMOUNT_SAT = 500_000
BACK_S = 60.0
"""bitcoind's start takes 1 s; the follower's pauses grow to 15 s while it is away."""


class Rig:
    """A bank, its bitcoind, a relay for its ZMQ, and a second bitcoind with the same chain and coins of its own."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.relay = ZmqRelay()
        self.chain = ChainBank(stack, folder, zmq=[self.relay.address])
        self.relay.target = self.chain.bitcoind.zmq_sequence
        self.bitcoind = self.chain.bitcoind
        self.other = Bitcoind(binaries.bitcoind(), folder / "other")
        self.bank = self.chain.bank
        self.owners: dict[str, str] = {}
        self._wallets = 0

    def open(self) -> None:
        """Both have coins that can be spent; tellerd is at the tip."""
        self.relay.start()
        self.chain.start_bitcoind()
        self.other.start()
        self.other.wait_ready()
        self.other.mine(20)
        self.join()
        self.bitcoind.mine(MATURITY_BLOCKS + 20)
        self.in_step()
        self.bank.open()
        self.chain.wait_followed()
        self.first_height = self.bitcoind.height()

    def close(self) -> None:
        """Ends everything."""
        with ExitStack() as ends:
            ends.callback(self.relay.cut)
            ends.callback(self.other.stop)
            ends.callback(self.chain.close)

    def join(self) -> None:
        """The two become peers, and agree."""
        self.bitcoind.connect(self.other)
        self.in_step()

    def in_step(self) -> None:
        """Returns when both have the same tip."""
        wait_for(
            lambda: self.bitcoind.rpc("getbestblockhash") == self.other.rpc("getbestblockhash"), "both bitcoinds agree"
        )

    def new_address(self, client: Client) -> str:
        """An address of a new wallet."""
        self._wallets += 1
        wallet = client.create_wallet(f"customer {self._wallets}")
        address = self.chain.address(client, wallet)
        self.owners[address] = wallet
        return address

    def wait_told(self, txid: str, *types: str, timeout_s: float = BACK_S) -> None:
        """Returns when exactly this was told of a tx."""
        wait_for(lambda: self.chain.told(txid) == list(types), f"{txid}: {types}", timeout_s)

    def status(self, client: Client) -> admin_pb2.ChainStatus:
        """What GetStatus says of the chain."""
        return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).chain

    def wait_live(self, client: Client) -> None:
        """Returns when the chain is followed and the books are at the tip."""
        wait_for(lambda: self.status(client).state == "live", "the chain is followed", BACK_S)
        self.chain.wait_followed()

    def metric(self, name: str) -> float:
        """A sample of /metrics by its name and labels; 0 if it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.bank.tellerd.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def check(self) -> None:
        """The books are what the best chain says."""
        assert check_books_equal_chain(self.chain, self.owners, from_height=self.first_height) > 0


@pytest.fixture(scope="module")
def rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests that leave it as they found it."""
    rig = Rig(stack, tmp_path_factory.mktemp("outages"))
    try:
        rig.open()
        yield rig
    finally:
        rig.close()


@pytest.fixture
def followed(rig: Rig) -> Iterator[Rig]:
    """The shared one, followed; its books are checked after the test."""
    with rig.bank.tellerd.client() as client:
        rig.wait_live(client)
        yield rig
        rig.wait_live(client)
    rig.check()


@contextmanager
def started_with(bitcoind: Bitcoind, *flags: str) -> Iterator[None]:
    """bitcoind is restarted with more flags, and without them afterwards."""
    command = bitcoind.process.command
    bitcoind.process.command = (*command, *flags)
    try:
        bitcoind.restart()
        yield
    finally:
        bitcoind.process.command = command
        bitcoind.restart()


@contextmanager
def configured(chain: ChainBank, old: str, new: str) -> Iterator[None]:
    """tellerd is restarted with another line in its configuration, and with the old one afterwards."""
    daemon = chain.bank.tellerd
    text = daemon.config_file.read_text()
    assert text.count(old) == 1
    daemon.process.stop()
    daemon.config_file.write_text(text.replace(old, new))
    try:
        daemon.start()
        daemon.wait_ready()
        yield
    finally:
        daemon.process.stop()
        daemon.config_file.write_text(text)
        daemon.start()
        daemon.wait_ready()


def zmq_line(addresses: Sequence[str]) -> str:
    """As in the file."""
    return "zmq = [" + ", ".join(f'"{address}"' for address in addresses) + "]"


# --- bitcoind away --------------------------------------------------------------------------------------


def test_bitcoind_stopped_and_back_with_a_new_cookie(followed: Rig) -> None:
    """Deposits that are paid, mined and buried while tellerd's bitcoind is away are found when it is back, although
    it wrote another cookie; status, metric and `check` say what is wrong meanwhile, and Lightning settles."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        addresses = [rig.new_address(client) for _ in range(3)]
        invoice = rig.bank.invoices(client, rig.owners[addresses[0]], [1_000])
        cookie = rig.bitcoind.cookie_file.read_bytes()
        rig.bitcoind.stop()
        wait_for(lambda: not rig.status(client).connected, "the outage is seen")
        txids = [rig.other.send(address, AMOUNT_SAT) for address in addresses]
        rig.other.mine(2)
        wait_for(lambda: "bitcoind" in rig.status(client).last_error, "the status says why")
        assert rig.status(client).state.startswith("waiting")
        assert rig.metric("tellerd_chain_connected") == 0
        assert re.search(r"FAILED +bitcoind", rig.bank.command("check", expect=1))
        rig.bank.pay(invoice)
        rig.bank.wait_balance(rig.owners[addresses[0]], 1_000)
        rig.bitcoind.start()
        rig.bitcoind.wait_ready()
        assert rig.bitcoind.cookie_file.read_bytes() != cookie
        rig.join()
        for txid in txids:
            rig.wait_told(txid, "deposit.confirmed", "deposit.settled")
        rig.wait_live(client)
        assert rig.metric("tellerd_chain_connected") == 1
