"""Documents, field by field: the ledger's as medici writes them (blink-contract.md 2), and tellerd's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

from daemon.domain.accounts import BOOK
from daemon.domain.books import (
    Gap,
    GapState,
    Head,
    KeyRecord,
    SealedEntry,
    SuspenseChange,
    SuspenseEntry,
    SuspenseState,
)
from daemon.domain.cursors import LndCursor
from daemon.domain.holds import Release
from daemon.domain.identifiers import NodePubkey, Outpoint, PaymentHash, Txid, WalletId
from daemon.domain.movements import MovementMarks
from daemon.domain.outbox import OutboxRow

Document = dict[str, Any]

_CHECKED = "htlc_checked_through"

_FARTHEST_MS: Final = 8_640_000_000_000_000
"""The last moment that JavaScript knows, a little less than the largest integer of canonical JSON."""

LND_CURSORS: Document = {"_id": {"$regex": "^lnd:"}}
"""A query for the nodes' cursors, beside which the chain's stands; a prefix is a range of the index."""


def leg_documents(sealed: SealedEntry, timestamp: DatetimeMS) -> list[Document]:
    """The legs of an entry, without `_id`: the server makes it, so that it sorts after every earlier one."""
    entry = sealed.entry
    common: Document = {
        "_journal": ObjectId(sealed.journal_id),
        "book": BOOK,
        "datetime": DatetimeMS(entry.datetime_ms),
        "memo": entry.memo,
        "timestamp": timestamp,
        **entry.details,
    }
    return [
        {
            **common,
            "account_path": leg.account.split(":"),
            "accounts": leg.account,
            "credit": leg.credit,
            "debit": leg.debit,
            "currency": leg.currency,
            **leg.details,
        }
        for leg in entry.legs
    ]


def journal_of(sealed: SealedEntry, leg_ids: list[ObjectId]) -> Document:
    """The journal of these legs."""
    return {
        "_id": ObjectId(sealed.journal_id),
        "datetime": DatetimeMS(sealed.entry.datetime_ms),
        "memo": sealed.entry.memo,
        "_transactions": leg_ids,
        "book": BOOK,
    }


def metadata_of(sealed: SealedEntry, leg_ids: list[ObjectId]) -> list[Document]:
    """Payment hash and preimage per leg, kept apart from the legs as Blink's core does (mongoose adds `__v`)."""
    entry = sealed.entry
    if entry.payment_hash is None:
        return []
    proof: Document = {"hash": entry.payment_hash}
    if entry.preimage is not None:
        proof["revealedPreImage"] = entry.preimage
    return [{"_id": leg_id, **proof, "__v": 0} for leg_id in leg_ids]


def link_of(sealed: SealedEntry) -> Document:
    """The journal's place in the chain, and what it does to each account."""
    return {
        "_id": ObjectId(sealed.journal_id),
        "n": Int64(sealed.position),
        "key": sealed.entry.key,
        "previous": sealed.previous,
        "hash": sealed.hash,
        "foreign": sealed.foreign,
        "effects": [
            {"account": effect.account, "currency": effect.currency, "delta": Int64(effect.delta)}
            for effect in sealed.effects
        ],
    }


def key_of(record: KeyRecord) -> Document:
    """An idempotency key that is taken."""
    document: Document = {"_id": record.key, "journal": record.journal_id, "sequence": record.sequence}
    if record.received_msat is not None:
        document["received_msat"] = Int64(record.received_msat)
    return document


def outbox_of(row: OutboxRow) -> Document:
    """A row of the feed; its `_id` is its sequence."""
    event = row.event
    payload: Mapping[str, Any] = event.payload
    if row.journal_id is not None:
        payload = {**payload, "journal_id": row.journal_id}
    return {
        "_id": Int64(row.sequence),
        "id": event.id,
        "type": event.type,
        "occurred_at": DatetimeMS(event.occurred_at_ms),
        "wallet_ids": list(event.wallet_ids),
        "payload": {name: _wide(value) for name, value in payload.items()},
    }


def _wide(value: Any) -> Any:
    # All integers of a payload are 64 bits wide: readers in other languages see one type.
    return Int64(value) if type(value) is int else value


