"""What a developer has of `docker compose -f docker-compose.regtest.yml up`, tried from outside."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from pymongo import MongoClient

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from regtest.containers.bitcoind_rpc import BitcoindRpc
from regtest.containers.folders import API_CERT, BITCOIND_LOGIN, LND_MACAROON
from regtest.containers.traffic import CREDITED_SAT, LEAST_SAT, PAYMENTS, SAVER, SHOP
from regtest.docker_cli import DockerError
from regtest.tellerd import Client
from tests.compose.stack import FILE, ROOT, ComposeStack
from tests.e2e.bank import wait_for

# The first of them builds images and brings everything up: see the bounds in stack.py.
pytestmark = [pytest.mark.regtest, pytest.mark.slow, pytest.mark.timeout(3_000)]

SHOP_SAT = sum(LEAST_SAT + number for number in range(PAYMENTS))
"""What `traffic` pays to its first wallet at each `up`."""

LOAD = 240
"""Payments: some three seconds of one channel, so that the daemon is stopped in the middle."""

IN_FLIGHT = 8
GRACE_S = 45.0
"""stop_grace_period; after it the engine would kill, and the exit code would be 137."""


def get(address: str, path: str) -> tuple[int, str]:
    """Status and text."""
    with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def answer(address: str, path: str) -> Any:
    """The JSON that is there."""
    status, text = get(address, path)
    assert status == 200, text
    return json.loads(text)


def query(address: str, expression: str, *, below: str = "") -> list[dict[str, Any]]:
    """The series that a Prometheus has now."""
    result: list[dict[str, Any]] = answer(address, f"{below}/api/v1/query?query={quote(expression)}")["data"]["result"]
    return result


def code_of(refusal: object) -> grpc.StatusCode | None:
    """grpcio's errors are calls, too, though its types do not say so."""
    return refusal.code() if isinstance(refusal, grpc.Call) else None


def check_books(stack: ComposeStack, client: Client) -> None:
    """They add up to 0, equal the node to the msat, and `tellerd verify` finds nothing."""
    rows, totals = client.trial_balance()
    assert set(totals.values()) == {0}
    held_sat = -sum(row.balance for row in rows if row.account == "Assets:Reserve:Lightning")
    remainder_msat = client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=20).lnd[0].remainder_msat
    books_msat = held_sat * 1000 + remainder_msat
    # A payer's success comes before the last commitment: the node's own balance lags by a moment.
    wait_for(lambda: stack.lnd.channel_balance() == books_msat, f"the node holds the {books_msat} msat of the books")
    verdict = stack.compose("exec", "-T", "tellerd", "tellerd", "verify", "--config", "/etc/tellerd/tellerd.toml")
    assert verdict.endswith("the books are whole\n"), verdict


@pytest.fixture
def client(stack: ComposeStack) -> Iterator[Client]:
    """From outside, with TLS and the admin key."""
    with stack.client() as client:
        yield client


def test_everything_is_healthy_and_what_ends_has_ended_well(stack: ComposeStack) -> None:
    """Every service has a health check, save those whose exit code is the check; ports are on loopback only."""
    services = stack.ps()
    assert [one for one in services if not one.is_well] == []
    assert frozenset().union(*(one.published_on for one in services)) == {"127.0.0.1"}


def test_the_api_is_called_from_outside_with_tls_and_a_key(stack: ComposeStack, client: Client) -> None:
    """What `traffic` has paid is there to the sat; without the key, and without TLS, nothing is."""
    assert client.balance_sat(client.create_wallet(SHOP)) == SHOP_SAT
    assert client.balance_sat(client.create_wallet(SAVER)) == CREDITED_SAT
    check_books(stack, client)
    api, certificate = stack.address("REGTEST_API_PORT"), stack.developer_file(API_CERT).read_bytes()
    for refused, code in (
        (Client(api, root_certificate=certificate), grpc.StatusCode.UNAUTHENTICATED),
        (Client(api), grpc.StatusCode.UNAVAILABLE),
    ):
        with refused, pytest.raises(grpc.RpcError) as refusal:
            refused.create_wallet(SHOP)
        assert code_of(refusal.value) == code


