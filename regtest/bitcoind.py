"""A bitcoind on regtest, with a wallet that mines and pays."""

import base64
import hashlib
import hmac
import http.client
import json
import secrets
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from regtest.process import Node, NodeError, NodeProcess, take_port

CONFIGURATION: Final = Path(__file__).with_name("conf") / "bitcoin.conf"
WALLET: Final = "miner"
BANK_WALLET: Final = "bank"
MATURITY_BLOCKS: Final = 101  # the first coinbase can be spent when 100 blocks are above it

READY_S: Final = 180.0
"""1 s when idle; after SIGKILL it replays blocks. A bound against hanging."""

RPC_S: Final = 120.0
"""The slowest call here, mining 101 blocks, takes 0.3 s, and was seen to take half a minute on a busy machine."""

UNAUTHORIZED: Final = 401


class BitcoindRpcError(Exception):
    """bitcoind refused a call."""

    def __init__(self, method: str, code: int, message: str) -> None:
        """`code` is bitcoind's own (RPC_…), for instance -5 for an unknown block."""
        super().__init__(f"{method}: {message} ({code})")
        self.code = code


class Bitcoind(Node):
    """One bitcoind: its ports, data folder and LND's password stay the same over restarts, its cookie does not.

    After kill() it comes back with a lower tip: what it had not flushed is gone. After restart() LND takes some
    seconds to subscribe again and misses a block mined before that: see Stack.rejoin_chain(). LND cannot follow
    wipe(), which begins another chain.
    """

    def __init__(self, command: tuple[str, ...], folder: Path, extra_flags: tuple[str, ...] = ()) -> None:
        """`command` is the program (regtest.binaries.bitcoind()); data and log go into `folder`."""
        self.folder = folder
        self.data_folder = folder / "data"
        self.rpc_port, self.p2p_port = take_port(), take_port()
        self.zmq_rawblock = f"tcp://127.0.0.1:{take_port()}"
        self.zmq_rawtx = f"tcp://127.0.0.1:{take_port()}"  # LND refuses the same address for both
        self.zmq_sequence = f"tcp://127.0.0.1:{take_port()}"
        self.lnd_password = secrets.token_hex(32)
        flags = (
            f"-conf={CONFIGURATION}",
            f"-datadir={self.data_folder}",
            f"-bind={self.p2p_address}",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            f"-rpcport={self.rpc_port}",
            f"-rpcauth={rpcauth('lnd', self.lnd_password)}",
            f"-zmqpubrawblock={self.zmq_rawblock}",
            f"-zmqpubrawtx={self.zmq_rawtx}",
            f"-zmqpubsequence={self.zmq_sequence}",
        )
        self.process = NodeProcess("bitcoind", (*command, *flags, *extra_flags), folder / "bitcoind.log")

    @property
    def rpc_address(self) -> str:
        """host:port of JSON-RPC and REST."""
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def rpc_url(self) -> str:
        """Where JSON-RPC is asked."""
        return f"http://{self.rpc_address}"

    @property
    def rest_url(self) -> str:
        """Where REST is asked, without credentials: `<rest_url>/block/<hash>.bin`."""
        return f"{self.rpc_url}/rest"

    @property
    def p2p_address(self) -> str:
        """host:port for other bitcoinds (`addnode`)."""
        return f"127.0.0.1:{self.p2p_port}"

    @property
    def zmq_addresses(self) -> list[str]:
        """sequence, rawtx, rawblock: each topic on an address of its own."""
        return [self.zmq_sequence, self.zmq_rawtx, self.zmq_rawblock]

    @property
    def cookie_file(self) -> Path:
        """Name and password for JSON-RPC; bitcoind writes a new one at every start."""
        return self.data_folder / "regtest" / ".cookie"

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when it answers and its wallet is loaded (made at the first start). NodeError if not in time."""
        self.process.wait_until(self._answers, "answering RPC", timeout_s)
        if WALLET not in self.rpc("listwallets"):
            self.rpc("createwallet", WALLET, False, False, "", False, True, True)  # the last: load it at every start

    def rpc(self, method: str, *params: object, wallet: str = "", timeout_s: float = RPC_S) -> Any:
        """One JSON-RPC call with the cookie; numbers with a fraction (amounts in BTC) come as Decimal.

        `wallet` must be named as soon as more than the miner's is loaded.

        BitcoindRpcError when bitcoind refuses; NodeError or OSError when it cannot be asked. Never retried.
        """
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, default=str)
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=timeout_s)
        try:
            credentials = base64.b64encode(self.cookie_file.read_bytes()).decode()
            headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
            connection.request("POST", f"/wallet/{wallet}" if wallet else "/", body, headers)
            response = connection.getresponse()
            payload = response.read()
        except http.client.HTTPException as failure:
            raise NodeError(f"bitcoind: {method}: {failure!r}") from failure
        finally:
            connection.close()
        if response.status == UNAUTHORIZED:
            raise NodeError("bitcoind: the cookie is of another start")
        return _result(method, response.status, payload)

    def mine(self, blocks: int, address: str | None = None) -> list[str]:
        """Mine blocks to `address`, by default to the wallet; returns their hashes, the newest last."""
        hashes: list[str] = self.rpc("generatetoaddress", blocks, address or self.new_address())
        return hashes

    def new_address(self) -> str:
        """A fresh address (P2WPKH) of the wallet."""
        return str(self.rpc("getnewaddress", wallet=WALLET))

    def send(self, address: str, amount_sat: int) -> str:
        """Pay from the wallet; returns the txid. It is in the mempool, mine() confirms it."""
        return str(self.rpc("sendtoaddress", address, f"{Decimal(amount_sat).scaleb(-8):.8f}", wallet=WALLET))

    def bank_descriptor(self) -> str:
        """Where the bank's addresses come from: the public descriptor of a second wallet, made at the first call."""
        if BANK_WALLET not in self.rpc("listwallets"):
            self.rpc("createwallet", BANK_WALLET, False, False, "", False, True, True)
        listed = self.rpc("listdescriptors", wallet=BANK_WALLET)["descriptors"]
        return next(
            str(one["desc"])
            for one in listed
            if one["desc"].startswith("wpkh(") and one["active"] and not one["internal"]
        )

    def bank_balance_sat(self, min_confirmations: int) -> int:
        """What the bank's wallet holds, by bitcoind's own count."""
        return int(self.rpc("getbalance", "*", min_confirmations, wallet=BANK_WALLET).scaleb(8))

    def height(self) -> int:
        """The height of the tip."""
        return int(self.rpc("getblockcount"))

    def connect(self, other: "Bitcoind") -> None:
        """Become its peer: the branch with more work wins on both. Not kept over a restart of either."""
        self.rpc("addnode", other.p2p_address, "onetry")

    def _answers(self) -> bool:
        try:
            self.rpc("getblockchaininfo")
        except BitcoindRpcError as warming_up:  # -28 while it loads
            raise NodeError(str(warming_up)) from warming_up
        return True


def _result(method: str, status: int, payload: bytes) -> Any:
    """The result in a JSON-RPC answer; whatever is not one (503 with plain text: overload, shutdown) is NodeError."""
    try:
        answer = json.loads(payload, parse_float=Decimal)
    except ValueError as failure:
        raise NodeError(f"bitcoind: {method}: HTTP {status} {payload[:200]!r}") from failure
    if error := answer.get("error"):
        raise BitcoindRpcError(method, error["code"], error["message"])
    return answer["result"]


def rpcauth(user: str, password: str) -> str:
    """The value of -rpcauth: a salted hash, which may stand on a command line."""
    salt = secrets.token_hex(16)
    return f"{user}:{salt}${hmac.new(salt.encode(), password.encode(), hashlib.sha256).hexdigest()}"
