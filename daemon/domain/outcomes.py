"""What became of one node event: values, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass


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
class Stale:
    """What was told of the chain does not hold at the cursor's block any more: looked at again by the follower."""

    key: str


Outcome = (
    Posted
    | AlreadyPosted
    | Suspended
    | PartOfOpening
    | GapFound
    | CursorMoved
    | Adopted
    | DepositsChanged
    | Held
    | Stale
)
