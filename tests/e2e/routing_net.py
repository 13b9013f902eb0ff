"""Three LNDs in a row: the payer, ours, and one beyond it, so that payments go through ours."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Final, Self

from regtest import binaries
from regtest.lnd import Lnd
from regtest.lnd_rest import LndError, Payment
from regtest.process import NodeError
from regtest.stack import Stack
from tests.e2e.bank import wait_for

SYNC_S: Final = 240.0
"""Three LNDs and a tellerd on two cores, and hundreds of blocks at once."""


BLOCKS_AT_ONCE: Final = 30
"""360 in one call were seen to take longer than the call may, on a machine with much else to do."""


class RoutingNet:
    """A stack with a third LND; the channels to it are opened by ours, as a test asks for them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ours = stack.lnd
        self.third = Lnd(binaries.lnd(), stack.folder / "third", stack.bitcoind, name="third")

    def __enter__(self) -> Self:
        self.third.start()
        self.third.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.third.stop()

    def mine(self, blocks: int) -> None:
        """Blocks that all three have seen."""
        for start in range(0, blocks, BLOCKS_AT_ONCE):
            self.stack.bitcoind.mine(min(BLOCKS_AT_ONCE, blocks - start))
        height = self.stack.bitcoind.height()
        for node in (self.ours, self.third, self.stack.payer):
            node.wait_synced(height, SYNC_S)

    def fund(self, amount_sat: int) -> str:
        """Coins for our LND's wallet, confirmed; returns the txid."""
        before = self.ours.wallet_balance()
        txid = self.stack.bitcoind.send(self.ours.new_address(), amount_sat)
        self.mine(1)
        wait_for(lambda: self.ours.wallet_balance() == before + amount_sat, "the coins are in the wallet")
        return txid

    def begin_channel(self, capacity_sat: int, push_sat: int = 0) -> str:
        """A channel from ours to the third, whose funding tx is not in a block yet; returns its point."""

        def opened() -> str:
            try:
                self.ours.connect(self.third.pubkey, self.third.p2p_address)
                return self.ours.open_channel(self.third.pubkey, capacity_sat, push_sat)
            except LndError as refusal:  # the peer, connected a moment ago, is "not online" yet
                raise NodeError(str(refusal)) from refusal

        return self.ours.process.wait_until(opened, "the channel is begun", SYNC_S)

    def wait_active(self, point: str) -> None:
        """Returns when both sides call the channel active."""
        for node in (self.ours, self.third):
            wait_for(
                lambda node=node: any(one["active"] and one["channel_point"] == point for one in node.list_channels()),  # type: ignore[misc]  # a lambda with a default
                f"channel {point} is active",
            )

    def open_channel(self, capacity_sat: int, push_sat: int = 0) -> str:
        """The same, open and announced."""
        point = self.begin_channel(capacity_sat, push_sat)
        self.mine(6)
        self.wait_active(point)
        return point

    def route(self, amount_msat: int) -> Payment:
        """The payer pays the third through ours; tried again until the channels are known to it."""
        deadline = time.monotonic() + SYNC_S
        while True:
            invoice = self.third.add_invoice(amount_msat)
            payment = self.stack.payer.pay(invoice.payment_request, timeout_s=10)
            if payment.succeeded or time.monotonic() > deadline:
                assert payment.succeeded, payment
                return payment
            time.sleep(1)

    def pay_by_hand(self, amount_msat: int) -> Payment:
        """Ours pays the third, and no program knows of it."""
        payment = self.ours.pay(self.third.add_invoice(amount_msat).payment_request)
        assert payment.succeeded, payment
        return payment

    def send_coins(self, amount_sat: int) -> str:
        """Ours pays bitcoind out of its wallet; returns the txid."""
        body = {"addr": self.stack.bitcoind.new_address(), "amount": str(amount_sat), "sat_per_vbyte": "5"}
        return str(self.ours.call("POST", "/v1/transactions", body)["txid"])

    def close(self, point: str, *, force: bool = False) -> None:
        """Begins to close a channel; the closing tx is in the mempool then. LND's answer is a stream that lasts until
        the close is confirmed."""
        txid, _, vout = point.partition(":")
        fee = "" if force else "&sat_per_vbyte=3"

        def ask() -> None:
            with contextlib.suppress(LndError, NodeError, OSError):
                self.ours.call("DELETE", f"/v1/channels/{txid}/{vout}?force={str(force).lower()}{fee}", timeout_s=60)

        threading.Thread(target=ask, daemon=True).start()
        wait_for(lambda: self._closing(point) is not None, f"channel {point} closes")

    def _closing(self, point: str) -> str | None:
        pending = self.ours.call("GET", "/v1/channels/pending")["waiting_close_channels"]
        found = [one["closing_txid"] for one in pending if one["channel"]["channel_point"] == point]
        return next((str(txid) for txid in found if txid), None)

    def closed(self, point: str) -> bool:
        """Whether nothing of the channel is outstanding any more."""
        channels = self.ours.call("GET", "/v1/channels/closed")["channels"]
        return any(one["channel_point"] == point for one in channels)

    def blocks_til_maturity(self, point: str) -> int | None:
        """How many blocks until our output of a force-closed channel can be swept; None while LND does not know."""
        pending = self.ours.call("GET", "/v1/channels/pending")["pending_force_closing_channels"]
        found = [int(one["blocks_til_maturity"]) for one in pending if one["channel"]["channel_point"] == point]
        return next(iter(found), None)
