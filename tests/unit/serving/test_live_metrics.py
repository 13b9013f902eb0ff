"""What is looked at when Prometheus asks: nodes, posting, subscribers."""

from __future__ import annotations

import typing

import pytest

from daemon.domain import outcomes
from daemon.domain.books import SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.posting.board import Board
from daemon.posting.poster import Backlog, outcome_name
from daemon.serving.live_metrics import LiveCollector
from daemon.serving.metrics import OUTCOMES, PrometheusMetrics
from tests.samples import MORNING_MS, NODE, block_at, hash_of


def shown(collector: LiveCollector) -> dict[str, float]:
    """Samples by name, with the node where there is one."""
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    return {":".join([one.name, *one.labels.values()]): one.value for one in samples}


def board_with(cursor: LndCursor) -> Board:
    """A board after a commit."""
    board = Board()
    board.publish(cursors=[cursor])
    return board


def cursor(*, opened: bool = True) -> LndCursor:
    """At 5, with 8 to 9 booked beyond a gap."""
    return LndCursor(
        pubkey=NODE, name="lnd1", settle_index=5, booked_above=((8, 9),), opening_index=0 if opened else None
    )


@pytest.mark.parametrize(("told", "lag"), [(0, 4), (9, 4), (12, 7)])
def test_the_lag_is_what_was_told_less_what_is_booked(told: int, lag: int) -> None:
    """Against the newest index that is known at all: told by the stream, or booked beyond a gap."""
    collector = LiveCollector(board_with(cursor()))
    collector.nodes = [NodeStatus(name="lnd1", pubkey=NODE, told_settle_index=told)]
    assert shown(collector)["tellerd_settle_index_lag:lnd1"] == lag


def test_a_lag_that_is_not_known_has_no_series() -> None:
    """A node that was never reached, has no cursor yet, or is not opened."""
    collector = LiveCollector(board_with(cursor(opened=False)))
    collector.nodes = [NodeStatus(name="lnd1", pubkey=NODE), NodeStatus(name="lnd2")]
    assert not [name for name in shown(collector) if name.startswith("tellerd_settle_index_lag")]


def test_connections_are_counted_by_node() -> None:
    """bitcoind is one of them where it is followed."""
    collector = LiveCollector(Board())
    collector.nodes = [NodeStatus(name="lnd1", connections=3), NodeStatus(name="lnd2")]
    collector.chain = ChainStatus(connections=2)
    samples = {name: value for name, value in shown(collector).items() if "connections" in name}
    assert samples == {
        "tellerd_node_connections_total:lnd1": 3,
        "tellerd_node_connections_total:lnd2": 0,
        "tellerd_node_connections_total:bitcoind": 2,
    }


def test_blocks_behind_is_not_known_before_both_ends_are() -> None:
    """No 0 for a standby, or for a bitcoind that was not reached yet: it is not at the tip."""
    collector = LiveCollector(Board())
    collector.chain = ChainStatus()
    assert not [name for name in shown(collector) if name.startswith("tellerd_chain")]
    collector.chain.tip = block_at(7)
    assert shown(collector)["tellerd_chain_tip"] == 7
    assert "tellerd_chain_blocks_behind" not in shown(collector)
    collector.chain.cursor = block_at(5)
    assert shown(collector)["tellerd_chain_height"] == 5
    assert shown(collector)["tellerd_chain_blocks_behind"] == 2


def test_what_waits_for_posting_is_there_while_there_is_posting() -> None:
    """Depth against capacity, and age; a standby has none of them."""
    collector = LiveCollector(Board())
    assert not [name for name in shown(collector) if "inbox" in name or "unposted" in name]
    collector.backlog = lambda: Backlog(batches=3, capacity_batches=16, oldest_s=1.5)
    samples = shown(collector)
    assert (samples["tellerd_inbox_batches"], samples["tellerd_inbox_capacity_batches"]) == (3, 16)
    assert samples["tellerd_oldest_unposted_seconds"] == 1.5


def test_the_slowest_subscriber_is_shown() -> None:
    """A series for each would grow without bound; without any there is no lag."""
    collector = LiveCollector(Board())
    assert shown(collector)["tellerd_feed_subscribers"] == 0
    assert "tellerd_feed_subscriber_lag_events" not in shown(collector)
    collector.lags = lambda: [2, 40, 0]
    assert shown(collector)["tellerd_feed_subscribers"] == 3
    assert shown(collector)["tellerd_feed_subscriber_lag_events"] == 40


def test_every_outcome_is_counted_from_zero() -> None:
    """Prometheus sees no rise where a series begins: the first suspense after a start must be one."""
    waiting = SuspenseEntry(
        key="k",
        pubkey=NODE,
        payment_hash=hash_of("k"),
        amount_sat=1,
        received_msat=1_000,
        reason="no_expectation",
        received_at_ms=MORNING_MS,
    )
    samples: dict[type[object], object] = {
        outcomes.Posted: outcomes.Posted("k", 1, True),
        outcomes.AlreadyPosted: outcomes.AlreadyPosted("k"),
        outcomes.Suspended: outcomes.Suspended("k", 1, "nobody expects it"),
        outcomes.PartOfOpening: outcomes.PartOfOpening("k"),
        outcomes.GapFound: outcomes.GapFound("k"),
        outcomes.LossBooked: outcomes.LossBooked("k", 1),
        outcomes.CursorMoved: outcomes.CursorMoved("k"),
        outcomes.Adopted: outcomes.Adopted("k"),
        outcomes.DepositsChanged: outcomes.DepositsChanged(),
        outcomes.Held: outcomes.Held("k", "no price"),
        outcomes.Noted: outcomes.Noted("k"),
        outcomes.Stale: outcomes.Stale("k"),
        outcomes.Assigned: outcomes.Assigned("k", waiting, again=False),
        outcomes.NotAssigned: outcomes.NotAssigned("k", outcomes.AssignmentProblem.NO_ENTRY),
    }
    names = {outcome_name(samples[kind]) for kind in typing.get_args(outcomes.Outcome)}  # type: ignore[arg-type]  # one sample of each kind
    assert names | {"posted_unpriced"} == set(OUTCOMES)
    page = PrometheusMetrics(board=Board(), version="0").page().decode().splitlines()
    assert [name for name in OUTCOMES if f'tellerd_outcomes_total{{outcome="{name}"}} 0.0' not in page] == []
