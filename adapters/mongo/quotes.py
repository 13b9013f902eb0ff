"""`teller_quotes`: one document for each quoted invoice, its `_id` the payment hash."""

from __future__ import annotations

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, milliseconds
from adapters.mongo.errors import mapped
from daemon.domain.errors import Conflict
from daemon.domain.identifiers import PaymentHash, WalletId
from daemon.domain.quotes import Quote, QuoteState


class MongoQuotes:
    """`daemon.domain.ports.Quotes` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._quotes = db[names.QUOTES]

    def keep(self, quote: Quote, *, instead_of: Quote | None = None) -> Quote:
        """See the port: inserted, or put in the place of one that was not used."""
        document = quote_of(quote)
        over: list[Document] = [{"expires_at": {"$lte": DatetimeMS(quote.created_at_ms)}}]
        if instead_of is not None:
            over.append(quote_of(instead_of))
        replaced: Document = {"_id": quote.payment_hash, "state": QuoteState.OPEN.value, "$or": over}
        with mapped("keeping a quote"):
            try:
                self._quotes.insert_one(document)
                return quote
            except errors.DuplicateKeyError:
                self._quotes.replace_one(replaced, document)
        kept = self.get(quote.payment_hash)
        if kept is None:
            raise Conflict(f"the quote of {quote.payment_hash} was deleted meanwhile")
        return kept

    def get(self, payment_hash: PaymentHash) -> Quote | None:
        """See the port."""
        with mapped("reading a quote"):
            document = self._quotes.find_one({"_id": payment_hash})
        return quote_from(document) if document else None


def quote_of(quote: Quote) -> Document:
    """A quote; the price is text, for no digit of it may be lost."""
    return {
        "_id": quote.payment_hash,
        "wallet_id": quote.wallet_id,
        "cents": Int64(quote.cents),
        "sat": Int64(quote.sat),
        "price": quote.price,
        "source": quote.source,
        "created_at": DatetimeMS(quote.created_at_ms),
        "expires_at": DatetimeMS(quote.expires_at_ms),
        "state": quote.state.value,
    }


def quote_from(document: Document) -> Quote:
    """The reverse of `quote_of`."""
    return Quote(
        payment_hash=PaymentHash(document["_id"]),
        wallet_id=WalletId(document["wallet_id"]),
        cents=int(document["cents"]),
        sat=int(document["sat"]),
        price=document["price"],
        source=document["source"],
        created_at_ms=milliseconds(document["created_at"]),
        expires_at_ms=milliseconds(document["expires_at"]),
        state=QuoteState(document["state"]),
    )
