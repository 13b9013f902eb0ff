"""What an invoice may ask for, by what its wallet counts in, and what dollars cost."""

from __future__ import annotations

from datetime import datetime
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
    if amount_cents is not None and wallet.currency is not Currency.USD:
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


def deal_for(api: Api, *, amount_sat: int | None, amount_cents: int | None, expiry_s: int) -> Deal | None:
    """What a dollar invoice's cents cost now, or what its sats buy; None for one without an amount. Raises
    NotConfigured, NoPrice, and BadInput where the other amount would be more than there can be, or less than a cent."""
    if amount_sat is not None:
        deal = pricing_of(api).cents_for(amount_sat=amount_sat, expiry_s=expiry_s)
    elif amount_cents is not None:
        deal = pricing_of(api).sats_for(amount_cents=amount_cents, expiry_s=expiry_s)
    else:
        return None
    if isinstance(deal, Unpriced):
        raise NoPrice(
            f"there is no price for dollars now ({deal.reason.value}); repeat the call when there is one "
            "(metric tellerd_price_age_seconds)"
        )
    if deal.amount_sat > MAX_AMOUNT_SAT:
        remedy = f"at today's price these are {deal.amount_sat} sats: give less"
        raise BadInput(field="amount_cents", value=deal.amount_cents, remedy=remedy)
    if deal.amount_cents == 0:
        # With no amount it is no mistake: then what comes goes to the account's BTC wallet.
        remedy = "at today's price this is less than a cent: give more, or no amount"
        raise BadInput(field="amount_sat", value=deal.amount_sat, remedy=remedy)
    if deal.amount_cents > MAX_AMOUNT_CENTS:
        remedy = f"at today's price these are {deal.amount_cents} cents: give less"
        raise BadInput(field="amount_sat", value=deal.amount_sat, remedy=remedy)
    return deal


def keep_deal(
    api: Api, invoice: StoredInvoice, deal: Deal, expiry_s: int, *, made_at: datetime, instead_of: Quote | None = None
) -> Quote:
    """Stores what a dollar invoice's amount was changed at; what a repeat has stored since `made_at` counts."""
    made_at_ms = int(made_at.timestamp() * 1000)
    return pricing_of(api).keep(
        invoice.payment_hash,
        invoice.wallet_id,
        deal,
        made_at_ms=made_at_ms,
        expiry_s=expiry_s,
        instead_of=instead_of,
    )


def value_msat(api: Api, invoice: StoredInvoice, *, amount_sat: int | None, expiry_s: int) -> int:
    """What the node is to ask for; 0: the payer decides. For a dollar invoice its quote's sats, which are kept before
    the node is asked. Raises NotConfigured, NoPrice, and AlreadyExists where the quote has expired meanwhile."""
    if invoice.cents is None:
        return (amount_sat or 0) * MSAT_PER_SAT
    now = api.now()
    quote = pricing_of(api).of(invoice.payment_hash)
    if quote is None or not _is_for(quote, invoice, amount_sat):
        # A crash came between document and quote, or the document is another program's; a quote over another amount is
        # of a document that is gone.
        deal = deal_for(api, amount_sat=amount_sat, amount_cents=invoice.cents, expiry_s=expiry_s)
        if deal is None or deal.amount_cents != invoice.cents:
            raise _over(invoice)
        quote = keep_deal(api, invoice, deal, expiry_s, made_at=now, instead_of=quote)
    elif now.timestamp() * 1000 >= quote.expires_at_ms:
        raise _over(invoice)
    return quote.sat * MSAT_PER_SAT


def _is_for(quote: Quote, invoice: StoredInvoice, amount_sat: int | None) -> bool:
    """Whether a quote is for what is asked for: these sats, or without any these cents."""
    return quote.cents == invoice.cents and amount_sat in (None, quote.sat)


def _over(invoice: StoredInvoice) -> AlreadyExists:
    """What the wallet is to get stands in the document: at another price the invoice would be another one."""
    return AlreadyExists(
        f"external_id: the price of {invoice.external_id!r} has expired before the node had the invoice; "
        "give another external_id"
    )
