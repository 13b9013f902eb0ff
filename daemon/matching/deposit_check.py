"""Whether a deposit is in the books as bitcoind has it: the pure comparison of the full check.

The chain's follower mends by itself what a move of the chain or of the mempool brings; what does not fit after it had
time for that waits for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from daemon.domain.books import Gap, GapState
from daemon.domain.chain import Deposit, DepositState
from daemon.domain.identifiers import Outpoint
from daemon.domain.money import MSAT_PER_SAT

NOT_IN_CHAIN: Final = "deposit_not_in_chain"
"""The books have it in a block that is not in the best chain at that height."""

GONE: Final = "deposit_gone"
"""The books have it in the mempool, and it is neither there nor among the unspent outputs of the chain."""

UNNOTICED: Final = "deposit_unnoticed"
"""It is in the chain, or in the mempool, and the books say less of it."""

KINDS: Final = (NOT_IN_CHAIN, GONE, UNNOTICED)

_SAYS: Final = {
    NOT_IN_CHAIN: "its block is not in the best chain",
    GONE: "it is neither in the mempool nor unspent in the chain",
    UNNOTICED: "bitcoind has it in the chain or in the mempool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What bitcoind says of a deposit. `block_stands`: its block is in the best chain, at its height; False without a
    block. `is_unspent` says that the chain has it, but not the reverse: it may be spent."""

    block_stands: bool = False
    is_unspent: bool = False
    is_in_mempool: bool = False


def misfit(deposit: Deposit, seen: Sighting) -> str | None:
    """The kind of gap that the deposit makes; None if it fits."""
    match deposit.state:
        case DepositState.CONFIRMED | DepositState.SETTLED:
            return None if seen.block_stands else NOT_IN_CHAIN
        case DepositState.DETECTED if seen.is_unspent:
            return UNNOTICED
        case DepositState.DETECTED:
            return None if seen.is_in_mempool else GONE
        case DepositState.DROPPED:
            return UNNOTICED if seen.is_unspent or seen.is_in_mempool else None


def misfit_gap(deposit: Deposit, kind: str, *, now_ms: int) -> Gap:
    """The gap, open. Its amount is what the nodes hold more than the books: a settled deposit's, below zero, if its
    block is gone; what is not settled is in no account yet."""
    is_booked = deposit.state is DepositState.SETTLED
    block = f" in block {deposit.block.height} {deposit.block.hash}" if deposit.block else ""
    return Gap(
        key=misfit_key(deposit.outpoint, kind),
        kind=kind,
        detail=f"deposit {deposit.outpoint} of {deposit.amount_sat} sat is {deposit.state.value}{block}, but "
        f"{_SAYS[kind]}",
        amount_msat=-deposit.amount_sat * MSAT_PER_SAT if is_booked else 0,
        seen_at_ms=now_ms,
        state=GapState.OPEN,
        reference=deposit.outpoint,
        node="bitcoind",
    )


def misfit_key(outpoint: Outpoint, kind: str) -> str:
    """The key of the gap."""
    return f"chain:{outpoint}:{kind}"


def no_misfits_any_more(known: Mapping[str, Gap], found: Mapping[str, Gap]) -> list[Gap]:
    """Gaps that were open and are found no more: closed."""
    return [
        replace(gap, state=GapState.CLOSED, detail=f"{gap.detail}; it fits again")
        for key, gap in known.items()
        if key not in found
    ]
