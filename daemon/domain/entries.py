"""Journal entries: balanced, immutable sets of legs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from daemon.domain.errors import InvariantViolation

MAX_LEG_AMOUNT: Final = 2**53 - 1
"""The largest integer of canonical JSON, which the chain is computed over (RFC 8785), and of a JavaScript number;
four times all sats there will ever be."""

Detail = str | int | bool | tuple[str, ...] | None
_NO_DETAILS: Final[Mapping[str, Detail]] = {}


@dataclass(slots=True, kw_only=True)
class Leg:
    """One debit or credit line, in minor units of its currency; exactly one side is above zero.

    `details` are the ledger's metadata of this leg (blink-contract.md 2.5), on top of the entry's.
    """

    account: str
    currency: str
    debit: int = 0
    credit: int = 0
    details: Mapping[str, Detail] = field(default_factory=lambda: _NO_DETAILS)


@dataclass(slots=True, kw_only=True)
class JournalEntry:
    """What one business fact does to the books; `key` makes it happen once.

    `details` are metadata common to all legs; `proof` (payment hash and preimage) is kept apart from
    the legs and must never be logged. `datetime_ms` is Unix time in milliseconds.
    """

    key: str
    memo: str
    datetime_ms: int
    legs: tuple[Leg, ...]
    details: Mapping[str, Detail] = field(default_factory=lambda: _NO_DETAILS)
    payment_hash: str | None = None
    preimage: str | None = field(default=None, repr=False)


def check_balanced(legs: tuple[Leg, ...], *, what: str) -> None:
    """Raises InvariantViolation unless every currency sums to zero and every leg has one positive side."""
    sums: dict[str, int] = {}
    for leg in legs:
        if (leg.debit > 0) == (leg.credit > 0) or leg.debit < 0 or leg.credit < 0:
            raise InvariantViolation(f"{what}: leg on {leg.account} needs one positive side")
        if leg.debit > MAX_LEG_AMOUNT or leg.credit > MAX_LEG_AMOUNT:
            raise InvariantViolation(f"{what}: leg on {leg.account} is larger than {MAX_LEG_AMOUNT}")
        sums[leg.currency] = sums.get(leg.currency, 0) + leg.credit - leg.debit
    if not legs or any(sums.values()):
        raise InvariantViolation(f"{what}: legs do not balance: {sums}")
