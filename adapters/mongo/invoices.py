"""`invoiceusers` documents: those of the API, and those that wait for a payment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import LND_CURSORS, RELEASE, Document, cents_of, milliseconds, release_of, text_of
from adapters.mongo.errors import mapped
from daemon.domain.errors import AlreadyExists, BadInput
from daemon.domain.holds import Release
from daemon.domain.identifiers import (
    AccountId,
    NodePubkey,
    PaymentHash,
    WalletId,
    assignment_key,
    canceled_key,
    expired_key,
    held_key,
    lightning_key,
)
from daemon.domain.money import Currency
from daemon.domain.ports import AskedTerms, OpenInvoice, StoredInvoice

_MAX_MS_DIGITS = 14
"""Unix milliseconds up to the year 5138."""

_WAITING = {"paid": False, "processingCompleted": False}

_A_HASH = {"$regex": "^[0-9a-f]{64}$"}
"""Of documents by any other name no node can be asked, and each would end the sweep over all others."""

_READABLE: Document = {
    "currency": {"$in": list(Currency.__members__)},
    "timestamp": {"$gte": datetime.min.replace(tzinfo=UTC), "$lte": datetime.max.replace(tzinfo=UTC)},
}
"""What another program has written otherwise cannot be shown, and would end the listing of its wallet."""

_ASKED = "tellerdAsked"
"""In an `invoiceusers` document that tellerd made: what CreateInvoice was asked for. Blink's readers pass over fields
that they do not know."""


class MongoInvoices:
    """`daemon.domain.ports.Invoices` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def insert(self, invoice: StoredInvoice) -> None:
        """See the port."""
        document: Document = {
            "_id": invoice.payment_hash,
            "walletId": invoice.wallet_id,
            "accountId": invoice.account_id,
            "secret": invoice.preimage,
            "currency": invoice.currency.value,
            "timestamp": invoice.created_at,
            "selfGenerated": True,
            "pubkey": invoice.pubkey,
            "paid": invoice.paid,
            "processingCompleted": invoice.completed,
            "externalId": invoice.external_id,
            "__v": 0,
        }
        if invoice.release is not None:
            document[RELEASE] = invoice.release.value
        if invoice.cents is not None:
            document["cents"] = invoice.cents
        if invoice.asked is not None:
            document[_ASKED] = asdict(invoice.asked)
        if invoice.payment_request is not None:
            document["paymentRequest"] = invoice.payment_request
        with mapped("writing an invoice"):
            try:
                self._db[names.INVOICES].insert_one(document)
            except errors.DuplicateKeyError:
                raise AlreadyExists(
                    f"external_id {invoice.external_id!r} was used before in this account: use a new one"
                ) from None

    def set_payment_request(self, payment_hash: PaymentHash, payment_request: str) -> None:
        """See the port."""
        with mapped("completing an invoice"):
            change = {"$set": {"paymentRequest": payment_request}}
            self._db[names.INVOICES].update_one({"_id": payment_hash}, change)

    def release(self, payment_hash: PaymentHash, preimage: str | None) -> None:
        """See the port."""
        change = {RELEASE: Release.AUTOMATIC.value}
        if preimage is not None:
            change["secret"] = preimage
        with mapped("releasing an invoice"):
            self._db[names.INVOICES].update_one({"_id": payment_hash}, {"$set": change})

    def get(self, payment_hash: PaymentHash) -> StoredInvoice | None:
        """See the port."""
        return self._one({"_id": payment_hash})

    def get_by_external_id(self, account_id: AccountId, external_id: str) -> StoredInvoice | None:
        """See the port."""
        return self._one({"accountId": account_id, "externalId": external_id})

    def _one(self, query: Document) -> StoredInvoice | None:
        with mapped("reading an invoice"):
            document = self._db[names.INVOICES].find_one({**query, **_READABLE})
        return _stored(document) if document else None

    def page(self, *, wallet_id: WalletId, after: str | None, limit: int) -> tuple[Sequence[StoredInvoice], str | None]:
        """See the port; the token is the last document's time and hash."""
        query: dict[str, Any] = {"walletId": wallet_id, **_READABLE, "_id": _A_HASH}
        if after is not None:
            query = {"$and": [query, _older_than(after)]}
        with mapped("listing invoices"):
            order = [("timestamp", -1), ("_id", -1)]
            found = list(self._db[names.INVOICES].find(query).sort(order).limit(limit + 1))
        token = None
        if len(found) > limit:
            last = found[limit - 1]
            token = f"{milliseconds(last['timestamp'])}:{last['_id']}"
        return [_stored(document) for document in found[:limit]], token

    def states_told(self, invoice: StoredInvoice) -> Mapping[str, Mapping[str, Any]]:
        """See the port: from the keys to the feed's rows."""
        makers = (held_key, canceled_key, expired_key)
        with mapped("reading an invoice's states"):
            nodes = self._nodes_of(invoice.pubkey)
            keys = [make(pubkey, invoice.payment_hash) for make in makers for pubkey in nodes]
            sequences = [taken["sequence"] for taken in self._db[names.KEYS].find({"_id": {"$in": keys}})]
            if not sequences:
                return {}
            return {row["type"]: row["payload"] for row in self._db[names.OUTBOX].find({"_id": {"$in": sequences}})}

    def settlement(self, payment_hash: PaymentHash) -> Mapping[str, Any] | None:
        """See the port: from the key to the feed's row."""
        with mapped("reading a settlement"):
            document = self._db[names.INVOICES].find_one({"_id": payment_hash}, {"pubkey": 1})
            if document is None:
                return None
            settled = [lightning_key(pubkey, payment_hash) for pubkey in self._nodes_of(document.get("pubkey"))]
            keys = [*settled, *map(assignment_key, settled)]
            sequences = [taken["sequence"] for taken in self._db[names.KEYS].find({"_id": {"$in": keys}})]
            row = self._db[names.OUTBOX].find_one({"_id": {"$in": sequences}, "type": "invoice.settled"})
        payload: Mapping[str, Any] | None = row["payload"] if row else None
        return payload

    def _nodes_of(self, pubkey: str | None) -> list[NodePubkey]:
        """The node that a document names; all of ours where it names none, for then any of them may have been paid."""
        if pubkey:
            return [NodePubkey(pubkey)]
        cursors = self._db[names.CURSORS].find(LND_CURSORS, {"_id": 1})
        return [NodePubkey(cursor["_id"].removeprefix("lnd:")) for cursor in cursors]


