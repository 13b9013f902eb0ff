"""Metrics and health over HTTP."""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from daemon.domain.cursors import LndCursor
from daemon.serving.heartbeat import MAX_AGE_S, Heartbeat
from daemon.serving.http import MAX_REQUESTS, HttpServer, start_http
from tests.unit.serving.bank_in_memory import Bank, open_bank


@dataclass(slots=True)
class Site:
    bank: Bank
    server: HttpServer
    now: list[float]

    def get(self, path: str) -> tuple[int, str]:
        status, body, _ = self.get_with_headers(path)
        return status, body

    def get_with_headers(self, path: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(), dict(response.getheaders())
        finally:
            connection.close()


@pytest.fixture
def site() -> Iterator[Site]:
    bank, now = open_bank(), [100.0]
    heartbeat = Heartbeat(clock=lambda: now[0])
    server = start_http(bank.api, heartbeat=heartbeat, metrics=bank.metrics, host="127.0.0.1", port=0)
    yield Site(bank, server, now)
    server.stop()


def test_a_leader_with_its_database_is_ready(site: Site) -> None:
    """A node that is away is shown, but balances are still answered."""
    site.bank.statuses[1].state = "connecting"
    assert site.get("/readyz") == (200, "ready\nnode alice: live\nnode bob: connecting\n")


def test_what_keeps_from_serving_is_said(site: Site) -> None:
    """No database, standby, drain: 503 with the reason first."""
    site.bank.probe.away = "no primary"
    assert site.get("/readyz") == (503, "database: no primary\nnode alice: live\nnode bob: live\n")
    site.bank.probe.away = None
    site.bank.api.gate.stand_by()
    status, body = site.get("/readyz")
    assert (status, body.split(":")[0]) == (503, "standby")
    assert site.get("/healthz") == (200, "alive\n")


def test_a_loop_that_hangs_is_not_healthy(site: Site) -> None:
    """Answered all the same: these are other threads."""
    site.now[0] += MAX_AGE_S
    assert site.get("/healthz") == (200, "alive\n")
    site.now[0] += 1
    assert site.get("/healthz") == (503, "the main loop has not turned for 16 s\n")


def test_metrics_are_served_with_their_units(site: Site) -> None:
    """Names and values as dashboards and alert rules use them."""
    metrics = site.bank.metrics
    metrics.settled(outcome="posted", amount_sat=1000, latency_s=0.004)
    metrics.settled(outcome="posted_unpriced", amount_sat=5, latency_s=None)
    metrics.settled(outcome="already_posted", amount_sat=0, latency_s=None)
    metrics.committed(events=3, duration_s=0.003)
    metrics.retried(cause="conflict")
    metrics.leading(True)
    metrics.node_connected(node="alice", connected=True)
    metrics.cursor_moved(
        LndCursor(pubkey=site.bank.node.pubkey, name="alice", settle_index=5, booked_above=((8, 9),), remainder_msat=7)
    )
    site.bank.board.publish(cursors=(), sequence=42)
    status, page = site.get("/metrics?x=1")
    assert status == 200
    for line in (
        'tellerd_outcomes_total{outcome="posted"} 1.0',
        'tellerd_outcomes_total{outcome="posted_unpriced"} 1.0',
        'tellerd_received_satoshis_total{outcome="posted"} 1000.0',
        "tellerd_settlement_latency_seconds_count 1.0",
        'tellerd_settlement_latency_seconds_bucket{le="0.005"} 1.0',
        "tellerd_commit_events_sum 3.0",
        "tellerd_commit_duration_seconds_sum 0.003",
        'tellerd_commit_retries_total{cause="conflict"} 1.0',
        "tellerd_leader 1.0",
        'tellerd_node_connected{node="alice"} 1.0',
        'tellerd_settle_index{node="alice"} 5.0',
        'tellerd_open_gaps{node="alice"} 2.0',
        'tellerd_remainder_millisatoshis{node="alice"} 7.0',
        "tellerd_feed_sequence 42.0",
        'tellerd_build_info{version="0.1.0"} 1.0',
    ):
        assert f"\n{line}\n" in page
    assert 'tellerd_received_satoshis_total{outcome="already_posted"}' not in page


def test_the_page_for_people_allows_its_own_style_and_nothing_else(site: Site) -> None:
    """The policy names the style by its hash: what a browser would not take would look like a broken page."""
    status, html, headers = site.get_with_headers("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "all is well" in html
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert policy.endswith(f"style-src 'sha256-{digest}'")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert site.get_with_headers("/healthz")[2]["Content-Security-Policy"] == policy


def test_the_page_is_served_whatever_is_wrong(site: Site) -> None:
    """200 from a standby without a database: a person is to read why."""
    site.bank.probe.away = "no primary"
    site.bank.api.gate.stand_by()
    status, html = site.get("/")
    assert status == 200
    assert "The books cannot be read: no primary" in html
    assert "standby: another daemon leads" in html


def test_other_paths_are_not_found(site: Site) -> None:
    """And POST is not implemented."""
    assert site.get("/nothing")[0] == 404


def test_clients_that_say_nothing_are_bounded(site: Site) -> None:
    """When every place is taken, one more is turned away at once, and the places come back."""
    silent = [socket.create_connection(("127.0.0.1", site.server.port), timeout=20) for _ in range(MAX_REQUESTS)]
    turned_away = socket.create_connection(("127.0.0.1", site.server.port), timeout=20)
    assert turned_away.recv(1) == b""
    for client in (*silent, turned_away):
        client.close()
    for _ in range(1_000):  # 20 s: a bound against hanging
        try:
            assert site.get("/healthz")[0] == 200
            return
        except (http.client.HTTPException, ConnectionError):
            time.sleep(0.02)
    pytest.fail("no place was given back")
