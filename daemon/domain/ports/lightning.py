"""A Lightning node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from daemon.domain.identifiers import NodePubkey, PaymentHash
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePage:
    """One page of ListInvoices, ascending by add_index; `next_offset` is 0 after the last page."""

    invoices: tuple[NodeInvoice, ...]
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFunds:
    """What a node holds in its channels, at one moment.

    `funds_msat`: local balances, outgoing HTLCs that are not resolved, commitment fees and anchors where we
    opened the channel, pending opens. `quiet_token` changes with every commitment update. `incoming_hashes`
    are the payment hashes of incoming HTLCs that are not resolved: they are not in the figure, which can be
    trusted only if none of them pays a settled invoice.
    """

    funds_msat: int
    incoming_hashes: tuple[PaymentHash, ...]
    quiet_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvoice:
    """What AddInvoice is asked for: exactly one of memo and description_hash; the preimage is ours."""

    preimage: bytes = field(repr=False)
    value_msat: int
    memo: str
    description_hash: bytes
    expiry_s: int


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

    def list_invoices(self, *, after_add_index: int, limit: int) -> InvoicePage:
        """Invoices in any state, ascending by add_index, from the one after `after_add_index`."""
        ...

    def funds(self) -> NodeFunds:
        """What the node holds in channels."""
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
