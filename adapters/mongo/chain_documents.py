"""Documents of the chain, field by field: tellerd's own, and the projection that Blink reads (blink-contract.md 1)."""

from __future__ import annotations

from typing import Any, Final

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

from adapters.mongo.documents import Document, milliseconds
from daemon.domain.accounts import DealerWallets
from daemon.domain.chain import (
    BlockRef,
    ChainCursor,
    Deposit,
    DepositBooking,
    DepositState,
    PendingReceive,
)
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId
from daemon.domain.money import Currency

_CURSOR_PREFIX: Final = "chain:"

CHAIN_CURSORS: Final[Document] = {"_id": {"$regex": f"^{_CURSOR_PREFIX}"}}
"""A query for the chain's cursor; a prefix is a range of the index."""

_PRICE_OFFSET: Final = "12"
"""Decimals of Blink's `displayPriceBase`."""

_ONE_CENT: Final = str(10**12)
"""What one of a dollar wallet's cents is in dollars' minor unit."""


def chain_cursor_of(cursor: ChainCursor, committed_at_ms: int) -> Document:
    """Where tellerd stands in the chain, kept under its genesis: another genesis is another chain."""
    return {
        "_id": f"{_CURSOR_PREFIX}{cursor.genesis}",
        "height": cursor.block.height,
        "hash": cursor.block.hash,
        "recent": list(cursor.recent),
        "updated_at": DatetimeMS(committed_at_ms),
    }


def chain_cursor_from(document: Document) -> ChainCursor:
    """The reverse of `chain_cursor_of`."""
    return ChainCursor(
        genesis=BlockHash(document["_id"].removeprefix(_CURSOR_PREFIX)),
        block=BlockRef(height=document["height"], hash=BlockHash(document["hash"])),
        recent=tuple(map(BlockHash, document["recent"])),
    )


def deposit_of(deposit: Deposit) -> Document:
    """A deposit. `settles_at` and `held` are there for the index of those that are due."""
    block, booking = deposit.block, deposit.booking
    return {
        "_id": deposit.outpoint,
        "txid": deposit.txid,
        "vout": deposit.vout,
        "wallet_id": deposit.wallet_id,
        "address": deposit.address,
        "amount_sat": Int64(deposit.amount_sat),
        "is_coinbase": deposit.is_coinbase,
        "inputs": list(deposit.inputs),
        "state": deposit.state.value,
        "policy_version": deposit.policy_version,
        "confirmations_required": deposit.confirmations_required,
        "detected_at": DatetimeMS(deposit.detected_at_ms),
        "updated_at": DatetimeMS(deposit.updated_at_ms),
        "block": None if block is None else {"height": block.height, "hash": block.hash},
        "settles_at": deposit.settles_at_height,
        "settlements": deposit.settlements,
        "revision": deposit.revision,
        "booking": None if booking is None else _booking_of(booking),
        "held": deposit.is_held,
        "held_reason": deposit.held_reason,
        "dropped_reason": deposit.dropped_reason,
        "replaced_by": deposit.replaced_by,
    }


def deposit_from(document: Document) -> Deposit:
    """The reverse of `deposit_of`."""
    block, booking, replaced_by = document["block"], document["booking"], document["replaced_by"]
    return Deposit(
        txid=Txid(document["txid"]),
        vout=document["vout"],
        wallet_id=WalletId(document["wallet_id"]),
        address=document["address"],
        amount_sat=int(document["amount_sat"]),
        is_coinbase=document["is_coinbase"],
        inputs=tuple(map(Outpoint, document["inputs"])),
        state=DepositState(document["state"]),
        policy_version=document["policy_version"],
        confirmations_required=document["confirmations_required"],
        detected_at_ms=milliseconds(document["detected_at"]),
        updated_at_ms=milliseconds(document["updated_at"]),
        block=None if block is None else BlockRef(height=block["height"], hash=BlockHash(block["hash"])),
        settlements=document["settlements"],
        revision=document["revision"],
        booking=None if booking is None else _booking_from(booking),
        held_reason=document["held_reason"],
        dropped_reason=document["dropped_reason"],
        replaced_by=None if replaced_by is None else Txid(replaced_by),
    )


def _booking_of(booking: DepositBooking) -> Document:
    return {
        "is_dust": booking.is_dust,
        "fee_sat": Int64(booking.fee_sat),
        "bank_owner": booking.bank_owner,
        "cents": _int64_or_none(booking.cents),
        "fee_cents": _int64_or_none(booking.fee_cents),
        "dealer": None if booking.dealer is None else {"btc": booking.dealer.btc, "usd": booking.dealer.usd},
        "suspense_reason": booking.suspense_reason,
        "assigned_to": booking.assigned_to,
    }


def _booking_from(document: Document) -> DepositBooking:
    owner, dealer, assigned_to = document["bank_owner"], document.get("dealer"), document.get("assigned_to")
    return DepositBooking(
        is_dust=document["is_dust"],
        fee_sat=int(document["fee_sat"]),
        bank_owner=None if owner is None else WalletId(owner),
        cents=_int_or_none(document["cents"]),
        fee_cents=_int_or_none(document["fee_cents"]),
        dealer=None if dealer is None else DealerWallets(btc=WalletId(dealer["btc"]), usd=WalletId(dealer["usd"])),
        suspense_reason=document.get("suspense_reason", ""),
        assigned_to=WalletId(assigned_to) if assigned_to else None,
    )


def _int64_or_none(value: int | None) -> Int64 | None:
    return None if value is None else Int64(value)


def _int_or_none(value: Any) -> int | None:
    return None if value is None else int(value)


def pending_of(pending: PendingReceive) -> Document:
    """Blink's `walletonchainpendingreceives` document, without `_id`; without a price it has no display fields."""
    in_dollars = pending.currency is Currency.USD
    document: Document = {
        "walletId": pending.wallet_id,
        "address": pending.address,
        "transactionHash": pending.txid,
        "vout": pending.vout,
        "walletAmount": pending.cents if in_dollars else pending.amount_sat,
        "walletFee": pending.fee_cents if in_dollars else pending.fee_sat,
        "walletCurrency": pending.currency.value,
        "createdAt": DatetimeMS(pending.created_at_ms),
        "__v": 0,
    }
    if pending.cents is None or pending.fee_cents is None or pending.price_base is None:
        return document
    return {
        **document,
        "displayAmount": _major_units(pending.cents),
        "displayFee": _major_units(pending.fee_cents),
        "displayPriceBase": _ONE_CENT if in_dollars else str(pending.price_base),
        "displayPriceOffset": _PRICE_OFFSET,
        "displayPriceCurrency": Currency.USD.value,
    }


def _major_units(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
