"""`python -m tests.simulation [chain] SEED [HOW_MANY]`: runs seeds one after another and says what became of them."""

from __future__ import annotations

import logging
import random
import sys

import structlog

from tests.simulation.chain_simulator import ChainSwarm, chain_rng, simulate_with_chain
from tests.simulation.simulator import simulate
from tests.simulation.swarm import Swarm


def main() -> None:
    """Prints each seed and its options before it runs; stops at the first that fails."""
    arguments = sys.argv[1:]
    with_chain = arguments[:1] == ["chain"]
    numbers = [int(one) for one in arguments[with_chain:]]
    if not 1 <= len(numbers) <= 2:
        sys.exit("usage: python -m tests.simulation [chain] SEED [HOW_MANY]")
    first, how_many = numbers[0], numbers[-1] if len(numbers) == 2 else 1
    if how_many > 1:  # one seed alone is run to be looked at: with its log
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for seed in range(first, first + how_many):
        print(f"seed {seed}: {Swarm.draw(random.Random(seed))}", flush=True)
        if with_chain:
            print(f"seed {seed}: {ChainSwarm.draw(chain_rng(seed))}", flush=True)
        print(f"seed {seed}: {simulate_with_chain(seed) if with_chain else simulate(seed)}", flush=True)


if __name__ == "__main__":
    main()
