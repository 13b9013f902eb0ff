"""Blink's messages about receives, made from facts: blink-contract.md 3.7."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.domain import outbox
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.outbox import OutboxEvent
from daemon.posting.announcements import announcements

DEPOSIT = {"txid": "ab", "vout": 1, "amount_sat": 100_000}


def fact(event_type: str, **payload: Any) -> OutboxEvent:
    return OutboxEvent(
        type=event_type, key="k", occurred_at_ms=1, wallet_ids=("w",), payload={"payment_hash": "cd", **payload}
    )


def account_of(wallet_id: WalletId) -> AccountId | None:
    return AccountId(f"account-of-{wallet_id}")


def test_a_paid_invoice_is_told_by_its_hash_and_to_its_account() -> None:
    """Both say Paid, as Blink writes it."""
    told = [(one.channel, one.payload) for one in announcements([fact(outbox.INVOICE_SETTLED)], account_of)]
    paid = {"paymentHash": "cd", "status": "Paid"}
    assert told == [
        ("LN_PAYMENT_STATUS_cd", paid),
        ("ACCOUNT_UPDATE_account-of-w", {"invoice": {"walletId": "w", **paid}}),
    ]


@pytest.mark.parametrize(
    ("event", "kind", "amount", "currency"),
    [
        (fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=False), "onchain_receipt_pending", 100_000, "BTC"),
        (fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=97_000, is_dust=False), "onchain_receipt", 97_000, "BTC"),
        (
            fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=97_000, credited_cents=5_820, is_dust=False),
            "onchain_receipt",
            5_820,
            "USD",
        ),
    ],
)
def test_a_deposit_is_told_when_it_is_seen_and_when_it_is_credited(
    event: OutboxEvent, kind: str, amount: int, currency: str
) -> None:
    """To the account, in what its wallet counts in."""
    (message,) = announcements([event], account_of)
    assert message.channel == "ACCOUNT_UPDATE_account-of-w"
    assert message.payload == {
        "transaction": {
            "walletId": "w",
            "txNotificationType": kind,
            "amount": amount,
            "currency": currency,
            "txHash": "ab",
        }
    }


@pytest.mark.parametrize(
    "event",
    [
        fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=True),
        fact(outbox.DEPOSIT_CONFIRMED, **DEPOSIT),
        fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=0, is_dust=True),
        fact(outbox.SUSPENSE_RECEIVED, amount_sat=1),
    ],
)
def test_what_blink_says_nothing_of_is_not_announced(event: OutboxEvent) -> None:
    """Once seen is once told; dust and money in suspense are no wallet's."""
    assert list(announcements([event], account_of)) == []


def test_of_a_wallet_that_is_gone_only_the_payer_hears() -> None:
    """Nobody listens to its account."""
    (message,) = announcements([fact(outbox.INVOICE_SETTLED)], lambda _wallet: None)
    assert message.channel == "LN_PAYMENT_STATUS_cd"
