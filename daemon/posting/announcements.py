"""Blink's messages about receives, made from what was just committed (blink-contract.md 3.7, Redis pubsub).

| fact | channel | payload |
| --- | --- | --- |
| invoice.settled | `LN_PAYMENT_STATUS_<payment hash>` | `{paymentHash, status}` |
| invoice.settled | `ACCOUNT_UPDATE_<account id>` | `{invoice: {walletId, paymentHash, status}}` |
| deposit.detected | `ACCOUNT_UPDATE_<account id>` | `{transaction: {…, "onchain_receipt_pending"}}` |
| deposit.settled | the same | `{transaction: {…, "onchain_receipt"}}` |

Blink tells a pending deposit once, when it first sees it: so does this. They are hints for whoever looks at a screen;
the feed is what programs rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from daemon.domain import outbox
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxEvent
from daemon.domain.ports.locks import Announcement

_PAID: Final = "Paid"
_TYPES: Final = {outbox.DEPOSIT_DETECTED: "onchain_receipt_pending", outbox.DEPOSIT_SETTLED: "onchain_receipt"}


def announcements(
    events: Iterable[OutboxEvent], account_of: Callable[[WalletId], AccountId | None]
) -> Iterator[Announcement]:
    """The messages about these facts, in order; none about a wallet that is not there."""
    for event in events:
        if event.type == outbox.INVOICE_SETTLED:
            yield from _invoice(event, account_of)
        elif event.type in _TYPES and not event.payload.get("is_dust") and not event.payload.get("again"):
            yield from _deposit(event, account_of)


def _invoice(event: OutboxEvent, account_of: Callable[[WalletId], AccountId | None]) -> Iterator[Announcement]:
    payment_hash = event.payload["payment_hash"]
    paid = {"paymentHash": payment_hash, "status": _PAID}
    yield Announcement(channel=f"LN_PAYMENT_STATUS_{payment_hash}", payload=paid)
    for wallet_id in event.wallet_ids:
        yield from _update(wallet_id, {"invoice": {"walletId": wallet_id, **paid}}, account_of)


def _deposit(event: OutboxEvent, account_of: Callable[[WalletId], AccountId | None]) -> Iterator[Announcement]:
    payload = event.payload
    in_dollars = payload.get("credited_cents") is not None
    transaction = {
        "txNotificationType": _TYPES[event.type],
        "amount": payload["credited_cents"] if in_dollars else payload.get("credited_sat", payload["amount_sat"]),
        "currency": (Currency.USD if in_dollars else Currency.BTC).value,
        "txHash": payload["txid"],
    }
    for wallet_id in event.wallet_ids:
        yield from _update(wallet_id, {"transaction": {"walletId": wallet_id, **transaction}}, account_of)


def _update(
    wallet_id: str, payload: dict[str, Any], account_of: Callable[[WalletId], AccountId | None]
) -> Iterator[Announcement]:
    account_id = account_of(WalletId(wallet_id))
    if account_id is not None:
        yield Announcement(channel=f"ACCOUNT_UPDATE_{account_id}", payload=payload)
