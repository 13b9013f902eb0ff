"""A real Prometheus with the rules of ops/ scrapes a real tellerd: every panel shows something, every rule can fire.

`promtool` runs the rules' own tests: that they fire when they should, and not before.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, event_pb2, wallet_pb2
from adapters.mongo.collections import INVOICES
from regtest import binaries
from regtest.prometheus import CONFIG, OPS, RULES, Prometheus
from regtest.redis_server import RedisServer
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import SETTLED_S, Bank, wait_for
from tests.e2e.blinks_redis import beside_blink
from tests.e2e.chain_bank import ChainBank
from tests.e2e.receives import paying, wait_accepted

DASHBOARDS = sorted((OPS / "grafana" / "dashboards").glob("*.json"))
SELECTOR = re.compile(r"\b(?:(?:tellerd|process|galoy)_\w+|up)\b(?:\{[^}]*\})?")


def expressions() -> dict[str, str]:
    """Every expression of every panel, by where it stands."""
    found: dict[str, str] = {}
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{file.stem}, {panel['title']}, {target['refId']}"] = target["expr"]
    return found


def selectors(rules: list[dict[str, Any]]) -> dict[str, str]:
    """Every selector of every rule, by where it stands."""
    found: dict[str, str] = {}
    for rule in rules:
        asked = SELECTOR.findall(rule["query"])
        assert asked, f"no selector in {rule['query']}"
        found |= {f"{rule['name']}, {number}": selector for number, selector in enumerate(asked)}
    return found


SUBSCRIBED_S = 900
"""Longer than the test."""


@contextmanager
def subscriber(client: Client) -> Iterator[None]:
    """One that reads the feed meanwhile."""
    stream = client.events.Subscribe(event_pb2.SubscribeRequest(), timeout=SUBSCRIBED_S)
    seen = threading.Event()

    def read() -> None:
        try:
            for _ in stream:
                seen.set()
        except grpc.RpcError as ended:
            assert ended.code() == grpc.StatusCode.CANCELLED  # noqa: PT017 (in a thread)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert seen.wait(SETTLED_S)
        yield
    finally:
        stream.cancel()
        reader.join(SETTLED_S)


@contextmanager
def held_payments(bank: Bank, client: Client, wallet: str) -> Iterator[None]:
    """One payment that waits for its release meanwhile, and one that was given back, for its document was closed."""
    waits, closed = (client.create_hold_invoice(wallet, amount_sat) for amount_sat in (4_000, 5_000))
    with paying(bank, waits.payment_request), paying(bank, closed.payment_request) as given_back:
        try:
            for invoice in (waits, closed):
                wait_accepted(bank, invoice.payment_hash)
            bank.db[INVOICES].update_one({"_id": closed.payment_hash}, {"$set": {"processingCompleted": True}})
            assert not given_back.result(SETTLED_S).succeeded
            yield
        finally:
            for invoice in (waits, closed):
                bank.stack.lnd.cancel_invoice(invoice.payment_hash)


@pytest.fixture
def busy(stack: Stack, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChainBank]:
    """A bank with a chain and a standby, that has had payments and deposits; Blink's names are on, its Redis is used,
    and books and nodes are compared every second."""
    monkeypatch.setenv("TELLERD_HTTP__BLINK_METRICS", "true")
    monkeypatch.setenv("TELLERD_RECONCILIATION__EVERY_S", "1")
    chain = ChainBank(stack, tmp_path / "bank", sections=beside_blink(redis))
    try:
        chain.open()
        yield chain
        chain.check_books()
    finally:
        chain.close()


def test_every_panel_and_every_rule_finds_its_series(busy: ChainBank, tmp_path: Path) -> None:
    """After a few payments, held ones among them, a settled deposit, one on its way, calls that failed, and a full
    check: no expression of a dashboard and no selector of a rule is without a series; no alert fires; what is shown of
    money is what was paid, and nothing of it is unknown."""
    bank, standby = busy.bank, busy.bank.standby("standby")
    standby.start()
    addresses = [bank.tellerd.http_address, standby.http_address]
    prometheus = Prometheus(binaries.prometheus(), tmp_path / "prometheus", targets=addresses)
    prometheus.start()
    try:
        with bank.tellerd.client() as client, subscriber(client):
            wallet = client.create_wallet("shop")
            bank.pay(bank.invoices(client, wallet, [1_000, 2_000, 3_000]))
            settled = busy.send(busy.address(client, wallet), 500_000)
            busy.wait_state(*settled, "detected")
            busy.bitcoind.mine(2)
            busy.wait_state(*settled, "settled")
            busy.wait_state(*busy.send(busy.address(client, wallet), 70_000), "detected")
            bank.wait_balance(wallet, 6_000 + 497_000)
            _call_standby(standby.client())
            with held_payments(bank, client, wallet):
                checked = client.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=CALL_S)
                assert checked.full_check.invoices >= 3  # the stack's LND has those of other tests, too
                assert checked.full_check.deposits == 2
                prometheus.wait_ready()
                _check_all_found(prometheus)
                _check_money(prometheus, bank.node_msat() // 1000)
    finally:
        prometheus.stop()


def _call_standby(client: Client) -> None:
    """A call that fails for no fault of the caller's."""
    with client, pytest.raises(grpc.RpcError) as refused:
        client.wallets.ListWallets(wallet_pb2.ListWalletsRequest(), timeout=CALL_S, wait_for_ready=True)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def _check_all_found(prometheus: Prometheus) -> None:
    """The rates need two scrapes, so it is asked again until nothing is missing."""
    rules = prometheus.rules()
    assert rules
    wanted = expressions() | selectors(rules)
    assert len(wanted) > 100

    def missing() -> list[str]:
        return [f"{place}: {asked}" for place, asked in wanted.items() if not prometheus.query(asked)]

    try:
        wait_for(lambda: not missing(), "everything has series")
    except AssertionError:
        assert missing() == []
    assert [rule["lastError"] for rule in prometheus.rules() if rule.get("lastError")] == []
    firing = prometheus.query('ALERTS{alertstate="firing"}')
    assert [one["metric"]["alertname"] for one in firing] == []


