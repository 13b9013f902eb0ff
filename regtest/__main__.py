"""`make regtest`: a stack that stays up until Ctrl-C, and a payer to try it with.

python -m regtest                                  # keeps the stack up; prints where everything is
python -m regtest pay lnbcrt1…                     # in another terminal: pays from the stack's payer
python -m regtest pay lnbcrt1… --amount-sat 5000   # this much: more than asked for, or where nothing is
python -m regtest keysend 5000 --wallet ID         # without an invoice; with --amp in that way
"""

import argparse
import json
import sys
import time
import tomllib
from pathlib import Path
from typing import Final

from regtest.binaries import ProgramUnavailable
from regtest.cache import cache_folder
from regtest.interrupts import interrupt_on_signals
from regtest.lnd_rest import LndError, LndRest, Payment
from regtest.process import NodeError
from regtest.stack import Stack

LOOK_S: Final = 1.0
"""How often the stack is looked at for a process that has ended."""

MINE_EVERY_S: Final = 1_800.0
"""LND calls itself out of sync when the newest block is two hours old."""

NOTE: Final = "payer.json"
"""In the cache folder: how to reach the payer of the stack that was started last."""

WALLET_RECORD: Final = 696_969
"""The custom record of a keysend that names its wallet: in the configuration, and what `keysend --wallet` sends."""

SETTINGS: Final = f"\n[spontaneous]\nwallet_record = {WALLET_RECORD}\n"

WAIT_S: Final = 3_600
"""For the end of a payment: a hold invoice's waits for SettleInvoice or CancelInvoice."""


def main() -> int:
    """0 after Ctrl-C, SIGTERM or a payment that arrived; 1 with the reason on stderr."""
    arguments = _arguments()
    try:
        if arguments.command == "pay":
            return _tell(_pay(arguments.payment_request, arguments.amount_sat))
        if arguments.command == "keysend":
            return _tell(_keysend(arguments))
        return _stay_up(arguments)
    except (NodeError, LndError, ProgramUnavailable, ValueError, OSError) as failure:
        print(f"regtest: {failure}", file=sys.stderr)
        return 1


def _stay_up(arguments: argparse.Namespace) -> int:
    """Until a signal; NodeError when a node ends by itself."""
    interrupt_on_signals()
    note = cache_folder() / NOTE
    try:
        print("regtest: starting mongod, bitcoind and two LNDs", file=sys.stderr, flush=True)
        with Stack(arguments.folder, native_sql=arguments.native_sql) as stack:
            config = stack.tellerd_config(
                stack.folder, api_port=arguments.api_port, http_port=arguments.http_port, extra=SETTINGS
            )
            note.write_text(json.dumps(payer_note(stack)))
            print(where(stack, config), flush=True)
            _watch(stack)
    except KeyboardInterrupt:
        print("regtest: stopped", file=sys.stderr)
    finally:
        note.unlink(missing_ok=True)
    return 0


def _watch(stack: Stack) -> None:
    """Returns never; mines now and then so that the LNDs stay in sync."""
    mined = time.monotonic()
    while True:
        time.sleep(LOOK_S)
        for process in stack.processes:
            if not process.alive:
                code = process.exit_code
                raise NodeError(f"{process.name} ended by itself with code {code}\n{process.log_tail()}")
        if time.monotonic() - mined > MINE_EVERY_S:
            stack.bitcoind.mine(1)
            mined = time.monotonic()


