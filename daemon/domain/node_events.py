"""What ingest tells posting: facts of the outside world, as they arrive, possibly more than once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from daemon.domain.chain_events import ChainEvent
from daemon.domain.entries import Leg
from daemon.domain.identifiers import JournalId, NodePubkey, Outpoint, PaymentHash, Txid, WalletId
from daemon.domain.movements import MovementMarks
from daemon.domain.quotes import Deal, Unpriced


class HtlcRef(NamedTuple):
    """One incoming HTLC: (chan_id, htlc_index) names it on its node. `chan_id` is a short channel id, which for an
    alias is more than 63 bits hold. `settled_at_s` is when LND settled the invoice with it, by its own clock:
    the same of all HTLCs that came together."""

    chan_id: int
    htlc_index: int
    amt_msat: int
    settled_at_s: int = 0


@dataclass(slots=True, kw_only=True)
class InvoiceSettled:
    """LND says that an invoice (or one set of an AMP invoice) is settled.

    `settled_id` tells settlements of one node apart: the payment hash, or the set id of an AMP set.
    `received_msat` is what arrived until now (Invoice.amt_paid_msat): more than before where money came again.
    `settle_index` is 0 where LND gave none. `settled_at_ms` is LND's settle_date. `htlcs` are those that LND calls
    settled; that is its word, not the money (node-interfaces.md A.0).
    """

    pubkey: NodePubkey
    payment_hash: PaymentHash
    settled_id: str
    settle_index: int
    received_msat: int
    settled_at_ms: int
    memo: str
    htlcs: tuple[HtlcRef, ...] = ()
    seen_at_ns: int = field(default=0, compare=False)
    """Monotonic clock when it was read from the node, for the latency metric; 0 if not measured."""
    wallet_named: str | None = None
    """What a payment that nobody asked for has in the custom record that names a wallet; None if it has none, was
    asked for, or no such record is configured. The payer's words: maybe no wallet's id at all."""
    live: bool = field(default=False, compare=False)
    """Whether the node is known to have settled it since this stream stood, in the life that it still lives."""


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

    `funds_msat` is all that the node holds, channels that close and its wallet on the chain included (design.md
    section 3, Accounts); `movements` from where on its movements count.
    """

    pubkey: NodePubkey
    name: str
    funds_msat: int
    through_index: int
    checkpoint_hash: PaymentHash | None
    opened_at_ms: int
    movements: MovementMarks | None = None


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


@dataclass(slots=True, kw_only=True)
class HtlcsChecked:
    """The HTLCs of every settlement of the node up to `through_index` have a final outcome, or are told as gaps."""

    pubkey: NodePubkey
    through_index: int


@dataclass(slots=True, kw_only=True)
class HtlcLost:
    """An HTLC of a settled invoice was failed back: the node calls it settled, but does not have the money.

    `settled_id` and `settle_index` are the settlement's; it was handed over before.
    """

    pubkey: NodePubkey
    payment_hash: PaymentHash
    settled_id: str
    settle_index: int
    htlc: HtlcRef
    seen_at_ms: int


@dataclass(slots=True, kw_only=True)
class HtlcUnproven:
    """An HTLC of a settled invoice is gone from its channel, and the node does not say how it ended."""

    pubkey: NodePubkey
    payment_hash: PaymentHash
    htlc: HtlcRef
    seen_at_ms: int


@dataclass(slots=True, kw_only=True)
class HtlcsUnprovable:
    """The node keeps no outcomes, so that of `htlcs` HTLCs with `amount_msat` nobody can say how they ended.

    They belong to settlements up to `through_index`.
    """

    pubkey: NodePubkey
    through_index: int
    htlcs: int
    amount_msat: int
    seen_at_ms: int


HtlcEvent = HtlcsChecked | HtlcLost | HtlcUnproven | HtlcsUnprovable
"""What became of the HTLCs of settled invoices."""


@dataclass(slots=True, kw_only=True)
class RoutingIncome:
    """What forwards have earned since `before_ns`, up to `through_ns`: both are marks (`MovementMarks.forwards_ns`).

    `books` False: another program books it, it is only noted.
    """

    pubkey: NodePubkey
    before_ns: int
    through_ns: int
    forwards: int
    fee_msat: int
    books: bool


class ChannelChange(StrEnum):
    """What a channel cost something for."""

    OPEN = "open"
    CLOSE = "close"


@dataclass(slots=True, kw_only=True)
class ChannelCost:
    """What it cost to open a channel, or to close one: miners' fees, anchors, what is too small for an output.

    `txid` is the funding or the closing tx. A tx that several channels have in common is told once, for the first of
    them; `resolved` are those whose close is over with it. `is_fee` False: the node came back with so much less that
    it is no fee; a person has to look. `books` as in `RoutingIncome`.
    """

    pubkey: NodePubkey
    channel_point: Outpoint
    change: ChannelChange
    txid: Txid
    cost_msat: int
    at_ms: int
    resolved: tuple[Outpoint, ...] = ()
    is_fee: bool = True
    books: bool = True


@dataclass(slots=True, kw_only=True)
class MarksMoved:
    """A node's movements were dealt with up to `after`; counts only where the cursor is still at `before`.

    `before` None: the node was opened by a release that counted its channels only. `opening_msat` is what it holds
    beside them, and belongs to the opening balance.
    """

    pubkey: NodePubkey
    before: MovementMarks | None
    after: MovementMarks
    opening_msat: int = 0
    at_ms: int = 0


MovementEvent = RoutingIncome | ChannelCost | MarksMoved
"""What moved a node's money apart from invoices."""


@dataclass(slots=True, kw_only=True)
class InvoiceHeld:
    """A payment of a hold invoice waits on the node: `received_msat`, until the block at `expiry_height` at most."""

    pubkey: NodePubkey
    payment_hash: PaymentHash
    received_msat: int
    expiry_height: int
    held_at_ms: int


@dataclass(slots=True, kw_only=True)
class InvoiceEnded:
    """The node says CANCELED: the invoice can never be paid any more.

    `reason` is "expired" where its time ran out without a payment; else why it was canceled, in snake case.
    `returned_msat` is what was held and went back to the payer.
    """

    pubkey: NodePubkey
    payment_hash: PaymentHash
    reason: str
    returned_msat: int
    ended_at_ms: int


InvoiceStateEvent = InvoiceHeld | InvoiceEnded
"""What becomes of an invoice apart from its settlement: told and written into its document, never booked."""


@dataclass(slots=True, kw_only=True)
class SuspenseAssigned:
    """A person says whose money in suspense is. `by` and `reason` are his words, `at_ms` when he said it.

    `payment_hash` and `outpoint` are the entry's, whichever it has. `deal` is what a dollar wallet gets for its sats,
    as the dealer said just now.
    """

    key: str
    wallet_id: WalletId
    by: str
    reason: str
    at_ms: int
    payment_hash: PaymentHash | None = None
    outpoint: Outpoint | None = None
    deal: Deal | Unpriced | None = None
    asked_at_ns: int = field(default=0, compare=False)
    """Monotonic clock when the dealer was asked; 0 if he was not, or it was not measured."""


CallersEvent = SuspenseAssigned | InvoiceEnded
"""What callers of the API bring to posting, and wait for; an invoice's end comes from its node, too."""

NodeEvent = (
    InvoiceSettled
    | InvoiceStateEvent
    | ListingCompleted
    | NodeOpened
    | NodeRestored
    | HtlcEvent
    | MovementEvent
    | ForeignJournalFound
    | SuspenseAssigned
    | ChainEvent
)
