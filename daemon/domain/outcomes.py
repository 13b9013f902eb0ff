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


Outcome = Posted | AlreadyPosted | Suspended | PartOfOpening | GapFound | CursorMoved | Adopted
