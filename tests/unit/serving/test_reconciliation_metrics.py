"""Books against nodes in metrics: to the millisatoshi, while they are known, and no series when they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.accounts import LIGHTNING, ON_CHAIN
from daemon.domain.books import GapState
from daemon.domain.reconciliation import Item, ItemKind, ReconciliationStatus
from daemon.posting.board import Board
from daemon.serving.metrics import PrometheusMetrics
from daemon.serving.reconciliation_metrics import GAP_KINDS, MAX_AGE_S, MAX_KINDS, ReconciliationCollector, gap_metrics
from tests.unit.serving.reconciliation_samples import AT_MS, CHAIN_SIDE, look, reconciled


def shown(
    status: ReconciliationStatus | None, *, leads: bool = True, blink: bool = False, age_s: float = 0.0
) -> dict[str, float]:
    """Samples by name and labels."""
    collector = ReconciliationCollector(blink=blink, now_s=lambda: AT_MS / 1000 + age_s)
    collector.status, collector.leads = status, leads
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    return {":".join([one.name, *one.labels.values()]): one.value for one in samples}


def test_a_comparison_is_shown_to_the_millisatoshi() -> None:
    """Difference, what explains it and what does not, by account; what nodes hold; looks; the full check."""
    samples = shown(reconciled(unknown_msat=7))
    kinds = {kind.value: 0 for kind in ItemKind}
    explained = {
        **{f"{LIGHTNING}:{kind}": amount for kind, amount in {**kinds, "sent": -9_001, "in_flight": -3_000}.items()},
        **{f"{ON_CHAIN}:{kind}": amount for kind, amount in kinds.items()},
    }
    assert samples == {
        "tellerd_reconciliation_looks_total:true": 3,
        "tellerd_reconciliation_looks_total:false": 2,
        "tellerd_reconciliation_timestamp_seconds": AT_MS / 1000,
        f"tellerd_reconciliation_difference_millisatoshis:{LIGHTNING}": -11_994,
        f"tellerd_reconciliation_difference_millisatoshis:{ON_CHAIN}": 0,
        f"tellerd_reconciliation_unknown_millisatoshis:{LIGHTNING}": 7,
        f"tellerd_reconciliation_unknown_millisatoshis:{ON_CHAIN}": 0,
        **{f"tellerd_reconciliation_explained_millisatoshis:{key}": value for key, value in explained.items()},
        "tellerd_node_holding_millisatoshis:lnd1:channels": 900_000_499,
        "tellerd_node_holding_millisatoshis:lnd1:closing": 0,
        "tellerd_node_holding_millisatoshis:lnd1:wallet": 99_988_000,
        "tellerd_full_check_timestamp_seconds": AT_MS / 1000 - 10,
        "tellerd_full_check_compared:invoices": 1_200,
        "tellerd_full_check_compared:deposits": 34,
        "tellerd_full_check_found:repeats": 1,
        "tellerd_full_check_found:losses": 2,
        "tellerd_full_check_found:gaps": 3,
        "tellerd_full_check_unfinished": 0,
    }


def test_what_is_not_known_has_no_series() -> None:
    """Before the first steady look, on a standby, without a status; and no 0 for a full check that never was."""
    assert shown(None) == {}
    assert shown(reconciled(), leads=False, blink=True) == {}
    unsteady = ReconciliationStatus(last=look(steady=False), looks=1, unsteady_looks=1)
    assert set(shown(unsteady, blink=True)) == {
        "tellerd_reconciliation_looks_total:true",
        "tellerd_reconciliation_looks_total:false",
    }


def test_an_old_comparison_is_no_figure_but_its_age_is_shown() -> None:
    """The alert on its age rests on that."""
    young, old = shown(reconciled(), age_s=MAX_AGE_S, blink=True), shown(reconciled(), age_s=MAX_AGE_S + 1, blink=True)
    gone = {name.partition(":")[0] for name in set(young) - set(old)}
    assert gone == {
        "tellerd_reconciliation_difference_millisatoshis",
        "tellerd_reconciliation_unknown_millisatoshis",
        "tellerd_reconciliation_explained_millisatoshis",
        "tellerd_node_holding_millisatoshis",
        "galoy_lnd",
        "galoy_lnd_onchain",
        "galoy_lnd_closingchannelbalance",
        "galoy_lndBalanceSync",
    }
    assert old["tellerd_reconciliation_timestamp_seconds"] == AT_MS / 1000


@pytest.mark.parametrize(("more_msat", "sync_sat"), [(12_001, 0), (0, -12), (13_000, 0), (13_001, 1), (11_002, 0)])
def test_blinks_names_say_what_blinks_exporter_says(more_msat: int, sync_sat: int) -> None:
    """In sats, the difference cut off towards zero; nodes less books."""
    blinks = {
        name: value for name, value in shown(reconciled(unknown_msat=more_msat), blink=True).items() if "galoy" in name
    }
    assert blinks == {
        "galoy_lnd": (999_988_499) // 1000,
        "galoy_lnd_onchain": 99_988,
        "galoy_lnd_closingchannelbalance": 0,
        "galoy_lndBalanceSync": sync_sat,
    }
    assert not [name for name in shown(reconciled()) if "galoy" in name]


def test_coins_of_other_programs_are_no_difference_in_blinks_eyes() -> None:
    """They are in its hot wallet, which it counts in."""
    others = Item(kind=ItemKind.OTHERS, reference="", amount_msat=-40_000_000)
    side = replace(CHAIN_SIDE, books_msat=CHAIN_SIDE.books_msat + 40_000_000, items=(others,))
    status = ReconciliationStatus(last_steady=replace(look(), sides=(side,)))
    assert shown(status, blink=True)["galoy_lndBalanceSync"] == 0


def gaps(totals: dict[tuple[str, GapState], tuple[int, int]]) -> dict[str, float]:
    samples = [sample for metric in gap_metrics(totals) for sample in metric.samples]
    return {":".join([one.name, *one.labels.values()]): one.value for one in samples}


def test_gaps_are_shown_by_kind_and_state() -> None:
    """Those that matter most stand at 0 from the start, so that the first one is a rise."""
    none = gaps({})
    assert len(none) == 4 * len(GAP_KINDS)
    assert set(none.values()) == {0}
    found = gaps({("unknown_difference", GapState.OPEN): (1, -7_000), ("sent_elsewhere", GapState.EXPLAINED): (5, 9)})
    assert found == none | {
        "tellerd_gaps:unknown_difference:open": 1,
        "tellerd_gaps_millisatoshis:unknown_difference:open": -7_000,
        "tellerd_gaps:sent_elsewhere:explained": 5,
        "tellerd_gaps_millisatoshis:sent_elsewhere:explained": 9,
    }


def test_kinds_without_bound_become_one() -> None:
    """No gap is left out, and no label grows for ever."""
    found = gaps({(f"kind{n:03}", GapState.OPEN): (1, 10) for n in range(100)})
    counts = {name: value for name, value in found.items() if name.startswith("tellerd_gaps:")}
    assert len({name.split(":")[1] for name in counts}) == MAX_KINDS + 1
    assert sum(counts.values()) == 100
    assert found["tellerd_gaps:other:open"] == 100 - (MAX_KINDS - len(GAP_KINDS))


def test_a_scrape_shows_it_while_this_process_leads() -> None:
    """What a leader of yesterday knew is not shown."""
    metrics = PrometheusMetrics(board=Board(), version="0")
    metrics.show_reconciliation(reconciled())
    assert "tellerd_reconciliation" not in metrics.page().decode()
    metrics.leading(True)
    assert 'tellerd_reconciliation_looks_total{steady="true"} 3.0' in metrics.page().decode()
    metrics.leading(False)
    assert "tellerd_reconciliation" not in metrics.page().decode()


def test_losses_and_lost_entries_stand_at_zero_and_are_counted() -> None:
    """Else the first would be no rise in Prometheus' eyes."""
    metrics = PrometheusMetrics(board=Board(), version="0")

    def value(name: str) -> str:
        return next(line.split()[1] for line in metrics.page().decode().splitlines() if line.startswith(f"{name} "))

    names = ("tellerd_htlc_losses_total", "tellerd_htlc_losses_millisatoshis_total", "tellerd_audit_entries_lost_total")
    assert [value(name) for name in names] == ["0.0", "0.0", "0.0"]
    metrics.htlc_lost(amount_msat=21_000)
    metrics.audit_lost(3)
    assert [value(name) for name in names] == ["1.0", "21000.0", "3.0"]
