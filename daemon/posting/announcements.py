"""Blink's messages about receives, made from what was just committed (blink-contract.md 3.7, Redis pubsub).

| fact | channel | payload |
| --- | --- | --- |
| invoice.settled | `LN_PAYMENT_STATUS_<payment hash>` | `{paymentHash, status}` |
| invoice.settled | `ACCOUNT_UPDATE_<account id>` | `{invoice: {walletId, paymentHash, status}}` |
| deposit.detected | `ACCOUNT_UPDATE_<account id>` | `{transaction: {…, "onchain_receipt_pending"}}` |
| deposit.settled | the same | `{transaction: {…, "onchain_receipt"}}` |

Blink tells a pending deposit once, when it first sees it, with what its wallet will get: so does this, and says nothing
of dust, nor of dollars while there is no price. They are hints for whoever looks at a screen; the feed is what programs
rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from daemon.domain import outbox
from daemon.domain.chain import PendingReceive
from daemon.domain.identifiers import AccountId, Outpoint, WalletId, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.outbox import OutboxEvent
from daemon.domain.ports.locks import Announcement

_PAID: Final = "Paid"
_PENDING: Final = "onchain_receipt_pending"
_RECEIVED: Final = "onchain_receipt"


def announcements(
    events: Iterable[OutboxEvent],
    pending: Mapping[Outpoint, PendingReceive | None],
    account_of: Callable[[WalletId], AccountId | None],
) -> Iterator[Announcement]:
    """The messages about these facts, in order; none about a wallet that is not there. `pending` is what readers of
    Blink's are shown of deposits from then on (`Changes.pending`)."""
    for event in events:
        if event.type == outbox.INVOICE_SETTLED:
            yield from _invoice(event, account_of)
        elif event.type == outbox.DEPOSIT_DETECTED and not event.payload["again"]:
            shown = pending.get(outpoint_of(event.payload["txid"], event.payload["vout"]))
            if shown is not None:
                yield from _deposit(event, _PENDING, *_amount_of(shown), account_of)
        elif event.type == outbox.DEPOSIT_SETTLED and not event.payload["is_dust"]:
            yield from _deposit(event, _RECEIVED, *_credited(event.payload), account_of)


def _invoice(event: OutboxEvent, account_of: Callable[[WalletId], AccountId | None]) -> Iterator[Announcement]:
    payment_hash = event.payload["payment_hash"]
    paid = {"paymentHash": payment_hash, "status": _PAID}
    yield Announcement(channel=f"LN_PAYMENT_STATUS_{payment_hash}", payload=paid)
    for wallet_id in event.wallet_ids:
        yield from _update(wallet_id, {"invoice": {"walletId": wallet_id, **paid}}, account_of)


def _amount_of(shown: PendingReceive) -> tuple[int, Currency]:
    if shown.currency is Currency.USD and shown.cents is not None:
        return shown.cents, Currency.USD
    return shown.amount_sat, Currency.BTC


def _credited(payload: Mapping[str, Any]) -> tuple[int, Currency]:
    cents = payload.get("credited_cents")
    return (payload["credited_sat"], Currency.BTC) if cents is None else (cents, Currency.USD)


def _deposit(
    event: OutboxEvent,
    kind: str,
    amount: int,
    currency: Currency,
    account_of: Callable[[WalletId], AccountId | None],
) -> Iterator[Announcement]:
    transaction = {
        "txNotificationType": kind,
        "amount": amount,
        "currency": currency.value,
        "txHash": event.payload["txid"],
    }
    for wallet_id in event.wallet_ids:
        yield from _update(wallet_id, {"transaction": {"walletId": wallet_id, **transaction}}, account_of)


def _update(
    wallet_id: str, payload: dict[str, Any], account_of: Callable[[WalletId], AccountId | None]
) -> Iterator[Announcement]:
    account_id = account_of(WalletId(wallet_id))
    if account_id is not None:
        yield Announcement(channel=f"ACCOUNT_UPDATE_{account_id}", payload=payload)
