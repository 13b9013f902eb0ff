"""A wallet's view of journals, tellerd's and other programs'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from daemon.domain.identifiers import JournalId
from daemon.domain.ports import AccountEntry
from daemon.serving.ledger import SettlementMethod, WalletEntry, view_entry

HASH = "ab" * 32


def viewed(details: Mapping[str, Any], currency: str = "BTC") -> WalletEntry:
    return view_entry(
        AccountEntry(
            journal_id=JournalId("a" * 24),
            key="k",
            position=1,
            delta=5,
            balance_after=5,
            currency=currency,
            memo="",
            booked_at_ms=0,
            details=details,
        )
    )


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("invoice", SettlementMethod.LIGHTNING),
        ("payment", SettlementMethod.LIGHTNING),
        ("fee_reimbursement", SettlementMethod.LIGHTNING),
        ("onchain_receipt", SettlementMethod.ON_CHAIN),
        ("onchain_payment", SettlementMethod.ON_CHAIN),
        ("on_us", SettlementMethod.INTRA_LEDGER),
        ("ln_self_trade", SettlementMethod.INTRA_LEDGER),
        ("reconciliation", SettlementMethod.INTERNAL),
        ("escrow", SettlementMethod.UNKNOWN),
        (None, SettlementMethod.UNKNOWN),
        (7, SettlementMethod.UNKNOWN),
    ],
)
def test_the_method_follows_from_the_type(kind: object, method: SettlementMethod) -> None:
    """blink-contract.md 2.3."""
    assert viewed({"type": kind}).method is method


def test_only_what_was_settled_outside_has_a_hash_or_outpoint() -> None:
    """A transfer between wallets keeps its payment hash to itself; a txid without vout names no output."""
    assert viewed({"type": "invoice", "hash": HASH}).payment_hash == HASH
    assert viewed({"type": "ln_on_us", "hash": HASH}).payment_hash is None
    on_chain = viewed({"type": "onchain_receipt", "hash": HASH, "vout": 0})
    assert (on_chain.txid, on_chain.vout, on_chain.payment_hash) == (HASH, 0, None)
    sent = viewed({"type": "onchain_payment", "hash": HASH, "vout": None})
    assert (sent.txid, sent.vout) == (None, None)


def test_the_fee_is_in_the_wallets_unit() -> None:
    """Absent, null and doubles of other drivers included."""
    details = {"satsFee": 12, "centsFee": 3.0}
    assert (viewed(details).fee, viewed(details, "USD").fee) == (12, 3)
    assert (viewed({}).fee, viewed({"satsFee": None}).fee) == (0, 0)


def test_details_of_other_types_are_passed_over() -> None:
    """Node drivers write null for what is undefined (blink-contract.md 2.1)."""
    assert viewed({"external_id": None}).external_id == ""
    assert viewed({"external_id": "order-1"}).external_id == "order-1"
