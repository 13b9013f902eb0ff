"""Everything tellerd needs around it, up together: one mongod, one bitcoind, our LND and a payer's LND.

with Stack() as stack:
    config = stack.tellerd_config(folder)
    invoice = stack.lnd.add_invoice(1_000_000)
    stack.payer.pay(invoice.payment_request)
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.lnd import Lnd
from regtest.lnd_rest import PAY_S, LndError, Payment
from regtest.mongod import Mongod
from regtest.process import NodeError, NodeProcess, take_port

KEEP_VARIABLE: Final = "TELLERD_KEEP"

CAPACITY_SAT: Final = 16_000_000
"""0.16 BTC: the largest channel without wumbo is 0.16777215."""

CAPACITY_MOST_SAT: Final = 1_000_000_000
"""LND's own limit for a wumbo channel: 10 BTC."""

FUNDING_SPARE_SAT: Final = 1_000_000
"""On top of the channel, for the funding transaction's fee and LND's reserve for anchors."""

CHANNEL_BLOCKS: Final = 6
"""3 open a channel, 6 announce it."""

PAYABLE_S: Final = 180.0
"""2 s after the channel's blocks; after an LND restart peers were seen to need 52 s when nobody connects them."""

REJOIN_S: Final = 180.0
"""LND's ZMQ connection was seen to be back 5-10 s after bitcoind; LND gives bitcoind up after 256 s."""

REJOIN_BLOCK_S: Final = 2.0

PROBE_MSAT: Final = 1_000_000
IN_FLIGHT: Final = 50
IN_FLIGHT_MOST: Final = 400
"""A channel carries 483 HTLCs at once; the rest is left for others."""

MACAROON_ROOT_KEY_ID: Final = 7
TELLERD_CALLS: Final = (
    *(
        f"/lnrpc.Lightning/{method}"
        for method in (
            "GetInfo",
            "AddInvoice",
            "LookupInvoice",
            "ListInvoices",
            "SubscribeInvoices",
            "DecodePayReq",
            "WalletBalance",
            "ChannelBalance",
            "NewAddress",
            "GetTransactions",
            "SubscribeTransactions",
            "SubscribeChannelEvents",
            "ListChannels",
            "PendingChannels",
            "ClosedChannels",
            "ListPayments",
            "ForwardingHistory",
            "LookupHtlcResolution",
        )
    ),
    *(
        f"/invoicesrpc.Invoices/{method}"
        for method in ("AddHoldInvoice", "SubscribeSingleInvoice", "SettleInvoice", "CancelInvoice", "LookupInvoiceV2")
    ),
)
"""What tellerd may call on its node: no payment, no channel, no key."""


