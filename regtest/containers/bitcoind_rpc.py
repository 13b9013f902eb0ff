"""bitcoind as the containers ask it: over the network, with a login from a file."""

from contextlib import closing
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from bitcoinrpc.authproxy import AuthServiceProxy

from regtest.bitcoind import MATURITY_BLOCKS, WALLET

RPC_S: Final = 30
"""The slowest call here, mining 101 blocks, takes 0.3 s."""


class BitcoindRpc:
    """Calls to one bitcoind, each over a connection of its own: a proxy is dead after its first transport error."""

    def __init__(self, address: str, login_file: Path) -> None:
        """`address` is host:port, the file holds user:password in letters and digits."""
        self._address = address
        self._login_file = login_file

    def rpc(self, method: str, *params: object, wallet: str = "") -> Any:
        """One call. bitcoinrpc's JSONRPCException when bitcoind refuses, OSError when it cannot be asked."""
        path = f"/wallet/{wallet}" if wallet else ""
        login = self._login_file.read_text().strip()
        with closing(HTTPConnection(self._address, timeout=RPC_S)) as connection:
            proxy = AuthServiceProxy(f"http://{login}@{self._address}{path}", connection=connection)
            return getattr(proxy, method)(*params)

    def load_wallet(self) -> None:
        """The wallet that mines and pays is there and loaded."""
        if WALLET in self.rpc("listwallets"):
            return
        if any(one["name"] == WALLET for one in self.rpc("listwalletdir")["wallets"]):
            self.rpc("loadwallet", WALLET, True)
        else:
            self.rpc("createwallet", WALLET, False, False, "", False, True, True)  # the last: load it at every start

    def mine(self, blocks: int) -> None:
        """Mine to the wallet."""
        self.rpc("generatetoaddress", blocks, self.rpc("getnewaddress", wallet=WALLET))

    def mine_to_maturity(self) -> None:
        """The wallet has coins that it can spend, and the newest block is new: LND waits for both."""
        if (missing := MATURITY_BLOCKS - self.height()) > 0:
            self.mine(missing)
        self.mine(1)

    def height(self) -> int:
        """The height of the tip."""
        return int(self.rpc("getblockcount"))

    def send(self, address: str, amount_sat: int) -> str:
        """Pay from the wallet; returns the txid. It is in the mempool, mine() confirms it."""
        return str(self.rpc("sendtoaddress", address, f"{Decimal(amount_sat).scaleb(-8):.8f}", wallet=WALLET))
