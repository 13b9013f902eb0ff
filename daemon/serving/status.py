"""How the daemon is: answered whatever is out of reach, what cannot be known is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.domain.books import Head
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Unavailable
from daemon.domain.ports import LeaseView, StoreInfo
from daemon.domain.reconciliation import ReconciliationStatus
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.api import Api
from daemon.serving.gate import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`store` and what comes from it (`head`, `lease`) is None while the database does not answer.

    `cursors` stand beside `nodes`; None where this process has not read or written one. `chain` is None without
    [bitcoind], `pending_deposits` (detected or confirmed, not settled) without it or without the database,
    `reconciliation` where this process does not lead: what it knew when it did is old.
    """

    role: Role
    head: Head | None
    lease: LeaseView | None
    store: StoreInfo | None
    store_error: str
    nodes: Sequence[NodeStatus]
    cursors: Sequence[LndCursor | None]
    chain: ChainStatus | None
    pending_deposits: int | None
    reconciliation: ReconciliationStatus | None


def get_status(api: Api) -> Status:
    """The present state; takes no longer than the database's deadline."""
    head, lease, store, store_error, pending = None, None, None, "", None
    try:
        store = api.store.probe()
        head = api.ledger.head()
        lease = api.leases.current()
        pending = None if api.on_chain is None else api.on_chain.deposits.waiting()[0]
    except Unavailable as outage:
        store, store_error = None, str(outage)
    return Status(
        role=api.gate.role,
        head=head,
        lease=lease,
        store=store,
        store_error=store_error,
        nodes=api.node_statuses,
        cursors=[None if node.pubkey is None else api.board.cursor(node.pubkey) for node in api.node_statuses],
        chain=None if api.on_chain is None else api.on_chain.status,
        pending_deposits=pending,
        reconciliation=api.reconciliation if api.gate.role is Role.LEADER else None,
    )


def open_gaps(cursor: LndCursor) -> int:
    """How many settle indexes above the watermark are not explained yet."""
    return sum(last - first + 1 for first, last in cursor.gaps())
