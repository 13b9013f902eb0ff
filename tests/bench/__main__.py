"""`python -m tests.bench [lightning|chain|holds]`: measures and prints, by default all; each under four minutes."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from daemon.domain.money import Currency, Price
from regtest.stack import mongod_only
from tests.bench import chain, holds
from tests.bench.ceiling import Ceiling
from tests.bench.path import Round, WholePath
from tests.bench.stages import stages

PRICE: Final = Price.from_usd_per_btc(Decimal("60000.00"))
"""As regtest's configuration has it."""

ROUNDS: Final = 3
"""Of path and ceiling in turns; the median counts."""

AT_MOST_S: Final = 5.0
"""No round begins new settlements after this."""

LEVELS: Final[Sequence[tuple[str, int | None, int]]] = (
    ("1 in flight", 1, 2_000),
    ("100 in flight", 100, 6_000),
    ("unbounded", None, 8_000),
)
"""Name, settlements under way at once, settlements in a round: at least 2,000, or 5 s."""

WARM_UP: Final = 2_000

REST_S: Final = 1.0
"""After the documents of a round were written: what the database does about those is no part of the round."""

LOW_LOAD: Final = 100
LOW_LOAD_PERIOD_S: Final = 0.2
"""5 settlements a second, each with a bare transaction half a period after it."""

STAGE_BATCHES: Final = 20


@dataclass(slots=True)
class Level:
    """What one level gave."""

    name: str
    path: list[Round] = field(default_factory=list)
    ceiling: list[Round] = field(default_factory=list)


def main() -> None:
    """Runs everything and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("lightning", "chain", "holds"), help="only this; by default all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--level", action="append", help="only the levels whose name begins so")
    parser.add_argument("--dollars", action="store_true", help="of lightning, only dollar invoices beside BTC ones")
    arguments = parser.parse_args()
    if arguments.dollars:
        dollars(arguments)
    elif arguments.part in (None, "lightning"):
        lightning(arguments)
    if arguments.part in (None, "chain"):
        chain.run(arguments.rounds)
    if arguments.part in (None, "holds"):
        holds.run()


def lightning(arguments: argparse.Namespace) -> None:
    """Settlements per second and the time of one."""
    chosen = [one for one in LEVELS if not arguments.level or any(one[0].startswith(n) for n in arguments.level)]
    began = time.monotonic()
    with mongod_only() as mongod, tempfile.TemporaryDirectory(prefix="tellerd-bench-") as folder:
        ceiling = Ceiling(mongod.url, PRICE)
        with WholePath(mongod, Path(folder)) as path:
            progress(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; warming up")
            path.run(path.prepare(WARM_UP), None, at_most_s=AT_MOST_S)
            ceiling.run(ceiling.prepare(WARM_UP, 100), at_most_s=AT_MOST_S)
            levels = [measure(path, ceiling, *one, rounds=arguments.rounds) for one in chosen]
            latency = low_load(path, ceiling) if not arguments.level else None
        progress("taking the steps apart")
        batch = round(statistics.median(one.batch for one in levels[-1].path))
        steps = stages(mongod.url, PRICE, batch=batch, batches=STAGE_BATCHES)
        ceiling.close()
    print_levels(levels)
    print_use(levels)
    print(f"\nposting alone, in batches of {batch}, us per settlement")
    for name, us in steps:
        print(f"  {name:<30}{us:8.1f}")
    print(f"  {'sum':<30}{sum(us for _, us in steps):8.1f}")
    if latency is not None:
        print_latency(*latency)
    print(f"\n{time.monotonic() - began:.0f} s in all")


def dollars(arguments: argparse.Namespace) -> None:
    """Settlements of dollar invoices per second, and of BTC ones in turns with them: four legs against two."""
    with (
        mongod_only() as mongod,
        tempfile.TemporaryDirectory(prefix="tellerd-bench-") as folder,
        WholePath(mongod, Path(folder)) as path,
    ):
        progress(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; warming up")
        path.run(path.prepare(WARM_UP), None, at_most_s=AT_MOST_S)
        measured = [
            (name, _in_turns(path, name, in_flight, count, rounds=arguments.rounds))
            for name, in_flight, count in LEVELS
        ]
    print(f"\n{'settlements per second':<24}{'BTC':>8}{'USD':>8}{'ratio':>7}   USD/BTC by round")
    for name, rates in measured:
        pairs = list(zip(rates[Currency.USD], rates[Currency.BTC], strict=True))
        usd, btc = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        shown = "  ".join(f"{one:.0f}/{other:.0f}" for one, other in pairs)
        print(f"{name:<24}{btc:>8.0f}{usd:>8.0f}{ratio:>7.2f}   {shown}")


def _in_turns(
    path: WholePath, name: str, in_flight: int | None, count: int, *, rounds: int
) -> dict[Currency, list[float]]:
    """Settlements per second of each round, by the wallets' currency."""
    rates: dict[Currency, list[float]] = {currency: [] for currency in Currency}
    for number in range(1, rounds + 1):
        for currency in Currency:
            progress(f"{name}, {currency}, round {number} of {rounds}")
            samples = path.prepare(count, currency)
            time.sleep(REST_S)
            rates[currency].append(path.run(samples, in_flight, at_most_s=AT_MOST_S).per_s)
    return rates


