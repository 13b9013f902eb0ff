"""Money that comes again to a settled invoice: who gets it, and how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.domain import outbox
from daemon.domain.accounts import LIGHTNING, ROUNDING, SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import DollarFacts, Expectation, Facts, Head, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import AccountId, WalletId, lightning_key, repeat_key
from daemon.domain.money import Currency
from daemon.domain.node_events import HtlcRef, InvoiceSettled
from daemon.domain.outcomes import AlreadyPosted, GapFound, Posted, Suspended
from daemon.matching.decide import decide
from daemon.matching.plan import Plan
from tests.samples import MORNING_MS, NODE, hash_of, settled

WALLET = WalletId("wallet-1")
KEY = lightning_key(NODE, hash_of("a"))
CURSOR = LndCursor(
    pubkey=NODE, name="lnd1", settle_index=1, checkpoint_hash=hash_of("a"), opening_index=0, booked_msat=1_900
)


def expected(**changes: Any) -> Expectation:
    expectation = Expectation(
        payment_hash=hash_of("a"),
        wallet_id=WALLET,
        account_id=AccountId("account-1"),
        external_id="ext-a",
        currency=Currency.BTC,
        wallet_currency=Currency.BTC,
        cents=None,
        paid=True,
        pubkey=NODE,
    )
    return replace(expectation, **changes)


def facts(expectation: Expectation | None = None, *, received_msat: int | None = 1_900, **changes: Any) -> Facts:
    known = Facts(
        head=Head(fence=1),
        booked={KEY},
        expectations={hash_of("a"): expectation} if expectation else {},
        suspense={},
        cursors={NODE: replace(CURSOR, remainder_msat=900)},
        booked_elsewhere=set(),
        received={} if received_msat is None else {KEY: received_msat},
    )
    return replace(known, **changes)


def again(cumulative_msat: int, index: int = 1) -> InvoiceSettled:
    return settled("a", index, cumulative_msat)


def moves(plan: Plan) -> list[tuple[str, int]]:
    entries = [step.entry for step in plan.steps if step.entry is not None]
    return [(leg.account, leg.credit - leg.debit) for entry in entries for leg in entry.legs]


def waiting(**changes: Any) -> SuspenseEntry:
    entry = SuspenseEntry(
        key=KEY,
        pubkey=NODE,
        payment_hash=hash_of("a"),
        amount_sat=1,
        received_msat=1_900,
        reason="no_expectation",
        received_at_ms=MORNING_MS,
    )
    return replace(entry, **changes)


def test_what_came_on_top_is_credited_to_the_invoices_wallet() -> None:
    """The difference, under a key with the new sum; with an event of its own, and the ledger's receipt metadata."""
    plan = decide([again(4_900)], facts(expected()), price=None)
    key = repeat_key(KEY, 4_900)
    assert moves(plan) == [(LIGHTNING, -3), (wallet_account(WALLET), 3)]
    assert plan.outcomes == [Posted(key, 3, False)]
    assert plan.received == {KEY: 4_900}
    step = plan.steps[0]
    assert step.entry is not None
    assert (step.key, step.entry.details["type"], step.entry.details["hash"]) == (key, "invoice", hash_of("a"))
    (event,) = step.events
    assert (event.type, event.wallet_ids) == (outbox.INVOICE_PAID_AGAIN, (WALLET,))
    payload = event.payload
    assert (payload["amount_sat"], payload["received_msat"], payload["total_received_msat"]) == (3, 3_000, 4_900)


def test_fractions_that_make_a_sat_together_come_from_the_rounding_account() -> None:
    """1,900 and then 3,100 msat are 3 sats, not 1 and 1: the third comes from where the 900 msat went."""
    plan = decide([again(3_100)], facts(expected()), price=None)
    assert moves(plan) == [
        (LIGHTNING, -1),
        (ROUNDING, -1),
        (wallet_account(WALLET), 2),
        (LIGHTNING, -1),
        (ROUNDING, 1),
    ]
    cursor = plan.cursors[NODE]
    assert (cursor.booked_msat, cursor.remainder_msat) == (3_100, 100)


def test_less_than_a_sat_is_told_and_kept_with_the_remainder() -> None:
    """No journal, for there is nothing to move; the next msats count from there."""
    plan = decide([again(1_950)], facts(expected()), price=None)
    assert moves(plan) == []
    assert [event.type for step in plan.steps for event in step.events] == [outbox.INVOICE_PAID_AGAIN]
    assert (plan.received, plan.cursors[NODE].remainder_msat) == ({KEY: 1_950}, 950)


def test_an_old_sum_and_the_same_sum_change_nothing() -> None:
    """Events repeat and come late."""
    plan = decide([again(1_900), again(1_500), again(0)], facts(expected()), price=None)
    assert plan.outcomes == [AlreadyPosted(KEY)] * 3
    assert plan.writes_nothing()


def test_in_one_batch_each_sum_counts_from_the_one_before() -> None:
    """Also the first receipt and money that came again, in one commit."""
    fresh = replace(facts(expected(paid=False), received_msat=None), booked=set(), cursors={NODE: CURSOR})
    plan = decide([again(2_000), again(7_000), again(5_000)], fresh, price=None)
    assert plan.outcomes == [Posted(KEY, 2, False), Posted(repeat_key(KEY, 7_000), 5, False), AlreadyPosted(KEY)]
    assert plan.received == {KEY: 7_000}


