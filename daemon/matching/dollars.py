"""Lightning receives into dollar wallets: the dealer takes the sats and gives the cents (blink-contract.md 2.5, 2.6).

What a wallet gets is fixed before anything is settled: by the invoice's document (`cents`), or by the quote that was
kept when the payment was held. It gets exactly these cents, once, whatever arrived. Sats above the quoted ones stay
with the dealer, with an event. Without cents nothing is guessed: the money waits in suspense for an operator, because
a price of a later moment would be another one than the payer and the bank saw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from daemon.domain import outbox
from daemon.domain.accounts import SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import Expectation, SuspenseEntry
from daemon.domain.entries import MAX_LEG_AMOUNT, JournalEntry, Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import PaymentHash, WalletId, assignment_key
from daemon.domain.money import MSAT_PER_SAT, Currency, Price
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.outbox import OutboxEvent
from daemon.domain.quotes import Quote, QuoteState
from daemon.matching import receipts
from daemon.matching.amp import is_set_of_invoice
from daemon.matching.plan import Plan, Step

BY_AN_OPERATOR: Final = frozenset({"not_priced", "underpaid", "under_one_cent"})
"""Money that waits in suspense for one of these is never assigned by itself, whatever appears later."""

_BTC, _USD = Currency.BTC.value, Currency.USD.value


def why_not_credited(plan: Plan, event: InvoiceSettled, expectation: Expectation) -> str | None:
    """Why an expected settlement cannot be credited to a wallet that is not simply in sats; None if it can."""
    if not expectation.is_in_dollars:
        return "currency_differs"
    quote = _quote(plan, event.payment_hash)
    cents = _cents(expectation, quote)
    if cents is None or is_set_of_invoice(event):
        return "not_priced"  # sets of an AMP invoice come at any time: the cents of one moment are not the next one's
    if plan.facts.dollars.dealer is None:
        return "no_dealer"
    asked_sat = quote.sat if quote is not None else 1 if cents else 0
    if event.received_msat < asked_sat * MSAT_PER_SAT:
        return "underpaid"  # no LND settles less than its invoice asks for
    if cents == 0 and expectation.account_id not in plan.facts.dollars.btc_wallets:
        return "under_one_cent"
    return None


def credit_step(
    plan: Plan,
    key: str,
    event: InvoiceSettled,
    expectation: Expectation,
    amount_sat: int,
    *,
    source: str,
    price: Price | None,
) -> Step:
    """The credit of a settlement for which `why_not_credited` has found nothing; marks its quote used."""
    quote = _quote(plan, event.payment_hash)
    cents = _cents(expectation, quote)
    dealer = plan.facts.dollars.dealer
    if cents is None or dealer is None:
        raise InvariantViolation(f"{key}: a credit to a dollar wallet without a price or a dealer")
    if quote is not None:
        plan.quotes[quote.payment_hash] = replace(quote, state=QuoteState.USED)
    if cents == 0:
        return _in_sats(plan, key, event, expectation, amount_sat, source=source, price=price)
    entry = JournalEntry(
        key=key,
        memo=event.memo,
        datetime_ms=event.settled_at_ms,
        legs=exchange(source, dealer, expectation.wallet_id, amount_sat=amount_sat, cents=cents),
        details=receipts.receipt_details(event, amount_sat, expectation.external_id, None) | receipts.in_cents(cents),
        payment_hash=event.payment_hash,
        preimage=expectation.preimage,
    )
    settled = receipts.settled_event(key, event, expectation, amount_sat)
    settled = replace(settled, payload={**settled.payload, "amount_cents": cents})
    # The last one is the one that the key names: GetInvoice finds it by that.
    return Step(key, entry, (*_overpaid(key, event, expectation, quote, amount_sat, cents), settled))


def sats_wallet(plan: Plan, expectation: Expectation) -> WalletId | None:
    """Who has the sats of a settlement that was credited: the dealer, or where they were worth less than a cent the
    account's BTC wallet. None where that wallet is not there, and where no cents were fixed: the dealer owes nothing
    for them."""
    cents = _cents(expectation, _quote(plan, expectation.payment_hash))
    if cents is None:
        return None
    if cents == 0:
        return plan.facts.dollars.btc_wallets.get(expectation.account_id)
    dealer = plan.facts.dollars.dealer
    return None if dealer is None else dealer.btc


def assignment_step(
    plan: Plan, waiting: SuspenseEntry, event: InvoiceSettled, expectation: Expectation, *, price: Price | None
) -> Step:
    """As `receipts.assignment_step`, for a dollar wallet."""
    key = assignment_key(waiting.key)
    credit = credit_step(plan, key, event, expectation, waiting.amount_sat, source=SUSPENSE, price=price)
    assigned = receipts.assigned_event(key, waiting, event, credit.events[-1].wallet_ids[0])
    return Step(key, credit.entry, (assigned, *credit.events))


def exchange(
    source: str, dealer: DealerWallets, wallet_id: WalletId, *, amount_sat: int, cents: int
) -> tuple[Leg, ...]:
    """The legs of blink-contract.md 2.5, LN receive -> USD, in its order; legs of zero are left out."""
    legs = (
        Leg(account=source, currency=_BTC, debit=amount_sat),
        Leg(account=wallet_account(dealer.usd), currency=_USD, debit=cents),
        Leg(account=wallet_account(dealer.btc), currency=_BTC, credit=amount_sat),
        Leg(account=wallet_account(wallet_id), currency=_USD, credit=cents),
    )
    return tuple(leg for leg in legs if leg.debit or leg.credit)


def _quote(plan: Plan, payment_hash: PaymentHash) -> Quote | None:
    return plan.facts.dollars.quotes.get(payment_hash)


def _cents(expectation: Expectation, quote: Quote | None) -> int | None:
    """The document's word goes before the quote's, for other programs write documents only."""
    cents = expectation.cents if expectation.cents is not None or quote is None else quote.cents
    return cents if cents is not None and 0 <= cents <= MAX_LEG_AMOUNT else None


def _in_sats(
    plan: Plan,
    key: str,
    event: InvoiceSettled,
    expectation: Expectation,
    amount_sat: int,
    *,
    source: str,
    price: Price | None,
) -> Step:
    """What is worth less than a cent goes to the account's BTC wallet, as in Blink."""
    wallet_id = plan.facts.dollars.btc_wallets[expectation.account_id]
    in_sats = replace(expectation, wallet_id=wallet_id)
    entry = receipts.credit_entry(key, event, in_sats, amount_sat, source=source, price=price)
    return Step(key, entry, (receipts.settled_event(key, event, in_sats, amount_sat),))


def _overpaid(
    key: str, event: InvoiceSettled, expectation: Expectation, quote: Quote | None, amount_sat: int, cents: int
) -> tuple[OutboxEvent, ...]:
    """invoice.overpaid, if more whole sats arrived than were quoted."""
    if quote is None or amount_sat <= quote.sat:
        return ()
    payload = {
        "payment_hash": event.payment_hash,
        "wallet_id": expectation.wallet_id,
        "quoted_sat": quote.sat,
        "amount_sat": amount_sat,
        "excess_sat": amount_sat - quote.sat,
        "amount_cents": cents,
    }
    return (
        OutboxEvent(
            type=outbox.INVOICE_OVERPAID,
            key=key,
            occurred_at_ms=event.settled_at_ms,
            wallet_ids=(expectation.wallet_id,),
            payload=payload,
        ),
    )
