"""What a seed's world is like: each seed draws its own faults, and leaves some kinds out altogether."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """Probabilities per opportunity, and sizes."""

    nodes: int
    payments: int
    old_payments: int
    pause_s: float
    unknown_p: float
    late_document_p: float
    foreign_journal_p: float
    duplicate_p: float
    hold_back_p: float
    burn_index_p: float
    disconnect_p: float
    node_away_p: float
    unavailable_p: float
    conflict_p: float
    reply_lost_p: float
    request_lost_p: float
    kill_p: float
    usurp_p: float
    stall_p: float

    @classmethod
    def draw(cls, rng: random.Random) -> Swarm:
        """One world; a third of the faults does not exist in it."""

        def fault(most: float) -> float:
            return rng.choice((0.0, most / 4, most))

        return cls(
            nodes=rng.choice((1, 1, 2)),
            payments=rng.randint(5, 60),
            old_payments=rng.randint(0, 8),
            pause_s=rng.choice((0.01, 0.2, 1.5)),
            unknown_p=fault(0.4),
            late_document_p=fault(0.3),
            foreign_journal_p=fault(0.2),
            duplicate_p=fault(0.4),
            hold_back_p=fault(0.4),
            burn_index_p=fault(0.2),
            disconnect_p=fault(0.2),
            node_away_p=fault(0.05),
            unavailable_p=fault(0.1),
            conflict_p=fault(0.1),
            reply_lost_p=fault(0.1),
            request_lost_p=fault(0.1),
            kill_p=fault(0.05),
            usurp_p=fault(0.05),
            stall_p=fault(0.005),
        )

    def __str__(self) -> str:
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return " ".join(f"{name}={value:g}" for name, value in named)
