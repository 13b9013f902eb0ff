"""What a node's money does to its sums: whole sats are booked, what is left of a sat is kept beside the cursor."""

from __future__ import annotations

from daemon.domain.identifiers import NodePubkey
from daemon.domain.money import MSAT_PER_SAT
from daemon.matching import receipts
from daemon.matching.plan import Plan


def add_to_node(plan: Plan, pubkey: NodePubkey, *, moved_msat: int, rest_msat: int, at_ms: int) -> None:
    """Adds `moved_msat` to what the books hold for the node, below zero if it went. `rest_msat`, 0 or more, is what the
    legs leave over: moved_msat less what they add to the Lightning account. Every full sat of rests is booked."""
    cursor = plan.cursor(pubkey)
    remainder_msat = cursor.remainder_msat + rest_msat
    rounding_sats = cursor.rounding_sats
    while remainder_msat >= MSAT_PER_SAT:
        remainder_msat -= MSAT_PER_SAT
        rounding_sats += 1
        plan.take(receipts.rounding_step(pubkey, rounding_sats, at_ms))
    plan.move(
        receipts.with_sums(
            cursor,
            booked_msat=cursor.booked_msat + moved_msat,
            remainder_msat=remainder_msat,
            rounding_sats=rounding_sats,
        )
    )
