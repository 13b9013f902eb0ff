"""Thousands of open hold invoices on one node, in one event loop: all are told, and all again after an outage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from adapters.lnd.node import LndNode
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import HoldWatch, InvoiceState
from tests.bench.path import SimulatedLndProcess
from tests.simulated_lnd.node import preimage_of

OPEN = 5_000
PATIENCE_S = 120.0  # how long the test waits for what must come; it decides nothing else


@pytest.fixture
def lnd(tmp_path: Path) -> Iterator[SimulatedLndProcess]:
    """In a process of its own, so that what is measured is ours."""
    process = SimulatedLndProcess(tmp_path)
    yield process
    process.stop()


def rss_mib() -> float:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def told(watch: HoldWatch, hashes: set[PaymentHash], state: InvoiceState) -> None:
    """Reads until all of them were told to be in this state."""
    missing = set(hashes)
    with trio.fail_after(PATIENCE_S):
        async for batch in watch:
            missing -= {one.payment_hash for one in batch if one.state is state}
            if not missing:
                return


@pytest.mark.slow
async def test_five_thousand_are_watched_and_watched_again(
    lnd: SimulatedLndProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time and memory are printed, for the record; a stream that ends with OK is no final state."""
    lnd.ask(f"hold {OPEN}")
    hashes = {PaymentHash(hashlib.sha256(preimage_of(number)).hexdigest()) for number in range(1, OPEN + 1)}
    node = LndNode(
        name="lnd1",
        address=lnd.files["address"],
        tls_cert_file=Path(lnd.files["tls_cert_file"]),
        macaroon_file=Path(lnd.files["macaroon_file"]),
    )
    before_mib = rss_mib()
    for attempt in ("at first", "again"):
        began, cpu_began = time.monotonic(), time.process_time()
        with pytest.RaisesGroup(Unavailable):
            async with node.hold_watch() as watch:
                assert all(watch.watch(payment_hash) for payment_hash in hashes)
                await told(watch, hashes, InvoiceState.OPEN)
                with capsys.disabled():
                    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
                    mib = rss_mib() - before_mib
                    print(f"\n{OPEN} watched {attempt}: {seconds:.1f} s, {cpu_s:.1f} s of CPU, {mib:.0f} MiB")
                assert watch.watched == OPEN
                await trio.to_thread.run_sync(lnd.ask, "hold-end")
                async for _ in watch:
                    pass
    node.close()
