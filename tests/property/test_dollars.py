"""Dollar receives, whatever arrives: every journal balances in each currency, and nothing is made or lost."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st
from hypothesis import assume, given

from daemon.domain.accounts import DUST, LIGHTNING, ON_CHAIN, SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import DollarFacts, Expectation, Facts, Head
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.cursors import LndCursor
from daemon.domain.deposit_terms import DepositTerms
from daemon.domain.entries import MAX_LEG_AMOUNT, Leg, check_balanced
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import SATS_PER_BTC, Currency, Price
from daemon.domain.quotes import Deal, Quote, cents_at
from daemon.matching.decide import decide
from daemon.matching.deposit_entries import booking_of, reversal_step, settlement_step
from daemon.posting.seal import seal
from tests.samples import MORNING_MS, NODE, block_at, hash_of, settled, txid_of

DEALER = DealerWallets(btc=WalletId("dealer-btc"), usd=WalletId("dealer-usd"))
WALLET, SATS_WALLET, OWNER = WalletId("wallet-usd"), WalletId("wallet-btc"), WalletId("owner")
ACCOUNT = AccountId("account-1")

ALL_SAT = 21_000_000 * SATS_PER_BTC
cents = st.integers(0, 10**11)
prices = st.builds(Price, st.integers(10**6, 10**9 * 100 * 10**6))


@st.composite
def expectations(draw: st.DrawFn) -> Expectation:
    return Expectation(
        payment_hash=hash_of("a"),
        wallet_id=WALLET,
        account_id=ACCOUNT,
        external_id="a",
        currency=draw(st.sampled_from([Currency.USD, Currency.USD, Currency.BTC, None])),
        wallet_currency=draw(st.sampled_from([Currency.USD, Currency.USD, Currency.BTC, None])),
        cents=draw(st.none() | cents | st.integers(-5, 2**60)),
        paid=False,
        pubkey=NODE,
    )


quotes = st.none() | st.builds(
    Quote,
    payment_hash=st.just(hash_of("a")),
    wallet_id=st.just(WALLET),
    cents=st.integers(0, 3) | cents,
    sat=st.integers(0, 5) | st.integers(0, ALL_SAT),
    price=st.just("1.00"),
    source=st.just("fixed"),
    created_at_ms=st.just(0),
    expires_at_ms=st.just(1),
)


def moved(legs: tuple[Leg, ...]) -> Mapping[tuple[str, str], int]:
    sums: dict[tuple[str, str], int] = {}
    for leg in legs:
        sums[leg.account, leg.currency] = sums.get((leg.account, leg.currency), 0) + leg.credit - leg.debit
    return sums


@given(
    expectations(),
    quotes,
    st.sampled_from([DEALER, DEALER, None]),
    st.booleans(),
    st.integers(0, 5_000) | st.integers(0, ALL_SAT * 1000),
    st.none() | prices,
)
def test_the_books_balance_whatever_arrives(
    expectation: Expectation,
    quote: Quote | None,
    dealer: DealerWallets | None,
    has_btc_wallet: bool,
    received_msat: int,
    price: Price | None,
) -> None:
    """In sats and in cents; all sats that arrived are somebody's, and a dollar wallet gets the fixed cents or none."""
    facts = Facts(
        head=Head(fence=1),
        booked=set(),
        expectations={expectation.payment_hash: expectation},
        suspense={},
        cursors={NODE: LndCursor(pubkey=NODE, name="lnd1", opening_index=0)},
        booked_elsewhere=set(),
        dollars=DollarFacts(
            dealer=dealer,
            quotes={} if quote is None else {quote.payment_hash: quote},
            btc_wallets={ACCOUNT: SATS_WALLET} if has_btc_wallet else {},
        ),
    )
    plan = decide([settled("a", 1, received_msat)], facts, price=price)
    changes = seal(plan, now_ms=MORNING_MS, writer_id=bytes(5))  # checks each entry's balance per currency
    deltas = changes.deltas
    for currency in ("BTC", "USD"):
        assert sum(delta for (_, one), delta in deltas.items() if one == currency) == 0
    sat = received_msat // 1000
    assert -deltas.get((LIGHTNING, "BTC"), 0) == sat
    fixed = expectation.cents if expectation.cents is not None else quote.cents if quote is not None else None
    got = deltas.get((wallet_account(WALLET), "USD"), 0)
    assert got in (0, fixed)
    if got:
        assert deltas[wallet_account(DEALER.usd), "USD"] == -got
        assert plan.paid == [hash_of("a")]
    in_sats = [wallet_account(DEALER.btc), wallet_account(SATS_WALLET), wallet_account(WALLET), SUSPENSE]
    assert sum(deltas.get((account, "BTC"), 0) for account in in_sats) == sat
    assert bool(plan.paid) != bool(plan.suspense_new)


def deposit(amount_sat: int) -> Deposit:
    return Deposit(
        txid=txid_of("a"),
        vout=0,
        wallet_id=WALLET,
        address="bcrt1q",
        amount_sat=amount_sat,
        is_coinbase=False,
        inputs=(),
        state=DepositState.SETTLED,
        policy_version=0,
        confirmations_required=1,
        detected_at_ms=0,
        updated_at_ms=0,
        block=BlockRef(height=100, hash=block_at(100).hash),
        settlements=1,
    )


@given(
    st.integers(1, 20_000) | st.integers(1, ALL_SAT),
    st.builds(
        DepositTerms,
        flat_fee_sat=st.integers(0, 10_000),
        fee_threshold_sat=st.integers(0, 2_000_000),
        fee_basis_points=st.integers(0, 1_000),
        dust_threshold_sat=st.integers(0, 10_000),
    ),
    prices,
)
def test_a_deposit_and_its_reversal_are_exact_opposites(amount_sat: int, terms: DepositTerms, price: Price) -> None:
    """At any price, with any fee: balanced in both currencies, and a reorg leaves no cent and no sat behind."""
    paid = deposit(amount_sat)
    deal: Deal = cents_at(price, amount_sat=amount_sat, source="fixed")
    assume(deal.amount_cents <= MAX_LEG_AMOUNT)  # else it is held
    booking = booking_of(paid, terms, OWNER, price, (DEALER, deal))
    credit, back = settlement_step(paid, booking, 1).entry, reversal_step(paid, booking, 2).entry
    assert credit is not None
    assert back is not None
    check_balanced(credit.legs, what="credit")
    check_balanced(back.legs, what="back")
    assert {key: -amount for key, amount in moved(credit.legs).items()} == moved(back.legs)
    sums = moved(credit.legs)
    assert sums[ON_CHAIN, "BTC"] == -amount_sat
    if booking.is_dust:
        assert sums[DUST, "BTC"] == amount_sat
        return
    assert sums.get((wallet_account(OWNER), "BTC"), 0) == booking.fee_sat
    assert sums[wallet_account(DEALER.btc), "BTC"] == amount_sat - booking.fee_sat
    assert booking.cents is not None
    assert booking.fee_cents is not None
    assert sums.get((wallet_account(WALLET), "USD"), 0) == booking.cents
    assert booking.cents + booking.fee_cents == deal.amount_cents
