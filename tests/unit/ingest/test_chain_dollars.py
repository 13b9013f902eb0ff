"""Deposits to dollar wallets in the chain's follower: the dealer is asked when they are due, and asked again."""

from __future__ import annotations

import time
from decimal import Decimal

from trio.testing import MockClock

from adapters.memory.raw_blocks import MemoryTx
from adapters.prices.fixed import FixedPrice
from daemon.domain.accounts import wallet_account
from daemon.domain.chain import DepositState
from daemon.domain.chain_events import DepositDue
from daemon.domain.money import Currency
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from tests.unit.ingest.chain_teller import AMOUNT_SAT, ChainTeller, until


class Dealer:
    """One price, or none; keeps what was asked."""

    name = "fixed"

    def __init__(self) -> None:
        self.usd_per_btc: int | None = 60_000
        self.reason = UnpricedReason.DEALER_AWAY
        self.asked_sat: list[int] = []
        self.refused_sat: int | None = None
        self.asked_at_ns = 0
        self.all_asked_at_ns: list[int] = []

    def age_s(self) -> float | None:
        return None

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        raise AssertionError("no deposit asks for that")

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        self.asked_sat.append(amount_sat)
        self.asked_at_ns = time.monotonic_ns()
        self.all_asked_at_ns.append(self.asked_at_ns)
        if self.usd_per_btc is None:
            return Unpriced(self.reason)
        if amount_sat == self.refused_sat:
            return Unpriced(UnpricedReason.REFUSED)
        return FixedPrice(Decimal(self.usd_per_btc)).cents_for(amount_sat=amount_sat)


class DollarTeller(ChainTeller):
    """The wallet counts in dollars; `in_sats` is one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.in_sats = self.wallet
        self.sats_script = self.script
        self.prices = Dealer()
        self.dealer = self.prices
        self.wallet = self.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars").wallet_id
        self.script = self.give(1)

    @property
    def cents(self) -> int:
        return self.store.ledger.balance((wallet_account(self.wallet), "USD"))[0]

    @property
    def due(self) -> list[DepositDue]:
        return [event for event in self.handed_over if isinstance(event, DepositDue)]

    def held_reason(self, tx: MemoryTx) -> str:
        found = self.deposit(tx)
        return "" if found is None else found.held_reason


async def test_a_due_deposit_of_a_dollar_wallet_is_credited_at_the_dealers_price(autojump_clock: MockClock) -> None:
    """He is asked once, for all its sats, and not for the one of a wallet in sats; posting is told when, for an old
    answer is none."""
    teller, began_ns = DollarTeller(), time.monotonic_ns()
    async with teller.follow():
        await teller.live()
        paid, other = teller.payment(), teller.payment(teller.sats_script)
        teller.chain.mine(paid, other)
        teller.chain.mine_empty(2)
        await until(lambda: teller.state(paid) is DepositState.SETTLED, "it is settled")
        await until(lambda: teller.state(other) is DepositState.SETTLED, "the other is settled")
    booking = teller.deposit(paid)
    assert booking is not None
    assert booking.booking is not None
    assert teller.cents == booking.booking.cents
    assert teller.cents > 0
    assert teller.prices.asked_sat == [AMOUNT_SAT]
    assert all(began_ns < due.asked_at_ns <= teller.prices.asked_at_ns for due in teller.due if due.deal is not None)


async def test_without_a_price_it_waits_and_is_credited_when_there_is_one(autojump_clock: MockClock) -> None:
    """Held, told to posting once for each reason however often it is asked for, credited at the price of then."""
    teller = DollarTeller()
    teller.prices.usd_per_btc = None
    async with teller.follow():
        await teller.live()
        paid = teller.payment()
        teller.chain.mine(paid)
        teller.chain.mine_empty(2)
        await until(lambda: teller.held_reason(paid) == "dealer_away", "it is held")
        await until(lambda: len(teller.prices.asked_sat) > 5, "he is asked again and again")
        assert len(teller.due) == 1
        teller.prices.reason = UnpricedReason.STALE
        await until(lambda: teller.held_reason(paid) == "price_stale", "the reason has changed")
        assert (len(teller.due), teller.cents) == (2, 0)
        teller.prices.usd_per_btc = 30_000
        await until(lambda: teller.state(paid) is DepositState.SETTLED, "it is settled")
    settled = teller.deposit(paid)
    assert settled is not None
    assert (settled.held_reason, len(teller.due)) == ("", 3)
    deal = FixedPrice(Decimal(30_000)).cents_for(amount_sat=AMOUNT_SAT)
    assert settled.booking is not None
    assert settled.booking.cents is not None
    assert settled.booking.fee_cents is not None
    assert settled.booking.cents + settled.booking.fee_cents == deal.amount_cents
    assert teller.cents == settled.booking.cents


async def test_a_dealer_who_is_away_is_asked_once_for_a_page(autojump_clock: MockClock) -> None:
    """Each question may take seconds: all deposits of a round wait for one answer, and deposits in sats for none."""
    teller = DollarTeller()
    teller.prices.usd_per_btc = None
    async with teller.follow():
        await teller.live()
        paid = [teller.payment() for _ in range(5)]
        other = teller.payment(teller.sats_script)
        teller.chain.mine(*paid, other)
        teller.chain.mine_empty(1)
        await until(lambda: teller.state(other) is DepositState.SETTLED, "the one in sats is settled")
        await until(lambda: all(teller.held_reason(one) for one in paid), "all others are held")
        assert len(teller.prices.asked_sat) < len(paid)


async def test_an_amount_that_the_dealer_refuses_does_not_hold_up_the_others(autojump_clock: MockClock) -> None:
    """Whoever sends such a deposit would stop those of all other dollar wallets."""
    teller = DollarTeller()
    teller.prices.refused_sat = 7 * AMOUNT_SAT
    async with teller.follow():
        await teller.live()
        refused = teller.chain.payment((teller.script, 7 * AMOUNT_SAT))
        paid = [teller.payment() for _ in range(5)]
        teller.chain.mine(refused, *paid)
        teller.chain.mine_empty(1)
        await until(lambda: teller.held_reason(refused) == "dealer_refused", "it is held")
        await until(lambda: all(teller.state(one) is DepositState.SETTLED for one in paid), "the others are settled")


async def test_each_deposits_price_has_its_own_age(autojump_clock: MockClock) -> None:
    """However long the dealer took for those before it: else a slow one's answers were all too old, for ever."""
    teller = DollarTeller()
    async with teller.follow():
        await teller.live()
        paid = [teller.payment(), teller.payment()]
        teller.chain.mine(*paid)
        teller.chain.mine_empty(2)
        await until(lambda: all(teller.state(one) is DepositState.SETTLED for one in paid), "both are settled")
    first, second = (due.asked_at_ns for due in teller.due)
    assert first <= teller.prices.all_asked_at_ns[0] < second <= teller.prices.all_asked_at_ns[1]
