"""A Lightning node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.movements import ClosedChannel, ClosingChannel, Forward, OwnChannel, SentPayment, WalletTx
from daemon.domain.node_events import InvoiceSettled


class InvoiceState(StrEnum):
    """LND's states of an invoice."""

    OPEN = "open"
    SETTLED = "settled"
    CANCELED = "canceled"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """Who a node is: `network` is "mainnet", "testnet", "signet" or "regtest"."""

    pubkey: NodePubkey
    network: str
    version: str
    synced_to_chain: bool
    block_height: int
    stores_final_htlc_resolutions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInvoice:
    """An invoice as LND has it; amounts in msat, times in Unix seconds.

    `settlements` holds one event per settlement: one for an ordinary settled invoice, one per settled
    set of an AMP invoice, none otherwise.
    """

    payment_hash: PaymentHash
    payment_request: str
    state: InvoiceState
    add_index: int
    value_msat: int
    memo: str
    description_hash: bytes
    created_at_s: int
    expiry_s: int
    is_amp: bool
    settlements: tuple[InvoiceSettled, ...]
    hold: HoldState | None = None
    """Set for a hold invoice: one whose preimage the node does not know (yet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldState:
    """An invoice as its own stream tells it; amounts in msat.

    `is_hold`: the node does not know the preimage, so that a payment waits for our word (a settled one is known
    by its state only). `received_msat` is what is held while ACCEPTED, and what was held before CANCELED.
    `expiry_height` is the smallest of the HTLCs that are held now, 0 if none is. Times are Unix seconds;
    `accepted_at_s` is the newest HTLC's, 0 if none is held. `seen_at_ns` as in `InvoiceSettled`.
    """

    payment_hash: PaymentHash
    state: InvoiceState
    is_hold: bool
    received_msat: int
    expiry_height: int
    accepted_at_s: int
    created_at_s: int
    expiry_s: int
    seen_at_ns: int = 0

    @property
    def is_final(self) -> bool:
        """Whether no other state can follow."""
        return self.state in (InvoiceState.SETTLED, InvoiceState.CANCELED)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePage:
    """One page of ListInvoices, ascending by add_index; `next_offset` is 0 after the last page."""

    invoices: tuple[NodeInvoice, ...]
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPage:
    """The hold invoices of one page of those that are open or accepted; `next_offset` is 0 after the last page."""

    holds: tuple[HoldState, ...]
    next_offset: int


class NodeAnswer(StrEnum):
    """What became of asking a node to settle or to cancel an invoice."""

    DONE = "done"
    """It is so now, or was so before."""
    OPEN = "open"
    """Not settled: nothing is held."""
    SETTLED = "settled"
    """Not canceled: it is settled."""
    CANCELED = "canceled"
    """Not settled: it is canceled."""
    UNKNOWN = "unknown"
    """The node has no such invoice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFunds:
    """What a node holds, at one moment.

    `channels_msat`: local balances, outgoing HTLCs that are not resolved, commitment fees and anchors where we
    opened the channel, pending opens. `closing_msat`: what channels that close have not brought to the wallet yet.
    `wallet_msat`: the wallet on the chain, with what is unconfirmed or leased. `quiet_token` changes with every
    commitment update and with every tx. `incoming_hashes` are the payment hashes of incoming HTLCs that are not
    resolved, `incoming_htlcs` their places (short channel id, index): they are in no figure, which can be trusted only
    if none of them pays a settled invoice or belongs to a payment that was forwarded.
    """

    channels_msat: int
    incoming_hashes: tuple[PaymentHash, ...]
    quiet_token: str
    closing_msat: int = 0
    wallet_msat: int = 0
    incoming_htlcs: tuple[tuple[int, int], ...] = ()
    channels: tuple[OwnChannel, ...] = ()
    closing: tuple[ClosingChannel, ...] = ()

    @property
    def funds_msat(self) -> int:
        """All of it."""
        return self.channels_msat + self.closing_msat + self.wallet_msat


