"""Metrics of hold invoices: by node, and what is not known has no series."""

from __future__ import annotations

from daemon.domain.identifiers import NodePubkey
from daemon.domain.status import HoldStatus, NodeStatus
from daemon.posting.board import Board
from daemon.serving.metrics import PrometheusMetrics
from tests.samples import NODE

OTHER = NodePubkey("03" * 33)
GAUGES = ("tellerd_holds_watched", "tellerd_holds_held", "tellerd_hold_deadline", "tellerd_holds_unknown")


def lines(*statuses: HoldStatus) -> list[str]:
    """The gauges' samples."""
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.holds.show(statuses)
    return [line for line in metrics.page().decode().splitlines() if line.startswith(GAUGES)]


def test_each_node_has_its_figures() -> None:
    """What is watched, what is held, how far its end is, and what nobody expects."""
    first = HoldStatus(name="lnd1", watched=7, held=2, held_msat=5_500, nearest_deadline_blocks=-1, unknown=3)
    second = HoldStatus(name="lnd2", unknown=0)
    assert lines(first, second) == [
        'tellerd_holds_watched{node="lnd1"} 7.0',
        'tellerd_holds_watched{node="lnd2"} 0.0',
        'tellerd_holds_held{node="lnd1"} 2.0',
        'tellerd_holds_held{node="lnd2"} 0.0',
        'tellerd_holds_held_millisatoshis{node="lnd1"} 5500.0',
        'tellerd_holds_held_millisatoshis{node="lnd2"} 0.0',
        'tellerd_hold_deadline_blocks{node="lnd1"} -1.0',
        'tellerd_holds_unknown{node="lnd1"} 3.0',
        'tellerd_holds_unknown{node="lnd2"} 0.0',
    ]


def test_what_nobody_looks_at_has_no_series() -> None:
    """A node that is away, or another's lease: a 0 would say that nothing is held without a document."""
    status = HoldStatus(name="lnd1", held=1, nearest_deadline_blocks=5, unknown=2)
    status.clear()
    assert not [line for line in lines(status) if "deadline" in line or "unknown" in line]


def test_what_went_back_is_counted_by_the_nodes_name_and_a_known_reason() -> None:
    """Whatever the reason says, there is a bounded number of series."""
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.show_nodes([NodeStatus(name="lnd1", pubkey=OTHER), NodeStatus(name="lnd2", pubkey=NODE)])
    for reason in ("by_call", "by_call", "what nobody has thought of"):
        metrics.hold_canceled(pubkey=NODE, reason=reason)
    page = metrics.page().decode()
    counted = [line for line in page.splitlines() if line.startswith("tellerd_holds_canceled_total")]
    assert counted == [
        'tellerd_holds_canceled_total{node="lnd2",reason="by_call"} 2.0',
        'tellerd_holds_canceled_total{node="lnd2",reason="other"} 1.0',
    ]
