"""A bank whose bitcoind has a peer: what bitcoind misses or forgets, the peer still has."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.chain_books import check_books_equal_chain
from tests.e2e.zmq_relay import ZmqRelay

BACK_S = 120.0
"""bitcoind's start takes 1 s; the follower's pauses grow up to 15 s while it is away. A bound against hanging."""


class Rig:
    """A bank, its bitcoind, a relay for its ZMQ, and a second bitcoind with the same chain and coins of its own."""

    def __init__(self, stack: Stack, folder: Path, *, sections: str = "") -> None:
        self.relay = ZmqRelay()
        self.chain = ChainBank(stack, folder, zmq=[self.relay.address], sections=sections)
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
        wallet = client.create_wallet(f"customer-{self._wallets}")
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
