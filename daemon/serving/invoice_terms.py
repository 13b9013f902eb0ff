"""What an invoice may ask for, by what its wallet counts in, and what dollars cost."""

from __future__ import annotations

from typing import Final

from daemon.domain.errors import AlreadyExists, BadInput, TellerdError
from daemon.domain.money import MSAT_PER_SAT, Currency
from daemon.domain.ports import StoredInvoice, Wallet
from daemon.domain.quotes import Deal, Quote, Unpriced
from daemon.posting.pricing import Pricing
from daemon.serving.api import Api, NotConfigured

MAX_AMOUNT_SAT: Final = 2_100_000_000_000_000
"""All bitcoin there will ever be."""

MAX_AMOUNT_CENTS: Final = 100_000_000_000
"""A billion dollars: more is a mistake, and more than any channel carries."""

MIN_EXPIRY_S: Final = 60
MAX_EXPIRY_S: Final = 86_400
DEFAULT_EXPIRY_S: Final = 14_400
DEFAULT_AMOUNTLESS_EXPIRY_S: Final = 7_200
"""Blink's (blink-contract.md 4, INVOICE_EXPIRATIONS). A quoted one lives no longer than its quote."""


class NoPrice(TellerdError):
    """There is no price for dollars now; the same call may succeed when it is back."""


def check_amount(wallet: Wallet, amount_sat: int | None, amount_cents: int | None) -> None:
    """Raises BadInput unless a wallet of this currency can ask for this; None for both: the payer decides."""
    in_dollars = wallet.currency is Currency.USD
    if amount_sat is not None and in_dollars:
        remedy = "the wallet counts in dollars: give amount_cents, or no amount and the payer decides"
        raise BadInput(field="amount_sat", value=amount_sat, remedy=remedy)
    if amount_cents is not None and not in_dollars:
        remedy = "the wallet counts in sats: give amount_sat, or no amount and the payer decides"
        raise BadInput(field="amount_cents", value=amount_cents, remedy=remedy)
    if amount_sat is not None and not 1 <= amount_sat <= MAX_AMOUNT_SAT:
        raise BadInput(field="amount_sat", value=amount_sat, remedy=f"give 1 to {MAX_AMOUNT_SAT}")
    if amount_cents is not None and not 1 <= amount_cents <= MAX_AMOUNT_CENTS:
        raise BadInput(field="amount_cents", value=amount_cents, remedy=f"give 1 to {MAX_AMOUNT_CENTS}")


def expiry_of(asked_s: int, *, has_amount: bool, quote_s: int | None) -> int:
    """How long an invoice can be paid; 0 means the default. Raises BadInput. `quote_s` is set for a quoted one: it
    is the most, and the default."""
    default_s, most_s = DEFAULT_EXPIRY_S if has_amount else DEFAULT_AMOUNTLESS_EXPIRY_S, MAX_EXPIRY_S
    if quote_s is not None:
        default_s = most_s = quote_s
    expiry_s = asked_s or default_s
    if not MIN_EXPIRY_S <= expiry_s <= most_s:
        raise BadInput(field="expiry_s", value=asked_s, remedy=f"give {MIN_EXPIRY_S} to {most_s}, or 0 for {default_s}")
    return expiry_s


def pricing_of(api: Api) -> Pricing:
    """Whoever prices dollars here. Raises NotConfigured without [prices]."""
    if api.pricing is None:
        raise NotConfigured("this daemon has no price of dollars; set [prices] in its configuration")
    return api.pricing


def deal_for(pricing: Pricing, *, amount_cents: int, expiry_s: int) -> Deal:
    """What these cents cost now. Raises NoPrice, and BadInput where that is more than there can be."""
    deal = pricing.sats_for(amount_cents=amount_cents, expiry_s=expiry_s)
    if isinstance(deal, Unpriced):
        raise NoPrice(
            f"there is no price for dollars now ({deal.reason.value}); repeat the call when there is one "
            "(metric tellerd_price_age_seconds)"
        )
    if deal.amount_sat > MAX_AMOUNT_SAT:
        remedy = f"at today's price these are {deal.amount_sat} sats: give less"
        raise BadInput(field="amount_cents", value=amount_cents, remedy=remedy)
    return deal


def deal_first(api: Api, amount_cents: int | None, expiry_s: int) -> Deal | None:
    """What a new invoice's cents cost; None for one without an amount in dollars. Raises as `deal_for`."""
    return None if amount_cents is None else deal_for(pricing_of(api), amount_cents=amount_cents, expiry_s=expiry_s)


def keep_deal(api: Api, invoice: StoredInvoice, deal: Deal, expiry_s: int, *, instead_of: Quote | None = None) -> Quote:
    """Stores what a dollar invoice's cents cost; where a repeat was faster, its quote counts."""
    pricing = pricing_of(api)
    return pricing.keep(invoice.payment_hash, invoice.wallet_id, deal, expiry_s=expiry_s, instead_of=instead_of)


def value_msat(api: Api, invoice: StoredInvoice, *, amount_sat: int | None, expiry_s: int) -> int:
    """What the node is to ask for; 0: the payer decides. For a dollar invoice its quote's sats, which are kept before
    the node is asked. Raises NotConfigured, NoPrice, and AlreadyExists where the quote has expired meanwhile."""
    if invoice.cents is None:
        return (amount_sat or 0) * MSAT_PER_SAT
    quote = pricing_of(api).of(invoice.payment_hash)
    if quote is None or quote.cents != invoice.cents:
        # A crash came between document and quote, or the document is another program's; a quote over other cents is
        # of a document that is gone.
        deal = deal_for(pricing_of(api), amount_cents=invoice.cents, expiry_s=expiry_s)
        quote = keep_deal(api, invoice, deal, expiry_s, instead_of=quote)
    elif api.now().timestamp() * 1000 >= quote.expires_at_ms:
        raise AlreadyExists(
            f"external_id: the price of {invoice.external_id!r} has expired before the node had the invoice; "
            "give another external_id"
        )
    return quote.sat * MSAT_PER_SAT
