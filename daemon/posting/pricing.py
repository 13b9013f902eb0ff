"""Quotes: made and kept before anything is settled that they are for.

| when | what is quoted | by |
| --- | --- | --- |
| a dollar invoice over cents is created | the sats that its payer has to send | CreateInvoice |
| a dollar invoice over sats is created | the cents that the wallet gets for them | CreateInvoice |
| the payment of one without an amount is held | the cents for the sats that are held | whoever settles holds |

A payment that is held is settled only after its quote is stored, so the SETTLED event finds it whatever happens in
between. A quote that has expired before anything was settled is made anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.domain.books import Expectation
from daemon.domain.identifiers import PaymentHash, WalletId
from daemon.domain.money import split_msat
from daemon.domain.ports import Dealer, Quotes
from daemon.domain.quotes import DEFAULT_QUOTE_S, Deal, Quote, Unpriced


class Pricing:
    """Asks the dealer and keeps what he says. All calls block: for worker threads. They raise Unavailable while the
    database is away; that the dealer has no price is a value."""

    def __init__(
        self,
        *,
        dealer: Dealer,
        quotes: Quotes,
        quote_s: int = DEFAULT_QUOTE_S,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_quote: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """`on_quote` hears of each quote that was asked for: "made", or the reason why there is none."""
        self._dealer = dealer
        self._quotes = quotes
        self._now_ms = now_ms
        self._on_quote = on_quote
        self.quote_s = quote_s

    def ready(self, expectation: Expectation, received_msat: int) -> Quote | Unpriced | None:
        """Whether a payment that is held can be settled as far as its price goes.

        None where no price is needed: a wallet in sats, an invoice whose cents are fixed, less than a sat. A Quote is
        stored by now. Unpriced: it cannot be settled for now, ask again.
        """
        sat, _ = split_msat(received_msat)
        if not expectation.is_in_dollars or expectation.cents is not None or sat == 0:
            return None
        now_ms = self._now_ms()
        known = self._quotes.get(expectation.payment_hash)
        if known is not None and known.sat == sat and known.expires_at_ms > now_ms:
            return known
        deal = self._counted(self._dealer.cents_for(amount_sat=sat))
        if isinstance(deal, Unpriced):
            return deal
        # Another payment than the one that was quoted, and then given up.
        payment_hash, wallet_id = expectation.payment_hash, expectation.wallet_id
        return self.keep(payment_hash, wallet_id, deal, made_at_ms=now_ms, expiry_s=self.quote_s, instead_of=known)

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        """What an invoice over these cents has to ask for now."""
        return self._counted(self._dealer.sats_for(amount_cents=amount_cents, expiry_s=expiry_s))

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        """What a dollar wallet gets for sats that are here at this moment, or that come within `expiry_s`."""
        return self._counted(self._dealer.cents_for(amount_sat=amount_sat, expiry_s=expiry_s))

    def keep(
        self,
        payment_hash: PaymentHash,
        wallet_id: WalletId,
        deal: Deal,
        *,
        made_at_ms: int,
        expiry_s: int,
        instead_of: Quote | None = None,
    ) -> Quote:
        """Stores the deal for an invoice, and returns the quote that counts: one that is stored already, if it had not
        expired at `made_at_ms` and is not the one that this is `instead_of`.

        `made_at_ms` is from before it was looked whether there is one: what another caller has stored since then
        stays, however long this one took.
        """
        quote = Quote(
            payment_hash=payment_hash,
            wallet_id=wallet_id,
            cents=deal.amount_cents,
            sat=deal.amount_sat,
            price=deal.price,
            source=deal.source,
            created_at_ms=made_at_ms,
            expires_at_ms=made_at_ms + expiry_s * 1000,
        )
        return self._quotes.keep(quote, instead_of=instead_of)

    def of(self, payment_hash: PaymentHash) -> Quote | None:
        """The invoice's quote, None if there is none."""
        return self._quotes.get(payment_hash)

    def _counted(self, answer: Deal | Unpriced) -> Deal | Unpriced:
        self._on_quote(answer.reason.value if isinstance(answer, Unpriced) else "made")
        return answer
