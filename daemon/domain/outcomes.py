"""What became of one node event: values, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daemon.domain.books import SuspenseEntry


@dataclass(frozen=True, slots=True)
class Posted:
    """Credited to a wallet. `priced` tells whether the dollar value could be written beside it."""

    key: str
    amount_sat: int
    priced: bool


@dataclass(frozen=True, slots=True)
class AlreadyPosted:
    """The key exists: a success, nothing was written again."""

    key: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """Booked to the suspense account because no wallet could be credited."""

    key: str
    amount_sat: int
    reason: str


@dataclass(frozen=True, slots=True)
class PartOfOpening:
    """Settled before tellerd's first start and awaited by nobody: the opening balance covers it."""

    key: str


@dataclass(frozen=True, slots=True)
class GapFound:
    """Paid in the documents, but not in the books: counted, never credited automatically."""

    key: str


@dataclass(frozen=True, slots=True)
class LossBooked:
    """Money that a node calls settled and does not have was taken to the gap account."""

    key: str
    amount_msat: int


@dataclass(frozen=True, slots=True)
class CursorMoved:
    """The event only moved a cursor, or booked an opening."""

    key: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """Another program's journal got its link and moved the running balances."""

    key: str


@dataclass(frozen=True, slots=True)
class DepositsChanged:
    """The chain moved, or outputs were seen: `settled_sat` and `reversed_sat` are what wallets, fees and dust
    got and gave back, in how many deposits."""

    detected: int = 0
    confirmed: int = 0
    dropped: int = 0
    settled: int = 0
    settled_sat: int = 0
    reversed: int = 0
    reversed_sat: int = 0
    overdrawn: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A deposit is deep enough, but cannot be credited yet; it stays confirmed."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Noted:
    """An invoice's new state is told and stands in its document; nothing was booked."""

    key: str


@dataclass(frozen=True, slots=True)
class Stale:
    """What was told of the chain does not hold at the cursor's block any more: looked at again by the follower."""

    key: str


class AssignmentProblem(StrEnum):
    """Why money in suspense does not become the wallet's that somebody names."""

    NO_ENTRY = "no_entry"
    NO_WALLET = "no_wallet"
    ASSIGNED = "assigned"
    """To another wallet."""
    REVERSED = "reversed"
    """A reorg took it back: from suspense, or from the wallet that it was assigned to."""
    BARRED = "barred"
    """The wallet's account is locked or closed."""
    BOOKED_ELSEWHERE = "booked_elsewhere"
    """Another program has credited this payment to a wallet."""
    NO_DEALER = "no_dealer"
    NO_PRICE = "no_price"
    CHANGED = "changed"
    """More has come since its dollars were priced."""
    UNDER_ONE_CENT = "under_one_cent"


@dataclass(frozen=True, slots=True)
class Assigned:
    """Money in suspense is a wallet's: by this, or (`again`) it was before. `entry` is how it stands now."""

    key: str
    entry: SuspenseEntry
    again: bool


@dataclass(frozen=True, slots=True)
class NotAssigned:
    """Money in suspense stays where it is; `entry` is None where there is none of that key."""

    key: str
    problem: AssignmentProblem
    entry: SuspenseEntry | None = None


Outcome = (
    Posted
    | AlreadyPosted
    | Suspended
    | PartOfOpening
    | GapFound
    | LossBooked
    | CursorMoved
    | Adopted
    | DepositsChanged
    | Held
    | Noted
    | Stale
    | Assigned
    | NotAssigned
)
