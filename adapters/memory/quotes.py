"""`Quotes` in memory."""

from __future__ import annotations

from adapters.memory.state import Tables
from daemon.domain.identifiers import PaymentHash
from daemon.domain.quotes import Quote, QuoteState


class MemoryQuotes:
    """See `daemon.domain.ports.Quotes`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def keep(self, quote: Quote, *, instead_of: Quote | None = None) -> Quote:
        with self._tables.lock:
            known = self._tables.quotes.get(quote.payment_hash)
            if known is not None and known.state is QuoteState.USED:
                return known
            if known is not None and known.expires_at_ms > quote.created_at_ms and known != instead_of:
                return known
            self._tables.quotes[quote.payment_hash] = quote
            return quote

    def get(self, payment_hash: PaymentHash) -> Quote | None:
        with self._tables.lock:
            return self._tables.quotes.get(payment_hash)