def test_a_record_that_does_not_say_how_much_takes_what_there_is() -> None:
    """An older release booked it: nothing is credited, and the next sum counts from this one."""
    plan = decide([again(4_900), again(5_900)], facts(expected(), received_msat=None), price=None)
    assert plan.outcomes == [AlreadyPosted(KEY), Posted(repeat_key(KEY, 5_900), 1, False)]


def test_money_for_what_waits_in_suspense_waits_with_it() -> None:
    """One entry with the sum of both, so that both are assigned together; told as received."""
    plan = decide([again(4_900)], facts(suspense={KEY: waiting()}), price=None)
    assert moves(plan) == [(LIGHTNING, -3), (SUSPENSE, 3)]
    assert plan.outcomes == [Suspended(repeat_key(KEY, 4_900), 3, "no_expectation")]
    assert plan.suspense_assigned == {KEY: waiting(amount_sat=4, received_msat=4_900)}
    (event,) = plan.steps[0].events
    assert (event.type, event.key) == (outbox.SUSPENSE_RECEIVED, repeat_key(KEY, 4_900))
    assert (event.payload["key"], event.payload["amount_sat"]) == (KEY, 3)


def test_a_document_that_appears_gets_all_of_it() -> None:
    """Money came again while it waited, and the document came with the next look: the whole sum is assigned."""
    plan = decide([again(4_900)], facts(expected(paid=False), suspense={KEY: waiting()}), price=None)
    assert moves(plan) == [(LIGHTNING, -3), (SUSPENSE, 3), (SUSPENSE, -4), (wallet_account(WALLET), 4)]
    assigned = plan.suspense_assigned[KEY]
    assert replace(assigned, trail=()) == waiting(amount_sat=4, received_msat=4_900, assigned_to=WALLET)
    assert [(change.by, change.wallet_id) for change in assigned.trail] == [("tellerd", WALLET)]


def test_after_suspense_was_assigned_it_goes_to_that_wallet() -> None:
    """As if it had been credited at once."""
    plan = decide([again(4_900)], facts(expected(), suspense={KEY: waiting(assigned_to=WALLET)}), price=None)
    assert moves(plan) == [(LIGHTNING, -3), (wallet_account(WALLET), 3)]


def test_where_nothing_says_whose_it_is_it_waits_in_suspense() -> None:
    """The document is gone, or a person gave the first to a wallet that the document does not name."""
    for known in (facts(), facts(expected(), suspense={KEY: waiting(assigned_to=WalletId("another"))})):
        plan = decide([again(4_900)], known, price=None)
        assert moves(plan) == [(LIGHTNING, -3), (SUSPENSE, 3)]
        assert list(plan.suspense_new) == [repeat_key(KEY, 4_900)]


def test_a_dollar_wallet_gets_its_cents_once_and_the_dealer_the_sats() -> None:
    """Whatever arrives, and in which order it is seen (design.md section 4, Amounts)."""
    dealer = DealerWallets(btc=WalletId("dealer-btc"), usd=WalletId("dealer-usd"))
    in_dollars = expected(currency=Currency.USD, wallet_currency=Currency.USD, cents=7)
    plan = decide([again(4_900)], facts(in_dollars, dollars=DollarFacts(dealer=dealer)), price=None)
    assert moves(plan) == [(LIGHTNING, -3), (wallet_account(dealer.btc), 3)]
    assert plan.steps[0].events[0].wallet_ids == (WALLET,)


def test_what_another_program_booked_is_never_credited_again() -> None:
    """More than it booked is a gap for a person; as much, or a fraction of a sat more, is nothing."""
    elsewhere = facts(received_msat=None, booked=set(), booked_elsewhere={hash_of("a")})
    elsewhere = replace(elsewhere, booked_elsewhere_sat={hash_of("a"): 1})
    plan = decide([again(4_900)], elsewhere, price=None)
    assert plan.steps == []
    assert plan.outcomes == [GapFound(f"{KEY}:again")]
    gap = plan.gaps[f"{KEY}:again"]
    assert (gap.kind, gap.amount_msat, gap.reference) == ("paid_again_elsewhere", 3_900, hash_of("a"))
    assert decide([again(1_900)], elsewhere, price=None).outcomes == [AlreadyPosted(KEY)]


def test_a_set_of_an_amp_invoice_does_not_come_again() -> None:
    """More money to the invoice is another set, with a key of its own."""
    set_id = "ab" * 32
    key = lightning_key(NODE, set_id)
    event = settled("a", 1, 4_900, settled_id=set_id)
    plan = decide([event], facts(booked={key}, received={key: 1_900}), price=None)
    assert plan.writes_nothing()


def test_of_an_invoice_that_the_opening_has_only_what_came_since_is_received() -> None:
    """bbolt shows it with a new index and both sums; the HTLCs tell them apart by the moment of their settling."""
    opened = replace(CURSOR, opening_index=1, opened_at_ms=500_000, remainder_msat=0)
    fresh = replace(facts(received_msat=None), booked=set(), cursors={NODE: opened})
    htlcs = (HtlcRef(7, 1, 900_000, 400), HtlcRef(7, 2, 2_500, 600))
    event = replace(again(902_500, index=2), htlcs=htlcs)
    plan = decide([event], fresh, price=None)
    assert moves(plan) == [(LIGHTNING, -2), (SUSPENSE, 2)]
    assert plan.cursors[NODE].booked_msat == CURSOR.booked_msat + 2_500
    assert plan.received == {KEY: 902_500}
    together = replace(event, htlcs=(HtlcRef(7, 1, 900_000, 600), HtlcRef(7, 2, 2_500, 600)))
    assert moves(decide([together], fresh, price=None)) == [(LIGHTNING, -902), (SUSPENSE, 902)]
