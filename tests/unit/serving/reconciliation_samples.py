"""A comparison of books and nodes with something in every part of it."""

from __future__ import annotations

from dataclasses import replace

from daemon.domain.accounts import LIGHTNING, ON_CHAIN
from daemon.domain.identifiers import NodePubkey
from daemon.domain.reconciliation import (
    FullCheck,
    Holding,
    Item,
    ItemKind,
    Reconciliation,
    ReconciliationStatus,
    Side,
)

AT_MS = 1_790_000_000_123
TXID = "cd" * 32
PAYMENT_HASH = "ab" * 32

LIGHTNING_SIDE = Side(
    account=LIGHTNING,
    books_msat=1_000_000_500,
    nodes_msat=999_988_499,
    items=(
        Item(kind=ItemKind.SENT, reference=PAYMENT_HASH, amount_msat=-10_001),
        Item(kind=ItemKind.IN_FLIGHT, reference="ln:1:2", amount_msat=-3_000),
        Item(kind=ItemKind.SENT, reference=TXID, amount_msat=1_000),
    ),
)
"""12,001 msat less than the books say, all explained."""

CHAIN_SIDE = Side(account=ON_CHAIN, books_msat=500_000_000, nodes_msat=500_000_000)

HOLDING = Holding(
    pubkey=NodePubkey("02" + "ab" * 32), name="lnd1", channels_msat=900_000_499, closing_msat=0, wallet_msat=99_988_000
)

CHECK = FullCheck(
    began_at_ms=AT_MS - 70_000, ended_at_ms=AT_MS - 10_000, invoices=1_200, deposits=34, repeats=1, losses=2, gaps=3
)


def look(*, at_ms: int = AT_MS, steady: bool = True, unknown_msat: int = 0) -> Reconciliation:
    """Both sides and one node; `unknown_msat` more on the Lightning side than is explained."""
    lightning = replace(LIGHTNING_SIDE, nodes_msat=LIGHTNING_SIDE.nodes_msat + unknown_msat)
    return Reconciliation(at_ms=at_ms, sequence=77, steady=steady, sides=(lightning, CHAIN_SIDE), holdings=(HOLDING,))


def reconciled(*, at_ms: int = AT_MS, unknown_msat: int = 0) -> ReconciliationStatus:
    """After five looks, two of them not steady, and a full check."""
    last = look(at_ms=at_ms, unknown_msat=unknown_msat)
    return ReconciliationStatus(
        last=last,
        last_steady=last,
        last_full=replace(CHECK, began_at_ms=at_ms - 70_000, ended_at_ms=at_ms - 10_000),
        unknown_since_ms=at_ms - 60_000 if unknown_msat else None,
        looks=5,
        unsteady_looks=2,
    )
