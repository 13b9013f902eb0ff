"""Lightning receives into dollar wallets: one example per rule of blink-contract.md 2.5 and 2.6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest

from daemon.domain.accounts import LIGHTNING, OPENING, SUSPENSE, DealerWallets
from daemon.domain.books import DollarFacts, Expectation, Facts, Head, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.identifiers import AccountId, WalletId, assignment_key, lightning_key
from daemon.domain.money import Currency, Price
from daemon.domain.outcomes import AlreadyPosted, Posted, Suspended
from daemon.domain.quotes import Quote, QuoteState
from daemon.matching.decide import decide
from daemon.matching.plan import Plan
from tests.samples import MORNING_MS, NODE, hash_of, preimage_of, settled

DEALER = DealerWallets(btc=WalletId("dealer-btc"), usd=WalletId("dealer-usd"))
WALLET, SATS_WALLET = WalletId("wallet-usd"), WalletId("wallet-btc")
ACCOUNT = AccountId("account-1")
KEY = lightning_key(NODE, hash_of("a"))
SIXTY_THOUSAND = Price.from_usd_per_btc(Decimal(60_000))
OPEN = LndCursor(pubkey=NODE, name="lnd1", opening_index=0)


def expected(**changes: object) -> Expectation:
    expectation = Expectation(
        payment_hash=hash_of("a"),
        wallet_id=WALLET,
        account_id=ACCOUNT,
        external_id="order-1",
        currency=Currency.USD,
        wallet_currency=Currency.USD,
        cents=150,
        paid=False,
        pubkey=NODE,
        preimage=preimage_of("a").hex(),
    )
    return replace(expectation, **changes)  # type: ignore[arg-type]  # fields, handed through


def quoted(cents: int = 150, sat: int = 2_500) -> Quote:
    return Quote(
        payment_hash=hash_of("a"),
        wallet_id=WALLET,
        cents=cents,
        sat=sat,
        price="60000.00",
        source="fixed",
        created_at_ms=MORNING_MS - 1,
        expires_at_ms=MORNING_MS,  # long expired when it is used: what was settled is credited all the same
    )


def facts(
    expectation: Expectation | None,
    quote: Quote | None = None,
    *,
    dealer: DealerWallets | None = DEALER,
    btc_wallets: Mapping[AccountId, WalletId] | None = None,
    suspense: SuspenseEntry | None = None,
    cursor: LndCursor = OPEN,
) -> Facts:
    return Facts(
        head=Head(fence=1),
        booked=set() if suspense is None else {KEY},
        expectations={} if expectation is None else {expectation.payment_hash: expectation},
        suspense={} if suspense is None else {suspense.key: suspense},
        cursors={NODE: cursor},
        booked_elsewhere=set(),
        dollars=DollarFacts(
            dealer=dealer,
            quotes={} if quote is None else {quote.payment_hash: quote},
            btc_wallets={ACCOUNT: SATS_WALLET} if btc_wallets is None else btc_wallets,
        ),
    )


def legs(plan: Plan) -> list[tuple[str, str, int]]:
    """Every leg as (account, currency, credit minus debit)."""
    return [(leg.account, leg.currency, leg.credit - leg.debit) for entry in entries(plan) for leg in entry.legs]


def entries(plan: Plan) -> list[JournalEntry]:
    return [step.entry for step in plan.steps if step.entry is not None]


def waiting(reason: str) -> SuspenseEntry:
    return SuspenseEntry(
        key=KEY,
        pubkey=NODE,
        payment_hash=hash_of("a"),
        amount_sat=2_500,
        received_msat=2_500_000,
        reason=reason,
        received_at_ms=MORNING_MS,
    )


def test_ln_receive_to_usd_is_booked_leg_by_leg_as_blink_does() -> None:
    """Accounts, currencies, sides and order of 2.5, the metadata on every leg, hash and preimage apart."""
    plan = decide([settled("a", 1, 2_500_000)], facts(expected(), quoted()), price=SIXTY_THOUSAND)
    (entry,) = entries(plan)
    assert entry.legs == (
        Leg(account="Assets:Reserve:Lightning", currency="BTC", debit=2_500),
        Leg(account="Liabilities:dealer-usd", currency="USD", debit=150),
        Leg(account="Liabilities:dealer-btc", currency="BTC", credit=2_500),
        Leg(account="Liabilities:wallet-usd", currency="USD", credit=150),
    )
    assert entry.details == {
        "type": "invoice",
        "pending": False,
        "hash": hash_of("a"),
        "pubkey": NODE,
        "satsAmount": 2_500,
        "satsFee": 0,
        "centsAmount": 150,
        "centsFee": 0,
        "displayAmount": 150,
        "displayFee": 0,
        "displayCurrency": "USD",
        "external_id": "order-1",
    }
    assert (entry.memo, entry.payment_hash, entry.preimage) == ("memo of a", hash_of("a"), preimage_of("a").hex())
    assert plan.outcomes == [Posted(KEY, 2_500, True)]
    assert plan.paid == [hash_of("a")]


def test_a_document_of_another_program_needs_no_quote_and_no_price() -> None:
    """Its cents are all that counts, whatever arrived; nothing can be said of an excess then."""
    for received_msat in (1_000, 2_500_000, 90_000_000):
        plan = decide([settled("a", 1, received_msat)], facts(expected()), price=None)
        sat = received_msat // 1000
        assert legs(plan) == [
            (LIGHTNING, "BTC", -sat),
            ("Liabilities:dealer-usd", "USD", -150),
            ("Liabilities:dealer-btc", "BTC", sat),
            ("Liabilities:wallet-usd", "USD", 150),
        ]
        (step,) = plan.steps
        assert [event.type for event in step.events] == ["invoice.settled"]
        assert step.events[0].payload["amount_cents"] == 150
        assert plan.outcomes == [Posted(KEY, sat, True)]


def test_an_overpaid_invoice_gets_its_cents_once_and_the_dealer_keeps_the_rest() -> None:
    """With an event before the settled one, which is the one that the key names."""
    plan = decide([settled("a", 1, 3_000_999)], facts(expected(), quoted()), price=SIXTY_THOUSAND)
    assert legs(plan) == [
        (LIGHTNING, "BTC", -3_000),
        ("Liabilities:dealer-usd", "USD", -150),
        ("Liabilities:dealer-btc", "BTC", 3_000),
        ("Liabilities:wallet-usd", "USD", 150),
    ]
    over, told = plan.steps[0].events
    assert (over.type, told.type) == ("invoice.overpaid", "invoice.settled")
    assert over.payload == {
        "payment_hash": hash_of("a"),
        "wallet_id": WALLET,
        "quoted_sat": 2_500,
        "amount_sat": 3_000,
        "excess_sat": 500,
        "amount_cents": 150,
    }
    assert plan.cursors[NODE].remainder_msat == 999


def test_a_fraction_of_a_sat_more_is_no_excess() -> None:
    """Nothing is told of msats that no wallet can hold."""
    plan = decide([settled("a", 1, 2_500_999)], facts(expected(), quoted()), price=None)
    assert [event.type for event in plan.steps[0].events] == ["invoice.settled"]


def test_the_quote_that_was_credited_is_kept_as_used() -> None:
    """In the same commit."""
    plan = decide([settled("a", 1, 2_500_000)], facts(expected(), quoted()), price=None)
    assert plan.quotes == {hash_of("a"): replace(quoted(), state=QuoteState.USED)}


def test_an_amountless_invoice_gets_the_cents_that_were_quoted_when_it_was_held() -> None:
    """Not those of the price of the moment when it is booked."""
    plan = decide([settled("a", 1, 1_000_000)], facts(expected(cents=None), quoted(61, 1_000)), price=SIXTY_THOUSAND)
    assert legs(plan)[3] == ("Liabilities:wallet-usd", "USD", 61)


def test_less_than_a_cent_goes_to_the_accounts_btc_wallet() -> None:
    """As in Blink; there the cents shown beside it are never 0."""
    plan = decide([settled("a", 1, 16_000)], facts(expected(cents=None), quoted(0, 16)), price=SIXTY_THOUSAND)
    assert legs(plan) == [(LIGHTNING, "BTC", -16), ("Liabilities:wallet-btc", "BTC", 16)]
    (entry,) = entries(plan)
    assert (entry.details["satsAmount"], entry.details["centsAmount"]) == (16, 1)
    (told,) = plan.steps[0].events
    assert (told.wallet_ids, "amount_cents" in told.payload) == ((SATS_WALLET,), False)
    assert plan.paid == [hash_of("a")]


def test_less_than_a_sat_is_remainder() -> None:
    """No journal, the document is paid, the msats stay with the node."""
    plan = decide([settled("a", 1, 995)], facts(expected(cents=None), quoted(0, 0)), price=SIXTY_THOUSAND)
    assert (legs(plan), plan.paid, plan.cursors[NODE].remainder_msat) == ([], [hash_of("a")], 995)


@pytest.mark.parametrize(
    ("known", "received_msat", "reason"),
    [
        (facts(expected(cents=None)), 2_500_000, "not_priced"),
        (facts(expected(cents=-1)), 2_500_000, "not_priced"),
        (facts(expected(cents=2**53)), 2_500_000, "not_priced"),
        (facts(expected(), quoted(), dealer=None), 2_500_000, "no_dealer"),
        (facts(expected(), quoted()), 2_499_999, "underpaid"),
        (facts(expected()), 999, "underpaid"),
        (facts(expected(cents=None), quoted(0, 16), btc_wallets={}), 16_000, "under_one_cent"),
        (facts(expected(currency=Currency.BTC)), 2_500_000, "currency_differs"),
    ],
)
def test_what_cannot_be_credited_waits_in_suspense(known: Facts, received_msat: int, reason: str) -> None:
    """In sats, to the last one, and no document or quote is marked; nothing is guessed."""
    plan = decide([settled("a", 1, received_msat)], known, price=SIXTY_THOUSAND)
    sat = received_msat // 1000
    assert legs(plan) == ([(LIGHTNING, "BTC", -sat), (SUSPENSE, "BTC", sat)] if sat else [])
    assert plan.outcomes == [Suspended(KEY, sat, reason)]
    assert (plan.paid, plan.quotes) == ([], {})


def test_a_document_that_comes_late_takes_its_money_out_of_suspense() -> None:
    """The dealer gets the sats that waited, the wallet the document's cents."""
    known = facts(expected(), suspense=waiting("no_expectation"))
    plan = decide([settled("a", 1, 2_500_000)], known, price=None)
    assert legs(plan) == [
        (SUSPENSE, "BTC", -2_500),
        ("Liabilities:dealer-usd", "USD", -150),
        ("Liabilities:dealer-btc", "BTC", 2_500),
        ("Liabilities:wallet-usd", "USD", 150),
    ]
    assert plan.outcomes == [Posted(assignment_key(KEY), 2_500, True)]
    assert [event.type for event in plan.steps[0].events] == ["suspense.assigned", "invoice.settled"]
    assert plan.suspense_assigned[KEY].assigned_to == WALLET


