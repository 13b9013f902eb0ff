"""AssignSuspense to a dollar wallet: posting is told when the dealer was asked, for an old answer is none."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal

import pytest

from adapters.prices.fixed import FixedPrice
from daemon.domain.identifiers import lightning_key
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent, SuspenseAssigned
from daemon.domain.outcomes import AssignmentProblem, NotAssigned, Outcome
from daemon.domain.quotes import Deal
from daemon.posting.pricing import Pricing
from daemon.serving.invoice_terms import NoPrice
from daemon.serving.suspense import assign_suspense
from tests.samples import hash_of, settled
from tests.unit.serving.bank_in_memory import Bank, open_bank


class AskedAt(FixedPrice):
    """A dealer who remembers when."""

    at_ns = 0

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal:
        self.at_ns = time.monotonic_ns()
        return super().cents_for(amount_sat=amount_sat, expiry_s=expiry_s)


class TooLate:
    """Posting after an outage: whatever it is asked, there is no price any more."""

    def __init__(self) -> None:
        self.asked: list[SuspenseAssigned] = []

    def ask(self, event: NodeEvent, *, timeout_s: float) -> Outcome | None:
        assert isinstance(event, SuspenseAssigned)
        self.asked.append(event)
        return NotAssigned(event.key, AssignmentProblem.NO_PRICE, None)


@pytest.fixture
def bank() -> Bank:
    """50,000 sats wait in suspense."""
    bank = open_bank()
    bank.open_books()
    bank.post(settled("a", 1, 50_000_000, pubkey=bank.node.pubkey))
    return bank


def test_posting_is_told_when_the_dealer_was_asked(bank: Bank) -> None:
    """And what posting finds too old is told as such, with what to do."""
    wallet = bank.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
    dealer, late = AskedAt(Decimal(60_000)), TooLate()
    api = replace(bank.api, pricing=Pricing(dealer=dealer, quotes=bank.store.quotes), decider=late)
    key, began_ns = lightning_key(bank.node.pubkey, hash_of("a")), time.monotonic_ns()
    with pytest.raises(NoPrice, match=r"price_stale.*repeat the call"):
        assign_suspense(
            api, entry_key=key, wallet_id=wallet.wallet_id, assigned_by="ann", reason="hers", remaining_s=None
        )
    (asked,) = late.asked
    assert began_ns <= asked.asked_at_ns <= dealer.at_ns
    assert isinstance(asked.deal, Deal)
