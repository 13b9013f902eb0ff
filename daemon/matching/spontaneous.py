"""Payments that nobody asked for (keysend, spontaneous AMP) and that name a wallet of their own accord.

The record that does it is configured (`[spontaneous] wallet_record`); without it they wait in suspense like everything
that no wallet expects. So does a payment from before the node's opening: whose that money was is settled already, and
a payer's words of then change nothing.
"""

from __future__ import annotations

from daemon.domain.books import Expectation, Wanted
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled
from daemon.matching.plan import Plan


def want_named_wallet(wanted: Wanted, event: InvoiceSettled) -> None:
    """What the wallet counts in, and whether its account may have money, must be read."""
    if event.wallet_named is not None:
        wanted.wallet_ids.add(WalletId(event.wallet_named))


def expectation_of(plan: Plan, event: InvoiceSettled) -> Expectation | None:
    """The payment's own word as if a document had said it: sats for this wallet; None if it names none.

    No such wallet, a dollar wallet (nobody has fixed a price with the payer) and a locked account are found like those
    of a document.
    """
    if event.wallet_named is None:
        return None
    wallet_id = WalletId(event.wallet_named)
    return Expectation(
        payment_hash=event.payment_hash,
        wallet_id=wallet_id,
        account_id=AccountId(""),
        external_id=event.payment_hash,
        currency=Currency.BTC,
        wallet_currency=plan.facts.chain.currencies.get(wallet_id),
        cents=None,
        paid=False,
        pubkey=event.pubkey,
        barred=plan.facts.chain.barred.get(wallet_id),
    )