def test_less_than_a_cent_that_waited_is_the_btc_wallets_in_entry_trail_and_event() -> None:
    """All of them name who got it, and so does what comes again to it."""
    few = replace(waiting("no_expectation"), amount_sat=16, received_msat=16_000)
    known = facts(expected(cents=None), quoted(0, 16), suspense=few)
    plan = decide([settled("a", 1, 16_000)], replace(known, received={KEY: 16_000}), price=None)
    assert legs(plan) == [(SUSPENSE, "BTC", -16), ("Liabilities:wallet-btc", "BTC", 16)]
    assigned = plan.suspense_assigned[KEY]
    assert (assigned.assigned_to, [one.wallet_id for one in assigned.trail]) == (SATS_WALLET, [SATS_WALLET])
    assert plan.steps[0].events[0].payload["wallet_id"] == SATS_WALLET
    for owner in (SATS_WALLET, WALLET):  # the second as releases wrote it that named the document's wallet
        later = facts(expected(cents=None, paid=True), quoted(0, 16), suspense=replace(assigned, assigned_to=owner))
        again = decide([settled("a", 1, 20_000)], replace(later, received={KEY: 16_000}), price=None)
        assert legs(again) == [(LIGHTNING, "BTC", -4), ("Liabilities:wallet-btc", "BTC", 4)]