def _check_money(prometheus: Prometheus, node_sat: int) -> None:
    """The figures are read every ten seconds: asked again until they are of after the payments."""

    def value(name: str) -> int | None:
        series = prometheus.query(name)
        return int(float(series[0]["value"][1])) if len(series) == 1 else None

    wanted = {
        "tellerd_wallets_balance_satoshis": 6_000 + 500_000,  # the fee is the bank owner's: a wallet, too
        'tellerd_account_balance_satoshis{account="Assets:OnChain"}': -500_000,
        'tellerd_account_balance_satoshis{account="Assets:Reserve:Lightning"}': -node_sat,
        "tellerd_pending_deposits": 1,
        "tellerd_pending_deposits_satoshis": 70_000,
        "tellerd_books_difference_satoshis": 0,
        "tellerd_suspense_satoshis": 0,
        "sum(tellerd_holds_held)": 1,
        "sum(tellerd_holds_held_millisatoshis)": 4_000_000,
        "tellerd_holds_unknown": 0,
        'tellerd_holds_canceled_total{reason="closed"}': 1,
        'tellerd_reconciliation_difference_millisatoshis{account="Assets:OnChain"}': 0,
        'tellerd_reconciliation_unknown_millisatoshis{account="Assets:OnChain"}': 0,
        'tellerd_reconciliation_difference_millisatoshis{account="Assets:Reserve:Lightning"}': 0,
        'tellerd_reconciliation_unknown_millisatoshis{account="Assets:Reserve:Lightning"}': 0,
        "sum(tellerd_node_holding_millisatoshis) / 1000": node_sat,
        "sum(tellerd_gaps)": 0,
        'tellerd_full_check_compared{what="deposits"}': 2,
        "tellerd_full_check_unfinished": 0,
        "galoy_lnd": node_sat,
        "galoy_lndBalanceSync": 0,
        "galoy_assets": 500_000 + node_sat,
        "galoy_liabilities": 500_000 + node_sat,
        "galoy_lightning": -node_sat,
        "galoy_onchain": -500_000,
        "galoy_assetsEqLiabilities": 0,
        "galoy_bankowner_balance": 3_000,
        "galoy_dealer_usd_balance": 0,
        "galoy_funder_balance": 0,
    }
    try:
        wait_for(lambda: {name: value(name) for name in wanted} == wanted, "the figures")
    except AssertionError:
        assert {name: value(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "arguments", [("check", "config", str(CONFIG)), ("check", "rules", str(RULES))], ids=["config", "rules"]
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    """What compose gives to Prometheus is valid."""
    done = _promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_pass_their_own_tests() -> None:
    """Each alert fires when it should, with the labels it should have, and not before."""
    done = _promtool("test", "rules", str(RULES.with_name("alerts_test.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_wrong_fails_its_test(tmp_path: Path) -> None:
    """The tests of the rules can fail: each rule that never fires is found."""
    tests = RULES.with_name("alerts_test.yml").read_text()
    rules, count = re.subn(r"(?m)^( +expr: )(?!>-).*$", r"\1vector(1) == 0", RULES.read_text())
    assert count > 20
    (tmp_path / "alerts.yml").write_text(rules)
    (tmp_path / "alerts_test.yml").write_text(tests)
    done = _promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert done.returncode != 0
    output = done.stdout + done.stderr
    names = re.findall(r"alert: (\w+)\n +expr: vector", rules)
    assert [name for name in names if f"alertname: {name}" not in output] == []


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*binaries.promtool(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
