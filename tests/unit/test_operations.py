"""ops/: what an operator is given fits together: alerts, their runbook and tests, dashboards, provisioning."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPS = ROOT / "ops"
RULES = (OPS / "prometheus" / "alerts.yml").read_text()
RULE_TESTS = (OPS / "prometheus" / "alerts_test.yml").read_text()
DASHBOARDS = sorted((OPS / "grafana" / "dashboards").glob("*.json"))

ALERTS = dict(re.findall(r"- alert: (\w+)\n((?: {8}.*\n?)+)", RULES))
"""Each alert with the lines of its rule."""

ANYTHING_GOES = re.compile(r"\b(absent\w*|vector|scalar|or)\b")
"""With these an expression has a series whatever there is to show."""

METRIC = re.compile(r"\btellerd_\w+")


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


def queries(dashboard: Path) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


def test_every_rule_is_seen_here() -> None:
    """What this file reads is all there is."""
    assert len(ALERTS) == RULES.count("alert:") == RULES.count("expr:") > 20


def test_every_alert_has_a_runbook_entry_that_it_names() -> None:
    """A row under "Alerts": what it means, what to look at, what to do; and no row for an alert that is gone."""
    section = README.split("\n### Alerts\n")[1].split("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", section, re.MULTILINE))
    assert set(rows) == set(ALERTS)
    for name, text in ALERTS.items():
        assert f'runbook: "README.md#alerts: {name}"' in text
        assert [cell.strip() == "" for cell in rows[name].split("|")] == [False, False, False], name


def test_every_alert_says_what_and_how_urgent_it_is() -> None:
    """A summary for the one who is woken, and a severity to route by."""
    for name, text in ALERTS.items():
        assert re.search(r'summary: ".{20,}"', text), name
        assert re.search(r"severity: (page|ticket) ", text), name


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    """promtool runs them in tests/e2e/test_prometheus.py."""
    cases = re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:(.*)", RULE_TESTS)
    for name in ALERTS:
        assert {expected.strip() for alert, expected in cases if alert == name} == {"[]", ""}, name


def test_rules_and_panels_ask_for_metrics_that_the_readme_describes() -> None:
    """A metric that was renamed is found here, before Prometheus is asked."""
    described = set(re.findall(r"^\| `(tellerd_\w+)", README, re.MULTILINE))
    asked = METRIC.findall("\n".join([*ALERTS.values(), *(text for file in DASHBOARDS for text in queries(file))]))
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert len(names) > 30
    assert sorted(names - described) == []


def test_no_panel_shows_something_whatever_happens() -> None:
    """An expression that always has a series would pass the test on a real Prometheus, and say nothing."""
    assert [text for file in DASHBOARDS for text in queries(file) if ANYTHING_GOES.search(text)] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_provisioned(dashboard: Path) -> None:
    """It has an identity, each panel says what it shows and reads from the provisioned Prometheus, none lies upon
    another."""
    document = json.loads(dashboard.read_text())
    assert document["uid"] == f"tellerd-{dashboard.stem}"
    assert document["title"]
    source = (OPS / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        for place in (panel, *panel["targets"]):
            assert f"uid: {place['datasource']['uid']}\n" in source
        grid = panel["gridPos"]
        cells = {(x + grid["x"], y + grid["y"]) for x in range(grid["w"]) for y in range(grid["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])


def test_the_four_dashboards_are_here() -> None:
    """Those that the README names."""
    assert [file.stem for file in DASHBOARDS] == ["chain", "ledger", "lightning", "overview"]
