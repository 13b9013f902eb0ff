"""A bounded number of seeds in every run; seeds that once failed are kept in FAILED_ONCE."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
import structlog

from daemon.domain.outbox import (
    DEPOSIT_CONFIRMED,
    DEPOSIT_DETECTED,
    DEPOSIT_DROPPED,
    DEPOSIT_REVERSED,
    DEPOSIT_SETTLED,
)
from tests.simulation.chain_simulator import ChainSwarm, chain_rng, chain_world, simulate_with_chain
from tests.simulation.simulator import run_world, simulate
from tests.simulation.swarm import Swarm

SEEDS = range(40)
CHAIN_SEEDS = range(12)
CHAIN_FAILED_ONCE = (
    300,  # a replaced leader decided on the head that it remembered and on the new leader's chain cursor
)
FAILED_ONCE = (
    1591,  # the lease is lost while a follower waits for room in the inbox: it must be cancelled, not broken
    1602,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A seed logs thousands of lines; `python -m tests.simulation SEED` shows them."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("seed", [*SEEDS, *FAILED_ONCE])
def test_a_world_of_faults_ends_in_the_right_books(seed: int) -> None:
    """Sound after every commit, exact after everything has healed, for leader and standby and all faults."""
    print(f"seed {seed}: {Swarm.draw(random.Random(seed))}")
    report = simulate(seed)
    assert report.commits > 0


@pytest.mark.parametrize("seed", [*CHAIN_SEEDS, *CHAIN_FAILED_ONCE])
def test_a_world_with_a_chain_ends_in_a_fold_over_it(seed: int) -> None:
    """Reorgs, replacements, crashes of bitcoind and of the daemon: after every commit the deposits are what the
    journals say, and in the end what the final chain and the mempool say."""
    print(f"seed {seed}: {Swarm.draw(random.Random(seed))} {ChainSwarm.draw(chain_rng(seed))}")
    report = simulate_with_chain(seed)
    assert report.commits > 0


def test_a_seed_repeats_itself() -> None:
    """The same seed gives the same commits at the same simulated times; another one gives others."""
    assert simulate(3) == simulate(3)
    assert simulate(3).trace != simulate(4).trace
    assert simulate_with_chain(1) == simulate_with_chain(1)


def test_the_seeds_have_faults_in_them() -> None:
    """A simulation in which nothing goes wrong would prove nothing."""
    reports = [simulate(seed) for seed in range(5)]
    assert sum(report.faults for report in reports) > 50
    assert sum(report.lives for report in reports) > 2 * len(reports)


def test_the_chain_seeds_have_everything_in_them() -> None:
    """A chain on which nothing goes wrong would prove nothing: each kind of event and of step comes up."""
    worlds = [chain_world(seed) for seed in (0, 2, 3, 5, 8)]
    for seed, world in zip((0, 2, 3, 5, 8), worlds, strict=True):
        run_world(seed, world)
    happened = set().union(*(world.happened for world in worlds))
    assert happened >= {"mine", "replace", "evict", "double spend", "late script", "reorganise", "crash", "away"}
    told = {event.type for world in worlds for event in world.store.ledger.events(after_sequence=0, limit=10**6)}
    assert told >= {DEPOSIT_DETECTED, DEPOSIT_CONFIRMED, DEPOSIT_SETTLED, DEPOSIT_DROPPED, DEPOSIT_REVERSED}
