"""A price by HTTP that a test sets, and takes away; and a bank that reads it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from regtest.tellerd import Tellerd

MAX_AGE_S = 6
"""An older price is none: a test that takes it away waits as long."""


@dataclass
class Ticker:
    """`usd_per_btc` None: the service fails."""

    usd_per_btc: str | None = "60000.00"
    port: int = 0

    def use(self, tellerd: Tellerd) -> None:
        """Puts this price source into the daemon's configuration; it counts from the next start on."""
        section = f'source = "http"\nurl = "http://127.0.0.1:{self.port}/"\njson_path = "usd"'
        limits = f"refresh_s = 1\nmax_age_s = {MAX_AGE_S}\nmax_jump_percent = 100"  # what a test sets counts at once
        file: Path = tellerd.config_file
        fixed = re.compile(r'^source = "fixed"\nusd_per_btc = .*$', re.MULTILINE)
        text, found = fixed.subn(f"{section}\n{limits}", file.read_text())
        assert found == 1
        file.write_text(text)


@contextmanager
def ticking() -> Iterator[Ticker]:
    """Serves a price until left."""
    ticker = Ticker()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            price = ticker.usd_per_btc
            self.send_response(503 if price is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"usd": price}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        ticker.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield ticker
        finally:
            server.shutdown()
            thread.join()
