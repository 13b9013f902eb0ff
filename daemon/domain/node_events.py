"""What ingest tells posting: facts of the outside world, as they arrive, possibly more than once."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.domain.chain_events import ChainEvent
from daemon.domain.entries import Leg
from daemon.domain.identifiers import JournalId, NodePubkey, PaymentHash


@dataclass(slots=True, kw_only=True)
class InvoiceSettled:
    """LND says that an invoice (or one set of an AMP invoice) is settled.

    `settled_id` tells settlements of one node apart: the payment hash, or the set id of an AMP set.
    `received_msat` is what arrived (Invoice.amt_paid_msat). `settle_index` is 0 where LND gave none.
    `settled_at_ms` is LND's settle_date.
    """

    pubkey: NodePubkey
    payment_hash: PaymentHash
    settled_id: str
    settle_index: int
    received_msat: int
    settled_at_ms: int
    memo: str
    seen_at_ns: int = 0
    """Monotonic clock when it was read from the node, for the latency metric; 0 if not measured."""


@dataclass(slots=True, kw_only=True)
class ListingCompleted:
    """A complete ListInvoices pass has been handed over; it began after `through_index` was known.

    Every settlement of the node with an index up to `through_index` stood in it or came before it.
    `checkpoint_hash` is the payment hash of the ordinary invoice that has exactly this index, if any.
    """

    pubkey: NodePubkey
    through_index: int
    checkpoint_hash: PaymentHash | None


@dataclass(slots=True, kw_only=True)
class NodeOpened:
    """A node's first listing is complete and its funds were read in a quiet moment after it.

    `funds_msat` is what the node holds in channels: local balances, commitment fees and anchors that
    are ours, pending opens (design.md section 3, Accounts).
    """

    pubkey: NodePubkey
    name: str
    funds_msat: int
    through_index: int
    checkpoint_hash: PaymentHash | None
    opened_at_ms: int


@dataclass(slots=True, kw_only=True)
class NodeRestored:
    """The node has the same pubkey but not the settlement that the cursor rests on: a new epoch.

    `newest_index` is the largest settle_index the node has now.
    """

    pubkey: NodePubkey
    newest_index: int


@dataclass(slots=True, kw_only=True)
class ForeignJournalFound:
    """Another program wrote a journal into the book; `legs` are in the order of their `_id`.

    `unreadable` says why its amounts are not money (a fraction of a minor unit); `legs` are empty then.
    """

    journal_id: JournalId
    datetime_ms: int
    memo: str
    legs: tuple[Leg, ...]
    unreadable: str = ""


NodeEvent = InvoiceSettled | ListingCompleted | NodeOpened | NodeRestored | ForeignJournalFound | ChainEvent
