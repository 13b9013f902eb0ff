"""The beginning and the end of a watch of hold invoices."""

from __future__ import annotations

from pathlib import Path

import trio

from adapters.lnd.connection import Connection
from adapters.lnd.holds import hold_watch


async def test_a_watch_that_is_cancelled_while_it_begins_ends_at_once(tmp_path: Path) -> None:
    """The process ends for a reason of its own, as a node of another network: the watch must not give another one.

    Which of two tasks runs first is chance, so it is tried often enough for both.
    """
    connection = Connection(
        name="lnd1", address="127.0.0.1:1", tls_cert_file=tmp_path / "tls.cert", macaroon_file=tmp_path / "macaroon"
    )

    async def watch(cancel: trio.CancelScope) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(cancel.cancel)
        async with hold_watch(connection):
            await trio.sleep_forever()

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
