"""Blink's messages about receives, made from facts: blink-contract.md 3.7."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from daemon.domain import outbox
from daemon.domain.chain import PendingReceive
from daemon.domain.identifiers import AccountId, Outpoint, Txid, WalletId
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxEvent
from daemon.domain.ports.locks import Announcement
from daemon.posting.announcements import announcements

DEPOSIT = {"txid": "ab", "vout": 1, "amount_sat": 100_000}
SEEN = Outpoint("ab:1")


def fact(event_type: str, **payload: Any) -> OutboxEvent:
    return OutboxEvent(
        type=event_type, key="k", occurred_at_ms=1, wallet_ids=("w",), payload={"payment_hash": "cd", **payload}
    )


def account_of(wallet_id: WalletId) -> AccountId | None:
    return AccountId(f"account-of-{wallet_id}")


def pending(currency: Currency) -> PendingReceive:
    """What the wallet's readers are shown of the deposit meanwhile."""
    return PendingReceive(
        outpoint=SEEN,
        txid=Txid("ab"),
        vout=1,
        wallet_id=WalletId("w"),
        address="bcrt1q",
        amount_sat=97_000,
        fee_sat=3_000,
        cents=5_820,
        fee_cents=180,
        price_base=60_000_000_000,
        created_at_ms=1,
        currency=currency,
    )


def told(event: OutboxEvent, shown: PendingReceive | None = None) -> Sequence[Announcement]:
    """The messages about one fact."""
    return list(announcements([event], {SEEN: shown}, account_of))


def test_a_paid_invoice_is_told_by_its_hash_and_to_its_account() -> None:
    """Both say Paid, as Blink writes it."""
    paid = {"paymentHash": "cd", "status": "Paid"}
    assert [(one.channel, one.payload) for one in told(fact(outbox.INVOICE_SETTLED))] == [
        ("LN_PAYMENT_STATUS_cd", paid),
        ("ACCOUNT_UPDATE_account-of-w", {"invoice": {"walletId": "w", **paid}}),
    ]


@pytest.mark.parametrize(
    ("event", "currency", "kind", "amount"),
    [
        (fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=False), Currency.BTC, "onchain_receipt_pending", 97_000),
        (fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=False), Currency.USD, "onchain_receipt_pending", 5_820),
        (
            fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=97_000, is_dust=False),
            Currency.BTC,
            "onchain_receipt",
            97_000,
        ),
        (
            fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=97_000, credited_cents=5_820, is_dust=False),
            Currency.USD,
            "onchain_receipt",
            5_820,
        ),
    ],
)
def test_a_deposit_is_told_when_it_is_seen_and_when_it_is_credited(
    event: OutboxEvent, currency: Currency, kind: str, amount: int
) -> None:
    """To the account, in what its wallet counts in, less the fee: Blink's settlementAmount, pending or not."""
    (message,) = told(event, pending(currency) if kind.endswith("pending") else None)
    assert message.channel == "ACCOUNT_UPDATE_account-of-w"
    assert message.payload == {
        "transaction": {
            "walletId": "w",
            "txNotificationType": kind,
            "amount": amount,
            "currency": currency.value,
            "txHash": "ab",
        }
    }


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=True), pending(Currency.BTC)),
        (fact(outbox.DEPOSIT_DETECTED, **DEPOSIT, again=False), None),
        (fact(outbox.DEPOSIT_CONFIRMED, **DEPOSIT), pending(Currency.BTC)),
        (fact(outbox.DEPOSIT_SETTLED, **DEPOSIT, credited_sat=0, is_dust=True), None),
        (fact(outbox.SUSPENSE_RECEIVED, amount_sat=1), None),
    ],
)
def test_what_blink_says_nothing_of_is_not_announced(event: OutboxEvent, shown: PendingReceive | None) -> None:
    """Once seen is once told; dust, seen or settled, and money in suspense are no wallet's."""
    assert told(event, shown) == []


def test_of_a_wallet_that_is_gone_only_the_payer_hears() -> None:
    """Nobody listens to its account."""
    (message,) = announcements([fact(outbox.INVOICE_SETTLED)], {}, lambda _wallet: None)
    assert message.channel == "LN_PAYMENT_STATUS_cd"
