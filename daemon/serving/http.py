"""HTTP: /metrics for Prometheus, /healthz and /readyz for whoever starts the process, and / for people.

On threads of its own, so that it answers when the Trio loop does not: that is what /healthz is for.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import structlog

from daemon.domain.errors import Unavailable
from daemon.serving import heartbeat as beats
from daemon.serving.api import Api
from daemon.serving.heartbeat import Heartbeat
from daemon.serving.metrics import CONTENT_TYPE, PrometheusMetrics
from daemon.serving.overview import BooksReader, overview, read_books
from daemon.serving.page import SECURITY_POLICY, render

MAX_REQUESTS = 8
"""At once; more are turned away. A scraper and two health checks are three."""

_REQUEST_TIMEOUT_S = 5.0
"""For a client to send its request or take its answer."""

_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"

_HEADERS = {
    "Content-Security-Policy": SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""With every answer: a browser shows what it is given, loads nothing, and keeps nothing."""

Answer = tuple[HTTPStatus, str, bytes]
log = structlog.get_logger()


def health(heartbeat: Heartbeat) -> Answer:
    """200 while the process lives and its loop turns; otherwise it should be started anew."""
    if heartbeat.age_s > beats.MAX_AGE_S:
        text = f"the main loop has not turned for {heartbeat.age_s:.0f} s\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, text.encode()
    return HTTPStatus.OK, _TEXT, b"alive\n"


def readiness(api: Api) -> Answer:
    """200 while calls are served: as leader, with the database in reach. Nodes are named, but do not count:
    without them everything but new invoices is still answered."""
    problem = api.gate.refusal()
    if problem is None:
        try:
            api.store.probe()
        except Unavailable as outage:
            problem = f"database: {outage}"
    lines = ["ready" if problem is None else problem]
    lines += [f"node {node.name}: {node.state}" for node in api.node_statuses]
    if api.on_chain is not None:
        lines.append(f"node {api.on_chain.status.name}: {api.on_chain.status.state}")
    status = HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE
    return status, _TEXT, "".join(f"{line}\n" for line in lines).encode()


def page(api: Api, heartbeat: Heartbeat, reader: BooksReader) -> Answer:
    """The page for people; 200 whatever is wrong, for it says what."""
    return HTTPStatus.OK, _HTML, render(overview(api, heartbeat, reader)).encode()


class HttpServer:
    """A running server; `port` is where it really listens."""

    def __init__(self, host: str, port: int, pages: dict[str, Callable[[], Answer]]) -> None:
        self._server = _BoundedServer(host, port, pages)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; blocks for at most half a second or so."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_http(api: Api, *, heartbeat: Heartbeat, metrics: PrometheusMetrics, host: str, port: int) -> HttpServer:
    """Listens and serves; raises OSError when the address cannot be had."""
    reader = BooksReader(partial(read_books, api))
    server = HttpServer(
        host,
        port,
        {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE, metrics.page()),
            "/healthz": lambda: health(heartbeat),
            "/readyz": lambda: readiness(api),
            "/": lambda: page(api, heartbeat, reader),
        },
    )
    log.info("http.listening", host=host, port=server.port)
    return server


class _BoundedServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that hangs must not hold up the end of the process
    request_queue_size = 16  # connections that the kernel keeps waiting

    def __init__(self, host: str, port: int, pages: dict[str, Callable[[], Answer]]) -> None:
        self.pages = pages
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of the host's name, which may wait for a name server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (as the base class)
        """A client that breaks off is no news; a bug in a page is."""
        log.warning("http.request_failed", exc_info=sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: _BoundedServer
    timeout = _REQUEST_TIMEOUT_S
    server_version = "tellerd"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, content_type, body = page()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it)
        """Scrapes are not logged."""