@pytest.mark.parametrize("reason", ["not_priced", "underpaid", "under_one_cent"])
def test_what_waits_for_an_operator_is_not_assigned_by_a_later_quote(reason: str) -> None:
    """A price of another moment would be another one than payer and bank saw."""
    plan = decide([settled("a", 1, 2_500_000)], facts(expected(), quoted(), suspense=waiting(reason)), price=None)
    assert (plan.steps, plan.outcomes) == ([], [AlreadyPosted(KEY)])


def test_what_belongs_to_the_opening_moves_from_there() -> None:
    """The sats are on the books already."""
    cursor = replace(OPEN, opening_index=5, settle_index=5)
    plan = decide([settled("a", 3, 2_500_000)], facts(expected(), quoted(), cursor=cursor), price=None)
    assert legs(plan)[0] == (OPENING, "BTC", -2_500)
    assert legs(plan)[3] == ("Liabilities:wallet-usd", "USD", 150)


@pytest.mark.parametrize(
    "known",
    [
        facts(expected(cents=None), cursor=replace(OPEN, opening_index=5, settle_index=5)),
        facts(expected(), quoted(sat=2_501), cursor=replace(OPEN, opening_index=5, settle_index=5)),
        facts(expected(cents=None), cursor=LndCursor(pubkey=NODE, name="lnd1")),
    ],
    ids=["not priced", "underpaid", "before the opening is booked"],
)
def test_old_money_that_a_document_waits_for_and_nobody_can_price_is_shown(known: Facts) -> None:
    """The opening takes what nobody waits for; a customer's payment is for an operator to see."""
    plan = decide([settled("a", 3, 2_500_000)], known, price=SIXTY_THOUSAND)
    source = OPENING if known.cursors[NODE].opened else LIGHTNING
    assert legs(plan) == [(source, "BTC", -2_500), (SUSPENSE, "BTC", 2_500)]
    assert list(plan.suspense_new) == [KEY]


