"""What another program wrote wrongly is told as unreadable; it never stops the sweep, and with it all crediting."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Decimal128, ObjectId
from bson.int64 import Int64

from adapters.mongo.documents import cents_of
from adapters.mongo.facts import taken_from_lightning
from adapters.mongo.journals import found_in
from daemon.domain.accounts import LIGHTNING
from daemon.domain.entries import MAX_LEG_AMOUNT

JOURNAL = {"_id": ObjectId("65" * 12), "memo": None, "book": "MainBook"}


def leg(**changes: Any) -> dict[str, Any]:
    whole = {"_id": ObjectId("66" * 12), "accounts": "Liabilities:w", "currency": "BTC", "debit": 5, "credit": 0}
    return {name: value for name, value in {**whole, **changes}.items() if value != "absent"}


@pytest.mark.parametrize("amount", [5, 5.0, None, 0, -5, Int64(7), MAX_LEG_AMOUNT])
def test_whole_amounts_are_read(amount: Any) -> None:
    """Node.js writes numbers as doubles or integers, as it likes; medici takes negative ones, and counts them."""
    found = found_in(JOURNAL, [leg(debit=amount)])
    assert found.unreadable == ""
    assert found.legs[0].debit == int(amount or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"debit": 0.5},
        {"debit": float("nan")},
        {"debit": float("inf")},
        {"debit": "5"},
        {"debit": True},
        {"debit": Decimal128("5")},
        {"debit": MAX_LEG_AMOUNT + 1},
        {"debit": 2.0**60},
        {"accounts": "absent"},
        {"accounts": 7},
        {"currency": 7},
    ],
    ids=str,
)
def test_what_is_no_money_is_unreadable(changes: dict[str, Any]) -> None:
    """Named, with the leg's id; no leg of the journal is taken."""
    found = found_in(JOURNAL, [leg(), leg(**changes)])
    assert "66" * 12 in found.unreadable
    assert found.legs == ()


def test_a_journal_without_a_date_has_its_ids() -> None:
    """An ObjectId bears the second in which it was made."""
    assert found_in(JOURNAL, [leg()]).datetime_ms == 0x65656565 * 1000


@pytest.mark.parametrize("cents", [299, 299.0, Int64(300), MAX_LEG_AMOUNT])
def test_an_invoices_cents_are_read(cents: Any) -> None:
    """As Node.js writes them."""
    assert cents_of({"cents": cents}) == int(cents)


@pytest.mark.parametrize(
    "cents", [None, 0, -5, 299.5, float("nan"), float("inf"), float("-inf"), True, "299", Decimal128("299")], ids=repr
)
def test_what_is_no_amount_of_cents_is_none(cents: Any) -> None:
    """A division by zero in another program writes Infinity: it must not stop all crediting."""
    assert cents_of({"cents": cents}) is None


@pytest.mark.parametrize("amount", [None, float("nan"), float("inf"), "much", Decimal128("5")], ids=repr)
def test_a_receipts_leg_that_is_no_money_takes_nothing(amount: Any) -> None:
    """Its journal is a gap of its own; a settlement with the same hash is decided all the same."""
    legs = [leg(hash="aa", accounts=LIGHTNING), leg(hash="aa", accounts=LIGHTNING, debit=amount)]
    assert taken_from_lightning(legs) == {"aa": 5}