def cents_of(document: Document) -> int | None:
    """An `invoiceusers` document's `cents`; other programs' drivers may have written a whole number as a double, or
    null. What is no amount of cents is none."""
    cents = document.get("cents")
    if isinstance(cents, bool) or not isinstance(cents, int | float):
        return None
    return int(cents) if cents > 0 and (isinstance(cents, int) or cents.is_integer()) else None


RELEASE = "tellerdRelease"
"""In an `invoiceusers` document of a hold invoice that tellerd made: who releases what is held. Blink's readers pass
over fields that they do not know."""


def release_of(document: Document) -> Release | None:
    """Who releases what the invoice of this document holds; None where it does not say."""
    release = document.get(RELEASE)
    return Release(release) if release in tuple(Release) else None


def suspense_of(entry: SuspenseEntry) -> Document:
    """Money that waits for its owner."""
    return {
        "_id": entry.key,
        "pubkey": entry.pubkey,
        "payment_hash": entry.payment_hash,
        "amount_sat": Int64(entry.amount_sat),
        "received_msat": Int64(entry.received_msat),
        "reason": entry.reason,
        "received_at": DatetimeMS(entry.received_at_ms),
        "assigned_to": entry.assigned_to,
        "outpoint": entry.outpoint,
        "state": entry.state.value,
        "trail": [
            {
                "at": DatetimeMS(change.at_ms),
                "state": change.state.value,
                "by": change.by,
                "reason": change.reason,
                "wallet_id": change.wallet_id,
            }
            for change in entry.trail
        ],
    }


def suspense_from(document: Document) -> SuspenseEntry:
    """The reverse of `suspense_of`; documents of the first releases have neither state nor trail."""
    return SuspenseEntry(
        key=document["_id"],
        pubkey=NodePubkey(document["pubkey"]),
        payment_hash=PaymentHash(document["payment_hash"]),
        amount_sat=int(document["amount_sat"]),
        received_msat=int(document["received_msat"]),
        reason=document["reason"],
        received_at_ms=milliseconds(document["received_at"]),
        assigned_to=WalletId(document["assigned_to"]) if document["assigned_to"] else None,
        outpoint=Outpoint(document["outpoint"]) if document.get("outpoint") else None,
        trail=tuple(
            SuspenseChange(
                at_ms=milliseconds(change["at"]),
                state=SuspenseState(change["state"]),
                by=change["by"],
                reason=change["reason"],
                wallet_id=WalletId(change["wallet_id"]) if change["wallet_id"] else None,
            )
            for change in document.get("trail", ())
        ),
    )


def gap_of(gap: Gap) -> Document:
    """Something that does not add up."""
    return {
        "_id": gap.key,
        "kind": gap.kind,
        "detail": gap.detail,
        "amount_msat": Int64(gap.amount_msat),
        "seen_at": DatetimeMS(gap.seen_at_ms),
        "state": gap.state.value,
        "reference": gap.reference,
        "node": gap.node,
        "moved_msat": Int64(gap.moved_msat),
    }


def gap_from(document: Document) -> Gap:
    """The reverse of `gap_of`; a document of the first releases has neither state nor reference."""
    return Gap(
        key=document["_id"],
        kind=document["kind"],
        detail=document["detail"],
        amount_msat=int(document["amount_msat"]),
        seen_at_ms=milliseconds(document["seen_at"]),
        state=GapState(document.get("state", GapState.OPEN)),
        reference=document.get("reference", ""),
        node=document.get("node", ""),
        moved_msat=int(document.get("moved_msat", 0)),
    )


def cursor_of(cursor: LndCursor, committed_at_ms: int) -> Document:
    """Where a node stands; kept under its pubkey, for another pubkey is another node."""
    return {
        "_id": f"lnd:{cursor.pubkey}",
        "name": cursor.name,
        "settle_index": Int64(cursor.settle_index),
        "checkpoint_hash": cursor.checkpoint_hash,
        "booked_above": [[Int64(first), Int64(last)] for first, last in cursor.booked_above],
        "opening_index": None if cursor.opening_index is None else Int64(cursor.opening_index),
        "epoch": cursor.epoch,
        "booked_msat": Int64(cursor.booked_msat),
        "remainder_msat": cursor.remainder_msat,
        "rounding_sats": Int64(cursor.rounding_sats),
        "absorbed_sat": Int64(cursor.absorbed_sat),
        _CHECKED: Int64(cursor.htlc_checked_through),
        "opened_at": None if cursor.opened_at_ms is None else DatetimeMS(cursor.opened_at_ms),
        "movements": None if cursor.movements is None else _marks_of(cursor.movements),
        "updated_at": DatetimeMS(committed_at_ms),
    }


