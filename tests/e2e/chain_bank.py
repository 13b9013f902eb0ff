"""A bank with a chain of its own: one bitcoind beside the stack's, that a test may reorganise and kill."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2
from adapters.mongo.collections import OUTBOX
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for

XPUB = (
    "tpubDC5FSnBiZDMmhiuCmWAYsLwgLYrrT9rAqvTySfuCCrgsWz8wxMXUS9Tb9iVMvcRbvFcAHGkMD5Kx8koh4GquNGNTfohfk7pgjhaPCdXpoba"
)
"""BIP84 account of a well-known test seed; nobody's money."""

CHAIN_TOML = """
[bitcoind]
rpc_url = "{rpc_url}"
rpc_cookie_file = "{cookie_file}"
zmq = [{zmq}]
xpub = "{xpub}"
{keys}

{sections}
"""


class ChainBank:
    """A bank on the stack's mongod and LND, following `bitcoind`, which is its own."""

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        *,
        keys: str = "",
        sections: str = "",
        xpub: str = XPUB,
        zmq: Sequence[str] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        """`keys` are more keys of [bitcoind], `sections` more sections; `zmq` other addresses than bitcoind's own."""
        self.bitcoind = Bitcoind(binaries.bitcoind(), folder / "bitcoind", flags)
        addresses = self.bitcoind.zmq_addresses if zmq is None else zmq
        self.bank = Bank(
            stack,
            folder,
            settings=CHAIN_TOML.format(
                rpc_url=self.bitcoind.rpc_url,
                cookie_file=self.bitcoind.cookie_file,
                zmq=", ".join(f'"{address}"' for address in addresses),
                xpub=xpub,
                keys=keys,
                sections=sections,
            ),
        )

    def open(self) -> None:
        """bitcoind with coins that can be spent, tellerd at its tip."""
        self.start_bitcoind()
        self.bitcoind.mine(MATURITY_BLOCKS + 20)
        self.bank.open()
        self.wait_followed()

    def start_bitcoind(self) -> None:
        """Starts it, until it answers."""
        self.bitcoind.start()
        self.bitcoind.wait_ready()

    def close(self) -> None:
        """Ends everything."""
        try:
            self.bank.close()
        finally:
            self.bitcoind.stop()

    def wait_followed(self) -> None:
        """Returns when the books are at bitcoind's tip."""
        tip = self.bitcoind.rpc("getbestblockhash")
        wait_for(lambda: self.cursor_hash() == tip, "the books are at the tip")

    def cursor_hash(self) -> str | None:
        """The hash of the last block in the books."""
        cursor = self.bank.db["teller_cursors"].find_one({"_id": {"$regex": "^chain:"}})
        return None if cursor is None else str(cursor["hash"])

    def address(self, client: Client, wallet_id: str, *, new: bool = False) -> str:
        """An address for the wallet."""
        request = deposit_pb2.GetAddressRequest(wallet_id=wallet_id, new=new)
        return client.deposits.GetAddress(request, timeout=CALL_S).address

    def deposit(self, client: Client, txid: str, vout: int) -> deposit_pb2.Deposit:
        """The deposit as tellerd has it now."""
        request = deposit_pb2.GetDepositRequest(txid=txid, vout=vout)
        return client.deposits.GetDeposit(request, timeout=CALL_S).deposit

    def vout(self, txid: str, address: str) -> int:
        """Which output of a tx in the wallet of bitcoind pays the address."""
        tx = self.bitcoind.rpc("gettransaction", txid, True, True)["decoded"]
        return next(int(out["n"]) for out in tx["vout"] if out["scriptPubKey"].get("address") == address)

    def wait_state(self, txid: str, vout: int, state: str) -> None:
        """Returns when the stored deposit is in this state."""
        wait_for(lambda: self.state(txid, vout) == state, f"deposit {txid}:{vout} is {state}")

    def state(self, txid: str, vout: int) -> str | None:
        """The stored deposit's state; None if there is none."""
        found = self.bank.db["teller_deposits"].find_one({"_id": f"{txid}:{vout}"})
        return None if found is None else str(found["state"])

    def told(self, txid: str) -> list[str]:
        """The types of all events about a tx, in order."""
        return [row["type"] for row in self.bank.db[OUTBOX].find({"payload.txid": txid}).sort("_id", 1)]

    def check_books(self) -> None:
        """Trial balance zero, the feed gapless, `verify` content, and Assets:OnChain what the deposits settled say."""
        with self.bank.tellerd.client() as client:
            rows, totals = client.trial_balance()
        assert set(totals.values()) <= {0}, totals
        on_chain_sat = -sum(row.balance for row in rows if row.account == "Assets:OnChain")
        settled = self.bank.db["teller_deposits"].find({"state": "settled"})
        assert on_chain_sat == sum(one["amount_sat"] for one in settled)
        self.bank.check_feed()
        self.bank.command("verify")