def where(stack: Stack, config: Path) -> str:
    """What a person needs to use the stack, commands as they can be copied. Paths of secrets, never secrets."""
    settings = tomllib.loads(config.read_text())
    python = Path(sys.executable)
    tellerd = python.with_name("tellerd")
    return "\n".join(
        (
            f"folder           {stack.folder}",
            f"mongod           {stack.mongod.url}",
            f"bitcoind rpc     {stack.bitcoind.rpc_url}",
            f"bitcoind cookie  {stack.bitcoind.cookie_file}",
            f"bitcoind zmq     {' '.join(stack.bitcoind.zmq_addresses)}",
            f"lnd grpc         {stack.lnd.rpc_address}",
            f"lnd certificate  {stack.lnd.tls_cert_file}",
            f"lnd macaroon     {stack.tellerd_macaroon_file}",
            f"lnd pubkey       {stack.lnd.pubkey}",
            f"payer grpc       {stack.payer.rpc_address}",
            "",
            f"{tellerd} init --config {config}",
            f"{tellerd} run --config {config}",
            f"its API          {settings['api']['listen']}",
            f"its page         http://{settings['http']['listen']}/",
            "",
            f"{python} -m regtest pay <payment request>",
            f"{python} -m regtest keysend <sat> --wallet <wallet id>",
            "",
            "Ctrl-C ends it.",
        )
    )


def payer_note(stack: Stack) -> dict[str, object]:
    """Where `pay` and `keysend` find the stack's payer, and whom they pay; paths, no secrets."""
    payer = stack.payer
    return {
        "port": payer.rest_port,
        "tls_cert_file": str(payer.tls_cert_file),
        "macaroon_file": str(payer.admin_macaroon_file),
        "bank": stack.lnd.pubkey,
    }


def _pay(payment_request: str, amount_sat: int | None) -> Payment:
    payer, _ = _payer()
    if amount_sat is None:
        return payer.pay(payment_request, timeout_s=WAIT_S)
    pay = payer.overpay if payer.asked_msat(payment_request) else payer.pay
    return pay(payment_request, amount_msat=amount_sat * 1000, timeout_s=WAIT_S)


def _keysend(arguments: argparse.Namespace) -> Payment:
    payer, bank = _payer()
    records = {WALLET_RECORD: arguments.wallet.encode()} if arguments.wallet else {}
    send = payer.spontaneous_amp if arguments.amp else payer.keysend
    return send(arguments.to or bank, arguments.amount_sat * 1000, records=records)


def _payer() -> tuple[LndRest, str]:
    """The payer of the stack that is up, and the public key of its bank's node."""
    note = cache_folder() / NOTE
    if not note.exists():
        raise NodeError("no stack is up: start one with `make regtest`")
    where = json.loads(note.read_text())
    return LndRest(where["port"], Path(where["tls_cert_file"]), Path(where["macaroon_file"])), where["bank"]


def _tell(payment: Payment) -> int:
    if not payment.succeeded:
        raise NodeError(f"not paid: {payment.failure_reason}")
    print(f"paid {payment.value_msat} msat, payment hash {payment.payment_hash}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m regtest", description="Real nodes without Docker.")
    parser.set_defaults(command="up")
    parser.add_argument("--folder", type=Path, help="data and logs, kept; default: a temporary folder")
    parser.add_argument("--native-sql", action="store_true", help="our LND keeps invoices in sqlite tables")
    parser.add_argument("--api-port", type=int, default=0, help="tellerd's gRPC port; default: a free one")
    parser.add_argument("--http-port", type=int, default=0, help="tellerd's HTTP port; default: a free one")
    commands = parser.add_subparsers()
    pay = commands.add_parser("pay", help="pay an invoice from the payer of the stack that is up")
    pay.set_defaults(command="pay")
    pay.add_argument("payment_request")
    pay.add_argument("--amount-sat", type=int, help="pay so much: more than it asks for, or where it asks for nothing")
    keysend = commands.add_parser("keysend", help="pay the bank's node without an invoice")
    keysend.set_defaults(command="keysend")
    keysend.add_argument("amount_sat", type=int)
    keysend.add_argument("--wallet", help="the wallet that it is for; default: none, it waits in suspense")
    keysend.add_argument("--to", help="the public key of another node")
    keysend.add_argument("--amp", action="store_true", help="by AMP instead of keysend")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
