"""Metrics of books against nodes, from the last comparison, and of what does not add up.

Amounts are millisatoshis: the books equal the nodes to one of them, and 21 million bitcoin are 2.1 * 10^18, of which
Prometheus' floats show every one up to 90,000 bitcoin (2^53). What is not known, or was compared too long ago, has no
series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.domain.books import GapState
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.reconciliation import FullCheck, ItemKind, Reconciliation, ReconciliationStatus

MAX_AGE_S: Final = 900.0
"""An older comparison is shown no more; the alert on its age has fired by then."""

GAP_KINDS: Final = (
    "paid_without_journal",
    "foreign_journal_unbalanced",
    "foreign_journal_unreadable",
    "unknown_difference",
)
"""Kinds that stand at 0 from the start."""

MAX_KINDS: Final = 40
"""Kinds are words of tellerd's own code, some twenty; what would be more is summed as "other"."""

GapTotals = Mapping[tuple[str, GapState], tuple[int, int]]
"""As `daemon.domain.ports.Gaps.totals` gives them."""


class ReconciliationCollector(Collector):
    """Shows `status` at each scrape while `leads` says so: a standby compares nothing, and what it knew is old.

    `blink` adds those names of Blink's exporter that only nodes can tell (blink-contract.md 3.8).
    """

    def __init__(self, *, blink: bool, now_s: Callable[[], float] = time.time) -> None:
        self._blink = blink
        self._now_s = now_s
        self.status: ReconciliationStatus | None = None
        self.leads = False

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        status = self.status
        if status is None or not self.leads:
            return
        yield _looks(status)
        if status.last_full is not None:
            yield from _full_check(status.last_full)
        steady = status.last_steady
        if steady is None:
            return
        yield GaugeMetricFamily(
            "tellerd_reconciliation_timestamp_seconds",
            "When books and nodes were last compared in a moment in which nothing moved.",
            value=steady.at_ms / 1000,
        )
        if self._now_s() - steady.at_ms / 1000 <= MAX_AGE_S:
            yield from _differences(steady)
            yield _holdings(steady)
            if self._blink:
                yield from _blinks(steady)


def _looks(status: ReconciliationStatus) -> Metric:
    looks = CounterMetricFamily(
        "tellerd_reconciliation_looks", "Comparisons; not steady: something moved meanwhile.", labels=["steady"]
    )
    looks.add_metric(["true"], status.looks - status.unsteady_looks)
    looks.add_metric(["false"], status.unsteady_looks)
    return looks


def _differences(look: Reconciliation) -> Iterator[Metric]:
    difference = GaugeMetricFamily(
        "tellerd_reconciliation_difference_millisatoshis", "What nodes hold less what books say.", labels=["account"]
    )
    unknown = GaugeMetricFamily(
        "tellerd_reconciliation_unknown_millisatoshis", "What nothing explains of it: 0.", labels=["account"]
    )
    explained = GaugeMetricFamily(
        "tellerd_reconciliation_explained_millisatoshis", "What explains it, by reason.", labels=["account", "kind"]
    )
    for side in look.sides:
        difference.add_metric([side.account], side.difference_msat)
        unknown.add_metric([side.account], side.unknown_msat)
        by_kind = side.explained_msat()
        for kind in ItemKind:
            explained.add_metric([side.account, kind.value], by_kind.get(kind, 0))
    yield from (difference, unknown, explained)


def _holdings(look: Reconciliation) -> Metric:
    holdings = GaugeMetricFamily(
        "tellerd_node_holding_millisatoshis",
        "What a Lightning node holds: in channels, in closing ones, in its wallet on the chain.",
        labels=["node", "where"],
    )
    for one in look.holdings:
        holdings.add_metric([one.name, "channels"], one.channels_msat)
        holdings.add_metric([one.name, "closing"], one.closing_msat)
        holdings.add_metric([one.name, "wallet"], one.wallet_msat)
    return holdings


def _full_check(check: FullCheck) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tellerd_full_check_timestamp_seconds",
        "When the last pass over every invoice and deposit ended.",
        value=check.ended_at_ms / 1000,
    )
    compared = GaugeMetricFamily("tellerd_full_check_compared", "What it compared.", labels=["what"])
    compared.add_metric(["invoices"], check.invoices)
    compared.add_metric(["deposits"], check.deposits)
    found = GaugeMetricFamily("tellerd_full_check_found", "What it found.", labels=["what"])
    found.add_metric(["repeats"], check.repeats)
    found.add_metric(["losses"], check.losses)
    found.add_metric(["gaps"], check.gaps)
    yield from (compared, found)
    yield GaugeMetricFamily(
        "tellerd_full_check_unfinished", "Nodes and books that it could not compare.", value=len(check.unfinished)
    )


def gap_metrics(totals: GapTotals) -> Iterator[Metric]:
    """How many gaps are open or explained, and what they add up to."""
    sums = {(kind, state): (0, 0) for kind in GAP_KINDS for state in (GapState.OPEN, GapState.EXPLAINED)}
    kinds = sorted({kind for kind, _ in totals} - set(GAP_KINDS))[: MAX_KINDS - len(GAP_KINDS)]
    for (kind, state), (count, amount_msat) in totals.items():
        key = (kind if kind in GAP_KINDS or kind in kinds else "other", state)
        before = sums.get(key, (0, 0))
        sums[key] = before[0] + count, before[1] + amount_msat
    gaps = GaugeMetricFamily("tellerd_gaps", "What does not add up, by kind and state.", labels=["kind", "state"])
    amounts = GaugeMetricFamily("tellerd_gaps_millisatoshis", "What they add up to.", labels=["kind", "state"])
    for (kind, state), (count, amount_msat) in sums.items():
        gaps.add_metric([kind, state.value], count)
        amounts.add_metric([kind, state.value], amount_msat)
    yield from (gaps, amounts)


def _blinks(look: Reconciliation) -> Iterator[Metric]:
    """In sats, as Blink's exporter has them.

    Its `lnd_offchain` and `lnd_openingchannelbalance` leave out commitment fees and what is under way, which are in
    our one figure of channels: they are not among them. `lndBalanceSync` has Blink's cold storage on neither side.
    """
    held = look.holdings
    if held:
        for name, what, msat in (
            ("lnd", "All that the nodes hold.", sum(one.total_msat for one in held)),
            ("lnd_onchain", "In their wallets on the chain.", sum(one.wallet_msat for one in held)),
            ("lnd_closingchannelbalance", "In channels that close.", sum(one.closing_msat for one in held)),
        ):
            yield GaugeMetricFamily(f"galoy_{name}", what, value=msat // MSAT_PER_SAT)
    others = ItemKind.OTHERS  # coins of Blink's own wallet: on neither side here, on both sides there
    difference_msat = sum(side.difference_msat - side.explained_msat().get(others, 0) for side in look.sides)
    # Towards zero: a remainder below one sat is no difference in sats.
    sats = abs(difference_msat) // MSAT_PER_SAT * (1 if difference_msat >= 0 else -1)
    yield GaugeMetricFamily("galoy_lndBalanceSync", "What nodes hold less what books say: 0.", value=sats)
