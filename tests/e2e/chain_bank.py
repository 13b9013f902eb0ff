"""A bank with a chain of its own: one bitcoind beside the stack's, that a test may reorganise and kill."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2, event_pb2
from adapters.mongo.collections import ACCOUNTS, DEPOSITS, LINKS, OUTBOX, PENDING_RECEIVES, SCRIPTS, WALLETS
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.coins import SignedTx

XPUB = "tpubDC5FSnBiZDMmhiuCmWAYsLwgLYrrT9rAqvTySfuCCrgsWz8wxMXUS9Tb9iVMvcRbvFcAHGkMD5Kx8koh4GquNGNTfohfk7pgjhaPCdXpoba"
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

    def restart_with_key(self, key: str) -> None:
        """tellerd again, with another `bitcoind.xpub` in its configuration."""
        tellerd = self.bank.tellerd
        tellerd.process.stop()
        text = tellerd.config_file.read_text()
        tellerd.config_file.write_text(re.sub(r'^xpub = ".*"$', f'xpub = "{key}"', text, flags=re.MULTILINE))
        tellerd.start()
        tellerd.wait_ready()

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

    def wait_credited(self, client: Client, marker_wallet: str) -> None:
        """Returns when all is credited that is deep enough at bitcoind's tip, so that what is not then never will be.

        The follower credits before it takes the next hint: a payment that is made now is seen after that.
        """
        self.wait_followed()
        self.wait_state(*self.send(self.address(client, marker_wallet), 10_000), "detected")

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

    def send(self, address: str, amount_sat: int) -> tuple[str, int]:
        """Pays from the miner's wallet; the outpoint, which is in the mempool."""
        txid = self.bitcoind.send(address, amount_sat)
        return txid, self.vout(txid, address)

    def broadcast(self, tx: SignedTx) -> None:
        """Into bitcoind's mempool."""
        assert self.bitcoind.rpc("sendrawtransaction", tx.hex) == tx.txid

    def mine_txs(self, *txs: SignedTx) -> str:
        """A block of exactly these, none of which need be in the mempool; returns its hash."""
        raw = [tx.hex for tx in txs]
        return str(self.bitcoind.rpc("generateblock", self.bitcoind.new_address(), raw)["hash"])

    def write_address(self, wallet_id: str, address: str, *, pubkey: str = "") -> None:
        """An address, as another program writes it into a wallet; with a `pubkey` it is that LND's."""
        entry = {"address": address, **({"pubkey": pubkey} if pubkey else {})}
        self.bank.db[WALLETS].update_one({"id": wallet_id}, {"$push": {"onchain": entry}})

    def pending(self, wallet_id: str) -> list[dict[str, Any]]:
        """What Blink's readers see as under way, oldest first."""
        return list(self.bank.db[PENDING_RECEIVES].find({"walletId": wallet_id}).sort("createdAt", 1))

    def booking_keys(self, txid: str) -> list[str]:
        """The idempotency keys of the journals about a tx, in order."""
        return [row["key"] for row in self.bank.db[LINKS].find({"key": {"$regex": f"^chain:{txid}:"}}).sort("n", 1)]

    def account_sat(self, client: Client, account: str) -> int:
        """An account's balance in the books; 0 if nothing was ever booked to it."""
        rows, _ = client.trial_balance()
        return next((row.balance for row in rows if row.account == account), 0)

    def bank_owner(self) -> str:
        """The wallet that gets the fees."""
        account = self.bank.db[ACCOUNTS].find_one({"role": "bankowner"})
        assert account is not None
        return str(account["defaultWalletId"])

    def events(self, client: Client, wallet_id: str, count: int) -> list[event_pb2.Event]:
        """The first events about a wallet, through the API."""
        request = event_pb2.SubscribeRequest(wallet_ids=[wallet_id])
        stream = client.events.Subscribe(request, timeout=CALL_S)
        found = [answer.event for answer in islice(stream, count)]
        stream.cancel()
        return found

    # --- what must hold ---------------------------------------------------------------------------------

    def check_books(self) -> None:
        """The books are what bitcoind says is unspent on the watched addresses; trial balance zero, the feed gapless,
        each fact once."""
        self.wait_followed()
        in_blocks = self._unspent()
        tip = self.bitcoind.height()
        stored = {one["_id"]: one for one in self.bank.db[DEPOSITS].find()}
        assert {name for name, one in stored.items() if one["block"]} == set(in_blocks)
        for name, (amount_sat, height) in in_blocks.items():
            assert (stored[name]["amount_sat"], stored[name]["block"]["height"]) == (amount_sat, height)
        due = {n for n, (_, height) in in_blocks.items() if tip - height + 1 >= stored[n]["confirmations_required"]}
        wait_for(lambda: self._settled() == due, "exactly what is deep enough is settled")
        with self.bank.tellerd.client() as client:
            rows, totals = client.trial_balance()
        assert set(totals.values()) <= {0}, totals
        on_chain_sat = -sum(row.balance for row in rows if row.account == "Assets:OnChain")
        assert on_chain_sat == sum(in_blocks[name][0] for name in due)
        self._check_feed()

    def _unspent(self) -> dict[str, tuple[int, int]]:
        """By outpoint: amount and height of what bitcoind's chain holds on watched addresses. Nobody spends it."""
        scripts = [bytes(row["_id"]).hex() for row in self.bank.db[SCRIPTS].find()]
        if not scripts:
            return {}
        found = self.bitcoind.rpc("scantxoutset", "start", [f"raw({script})" for script in scripts])["unspents"]
        return {f"{one['txid']}:{one['vout']}": (int(one["amount"].scaleb(8)), int(one["height"])) for one in found}

    def _settled(self) -> set[str]:
        return {str(one["_id"]) for one in self.bank.db[DEPOSITS].find({"state": "settled"})}

    def _check_feed(self) -> None:
        rows = list(self.bank.db[OUTBOX].find().sort("_id", 1))
        assert [row["_id"] for row in rows] == list(range(1, len(rows) + 1)), "the feed has gaps"
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)), "an event is told twice"
        keys = [row["key"] for row in self.bank.db[LINKS].find()]
        assert len(keys) == len(set(keys)), "something is booked twice"
