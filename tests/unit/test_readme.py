"""What the README names is there: files, tests, metrics."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.domain.status import ChainStatus
from daemon.posting.board import Board
from daemon.serving.metrics import PrometheusMetrics

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


def test_every_metric_is_described() -> None:
    """Under the name that Prometheus gets, buckets and sums left out."""
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.show_chain(ChainStatus())
    page = metrics.page().decode()
    served = {
        name for name in re.findall(r"^# TYPE (tellerd_\w+)", page, re.MULTILINE) if not name.endswith("_created")
    }
    described = set(re.findall(r"^\| `(tellerd_\w+)", README, re.MULTILINE))
    assert described == served