class HtlcResolution(StrEnum):
    """How an incoming HTLC ended."""

    SETTLED = "settled"
    """The money has stayed."""
    FAILED = "failed"
    """It went back, whatever its invoice says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingHtlcs:
    """The open channels by id, and their incoming HTLCs that are not resolved as (chan_id, htlc_index).

    `final_hashes` are the payment hashes of those that were not forwarded: they pay the node itself, or nobody has
    decided yet.
    """

    open_channels: frozenset[int]
    pending: frozenset[tuple[int, int]]
    final_hashes: frozenset[PaymentHash] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """What AddInvoice is asked for: exactly one of memo and description_hash; the preimage is ours."""

    preimage: bytes = field(repr=False)
    value_msat: int
    memo: str
    description_hash: bytes
    expiry_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHoldInvoice:
    """What AddHoldInvoice is asked for; the preimage stays with whoever knows it."""

    payment_hash: PaymentHash
    value_msat: int
    memo: str
    description_hash: bytes
    expiry_s: int


class HoldWatch(Protocol):
    """The watch over many single invoices; for one Trio task.

    The iteration gives what has changed, in batches: of each invoice its newest state, the present one first.
    So no more can wait than invoices are watched. It raises Unavailable when the node breaks off, whatever it
    says: an end with status OK means nothing unless the invoice's last state is final.
    """

    def watch(self, payment_hash: PaymentHash, *, held: bool = False) -> bool:
        """Begins to watch an invoice, also one that the node does not know yet; nothing if it is watched.
        False if as many as may be are watched already, which does not count for one of which a payment is `held`: how
        many those can be the node's channels bound."""
        ...

    def unwatch(self, payment_hash: PaymentHash) -> None:
        """Ends the watch over an invoice; nothing if it is not watched. After a final state it ends by itself."""
        ...

    @property
    def watched(self) -> int:
        """How many invoices are watched now."""
        ...

    def __aiter__(self) -> AsyncIterator[Sequence[HoldState]]: ...


class LightningNode(Protocol):
    """One LND. Raises Unavailable while it is away, locked, starting or hung; NodeRefused for a refusal."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    def get_info(self) -> NodeInfo:
        """Who it is, now: asked of the node each time."""
        ...

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        """Adds an invoice; if one with this preimage exists already, that one is returned."""
        ...

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """The invoice as it is now; None if the node does not know it."""
        ...

    def add_hold_invoice(self, invoice: NewHoldInvoice) -> NodeInvoice:
        """Adds a hold invoice; if an invoice with this hash exists already, whoever made it, that one is returned."""
        ...

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        """Takes what is held for the preimage's hash. DONE, OPEN, CANCELED or UNKNOWN."""
        ...

    def cancel_invoice(self, payment_hash: PaymentHash) -> NodeAnswer:
        """Cancels an open or held invoice: what is held goes back to the payer. DONE, SETTLED or UNKNOWN."""
        ...

    def pending_holds(self, *, after_add_index: int, limit: int) -> HoldPage:
        """The hold invoices among the next `limit` open or accepted invoices, from the one after
        `after_add_index`. A page costs the node what one of `list_invoices` does: for starts, not for polling."""
        ...

    def hold_watch(self) -> AbstractAsyncContextManager[HoldWatch]:
        """A watch over single invoices, of none to begin with. Async, for Trio."""
        ...

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        """Invoices in any state, ascending by add_index, from the one after `after_add_index`."""
        ...

    def funds(self) -> NodeFunds:
        """What the node holds: channels, closing channels, wallet."""
        ...

    def forwards(self, *, after_ns: int, limit: int) -> Sequence[Forward]:
        """What was forwarded after this moment, ascending by time; complete up to the moment of the call."""
        ...

    def payments(self, *, after_index: int, limit: int) -> Sequence[SentPayment]:
        """What the node was told to send, in any state, ascending by index, from the one after `after_index`."""
        ...

    def newest_payments(self, *, limit: int) -> Sequence[SentPayment]:
        """The last ones, ascending by index."""
        ...

    def wallet_txs(self, *, from_height: int) -> Sequence[WalletTx]:
        """Txs of the wallet in blocks from this height on, and all unconfirmed ones."""
        ...

    def closed_channels(self) -> Sequence[ClosedChannel]:
        """All channels that were ever closed and of which nothing is outstanding; LND has no pages for them."""
        ...

    def incoming_htlcs(self) -> IncomingHtlcs:
        """Incoming HTLCs that are not resolved; those in channels that close are not among them."""
        ...

    def htlc_resolution(self, chan_id: int, htlc_index: int) -> HtlcResolution | None:
        """How an incoming HTLC ended; None if that is not final yet, or was before the node kept outcomes.

        To be asked only of a node that `stores_final_htlc_resolutions`.
        """
        ...

    def settlements(
        self, *, after_settle_index: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[InvoiceSettled]]]:
        """The settle stream, in batches as they arrive, duplicates and reorderings included.

        Async, for Trio. 0 means live events only, no backlog. When the context is entered the
        subscription stands: nothing that settles from now on is missed. The iteration raises
        Unavailable when the stream breaks; it never ends by itself: an end with status OK is raised as
        Unavailable, too. An idle connection is checked by keepalive: a hung node is noticed within 30 s.
        """
        ...