def test_a_repeated_settlement_is_credited_once() -> None:
    """Within a batch."""
    event = settled("a", 1, 2_500_000)
    plan = decide([event, event], facts(expected(), quoted()), price=None)
    assert [type(outcome) for outcome in plan.outcomes] == [Posted, AlreadyPosted]
    assert len(plan.steps) == 1


def test_money_that_comes_again_is_the_dealers() -> None:
    """The cents are credited once; what comes on top is sats (design.md section 4)."""
    first, again = settled("a", 1, 2_500_000), settled("a", 1, 4_000_000)
    plan = decide([first, again], facts(expected(), quoted()), price=None)
    assert legs(plan)[4:] == [(LIGHTNING, "BTC", -1_500), ("Liabilities:dealer-btc", "BTC", 1_500)]
    together = decide([again], facts(expected(), quoted()), price=None)
    sums: dict[tuple[str, str], int] = {}
    for one, sign in ((plan, 1), (together, -1)):
        for account, currency, amount in legs(one):
            sums[account, currency] = sums.get((account, currency), 0) + sign * amount
    assert set(sums.values()) == {0}  # seen in two steps or in one


def test_money_that_comes_again_to_an_invoice_without_a_price_waits_too() -> None:
    """No cents were ever promised for it: the dealer would have it for nothing."""
    assigned = replace(waiting("not_priced"), assigned_to=WALLET)
    known = replace(facts(expected(cents=None, paid=True), suspense=assigned), received={KEY: 2_500_000})
    plan = decide([settled("a", 1, 4_000_000)], known, price=SIXTY_THOUSAND)
    assert legs(plan) == [(LIGHTNING, "BTC", -1_500), (SUSPENSE, "BTC", 1_500)]