class Stack:
    """A running stack with one funded channel from `payer` to `lnd`; a context manager, or start() and stop().

    It lives in a folder of its own with data and logs, in the temporary folder unless one is given. A temporary one
    is removed at the end, unless something failed, keep() was called or TELLERD_KEEP is set: then its path is
    printed. A folder that was given must be empty or missing, and always stays.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        capacity_sat: int = CAPACITY_SAT,
        push_sat: int = 0,
        native_sql: bool = False,
        warm_up: bool = True,
        mongod_flags: tuple[str, ...] = (),
    ) -> None:
        """`push_sat` of the channel's `capacity_sat` belong to `lnd` from the start. `native_sql` is for `lnd` only.

        Without `warm_up` the channel is active, but the first payments may still fail for about a second. Finds the
        programs: the first time on a machine that takes minutes; ProgramUnavailable if one cannot be had.
        """
        if not 0 < capacity_sat <= CAPACITY_MOST_SAT:
            raise ValueError(f"capacity_sat: 1 to {CAPACITY_MOST_SAT}, not {capacity_sat}")
        if folder is not None and folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty: a stack starts from nothing, its ports are new every time")
        mongod, bitcoind, lnd = binaries.mongod(), binaries.bitcoind(), binaries.lnd()
        self._temporary = folder is None
        self._kept = bool(os.environ.get(KEEP_VARIABLE))
        self.folder = Path(tempfile.mkdtemp(prefix="tellerd-regtest-")) if folder is None else folder.absolute()
        self._capacity_sat, self._push_sat, self._warm_up = capacity_sat, push_sat, warm_up
        self.mongod = Mongod(mongod, self.folder / "mongod", mongod_flags)
        self.bitcoind = Bitcoind(bitcoind, self.folder / "bitcoind")
        self.lnd = Lnd(lnd, self.folder / "lnd", self.bitcoind, name="lnd", native_sql=native_sql)
        self.payer = Lnd(lnd, self.folder / "payer", self.bitcoind, name="payer")
        self.tellerd_macaroon_file = self.folder / "tellerd.macaroon"

    def __enter__(self) -> Self:
        """start(); whatever fails in it ends the processes and keeps the folder."""
        try:
            self.start()
        except BaseException as failure:
            self.__exit__(type(failure), failure, failure.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """stop(); an exception keeps the folder, Ctrl-C does not."""
        if kind is not None and issubclass(kind, Exception):
            self.keep()
        self.stop()

    @property
    def processes(self) -> tuple[NodeProcess, ...]:
        """The four node processes."""
        return (self.mongod.process, self.bitcoind.process, self.lnd.process, self.payer.process)

    def start(self) -> None:
        """Everything up, the channel open and (with warm_up) payable; 10 s. NodeError with a log if not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _together(self._start_mongod, self._start_chain)
        self.bake_macaroon()
        self.open_channel(self._capacity_sat, self._push_sat)
        if self._warm_up:
            self.wait_payable()

    def stop(self) -> None:
        """End every process, the LNDs before what they stand on, and remove the folder unless it is kept."""
        try:
            _together(self.lnd.stop, self.payer.stop, self.mongod.stop)
        finally:
            self.bitcoind.stop()
        if not self._temporary:
            return
        if self._kept:
            print(f"regtest: data and logs are kept in {self.folder}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(self.folder)

    def keep(self) -> None:
        """Something failed: leave the folder at the end, with data and logs, and print its path."""
        self._kept = True

    def open_channel(self, capacity_sat: int = CAPACITY_SAT, push_sat: int = 0) -> str:
        """A new channel from `payer` to `lnd`, funded, confirmed and active on both sides; returns its point.

        Also what makes a wiped `lnd` payable again: follow with bake_macaroon() and wait_payable().
        """
        self.bitcoind.send(self.payer.new_address(), capacity_sat + FUNDING_SPARE_SAT)
        funds_before = self.payer.wallet_balance()
        self.mine(1)
        self.payer.process.wait_until(lambda: self.payer.wallet_balance() > funds_before, "funded on chain", PAYABLE_S)
        point = self.payer.process.wait_until(
            lambda: self._try_to_open(capacity_sat, push_sat), "peer connected", PAYABLE_S
        )
        self.mine(CHANNEL_BLOCKS)
        for node in (self.payer, self.lnd):
            node.process.wait_until(partial(_has_active, node, point), "channel active", PAYABLE_S)
        return point

    def mine(self, blocks: int) -> None:
        """Mine blocks and wait until both LNDs have seen them; after bitcoind's restart rejoin_chain() goes first."""
        self.bitcoind.mine(blocks)
        height = self.bitcoind.height()
        _together(lambda: self.payer.wait_synced(height), lambda: self.lnd.wait_synced(height))

    def rejoin_chain(self) -> None:
        """After a restart of bitcoind: mine a block every 2 s until both LNDs have seen one.

        LND needs some seconds to subscribe again, and of the blocks before that it hears with the next one only.
        NodeError after REJOIN_S.
        """
        deadline = time.monotonic() + REJOIN_S
        while True:
            self.bitcoind.mine(1)
            height = self.bitcoind.height()
            try:
                for node in (self.payer, self.lnd):
                    node.wait_synced(height, REJOIN_BLOCK_S)
            except NodeError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def wait_payable(self, timeout_s: float = PAYABLE_S) -> None:
        """Return when `payer` can pay `lnd`, connecting them if need be; NodeError if not in time.

        Right after a channel's opening and after a restart payments fail for a second or more. Nothing is paid to
        find out, so no balance changes and no invoice appears. What the payer remembers of a channel that failed is
        forgotten: it would find no route for an hour.
        """

        def payable() -> bool:
            try:
                self.payer.connect(self.lnd.pubkey, self.lnd.p2p_address)
                self.payer.call("POST", "/v2/router/mc/reset", {})
                return self.payer.probe(self.lnd.pubkey, PROBE_MSAT)
            except LndError as not_yet:
                raise NodeError(str(not_yet)) from not_yet

        self.payer.process.wait_until(payable, "able to pay lnd", timeout_s)

    def bake_macaroon(self) -> Path:
        """Write `tellerd_macaroon_file` for the present `lnd`: what tellerd calls and nothing else."""
        return self.lnd.bake_macaroon(TELLERD_CALLS, MACAROON_ROOT_KEY_ID, self.tellerd_macaroon_file)

    def pay_many(
        self, payment_requests: Sequence[str], in_flight: int = IN_FLIGHT, *, timeout_s: int = PAY_S
    ) -> list[Payment]:
        """Pay from `payer`, at most `in_flight` at a time; the results in the order of the requests.

        LndError or NodeError of the first payment that LND refused to try: those under way have ended then, the
        rest was not tried.
        """
        if not 0 < in_flight <= IN_FLIGHT_MOST:
            raise ValueError(f"in_flight: 1 to {IN_FLIGHT_MOST}, not {in_flight}")
        with ThreadPoolExecutor(in_flight, thread_name_prefix="regtest-payer") as pool:
            return list(pool.map(lambda request: self.payer.pay(request, timeout_s=timeout_s), payment_requests))

    def tellerd_config(
        self,
        folder: Path,
        *,
        database: str = "tellerd",
        api_port: int = 0,
        http_port: int = 0,
        chain: bool = False,
        extra: str = "",
    ) -> Path:
        """Write `folder`/tellerd.toml for a tellerd on this stack and return its path.

        With `chain` it follows the stack's bitcoind, too, and its addresses are those of bitcoind's wallet "bank".

        A port 0 becomes a free one, written into the file. `extra` is TOML that goes to the end: more sections.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.absolute() / "tellerd.toml"
        file.write_text(
            TELLERD_TOML.format(
                mongo_url=self.mongod.url,
                database=database,
                lnd_address=self.lnd.rpc_address,
                tls_cert_file=self.lnd.tls_cert_file,
                macaroon_file=self.tellerd_macaroon_file,
                api_port=api_port or take_port(),
                http_port=http_port or take_port(),
            )
            + (self._chain_toml() if chain else "")
            + extra
        )
        return file

    def _chain_toml(self) -> str:
        return CHAIN_TOML.format(
            rpc_url=self.bitcoind.rpc_url,
            cookie_file=self.bitcoind.cookie_file,
            zmq=", ".join(f'"{address}"' for address in self.bitcoind.zmq_addresses),
            descriptor=self.bitcoind.bank_descriptor(),
        )

    def _try_to_open(self, capacity_sat: int, push_sat: int) -> str:
        """The new channel's point; NodeError while the peer, connected a moment ago, is "not online" yet, or one of
        two connections that were made at once is given up ("peer exiting", "peer … disconnected")."""
        try:
            self.payer.connect(self.lnd.pubkey, self.lnd.p2p_address)
            return self.payer.open_channel(self.lnd.pubkey, capacity_sat, push_sat)
        except LndError as refusal:
            if not any(passing in str(refusal) for passing in ("is not online", "peer exiting", "disconnected")):
                raise
            raise NodeError(str(refusal)) from refusal

    def _start_mongod(self) -> None:
        self.mongod.start()
        self.mongod.wait_ready()

    def _start_chain(self) -> None:
        """bitcoind with coins that can be spent, then both LNDs on it."""
        self.bitcoind.start()
        self.bitcoind.wait_ready()
        if self.bitcoind.height() < MATURITY_BLOCKS:
            self.bitcoind.mine(MATURITY_BLOCKS)
        self.bitcoind.mine(1)  # LND waits as long as the newest block is older than two hours
        for node in (self.lnd, self.payer):
            node.start()
        _together(self.lnd.wait_ready, self.payer.wait_ready)


TELLERD_TOML: Final = """\
network = "regtest"

[mongo]
url = "{mongo_url}"
database = "{database}"

[[lnd]]
name = "lnd1"
address = "{lnd_address}"
tls_cert_file = "{tls_cert_file}"
macaroon_file = "{macaroon_file}"

[prices]
source = "fixed"
usd_per_btc = "60000.00"

[api]
listen = "127.0.0.1:{api_port}"

[http]
listen = "127.0.0.1:{http_port}"
"""

CHAIN_TOML: Final = """
[bitcoind]
rpc_url = "{rpc_url}"
rpc_cookie_file = "{cookie_file}"
zmq = [{zmq}]
xpub = "{descriptor}"
"""


@contextmanager
def mongod_only(*extra_flags: str) -> Iterator[Mongod]:
    """One mongod in a temporary folder, ready; for tests that need only the database. Kept like a Stack's folder."""
    command = binaries.mongod()
    folder = Path(tempfile.mkdtemp(prefix="tellerd-mongod-"))
    mongod = Mongod(command, folder, extra_flags)
    kept = True
    try:
        mongod.start()
        mongod.wait_ready()
        yield mongod
        kept = bool(os.environ.get(KEEP_VARIABLE))
    finally:
        mongod.stop()
        if kept:
            print(f"regtest: data and logs are kept in {folder}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(folder)


def _has_active(node: Lnd, point: str) -> bool:
    """True if the node has an active channel with this point."""
    return any(channel["active"] and channel["channel_point"] == point for channel in node.list_channels())


def _together(*steps: Callable[[], None]) -> None:
    """Run the steps at the same time and wait for all; raises what the first of them raised."""
    with ThreadPoolExecutor(len(steps)) as pool:
        for running in [pool.submit(step) for step in steps]:
            running.result()
