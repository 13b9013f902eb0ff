"""Service `traffic`: a wallet, Lightning payments and an on-chain deposit, so that dashboards show something.

Each `up` pays the same again, into the same wallets. It ends with 0 when all of it is in the books, to the sat.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from regtest.containers.bitcoind_rpc import BitcoindRpc
from regtest.containers.folders import (
    ADMIN_KEY,
    API_CERT,
    BITCOIND_LOGIN,
    DEVELOPER,
    PAYER_CERT,
    PAYER_MACAROON,
)
from regtest.containers.waiting import NotInTime, wait_until
from regtest.lnd_rest import LndError, LndRest
from regtest.process import NodeError
from regtest.tellerd import Client

SHOP: Final = "regtest-shop"
SAVER: Final = "regtest-saver"
"""The external ids of the two wallets: one is paid by Lightning, one on the chain."""

PAYMENTS: Final = 25
LEAST_SAT: Final = 1_000
IN_FLIGHT: Final = 5
DEPOSIT_SAT: Final = 2_000_000
CREDITED_SAT: Final = 1_994_000
"""Less 30 hundredths of a percent: the default fee from a million sats on."""

CONFIRMATIONS: Final = 2
SERVING_S: Final = 60.0
"""A daemon that is alive leads within seconds; one that follows a killed one waits for its lease."""

SETTLED_S: Final = 60.0
"""Milliseconds on an idle machine; here all containers have started just now."""


class NotCredited(Exception):
    """A payment did not succeed, or is not in the books."""


def main() -> int:
    """0 when everything that was paid is credited; 1 with the reason on stderr."""
    payer = LndRest(8080, DEVELOPER / PAYER_CERT, DEVELOPER / PAYER_MACAROON, host="payer")
    bitcoind = BitcoindRpc("bitcoind:18443", DEVELOPER / BITCOIND_LOGIN)
    certificate = (DEVELOPER / API_CERT).read_bytes()
    key = (DEVELOPER / ADMIN_KEY).read_text().strip()
    try:
        with Client("tellerd:50051", root_certificate=certificate, key=key) as client:
            shop = wait_until(lambda: client.create_wallet(SHOP), "serving: tellerd", SERVING_S, (grpc.RpcError,))
            saver = client.create_wallet(SAVER)
            _pay(client, payer, shop)
            _deposit(client, bitcoind, saver)
            print(f"traffic: {SHOP} {client.balance_sat(shop):,} sat, {SAVER} {client.balance_sat(saver):,} sat")
    except (NotInTime, NotCredited, LndError, NodeError, grpc.RpcError, OSError) as problem:
        print(f"traffic: {problem}", file=sys.stderr)
        return 1
    return 0


def _pay(client: Client, payer: LndRest, wallet_id: str) -> None:
    before_sat = client.balance_sat(wallet_id)
    began = time.monotonic()
    invoices = [client.create_invoice(wallet_id, LEAST_SAT + number, memo="tea") for number in range(PAYMENTS)]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        payments = list(pool.map(lambda invoice: payer.pay(invoice.payment_request), invoices))
    if failed := [payment.failure_reason for payment in payments if not payment.succeeded]:
        raise NotCredited(f"{len(failed)} of {PAYMENTS} payments failed: {failed[0]}")
    due_sat = before_sat + sum(invoice.amount_sat for invoice in invoices)
    _wait_balance(client, wallet_id, due_sat)
    print(f"traffic: {PAYMENTS} payments are credited, {time.monotonic() - began:.1f} s", flush=True)


def _deposit(client: Client, bitcoind: BitcoindRpc, wallet_id: str) -> None:
    before_sat = client.balance_sat(wallet_id)
    known = len(client.list_deposits(wallet_id))
    bitcoind.send(client.address(wallet_id), DEPOSIT_SAT)
    wait_until(lambda: len(client.list_deposits(wallet_id)) > known, "detected: deposit", SETTLED_S, (grpc.RpcError,))
    bitcoind.mine(CONFIRMATIONS)
    _wait_balance(client, wallet_id, before_sat + CREDITED_SAT)
    print("traffic: a deposit is credited", flush=True)


def _wait_balance(client: Client, wallet_id: str, balance_sat: int) -> None:
    """Returns when the balance is just that; more is an error, too."""
    wait_until(
        lambda: client.balance_sat(wallet_id) >= balance_sat, f"{balance_sat:,} sat", SETTLED_S, (grpc.RpcError,)
    )
    if (found_sat := client.balance_sat(wallet_id)) != balance_sat:
        raise NotCredited(f"{found_sat:,} sat instead of {balance_sat:,}")


if __name__ == "__main__":
    sys.exit(main())