class MongoOpenInvoices:
    """`daemon.domain.ports.OpenInvoices` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def open_invoices(self, *, pubkey: NodePubkey, after: PaymentHash | None, limit: int) -> Sequence[OpenInvoice]:
        """See the port."""
        query: dict[str, Any] = {"pubkey": pubkey, **_WAITING, "_id": dict(_A_HASH)}
        if after is not None:
            query["_id"]["$gt"] = after
        return self._find(query, [("_id", 1)], limit)

    def open_invoices_since(self, *, pubkey: NodePubkey, since: datetime, limit: int) -> Sequence[OpenInvoice]:
        """See the port."""
        query = {"pubkey": pubkey, **_WAITING, "timestamp": {"$gte": since}, "_id": _A_HASH}
        return self._find(query, [("timestamp", -1)], limit)

    def _find(self, query: Document, order: list[tuple[str, int]], limit: int) -> Sequence[OpenInvoice]:
        fields = {"pubkey": 1, "paymentRequest": 1}
        with mapped("listing open invoices"):
            found = self._db[names.INVOICES].find(query, fields).sort(order).limit(limit)
            return [
                OpenInvoice(
                    payment_hash=PaymentHash(document["_id"]),
                    pubkey=NodePubkey(document["pubkey"]),
                    payment_request=text_of(document, "paymentRequest") or None,
                )
                for document in found
            ]


def _older_than(token: str) -> Document:
    at_ms, _, payment_hash = token.partition(":")
    if not at_ms.isdecimal() or len(at_ms) > _MAX_MS_DIGITS:
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    at = DatetimeMS(int(at_ms))
    return {"$or": [{"timestamp": {"$lt": at}}, {"timestamp": at, "_id": {"$lt": payment_hash}}]}


def _stored(document: Document) -> StoredInvoice:
    return StoredInvoice(
        payment_hash=PaymentHash(document["_id"]),
        wallet_id=WalletId(text_of(document, "walletId")),
        account_id=AccountId(text_of(document, "accountId")),
        external_id=text_of(document, "externalId") or document["_id"],
        pubkey=NodePubkey(text_of(document, "pubkey")),
        currency=Currency(document["currency"]),
        payment_request=text_of(document, "paymentRequest") or None,
        paid=bool(document.get("paid")),
        completed=bool(document.get("processingCompleted")),
        created_at=document["timestamp"],
        preimage=text_of(document, "secret"),
        release=release_of(document),
        cents=cents_of(document),
        asked=_asked(document.get(_ASKED)),
    )


def _asked(asked: Document | None) -> AskedTerms | None:
    if asked is None:
        return None
    return AskedTerms(
        amount_sat=asked["amount_sat"],
        amount_cents=asked["amount_cents"],
        memo=asked["memo"],
        description_hash=asked["description_hash"],
        expiry_s=asked["expiry_s"],
        hold=asked["hold"],
        payment_hash=asked["payment_hash"],
        default_expiry=asked.get("default_expiry", False),
    )
