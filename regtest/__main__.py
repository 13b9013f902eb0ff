"""`make regtest`: a stack that stays up until Ctrl-C, and a payer to try it with.

python -m regtest                     # keeps the stack up; prints where everything is
python -m regtest pay lnbcrt1…        # in another terminal: pays from the stack's payer
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from regtest.binaries import ProgramUnavailable
from regtest.cache import cache_folder
from regtest.lnd_rest import LndError, LndRest
from regtest.process import NodeError
from regtest.stack import Stack

LOOK_S: Final = 1.0
"""How often the stack is looked at for a process that has ended."""

MINE_EVERY_S: Final = 1_800.0
"""LND calls itself out of sync when the newest block is two hours old."""


def main() -> int:
    """0 after Ctrl-C, SIGTERM or a payment that arrived; 1 with the reason on stderr."""
    arguments = _arguments()
    try:
        if arguments.command == "pay":
            return _pay(arguments.payment_request, arguments.amount_msat)
        return _stay_up(arguments)
    except (NodeError, LndError, ProgramUnavailable, ValueError, OSError) as failure:
        print(f"regtest: {failure}", file=sys.stderr)
        return 1


def _stay_up(arguments: argparse.Namespace) -> int:
    """Until a signal; NodeError when a node ends by itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    note = cache_folder() / "payer.json"
    try:
        print("regtest: starting mongod, bitcoind and two LNDs", file=sys.stderr, flush=True)
        with Stack(arguments.folder, native_sql=arguments.native_sql) as stack:
            config = stack.tellerd_config(stack.folder, api_port=arguments.api_port, http_port=arguments.http_port)
            note.write_text(json.dumps(_payer_note(stack)))
            print(_where(stack, config), flush=True)
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


def _where(stack: Stack, config: Path) -> str:
    """What a person needs to use the stack. Paths of secrets, never secrets."""
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
            f"tellerd run --config {config}",
            "python -m regtest pay <payment request>",
            "",
            "Ctrl-C ends it.",
        )
    )


def _payer_note(stack: Stack) -> dict[str, object]:
    """Where `pay` finds the payer of the stack that was started last; paths, no secrets."""
    payer = stack.payer
    return {
        "port": payer.rest_port,
        "tls_cert_file": str(payer.tls_cert_file),
        "macaroon_file": str(payer.admin_macaroon_file),
    }


def _pay(payment_request: str, amount_msat: int | None) -> int:
    note = cache_folder() / "payer.json"
    if not note.exists():
        raise NodeError("no stack is up: start one with `python -m regtest`")
    where = json.loads(note.read_text())
    payer = LndRest(where["port"], Path(where["tls_cert_file"]), Path(where["macaroon_file"]))
    payment = payer.pay(payment_request, amount_msat=amount_msat)
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
    pay = parser.add_subparsers().add_parser("pay", help="pay from the payer of the stack that is up")
    pay.set_defaults(command="pay")
    pay.add_argument("payment_request")
    pay.add_argument("--amount-msat", type=int, help="only for an invoice without an amount")
    return parser.parse_args()


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """The first signal ends the stack; stopping it takes some seconds, and more signals must not cut that short."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main())
