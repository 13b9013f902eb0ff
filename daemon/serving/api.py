"""Everything that the use cases work with; built once by the composition root."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from daemon.domain.deposit_terms import ConfirmationPolicy, DepositTerms
from daemon.domain.errors import TellerdError
from daemon.domain.holds import PREIMAGE_BYTES
from daemon.domain.node_events import NodeEvent
from daemon.domain.outcomes import Outcome
from daemon.domain.ports import (
    Addresses,
    AddressSource,
    ApiKeys,
    AuditLog,
    ChainNode,
    Deposits,
    Gaps,
    Invoices,
    Leases,
    LedgerReader,
    LightningNode,
    Policies,
    StoredEvent,
    StoreProbe,
    Suspense,
    Wallets,
)
from daemon.domain.reconciliation import ReconciliationStatus
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.posting.board import Board
from daemon.posting.invoice_hints import InvoiceHints
from daemon.posting.pricing import Pricing
from daemon.serving.gate import Gate
from daemon.serving.reconciliation import Reconciler


class EventFeed(Protocol):
    """The outbox for one subscriber; `daemon.relay.feed.Feed`."""

    def follow(
        self,
        *,
        after_sequence: int,
        types: Collection[str],
        wallet_ids: Collection[str],
        is_wanted: Callable[[], bool],
    ) -> Iterator[StoredEvent]:
        """Events above a sequence, then new ones as they come, until `is_wanted` says no."""
        ...


class Decider(Protocol):
    """Has posting decide something; `daemon.posting.requests.PostingRequests`."""

    def ask(self, event: NodeEvent, /, *, timeout_s: float) -> Outcome | None:
        """What is in the books of this event; None when the time is up. Raises Unavailable."""
        ...


class NotConfigured(TellerdError):
    """A caller asks for what the configuration leaves out; names the key to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChain:
    """What deposits need beside the rest of the API. `source` is None without an xpub: then no address is given
    out, but what pays addresses of other programs is still shown.

    `terms` and `default_policy` are the same that deposits are decided with (`daemon.matching.deposits`).
    """

    node: ChainNode
    source: AddressSource | None
    addresses: Addresses
    deposits: Deposits
    policies: Policies
    terms: DepositTerms
    default_policy: ConfirmationPolicy
    status: ChainStatus


def _now() -> datetime:
    return datetime.now(UTC)


def _new_preimage() -> bytes:
    return secrets.token_bytes(PREIMAGE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The use cases' dependencies. `nodes` and `node_statuses` are in the configuration's order, one status
    per node, equal names. `on_chain` is None without [bitcoind]."""

    network: str
    version: str
    started_at: datetime
    gate: Gate
    board: Board
    wallets: Wallets
    invoices: Invoices
    ledger: LedgerReader
    leases: Leases
    api_keys: ApiKeys
    audit_log: AuditLog
    gaps: Gaps
    suspense: Suspense
    decider: Decider
    reconciler: Reconciler
    reconciliation: ReconciliationStatus
    store: StoreProbe
    feed: EventFeed
    nodes: Sequence[LightningNode]
    node_statuses: Sequence[NodeStatus]
    on_chain: OnChain | None = None
    pricing: Pricing | None = None
    """What dollars cost; None without [prices]."""
    hints: InvoiceHints = field(default_factory=InvoiceHints)
    answer_wait_s: float = 5.0
    """How long a call waits until what it has asked of a node is in the books: milliseconds as a rule."""
    now: Callable[[], datetime] = field(default=_now)
    new_preimage: Callable[[], bytes] = field(default=_new_preimage)

    def status_of(self, node_name: str) -> NodeStatus | None:
        """The status of the node of this name."""
        return next((status for status in self.node_statuses if status.name == node_name), None)

    def chain(self) -> OnChain:
        """What deposits need. Raises NotConfigured without [bitcoind]."""
        if self.on_chain is None:
            raise NotConfigured("this daemon follows no chain; set [bitcoind] in its configuration")
        return self.on_chain
