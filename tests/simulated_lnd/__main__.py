"""A simulated LND in a process of its own, driven by lines on stdin; each is answered by one line of JSON.

make N [VALUE_MSAT]    N more open invoices
prepare N              as make, and settled already: what `send` then publishes costs nothing to make
send N                 publishes the next N prepared settlements to the streams, as one burst
settle N               settles the oldest N open invoices, whoever added them, and publishes them
settle-hash HASH       settles one
hold N                 N more open hold invoices; their preimages as of those that `make` makes
hold-pay N PERIOD_MS   payers' HTLCs for the oldest N open hold invoices, one every PERIOD_MS (0: at once)
hold-status            single streams that stand, all that were begun, and those that wait for SettleInvoice
hold-delays            ms from each HTLC to its SettleInvoice, in order; forgets them
hold-end               ends the single streams with OK
status                 pubkey, newest index, streams, funds
end                    ends all streams with OK
quit                   stops; so does the end of stdin
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from pathlib import Path

from tests.simulated_lnd.node import SimulatedNode
from tests.simulated_lnd.server import SimulatedLnd


def main() -> None:
    """Starts, prints one line of JSON with address and files, obeys."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulated_lnd", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for certificate and macaroon; must exist")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--count", type=int, default=0, help="open invoices to begin with")
    parser.add_argument("--value-msat", type=int, default=1_000_000)
    parser.add_argument("--seed", default="simulated", help="preimages are sha256('<seed> <n>'), n from 1")
    parser.add_argument("--pubkey", default="02" * 33)
    arguments = parser.parse_args()
    node = SimulatedNode(pubkey=arguments.pubkey, seed=arguments.seed)
    node.make_invoices(arguments.count, value_msat=arguments.value_msat)
    with SimulatedLnd(arguments.folder, node, port=arguments.port) as lnd:
        answer(
            address=lnd.address,
            pubkey=node.pubkey,
            tls_cert_file=str(lnd.tls_cert_file),
            macaroon_file=str(lnd.macaroon_file),
        )
        obey(lnd, arguments.value_msat)


def obey(lnd: SimulatedLnd, value_msat: int) -> None:
    """Reads commands until quit or the end of stdin."""
    node, holds = lnd.node, lnd.holds
    prepared: deque[int] = deque()
    for line in sys.stdin:
        match line.split():
            case ["make", count, *value]:
                node.make_invoices(int(count), value_msat=int(value[0]) if value else value_msat)
                answer(made=int(count))
            case ["prepare", count]:
                node.deliver_live = False
                prepared.extend(node.settle(node.make_invoices(int(count), value_msat=value_msat)))
                node.deliver_live = True
                answer(prepared=len(prepared))
            case ["send", count]:
                indexes = [prepared.popleft() for _ in range(min(int(count), len(prepared)))]
                node.send(indexes)
                answer(sent=len(indexes))
            case ["settle", count]:
                answer(settled=len(node.settle(node.open_hashes(int(count)))))
            case ["settle-hash", payment_hash]:
                answer(settled=len(node.settle([bytes.fromhex(payment_hash)])))
            case ["hold", count]:
                answer(made=len(node.make_holds(int(count), value_msat=value_msat)))
            case ["hold-pay", count, period_ms]:
                for r_hash in node.open_hashes(int(count)):
                    holds.pay(r_hash)
                    time.sleep(int(period_ms) / 1000)
                answer(paid=int(count))
            case ["hold-status"]:
                answer(streams=holds.streams, opened=holds.opened, waiting=holds.waiting)
            case ["hold-delays"]:
                answer(ms=holds.take_delays_ms())
            case ["hold-end"]:
                holds.end_streams()
                answer(ended=True)
            case ["status"]:
                answer(
                    pubkey=node.pubkey,
                    newest_settle_index=node.newest_settle_index,
                    streams=node.streams,
                    funds_msat=node.funds_msat,
                )
            case ["end"]:
                node.end_streams()
                answer(ended=True)
            case ["quit"]:
                return
            case _:
                answer(error=f"not a command: {line.strip()}")


def answer(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