def cursor_from(document: Document) -> LndCursor:
    """The reverse of `cursor_of`."""
    opening, checkpoint = document["opening_index"], document["checkpoint_hash"]
    return LndCursor(
        pubkey=NodePubkey(document["_id"].removeprefix("lnd:")),
        name=document["name"],
        settle_index=int(document["settle_index"]),
        checkpoint_hash=PaymentHash(checkpoint) if checkpoint else None,
        booked_above=tuple((int(first), int(last)) for first, last in document["booked_above"]),
        opening_index=None if opening is None else int(opening),
        epoch=document["epoch"],
        booked_msat=int(document["booked_msat"]),
        remainder_msat=document["remainder_msat"],
        rounding_sats=int(document["rounding_sats"]),
        absorbed_sat=int(document["absorbed_sat"]),
        # Of the first releases nothing was proven: what they have is taken as it is.
        htlc_checked_through=int(document[_CHECKED if _CHECKED in document else "settle_index"]),
        opened_at_ms=milliseconds(document["opened_at"]) if document.get("opened_at") else None,
        movements=_marks_from(document["movements"]) if document.get("movements") else None,
    )


def _marks_of(marks: MovementMarks) -> Document:
    return {
        "forwards_ns": Int64(marks.forwards_ns),
        "payments_index": Int64(marks.payments_index),
        "height": marks.height,
        "payments_open": [[Int64(index), payment_hash] for index, payment_hash in marks.payments_open],
        "known_txids": sorted(marks.known_txids),
        "closing": [[point, Int64(held_sat)] for point, held_sat in sorted(marks.closing.items())],
    }


def _marks_from(document: Document) -> MovementMarks:
    return MovementMarks(
        forwards_ns=int(document["forwards_ns"]),
        payments_index=int(document["payments_index"]),
        height=int(document["height"]),
        payments_open=tuple((int(index), PaymentHash(text)) for index, text in document["payments_open"]),
        known_txids=frozenset(Txid(txid) for txid in document["known_txids"]),
        closing={Outpoint(point): int(held_sat) for point, held_sat in document["closing"]},
    )


def head_of(head: Head, committed_at_ms: int) -> Document:
    """The head's fields, without its `_id`."""
    return {
        "fence": Int64(head.fence),
        "sequence": Int64(head.sequence),
        "chain_length": Int64(head.chain_length),
        "chain_hash": head.chain_hash,
        "committed_at": DatetimeMS(committed_at_ms),
    }


def head_from(document: Document) -> Head:
    """The reverse of `head_of`."""
    return Head(
        fence=int(document["fence"]),
        sequence=int(document["sequence"]),
        chain_length=int(document["chain_length"]),
        chain_hash=document["chain_hash"],
    )


def balance_id(account: str, currency: str) -> str:
    """The `_id` of a running balance."""
    return f"{account}|{currency}"


def milliseconds(value: Any) -> int:
    """A date of BSON (an aware datetime, or `DatetimeMS` where Python has no such date) as Unix milliseconds, without
    floats."""
    return int(value if isinstance(value, DatetimeMS) else DatetimeMS(value))


def journal_ms(journal: Document) -> int:
    """When a journal says that it was written, in Unix milliseconds; where it says nothing readable, when its `_id` was
    made. The chain holds it, so it is read here only."""
    moment = journal.get("datetime") or None
    if isinstance(moment, datetime | DatetimeMS | int) and abs(told_ms := milliseconds(moment)) <= _FARTHEST_MS:
        return told_ms
    return milliseconds(journal["_id"].generation_time)


def text_of(document: Document, field: str) -> str:
    """A field of another program's document as text; empty where it is none."""
    value = document.get(field)
    return value if isinstance(value, str) else ""
