"""`python -m tests.simulation SEED [HOW_MANY]`: runs seeds one after another and says what became of them."""

from __future__ import annotations

import logging
import random
import sys

import structlog

from tests.simulation.simulator import simulate
from tests.simulation.swarm import Swarm


def main() -> None:
    """Prints each seed and its options before it runs; stops at the first that fails."""
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python -m tests.simulation SEED [HOW_MANY]")
    first, how_many = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 1
    if how_many > 1:  # one seed alone is run to be looked at: with its log
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for seed in range(first, first + how_many):
        print(f"seed {seed}: {Swarm.draw(random.Random(seed))}", flush=True)
        print(f"seed {seed}: {simulate(seed)}", flush=True)


if __name__ == "__main__":
    main()