def test_nodes_database_and_page_are_reached_from_outside(stack: ComposeStack) -> None:
    """With what `compose cp setup:/developer` brings."""
    bitcoind = BitcoindRpc(stack.address("REGTEST_BITCOIND_RPC_PORT"), stack.developer_file(BITCOIND_LOGIN))
    assert stack.lnd.get_info()["block_height"] == bitcoind.height()
    assert stack.payer.list_channels()[0]["active"]
    with MongoClient[dict[str, Any]](stack.address("REGTEST_MONGO_PORT"), directConnection=True) as mongo:
        assert mongo.admin.command("hello")["isWritablePrimary"]
        assert mongo["tellerd"]["medici_journals"].count_documents({}) > PAYMENTS
    page = stack.address("REGTEST_HTTP_PORT")
    wait_for(lambda: "in our Lightning" in get(page, "/")[1], "the page shows the accounts")  # read every 10 s


def test_prometheus_scrapes_tellerd_and_has_the_rules(stack: ComposeStack) -> None:
    """With the folder ops/prometheus as it is: the target is up, settlements are counted, each rule is evaluated."""
    prometheus = stack.address("REGTEST_PROMETHEUS_PORT")
    posted = 'sum(tellerd_outcomes_total{job="tellerd", outcome="posted"})'
    wait_for(lambda: value_of(query(prometheus, posted)) >= PAYMENTS, "the payments are scraped")
    assert value_of(query(prometheus, 'up{job="tellerd"}')) == 1
    groups = answer(prometheus, "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(
        re.findall(r"- alert: (\w+)", (ROOT / "ops" / "prometheus" / "alerts.yml").read_text())
    )
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def value_of(series: list[dict[str, Any]]) -> float:
    """Of the one series there is; 0 while there is none."""
    return sum(float(one["value"][1]) for one in series)


def test_grafana_shows_the_four_dashboards(stack: ComposeStack) -> None:
    """Without a login, and its datasource finds tellerd's metrics; where its image is absent the last lines say so."""
    if "grafana" not in stack.services:
        pytest.skip("Grafana's image can be neither pulled nor made here: told at the end of the run")
    grafana = stack.address("REGTEST_GRAFANA_PORT")
    dashboards = [json.loads(file.read_text()) for file in (ROOT / "ops" / "grafana" / "dashboards").glob("*.json")]
    wait_for(lambda: len(answer(grafana, "/api/search?type=dash-db")) == len(dashboards), "dashboards are provisioned")
    for dashboard in dashboards:
        shown = answer(grafana, f"/api/dashboards/uid/{dashboard['uid']}")["dashboard"]
        assert (shown["title"], len(shown["panels"])) == (dashboard["title"], len(dashboard["panels"]))
    assert query(grafana, 'up{job="tellerd"}', below="/api/datasources/proxy/uid/prometheus")


