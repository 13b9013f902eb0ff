"""What the README names is there: files, tests, metrics."""

from __future__ import annotations

import inspect
import re
import shlex
import time
from decimal import Decimal
from pathlib import Path

from google.protobuf import descriptor_pool, json_format, message_factory

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, invoice_pb2, suspense_pb2, wallet_pb2
from adapters.memory import MemoryStore
from adapters.prices.fixed import FixedPrice
from adapters.prices.nothing import NoPrice
from daemon.domain.accounts import Barred
from daemon.domain.api_keys import Scope
from daemon.domain.holds import ALREADY_PAID, CANCEL_REASONS
from daemon.domain.quotes import PRICE_REASONS
from daemon.domain.status import ChainStatus, HoldStatus, NodeStatus
from daemon.matching import coins, decide, deposit_check, dollars, holds, losses
from daemon.matching.invoice_states import ON_NODE
from daemon.posting.board import Board
from daemon.posting.poster import Backlog
from daemon.posting.turns import TurnsStatus
from daemon.reconciling import lightning_gaps
from daemon.serving.figures import FigureReader
from daemon.serving.holds import BY_CALL
from daemon.serving.metrics import OUTCOMES, PrometheusMetrics
from daemon.serving.scopes import SCOPES
from tests.samples import block_at
from tests.unit.serving.reconciliation_samples import reconciled

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILES = (admin_pb2, invoice_pb2, suspense_pb2, wallet_pb2)
"""Imported, they stand in the descriptor pool."""


def test_every_link_leads_to_a_file() -> None:
    """Relative links, which are all it has."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_test_that_proves_a_guarantee_is_there() -> None:
    """`[test_name](file)`: a function of that file."""
    proofs = re.findall(r"\[`(test_[a-z0-9_]+)`\]\(([^)]+)\)", README)
    assert len(proofs) > 10
    missing = [(name, file) for name, file in proofs if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []


def full_metrics() -> PrometheusMetrics:
    """All that a leader shows, once everything was read."""
    store = MemoryStore()
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.show_chain(ChainStatus(tip=block_at(7), cursor=block_at(5)))
    metrics.show_nodes([NodeStatus(name="lnd1")])
    metrics.holds.show([HoldStatus(name="lnd1")])
    price = FixedPrice(Decimal(60_000))
    metrics.show_prices(price, price)
    metrics.show_feed(lambda: [1])
    metrics.show_posting(lambda: Backlog(batches=0, capacity_batches=16, oldest_s=0.0))
    reader = FigureReader(
        figures=store.figures,
        gaps=store.gaps,
        deposits=store.deposits,
        prices=NoPrice(),
        show=metrics.show_figures,
    )
    metrics.show_figures(reader.read())
    metrics.leading(True)
    metrics.show_turns(TurnsStatus())
    metrics.show_reconciliation(reconciled(at_ms=time.time_ns() // 1_000_000))
    return metrics


def test_every_metric_is_described() -> None:
    """Under the name that Prometheus gets, buckets and sums left out."""
    page = full_metrics().page().decode()
    served = {
        name for name in re.findall(r"^# TYPE (tellerd_\w+)", page, re.MULTILINE) if not name.endswith("_created")
    }
    described = set(re.findall(r"^\| `(tellerd_\w+)", README, re.MULTILINE))
    assert described == served


def test_the_scopes_are_those_of_the_code() -> None:
    """Each method that needs more than `read` stands in the row of its scope, and in no other; the example of a core
    API's key has what a core API calls."""
    section = README.split("\n### Keys and TLS\n")[1].split("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.+)\|$", section, re.MULTILINE))
    assert set(rows) == set(Scope)
    methods = {method.split("/")[1]: needs for method, needs in SCOPES.items()}
    for scope, text in rows.items():
        named = {method for method in methods if re.search(rf"\b{method}\b", text)}
        needed = {method for method, needs in methods.items() if needs is Scope(scope)}
        assert named == (set() if scope == Scope.READ else needed), scope
    example = re.search(r'keys create --name "core API" --scopes (\S+)', section)
    assert example is not None
    assert example[1].split(",") == [Scope.READ, Scope.RECEIVE, Scope.WRITE]


def test_every_call_from_a_shell_is_a_call_of_the_api() -> None:
    """`grpcurl … -d 'message' address service/method`: the method is there, and the message is one that it takes."""
    shown = re.findall(r"^grpcurl (?:\\\n|.)+$", README, re.MULTILINE)
    calls = [shlex.split(call.replace("\\\n", " "), comments=True) for call in shown]
    assert len(calls) > 10
    for call in calls:
        service, method = call[-1].split("/")
        pool = descriptor_pool.Default()
        asked = pool.FindServiceByName(service).FindMethodByName(method).input_type
        message = call[call.index("-d") + 1] if "-d" in call else "{}"
        json_format.Parse(message, message_factory.GetMessageClass(asked)())


def test_every_outcome_is_described() -> None:
    """In the row of its metric, once."""
    (row,) = re.findall(r"^\| `tellerd_outcomes_total` \|.*$", README, re.MULTILINE)
    assert sorted(re.findall(r"`([a-z_]+)`", row)[1:]) == sorted(OUTCOMES)


def test_every_reason_of_a_cancellation_is_described() -> None:
    """In the README's table, and in the comments of both messages that have it; and none that is gone."""
    section = README.split("\n### Health and metrics\n")[1].split("\n### ")[0]
    table = section.split("\n| reason |")[1].split("\n\n")[0]
    described = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))
    assert sorted(described) == sorted(CANCEL_REASONS) == sorted(cancel_reasons())
    for file, after in (("invoice.proto", "// Why it was canceled"), ("event.proto", "// Why: a short name")):
        source = (ROOT / "protos" / "tellerd" / "v1" / file).read_text()
        comment = source.split(after)[1].split("string ")[0]
        assert CANCEL_REASONS - {ALREADY_PAID} <= set(re.findall(r"`([a-z_]+)`", comment)), file


def cancel_reasons() -> set[str]:
    """What the code calls reasons for which a held payment goes back."""
    functions = (holds.decide_hold, holds._missing, decide._why_not_credited, dollars.why_not_credited)
    sources = "".join(inspect.getsource(function) for function in functions)
    found = {*re.findall(r'(?:return|or|Wait\(|Cancel\() ?"([a-z_]+)"', sources), *(one.value for one in Barred)}
    return (found | holds._NEVER | PRICE_REASONS | {BY_CALL, ON_NODE, holds._NOT_RELEASED}) - holds._NOT_OURS


def test_every_kind_of_gap_is_described() -> None:
    """Under "Reconciliation": what it is, and what to do; and none that is gone."""
    section = README.split("\n### Reconciliation\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|([^|]+)\|([^|]+)\|$", section, re.MULTILINE)
    described = [kind for kinds, _, _ in rows for kind in re.findall(r"`([a-z_]+)`", kinds)]
    assert sorted(described) == sorted(gap_kinds())
    assert all(cell.strip() for _, *cells in rows for cell in cells)


def gap_kinds() -> set[str]:
    """What the code calls gaps: what stands after `kind=`, and the constants."""
    sources = "".join(file.read_text() for file in (ROOT / "daemon" / "matching").glob("*.py"))
    return {
        *re.findall(r'kind="([a-z_]+)"', sources),
        *deposit_check.KINDS,
        *lightning_gaps.KINDS,
        coins.COIN_SPENT,
        losses.LOST,
        losses.UNPROVABLE,
        losses.UNPROVEN,
        "unknown_difference",
    }
