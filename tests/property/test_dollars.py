"""Dollar receives, whatever arrives: every journal balances in each currency, and nothing is made or lost."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import assume, given, settings

from adapters.memory import MemoryStore
from adapters.prices.nothing import NoPrice
from daemon.domain.accounts import DUST, LIGHTNING, ON_CHAIN, SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import DollarFacts, Expectation, Facts, Head
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.cursors import LndCursor
from daemon.domain.deposit_terms import DepositTerms
from daemon.domain.entries import MAX_LEG_AMOUNT, Leg, check_balanced
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import SATS_PER_BTC, Currency, Price
from daemon.domain.node_events import NodeOpened
from daemon.domain.ports import SystemWallet, Wallet
from daemon.domain.quotes import Deal, Quote, cents_at
from daemon.matching.decide import decide
from daemon.matching.deposit_entries import booking_of, reversal_step, settlement_step
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from daemon.posting.seal import seal
from tests.property import auditor
from tests.samples import MORNING_MS, NODE, block_at, hash_of, invoice, settled, txid_of
from tests.silent import SilentMetrics

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


KINDS = ("with a quote", "another program's", "another program's, late", "held", "held, under a cent", "not priced")
CENTS = 7


@settings(deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1_000, 5_000),
    st.lists(st.integers(1, 3_000), max_size=4),
    st.lists(st.integers(0, 4), max_size=6),
)
def test_money_that_comes_again_ends_in_the_same_books_however_it_is_seen(
    kind: str, first_msat: int, more_msat: list[int], seen: list[int]
) -> None:
    """Some of the sums on the way, in any order, once or twice, or the last one only: the wallet has its cents once,
    and whoever had the first sats has all of them."""
    sums = [first_msat + sum(more_msat[:n]) for n in range(len(more_msat) + 1)]
    store = MemoryStore()
    sats = store.wallets.create(account_id=None, currency=Currency.BTC, external_id="sats")
    wallet = store.wallets.create(account_id=sats.account_id, currency=Currency.USD, external_id="dollars")
    poster = _poster(store)
    if "late" not in kind:
        _expect(store, wallet, kind, quoted_sat=first_msat // 1000)
    _see(store, poster, [sums[number % len(sums)] for number in seen])
    if "late" in kind:
        _expect(store, wallet, kind, quoted_sat=0)
    _see(store, poster, [sums[-1]])

    total_sat, rest_msat = divmod(sums[-1], 1000)
    dealer = wallet_account(store.figures.system_wallets()[SystemWallet.DEALER_BTC])
    owner = {"not priced": SUSPENSE, "held, under a cent": wallet_account(sats.wallet_id)}.get(kind, dealer)
    in_sats = {one: store.ledger.balance((one, "BTC"))[0] for one in (owner, dealer, wallet_account(wallet.wallet_id))}
    assert {one: amount for one, amount in in_sats.items() if amount} == {owner: total_sat}
    cents_got = store.ledger.balance((wallet_account(wallet.wallet_id), "USD"))[0]
    assert cents_got == (CENTS if owner == dealer else 0)
    assert auditor.all_cursors(store, (NODE,))[NODE].remainder_msat == rest_msat


def _poster(store: MemoryStore) -> Poster:
    fence = store.leases.acquire(holder="test", ttl_s=5)
    assert fence is not None
    poster = Poster(
        books=store.books,
        prices=NoPrice(),
        board=Board(),
        metrics=SilentMetrics(),
        fence=fence,
        now_ms=lambda: MORNING_MS,
        rng=random.Random(0),
    )
    opened = NodeOpened(
        pubkey=NODE, name="lnd1", funds_msat=0, through_index=0, checkpoint_hash=None, opened_at_ms=MORNING_MS
    )
    poster.commit([opened])
    return poster


def _expect(store: MemoryStore, wallet: Wallet, kind: str, *, quoted_sat: int) -> None:
    """The document, and the quote if there is one."""
    document = invoice("a", wallet.wallet_id, account_id=wallet.account_id, currency=Currency.USD)
    in_document = CENTS if kind == "with a quote" or "another" in kind else None
    store.invoices.insert(replace(document, cents=in_document))
    if kind == "with a quote" or "held" in kind:
        quote = Quote(
            payment_hash=hash_of("a"),
            wallet_id=wallet.wallet_id,
            cents=0 if "under" in kind else CENTS,
            sat=quoted_sat,
            price="1.00",
            source="fixed",
            created_at_ms=MORNING_MS,
            expires_at_ms=MORNING_MS + 1,
        )
        store.quotes.keep(quote)


def _see(store: MemoryStore, poster: Poster, sums_msat: Sequence[int]) -> None:
    for msat in sums_msat:
        poster.commit([settled("a", 1, msat)])
        auditor.check_books(store, (NODE,))
        auditor.check_sums(store, (NODE,))