def test_what_grafana_and_prometheus_read_fits_the_compose_file(stack: ComposeStack) -> None:
    """Mounted where the provisioning looks, and every name that the files call is a service's, with its port."""
    services = stack.config()["services"]
    mounts = {mount["target"]: Path(mount["source"]) for mount in services["grafana"]["volumes"]}
    provisioning = mounts["/etc/grafana/provisioning"]
    (path,) = re.findall(r"path: (\S+)", (provisioning / "dashboards" / "tellerd.yml").read_text())
    assert sorted(file.suffix for file in mounts[path].iterdir()) == [".json"] * 4
    (url,) = re.findall(r"url: (\S+)", (provisioning / "datasources" / "prometheus.yml").read_text())
    assert url == "http://prometheus:9090"
    assert services["prometheus"]["ports"][0]["target"] == 9090
    (target,) = re.findall(r'targets: \["(\S+)"\]', (ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())
    name, port = target.split(":")
    assert int(port) in {published["target"] for published in services[name]["ports"]}


def test_tellerd_has_no_rights_that_it_does_not_need(stack: ComposeStack) -> None:
    """Not root, no capability, nothing to write but /tmp."""
    about = stack.inspect("tellerd")
    assert about["HostConfig"]["ReadonlyRootfs"] is True
    assert about["HostConfig"]["CapDrop"] == ["ALL"]
    assert about["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    status = stack.compose("exec", "-T", "tellerd", "cat", "/proc/1/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (found["Name"], found["Uid"].split()[0], found["NoNewPrivs"]) == ("tellerd", "10001", "1")
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    for place in ("/", "/opt/tellerd", "/secrets", "/etc/tellerd"):
        with pytest.raises(DockerError, match="Read-only file system"):
            stack.compose("exec", "-T", "--user", "0", "tellerd", "touch", f"{place}/written")
    stack.compose("exec", "-T", "tellerd", "touch", "/tmp/written")


def test_no_secret_is_in_a_command_line_or_an_environment(stack: ComposeStack) -> None:
    """Of any container: `docker inspect` shows both to whoever may ask the engine."""
    shown = "".join(json.dumps(stack.inspect(name)) for name in stack.services)
    password = stack.developer_file(BITCOIND_LOGIN).read_text().strip().split(":")[1]
    macaroon = stack.developer_file(LND_MACAROON).read_bytes().hex()
    assert [secret for secret in (stack.admin_key, password, macaroon) if secret in shown] == []
    for name in ("bitcoind", "lnd", "payer"):
        running = stack.compose("exec", "-T", name, "sh", "-c", "cat /proc/1/cmdline /logins/*.password")
        command_line, *passwords = running.rsplit("\0", 1)
        assert all(len(one) == 64 and one not in command_line for one in passwords)


def test_sigterm_under_load_loses_and_doubles_nothing(stack: ComposeStack, client: Client, tell: list[str]) -> None:
    """It drains and ends with 0 within the grace period; what is paid meanwhile is credited after the next start."""
    wallet_id = client.create_wallet("compose-load")
    invoices = [client.create_invoice(wallet_id, LEAST_SAT + number) for number in range(LOAD)]
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="payer") as pool:
        payments = [pool.submit(stack.payer.pay, invoice.payment_request) for invoice in invoices]
        wait_for(lambda: client.balance_sat(wallet_id) > 50 * LEAST_SAT, "the load runs")
        asked_at = datetime.now(UTC)
        stack.compose("stop", "tellerd", timeout_s=2 * GRACE_S)
        paid_before = sum(payment.done() for payment in payments)
        statuses = {payment.result().status for payment in payments}
    stopped = stack.inspect("tellerd")["State"]
    took_s = (stack.finished_at("tellerd") - asked_at).total_seconds()
    assert (stopped["ExitCode"], stopped["OOMKilled"]) == (0, False)
    assert 0 < took_s < GRACE_S
    assert paid_before < LOAD, "the load was over before the daemon had ended: nothing was shown"
    assert statuses == {"SUCCEEDED"}
    tell.append(f"SIGTERM to exit under load {took_s:.2f} s, exit code 0, {paid_before} of {LOAD} paid by then")

    stack.compose("start", "tellerd")
    stack.wait_well("tellerd")
    wait_for(lambda: get(stack.address("REGTEST_HTTP_PORT"), "/readyz")[0] == 200, "tellerd leads again")
    due_sat = sum(invoice.amount_sat for invoice in invoices)
    wait_for(lambda: client.balance_sat(wallet_id) >= due_sat, "all that was paid is credited")
    assert client.balance_sat(wallet_id) == due_sat
    check_books(stack, client)


def test_a_second_up_goes_on_where_the_first_ended(stack: ComposeStack) -> None:
    """`down` keeps the volumes: keys, channel and books are the same, and `traffic` pays once more."""
    key, began = stack.admin_key, time.monotonic()
    stack.down()
    assert stack.ps() == []
    stack.up()
    assert stack.admin_key == key
    with stack.client() as client:
        assert client.balance_sat(client.create_wallet(SHOP)) == 2 * SHOP_SAT
        assert client.balance_sat(client.create_wallet(SAVER)) == 2 * CREDITED_SAT
        check_books(stack, client)
    assert time.monotonic() - began < 300, "a second start takes no longer than the first"


def test_the_nodes_read_the_same_files_as_the_launcher(stack: ComposeStack) -> None:
    """`make regtest` and Compose differ in flags only."""
    mounted = {
        Path(mount["source"])
        for service in stack.config()["services"].values()
        for mount in service["volumes"]
        if mount["type"] == "bind"
    }
    assert set((ROOT / "regtest" / "conf").iterdir()) <= mounted
    assert FILE.parent == ROOT
