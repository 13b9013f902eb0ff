"""Books against nodes: what the ledger says, what the nodes hold, and why they differ, to the msat.

The Lightning account stands for everything an LND holds: channels, channels that open or close, and its wallet on
the chain (Blink's convention: blink-contract.md 2.4 and 3.8). The on-chain account stands for the unspent outputs
of deposits that were credited. A difference is never mended: it is explained by items, and what is left is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from daemon.domain.identifiers import NodePubkey


class ItemKind(StrEnum):
    """Why a part of a difference is there."""

    IN_FLIGHT = "in_flight"
    """HTLCs that are booked and not resolved yet, or the other way round; gone by itself within a while."""
    CLOSING = "closing"
    """A channel that closes: its fee is known and booked when all of it has come back."""
    SENT = "sent"
    """Money that another program sent out and that no journal accounts for (yet)."""
    RECEIVED = "received"
    """Money that came into an LND's own wallet and that no journal accounts for (yet)."""
    OTHERS = "others"
    """What other programs' journals hold on the on-chain account: coins of their own wallets, which are not ours to
    look after; and what they book on the Lightning account without a hash, as Blink's jobs do with fees."""
    GAP = "gap"
    """Something that waits for a person, as a gap with a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A part of a difference: `amount_msat` is above zero where the nodes hold more than the books say.

    `reference` names it outside: a payment hash, a txid, a channel point, a gap's key.
    """

    kind: ItemKind
    reference: str
    amount_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one LND holds: in channels (HTLCs that it has offered, fees and anchors that come back to it included), in
    channels that close, and in its wallet on the chain."""

    pubkey: NodePubkey
    name: str
    channels_msat: int
    closing_msat: int
    wallet_msat: int

    @property
    def total_msat(self) -> int:
        """All of it."""
        return self.channels_msat + self.closing_msat + self.wallet_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One account against the nodes that it stands for. `books_msat` counts the msat remainders in."""

    account: str
    books_msat: int
    nodes_msat: int
    items: tuple[Item, ...] = ()

    @property
    def difference_msat(self) -> int:
        """Nodes less books."""
        return self.nodes_msat - self.books_msat

    @property
    def unknown_msat(self) -> int:
        """The part of the difference that nothing explains."""
        return self.difference_msat - sum(item.amount_msat for item in self.items)

    def explained_msat(self) -> Mapping[ItemKind, int]:
        """Sums of the items by kind; only kinds that are there."""
        sums: dict[ItemKind, int] = {}
        for item in self.items:
            sums[item.kind] = sums.get(item.kind, 0) + item.amount_msat
        return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """One look at books and nodes. `steady` says that nothing moved while it was taken; of a moment in which things
    moved the figures are only about right. `sequence` is the feed's position that the books were read at."""

    at_ms: int
    sequence: int
    steady: bool
    sides: tuple[Side, ...]
    holdings: tuple[Holding, ...] = ()

    @property
    def unknown_msat(self) -> int:
        """Over all sides; signs may cancel out, so look at each side, too."""
        return sum(side.unknown_msat for side in self.sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullCheck:
    """A pass over every invoice and every deposit: how many were compared, and what was found by it."""

    began_at_ms: int
    ended_at_ms: int
    invoices: int = 0
    deposits: int = 0
    repeats: int = 0
    """Settled invoices to which money had come again, credited since."""
    losses: int = 0
    """Settlements whose HTLCs had failed back."""
    gaps: int = 0
    """Things found that wait for a person."""
    unfinished: tuple[str, ...] = ()
    """What could not be compared, and why: the name of a node that was away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationAsked:
    """What somebody may ask for: a look, and before it a full check where `full`."""

    full: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What somebody who asked for it gets: a look that began after the question, and the full check if it was asked
    for, too."""

    look: Reconciliation
    full_check: FullCheck | None = None


@dataclass(slots=True, kw_only=True)
class ReconciliationStatus:
    """The last results, for status, metrics and the page; written by the reconciliation in the Trio thread.

    `unknown_since_ms` is when the unknown part of the newest steady looks began to be other than 0, None if it is 0.
    """

    last: Reconciliation | None = None
    last_steady: Reconciliation | None = None
    last_full: FullCheck | None = None
    unknown_since_ms: int | None = None
    problem: str = ""
    looks: int = 0
    unsteady_looks: int = 0
