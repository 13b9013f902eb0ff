"""Hold invoices: how long it takes and what it costs to watch thousands again, and how fast a held payment is taken.

The daemon, a simulated LND and mongod, each in a process of its own. The delay is measured by the simulated LND: from
the moment in which it has the payer's HTLC to the moment in which SettleInvoice comes in.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from regtest.stack import mongod_only
from tests.bench.path import WholePath

OPEN: Final = 5_000
ONE_BY_ONE: Final = 200
PERIOD_MS: Final = 50
BURST: Final = 200

_WAIT_S: Final = 120.0
_LOOK_S: Final = 0.05
_REST_S: Final = 2.0
"""After the first payment: thousands of first states are read until then, and what comes waits behind them."""


def run() -> None:
    """Measures and prints."""
    with (
        mongod_only() as mongod,
        tempfile.TemporaryDirectory(prefix="tellerd-bench-") as folder,
        WholePath(mongod, Path(folder)) as path,
    ):
        _say(f"{OPEN} hold invoices and their documents")
        path.lnd.ask(f"hold {OPEN}")
        path.samples.more(OPEN)
        path.tellerd.process.stop()
        path.tellerd.start()
        path.tellerd.wait_ready()
        before_mib = _rss_mib(path)
        attached_s = _until_watched(path, opened=0)
        after_mib = _rss_mib(path)
        opened = _streams(path)[1]
        path.lnd.ask("hold-end")
        again_s = _until_watched(path, opened=opened)
        first = _delays(path, 1, 0)
        again_mib = _rss_mib(path)
        time.sleep(_REST_S)
        _say(f"{ONE_BY_ONE} payments, one every {PERIOD_MS} ms")
        low = _delays(path, ONE_BY_ONE, PERIOD_MS)
        _say(f"{BURST} payments at once")
        burst = _delays(path, BURST, 0)
    print(f"\n{OPEN} open hold invoices")
    print(f"  attached after a start               {attached_s:8.1f} s after the daemon is ready")
    print(f"  attached again after an outage       {again_s:8.1f} s after all streams have ended")
    print(
        f"  memory of the daemon (RSS)           {before_mib:8.0f} MiB before, {after_mib:.0f} after,"
        f" {again_mib:.0f} again"
    )
    print("\nfrom the HTLC's arrival to SettleInvoice, ms    median     p99     max")
    rows = (("the first one after that", first), (f"one every {PERIOD_MS} ms", low), (f"{BURST} at once", burst))
    for name, delays in rows:
        p99 = delays[min(len(delays) - 1, int(len(delays) * 0.99))]
        print(f"  {name:<44}{statistics.median(delays):8.1f}{p99:8.1f}{delays[-1]:8.1f}")


def _until_watched(path: WholePath, *, opened: int) -> float:
    """Seconds until so many new streams stand, and the daemon says that it watches all."""
    began = time.monotonic()
    _wait(lambda: _streams(path)[0] == OPEN and _streams(path)[1] >= opened + OPEN, path)
    _wait(lambda: _watched(path) == OPEN, path)
    return time.monotonic() - began


def _streams(path: WholePath) -> tuple[int, int]:
    status = path.lnd.ask("hold-status")
    return int(status["streams"]), int(status["opened"])


def _watched(path: WholePath) -> float:
    found = re.search(r'^tellerd_holds_watched{node="lnd1"} (\S+)$', path.tellerd.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else -1


def _delays(path: WholePath, count: int, period_ms: int) -> Sequence[float]:
    path.lnd.ask("hold-delays")
    path.lnd.ask(f"hold-pay {count} {period_ms}")
    _wait(lambda: path.lnd.ask("hold-status")["waiting"] == 0, path)
    return sorted(path.lnd.ask("hold-delays")["ms"])


def _rss_mib(path: WholePath) -> float:
    pages = int(Path(f"/proc/{path.tellerd.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _wait(condition: Callable[[], bool], path: WholePath) -> None:
    give_up_at = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not within {_WAIT_S:.0f} s\n{path.tellerd.process.log_tail()}")
        time.sleep(_LOOK_S)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
