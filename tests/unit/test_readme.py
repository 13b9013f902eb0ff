"""What the README names is there: files, tests, metrics."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from pathlib import Path

from adapters.memory import MemoryStore
from adapters.prices.fixed import FixedPrice
from adapters.prices.nothing import NoPrice
from daemon.domain.status import ChainStatus, HoldStatus, NodeStatus
from daemon.matching import coins, deposit_check, losses
from daemon.posting.board import Board
from daemon.posting.poster import Backlog
from daemon.posting.turns import TurnsStatus
from daemon.reconciling import lightning
from daemon.serving.figures import FigureReader
from daemon.serving.metrics import PrometheusMetrics
from tests.samples import block_at
from tests.unit.serving.reconciliation_samples import reconciled

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


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
        *lightning.KINDS,
        coins.COIN_SPENT,
        losses.LOST,
        losses.UNPROVABLE,
        losses.UNPROVEN,
        "unknown_difference",
    }
