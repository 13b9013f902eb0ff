"""Service `setup`: replica set, coins, an open channel, tellerd's macaroon, its database and an admin key.

It ends with 0 when tellerd can start. Each step looks first whether it was done by an earlier `up`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bitcoinrpc.authproxy import JSONRPCException
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from regtest.containers.bitcoind_rpc import BitcoindRpc
from regtest.containers.folders import (
    ADMIN_KEY,
    BITCOIND_LOGIN,
    DEVELOPER,
    LND_CERT,
    LND_MACAROON,
    PAYER_CERT,
    PAYER_MACAROON,
    SECRETS,
    TELLERD_CONFIG,
    TELLERD_UID,
    write_whole,
)
from regtest.containers.waiting import NotInTime, wait_until
from regtest.lnd_rest import LndError, LndRest
from regtest.mongod import ALREADY_INITIALIZED, REPLICA_SET
from regtest.process import NodeError
from regtest.stack import (
    CAPACITY_SAT,
    CHANNEL_BLOCKS,
    FUNDING_SPARE_SAT,
    MACAROON_ROOT_KEY_ID,
    PROBE_MSAT,
    TELLERD_CALLS,
)

READY_S: Final = 120.0
"""Seconds when idle; a machine whose disk all containers use at their first start takes longer."""

COMMAND_S: Final = 120.0
"""tellerd init makes two dozen collections and indexes: seconds."""

MONGO_MS: Final = 10_000
"""A mongod that listens answers in milliseconds; making the replica set writes and syncs."""

CHAIN_IN_LND: Final = Path("data", "chain", "bitcoin", "regtest", "admin.macaroon")
NOT_YET: Final = (OSError, NodeError, LndError)
"""An LND that starts: no port, no certificate, no macaroon, then "not active yet"."""


def main() -> int:
    """0 when tellerd can start; 1 with the reason on stderr."""
    lnd = _lnd("lnd")
    payer = _lnd("payer")
    bitcoind = BitcoindRpc("bitcoind:18443", DEVELOPER / BITCOIND_LOGIN)
    try:
        _replica_set()
        bitcoind.load_wallet()
        bitcoind.mine_to_maturity()
        pubkeys = {name: _wait_active(name, node) for name, node in (("lnd", lnd), ("payer", payer))}
        _channel(bitcoind, lnd, payer, pubkeys["lnd"])
        _files(lnd)
        _books()
    except (NotInTime, LndError, JSONRPCException, PyMongoError, subprocess.SubprocessError, OSError) as problem:
        print(f"setup: {problem}", file=sys.stderr)
        return 1
    print(f"setup: done; what a developer needs is in setup:{DEVELOPER}", flush=True)
    return 0


def _lnd(name: str) -> LndRest:
    folder = Path("/", name)
    return LndRest(8080, folder / "tls.cert", folder / CHAIN_IN_LND, host=name)


def _replica_set() -> None:
    """The one node is a writable primary, under the name that the others call it by."""
    with MongoClient[dict[str, Any]]("mongo:27017", directConnection=True, serverSelectionTimeoutMS=MONGO_MS) as client:
        members = [{"_id": 0, "host": "mongo:27017"}]
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        except OperationFailure as failure:
            if failure.code != ALREADY_INITIALIZED:
                raise
        wait_until(
            lambda: client.admin.command("hello").get("isWritablePrimary"), "a primary", READY_S, (PyMongoError,)
        )
    print("setup: the replica set has a primary", flush=True)


def _wait_active(name: str, node: LndRest) -> str:
    """Every call works, and the newest block is known; the node's pubkey."""

    def synced() -> str | None:
        if node.wallet_state() != "SERVER_ACTIVE":
            return None
        info = node.get_info()
        return str(info["identity_pubkey"]) if info["synced_to_chain"] else None

    pubkey = wait_until(synced, f"active: {name}", READY_S, NOT_YET)
    print(f"setup: {name} is active, {pubkey}", flush=True)
    return pubkey


def _channel(bitcoind: BitcoindRpc, lnd: LndRest, payer: LndRest, pubkey: str) -> None:
    """The payer can pay our node."""
    if not payer.list_channels():
        bitcoind.send(payer.new_address(), CAPACITY_SAT + FUNDING_SPARE_SAT)
        bitcoind.mine(1)
        wait_until(lambda: payer.wallet_balance() >= CAPACITY_SAT, "funded: payer", READY_S, NOT_YET)
        wait_until(lambda: _opened(payer, pubkey), "opened: channel", READY_S, NOT_YET)
        bitcoind.mine(CHANNEL_BLOCKS)
    for node in (payer, lnd):
        wait_until(_active_channel(node, payer, pubkey), "active: channel", READY_S, NOT_YET)

    def payable() -> bool:
        payer.connect(pubkey, "lnd:9735")
        return payer.probe(pubkey, PROBE_MSAT)

    wait_until(payable, "payable: lnd", READY_S, NOT_YET)  # a second or more after the opening payments fail
    print("setup: the payer can pay lnd", flush=True)


def _opened(payer: LndRest, pubkey: str) -> str:
    """The channel's point; LndError while the peer, connected a moment ago, is "not online" yet."""
    payer.connect(pubkey, "lnd:9735")
    return payer.open_channel(pubkey, CAPACITY_SAT)


def _active_channel(node: LndRest, payer: LndRest, pubkey: str) -> Callable[[], bool]:
    def active() -> bool:
        payer.connect(pubkey, "lnd:9735")
        return any(channel["active"] for channel in node.list_channels())

    return active


def _files(lnd: LndRest) -> None:
    """What tellerd's configuration names, and what a developer takes out."""
    certificate = Path("/lnd/tls.cert").read_bytes()
    # At each `up`: what tellerd may call changes with its version.
    baked = lnd.bake_macaroon(TELLERD_CALLS, MACAROON_ROOT_KEY_ID, Path("/tmp/baked"))
    write_whole(SECRETS / LND_MACAROON, baked.read_bytes(), owner=TELLERD_UID)
    write_whole(SECRETS / LND_CERT, certificate, owner=TELLERD_UID)
    write_whole(DEVELOPER / LND_CERT, certificate)
    write_whole(DEVELOPER / LND_MACAROON, (Path("/lnd") / CHAIN_IN_LND).read_bytes())
    write_whole(DEVELOPER / PAYER_CERT, Path("/payer/tls.cert").read_bytes())
    write_whole(DEVELOPER / PAYER_MACAROON, (Path("/payer") / CHAIN_IN_LND).read_bytes())


def _books() -> None:
    """Collections, indexes, system accounts; and a key, which tellerd shows this once."""
    _tellerd("init")
    if not (DEVELOPER / ADMIN_KEY).exists():
        key = _tellerd("keys", "create", "--name", "developer", "--scopes", "admin")
        write_whole(DEVELOPER / ADMIN_KEY, key)
    print("setup: tellerd's database is ready, with an admin key", flush=True)


def _tellerd(*arguments: str) -> bytes:
    """What the command printed; CalledProcessError, with its complaint on stderr, unless it ended with 0."""
    command = ("tellerd", *arguments, "--config", str(TELLERD_CONFIG))
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=COMMAND_S).stdout


if __name__ == "__main__":
    sys.exit(main())
