"""A stack with a second LND of ours: the payer has a channel to each, and tellerd follows both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from regtest import binaries
from regtest.lnd import Lnd
from regtest.lnd_rest import LndError
from regtest.process import NodeError
from regtest.stack import MACAROON_ROOT_KEY_ID, TELLERD_CALLS, Stack

CAPACITY_SAT: Final = 5_000_000
FUNDING_SAT: Final = 6_000_000
PROBE_MSAT: Final = 1_000_000

PAYABLE_S: Final = 240.0
"""Three LNDs and a tellerd on two cores; a restarted peer was seen to need 52 s."""

T = TypeVar("T")

SECTION: Final = """
[[lnd]]
name = "lnd2"
address = "{address}"
tls_cert_file = "{tls_cert_file}"
macaroon_file = "{macaroon_file}"
"""


class SecondNode:
    """A context manager: the node is there, with a channel that the payer has funded."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.lnd = Lnd(binaries.lnd(), stack.folder / "lnd2", stack.bitcoind, name="lnd2")
        self._macaroon_file: Path = stack.folder / "lnd2.macaroon"

    def __enter__(self) -> Self:
        self.lnd.start()
        try:
            self.lnd.wait_ready()
            self.lnd.bake_macaroon(TELLERD_CALLS, MACAROON_ROOT_KEY_ID, self._macaroon_file)
            self._open_channel()
            self.wait_payable()
        except BaseException:
            self.lnd.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lnd.stop()

    @property
    def toml(self) -> str:
        """The section of it in tellerd's configuration: a macaroon of its own."""
        return SECTION.format(
            address=self.lnd.rpc_address, tls_cert_file=self.lnd.tls_cert_file, macaroon_file=self._macaroon_file
        )

    def wait_payable(self) -> None:
        """Returns when the payer can pay it; nothing is paid to find out."""
        payer = self.stack.payer
        # The payer remembers that its channel failed while this node was away, and would find no route for an hour.
        payer.call("POST", "/v2/router/mc/reset", {})
        payer.process.wait_until(
            partial(self._tried, lambda: payer.probe(self.lnd.pubkey, PROBE_MSAT)), "able to pay lnd2", PAYABLE_S
        )

    def _open_channel(self) -> None:
        payer, bitcoind = self.stack.payer, self.stack.bitcoind
        before = payer.wallet_balance()
        bitcoind.send(payer.new_address(), FUNDING_SAT)
        self._mine(1)
        payer.process.wait_until(lambda: payer.wallet_balance() > before, "funded on chain", PAYABLE_S)
        opened = partial(self._tried, lambda: payer.open_channel(self.lnd.pubkey, CAPACITY_SAT))
        payer.process.wait_until(opened, "channel begun", PAYABLE_S)
        self._mine(6)

    def _tried(self, step: Callable[[], T]) -> T:
        """The step with both connected; NodeError while LND is not ready for it."""
        try:
            self.stack.payer.connect(self.lnd.pubkey, self.lnd.p2p_address)
            return step()
        except LndError as not_yet:
            raise NodeError(str(not_yet)) from not_yet

    def _mine(self, blocks: int) -> None:
        self.stack.mine(blocks)
        self.lnd.wait_synced(self.stack.bitcoind.height())