def measure(path: WholePath, ceiling: Ceiling, name: str, in_flight: int | None, count: int, *, rounds: int) -> Level:
    """Path and ceiling in turns; the ceiling's batches are as large as the path's were just before."""
    level = Level(name)
    for number in range(1, rounds + 1):
        progress(f"{name}, round {number} of {rounds}")
        samples = path.prepare(count)
        time.sleep(REST_S)
        one = path.run(samples, in_flight, at_most_s=AT_MOST_S)
        batches = ceiling.prepare(count, max(1, round(one.batch)))
        time.sleep(REST_S)
        with path.paused():
            before = path.use()
            settlements, seconds = ceiling.run(batches, at_most_s=AT_MOST_S)
            used = path.use().since(before)
        level.path.append(one)
        level.ceiling.append(Round(settlements=settlements, seconds=seconds, batch=one.batch, used=used))
    return level


def low_load(path: WholePath, ceiling: Ceiling) -> tuple[list[float], list[float], float]:
    """Milliseconds of single settlements, and of single bare transactions between them; and the daemon's own mean."""
    progress(f"{1 / LOW_LOAD_PERIOD_S:.0f} settlements a second")
    samples, bare = path.prepare(LOW_LOAD), ceiling.prepare(LOW_LOAD, 1)
    path_ms, bare_ms = [], []
    sum_before, count_before = path.seen_latency()
    next_at = time.perf_counter()
    for sample, batch in zip(samples, bare, strict=True):
        path_ms.append(path.settle_one(sample) * 1e3)
        next_at += LOW_LOAD_PERIOD_S / 2
        time.sleep(max(0.0, next_at - time.perf_counter()))
        began = time.perf_counter()
        ceiling.write(batch)
        bare_ms.append((time.perf_counter() - began) * 1e3)
        next_at += LOW_LOAD_PERIOD_S / 2
        time.sleep(max(0.0, next_at - time.perf_counter()))
    sum_after, count_after = path.seen_latency()
    return path_ms, bare_ms, (sum_after - sum_before) / (count_after - count_before) * 1e3


def print_levels(levels: Sequence[Level]) -> None:
    """Settlements per second, medians; the ratio is the median of each round's own."""
    print(f"\n{'settlements per second':<24}{'path':>8}{'ceiling':>9}{'ratio':>7}{'batch':>7}   path/ceiling by round")
    for level in levels:
        pairs = [(one.per_s, bare.per_s) for one, bare in zip(level.path, level.ceiling, strict=True)]
        path, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        batch = statistics.median(one.batch for one in level.path)
        rounds = "  ".join(f"{one:.0f}/{other:.0f}" for one, other in pairs)
        print(f"{level.name:<24}{path:>8.0f}{bare:>9.0f}{ratio:>7.2f}{batch:>7.1f}   {rounds}")


def print_use(levels: Sequence[Level]) -> None:
    """CPU time of each process; in the ceiling's lines `bench` is the one that writes."""
    names = list(levels[0].path[0].used)
    print(f"\n{'CPU us per settlement':<24}" + "".join(f"{name:>15}" for name in names))
    for level in levels:
        for name, rounds in ((level.name, level.path), ("  ceiling", level.ceiling)):
            total = sum(one.settlements for one in rounds)
            used = (sum(one.used[process] for one in rounds) * 1e6 / total for process in names)
            print(f"{name:<24}" + "".join(f"{us:>15.0f}" for us in used))


def print_latency(path_ms: Sequence[float], bare_ms: Sequence[float], own_mean_ms: float) -> None:
    """Medians and 99th percentiles."""

    def row(name: str, values: Sequence[float]) -> None:
        cuts = statistics.quantiles(values, n=100)
        print(f"{name:<38}{statistics.median(values):>8.2f}{cuts[98]:>8.2f}{statistics.fmean(values):>8.2f}")

    print(f"\n{'ms at low load':<38}{'median':>8}{'p99':>8}{'mean':>8}")
    row("order to the LND -> commit is seen", path_ms)
    row("one bare transaction", bare_ms)
    print(f"{'read from the LND -> commit (/metrics)':<38}{'':>16}{own_mean_ms:>8.2f}")
    print(f"ratio of medians {statistics.median(path_ms) / statistics.median(bare_ms):.2f}")


def progress(what: str) -> None:
    """A line on stderr."""
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
