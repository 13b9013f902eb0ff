"""An LND on regtest: the process, and the calls of its REST interface (lnd_rest.py)."""

from pathlib import Path
from typing import Any, Final

from regtest.bitcoind import Bitcoind
from regtest.lnd_rest import LndError, LndRest
from regtest.process import Node, NodeError, NodeProcess, take_port

CONFIGURATION: Final = Path(__file__).with_name("conf") / "lnd.conf"

READY_S: Final = 180.0
"""3-4 s when idle; LND waits for its chain backend and opens several databases. A bound against hanging."""

SYNC_S: Final = 180.0
"""Under a second after a block; LND that lost bitcoind's ZMQ connection needs some more."""


class Lnd(Node, LndRest):
    """One LND: its ports and data folder stay the same over restarts.

    After restart() its peers may take a minute to come back by themselves: Stack.wait_payable() connects them at
    once. After wipe() it is another node: another pubkey, another certificate, no channel, old macaroons void.
    """

    def __init__(
        self, command: tuple[str, ...], folder: Path, bitcoind: Bitcoind, *, name: str, native_sql: bool = False
    ) -> None:
        """`command` is the program (regtest.binaries.lnd()); data and log go into `folder`.

        `native_sql` keeps invoices in sqlite tables instead of bbolt: what the node writes first decides, so not to
        be changed for a folder with data.
        """
        self.name = name
        self.folder = folder
        self.data_folder = folder / "data"
        self.rpc_port, self.rest_port, self.p2p_port = take_port(), take_port(), take_port()
        self.tls_cert_file = self.data_folder / "tls.cert"
        self.admin_macaroon_file = self.data_folder / "data" / "chain" / "bitcoin" / "regtest" / "admin.macaroon"
        self._pubkey: str | None = None
        super().__init__(self.rest_port, self.tls_cert_file, self.admin_macaroon_file)
        flags = (
            f"--configfile={CONFIGURATION}",
            f"--lnddir={self.data_folder}",
            f"--alias={name}",
            f"--listen={self.p2p_address}",
            f"--rpclisten={self.rpc_address}",
            f"--restlisten=127.0.0.1:{self.rest_port}",
            f"--bitcoind.rpchost={bitcoind.rpc_address}",
            f"--bitcoind.zmqpubrawblock={bitcoind.zmq_rawblock}",
            f"--bitcoind.zmqpubrawtx={bitcoind.zmq_rawtx}",
            *(("--db.backend=sqlite", "--db.use-native-sql") if native_sql else ()),
        )
        environment = {"BITCOIND_RPC_PASSWORD": bitcoind.lnd_password}
        self.process = NodeProcess(name, (*command, *flags), folder / f"{name}.log", environment)

    @property
    def rpc_address(self) -> str:
        """host:port of gRPC."""
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def p2p_address(self) -> str:
        """host:port for other LNDs."""
        return f"127.0.0.1:{self.p2p_port}"

    @property
    def pubkey(self) -> str:
        """The node's identity, in hex; known once it was ready."""
        if self._pubkey is None:
            raise NodeError(f"{self.name} has not been ready yet")
        return self._pubkey

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when every call works. NodeError if not in time.

        LND does not get there while bitcoind's newest block is older than two hours: mine one before.
        """
        self._pubkey = self.process.wait_until(self._identity_when_active, "active", timeout_s)

    def wait_synced(self, height: int, timeout_s: float = SYNC_S) -> None:
        """Return when it has seen the block at `height`, with its wallet. NodeError if not in time."""

        def synced() -> bool:
            info = self.info_or_not_yet()
            return bool(info["synced_to_chain"]) and int(info["block_height"]) >= height

        self.process.wait_until(synced, f"synced to height {height}", timeout_s)

    def start(self) -> None:
        """Start it; it is not ready yet (wait_ready). bitcoind must answer, or LND ends at once."""
        self.forget_connections()
        super().start()

    def stop(self) -> None:
        """SIGTERM: a clean end."""
        super().stop()
        self.forget_connections()

    def kill(self) -> None:
        """SIGKILL: LND may then fail back HTLCs of invoices that it calls settled."""
        super().kill()
        self.forget_connections()

    def info_or_not_yet(self) -> dict[str, Any]:
        """GetInfo for a waiting loop: NodeError instead of LndError."""
        try:
            return self.get_info()
        except LndError as not_yet:
            raise NodeError(str(not_yet)) from not_yet

    def _identity_when_active(self) -> str | None:
        """The pubkey; None or NodeError while LND starts."""
        try:
            if self.wallet_state() != "SERVER_ACTIVE":
                return None
        except LndError as not_yet:
            raise NodeError(str(not_yet)) from not_yet
        return str(self.info_or_not_yet()["identity_pubkey"])
