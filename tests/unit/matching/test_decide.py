"""What each event means for the books: one example per rule of design.md sections 3 and 4."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from daemon.domain.accounts import LIGHTNING, OPENING, ROUNDING, SUSPENSE, Barred, wallet_account
from daemon.domain.books import ChainFacts, Expectation, Facts, Head, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import (
    AccountId,
    JournalId,
    NodePubkey,
    PaymentHash,
    WalletId,
    assignment_key,
    foreign_key,
    lightning_key,
    opening_key,
)
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import (
    ForeignJournalFound,
    InvoiceSettled,
    ListingCompleted,
    NodeEvent,
    NodeOpened,
    NodeRestored,
)
from daemon.domain.outcomes import (
    Adopted,
    AlreadyPosted,
    CursorMoved,
    GapFound,
    PartOfOpening,
    Posted,
    Suspended,
)
from daemon.matching.decide import decide, wanted_by
from daemon.matching.plan import Plan, Step
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, moved, node_opened, preimage_of, settled

OPEN = LndCursor(pubkey=NODE, name="lnd1", opening_index=0)
WALLET = WalletId("wallet-1")
KEY = lightning_key(NODE, hash_of("a"))


def expected(name: str = "a", **changes: object) -> Expectation:
    expectation = Expectation(
        payment_hash=hash_of(name),
        wallet_id=WALLET,
        account_id=AccountId("account-1"),
        external_id=f"ext-{name}",
        currency=Currency.BTC,
        wallet_currency=Currency.BTC,
        cents=None,
        paid=False,
        pubkey=NODE,
        preimage=preimage_of(name).hex(),
    )
    return replace(expectation, **changes)  # type: ignore[arg-type]  # fields, handed through


def facts(
    *expectations: Expectation,
    cursor: LndCursor | None = OPEN,
    booked: set[str] | None = None,
    suspense: SuspenseEntry | None = None,
    elsewhere: set[PaymentHash] | None = None,
    lightning_sat: int = 0,
    received: dict[str, int] | None = None,
) -> Facts:
    return Facts(
        head=Head(fence=1),
        booked=booked or set(),
        expectations={expectation.payment_hash: expectation for expectation in expectations},
        suspense={suspense.key: suspense} if suspense else {},
        cursors={cursor.pubkey: cursor} if cursor else {},
        booked_elsewhere=elsewhere or set(),
        lightning_balance=-lightning_sat,
        received=received or {},
    )


def legs(plan: Plan) -> list[tuple[str, int]]:
    """Every leg as (account, credit minus debit)."""
    entries = [step.entry for step in plan.steps if step.entry is not None]
    return [(leg.account, leg.credit - leg.debit) for entry in entries for leg in entry.legs]


def waiting(amount_msat: int = 4_500) -> SuspenseEntry:
    return SuspenseEntry(
        key=KEY,
        pubkey=NODE,
        payment_hash=hash_of("a"),
        amount_sat=amount_msat // 1000,
        received_msat=amount_msat,
        reason="no_expectation",
        received_at_ms=MORNING_MS,
    )


def opening_of(funds_msat: int, *, through: int = 0) -> NodeOpened:
    return node_opened(funds_msat, through_index=through)


def test_an_expected_payment_is_credited_to_its_wallet() -> None:
    """Whole sats go to the wallet, the document is marked paid, the rest of a sat is kept with the cursor."""
    plan = decide([settled("a", 1, 21_500)], facts(expected()), price=None)
    assert legs(plan) == [(LIGHTNING, -21), (wallet_account(WALLET), 21)]
    assert plan.paid == [hash_of("a")]
    assert plan.outcomes == [Posted(KEY, 21, False)]
    assert plan.cursors[NODE] == replace(
        OPEN, settle_index=1, checkpoint_hash=hash_of("a"), booked_msat=21_500, remainder_msat=500
    )


def test_a_credit_carries_the_ledgers_metadata() -> None:
    """The fields of blink-contract.md 2.5 on every leg, dollar values with a price only; the preimage apart."""
    price = Price.from_usd_per_btc(Decimal(60_000))
    for given in (price, None):
        plan = decide([settled("a", 1, 21_000_000)], facts(expected()), price=given)
        entry = plan.steps[0].entry
        assert entry is not None
        basic = {
            "type": "invoice",
            "pending": False,
            "hash": hash_of("a"),
            "pubkey": NODE,
            "satsAmount": 21_000,
            "satsFee": 0,
            "external_id": "ext-a",
        }
        dollars = {"centsAmount": 1_260, "centsFee": 0}
        shown = {"displayAmount": 1_260, "displayFee": 0, "displayCurrency": "USD"}
        assert entry.details == (basic | dollars | shown if given else basic)
        assert (entry.memo, entry.payment_hash) == ("memo of a", hash_of("a"))
        assert entry.preimage == preimage_of("a").hex()
        assert plan.outcomes == [Posted(KEY, 21_000, given is not None)]


def test_a_duplicate_is_a_success_that_writes_nothing() -> None:
    """Within a batch and over batches."""
    event = settled("a", 1, 5_000)
    twice = decide([event, event], facts(expected()), price=None)
    assert [type(outcome) for outcome in twice.outcomes] == [Posted, AlreadyPosted]
    assert len(twice.steps) == 1
    booked = facts(expected(paid=True), booked={KEY}, cursor=twice.cursors[NODE], received={KEY: 5_000})
    again = decide([event], booked, price=None)
    assert again.outcomes == [AlreadyPosted(KEY)]
    assert again.writes_nothing()


@pytest.mark.parametrize(
    ("expectation", "reason"),
    [
        (None, "no_expectation"),
        (expected(wallet_currency=None), "no_wallet"),
        (expected(currency=Currency.USD, wallet_currency=Currency.USD), "not_priced"),
        (expected(currency=Currency.USD), "currency_differs"),
        (expected(wallet_currency=Currency.USD), "currency_differs"),
        (expected(currency=None), "currency_differs"),
        (expected(pubkey=OTHER_NODE), "other_node"),
        (expected(pubkey=OTHER_NODE, paid=True), "other_node"),
    ],
)
def test_what_no_wallet_can_be_credited_with_waits_in_suspense(expectation: Expectation | None, reason: str) -> None:
    """Books and node stay equal, and no document is marked."""
    known = facts(expectation) if expectation else facts()
    plan = decide([settled("a", 1, 4_500)], known, price=None)
    assert legs(plan) == [(LIGHTNING, -4), (SUSPENSE, 4)]
    assert plan.suspense_new == {KEY: replace(waiting(), reason=reason, received_at_ms=MORNING_MS + 1000)}
    assert (plan.paid, plan.outcomes) == ([], [Suspended(KEY, 4, reason)])
    entry = plan.steps[0].entry
    assert entry is not None
    assert entry.details["type"] != "invoice"  # Blink would count it as credited to its wallet


def test_a_document_without_a_node_is_matched_by_its_hash() -> None:
    """Old documents name none."""
    plan = decide([settled("a", 1, 4_000)], facts(expected(pubkey=None)), price=None)
    assert plan.outcomes == [Posted(KEY, 4, False)]


SETS = ("5e7" * 21 + "0", "5e7" * 21 + "1")
SET_KEYS = tuple(lightning_key(NODE, one) for one in SETS)


def test_every_set_of_an_amp_invoice_is_credited_once() -> None:
    """With what it brought, under its own key; the first marks the document paid. No checkpoint: its hash does not
    tell the index."""
    first, second = settled("a", 1, 4_000, settled_id=SETS[0]), settled("a", 2, 9_000, settled_id=SETS[1])
    plan = decide([first, second, first], facts(expected()), price=None)
    assert plan.outcomes == [Posted(SET_KEYS[0], 4, False), Posted(SET_KEYS[1], 9, False), AlreadyPosted(SET_KEYS[0])]
    assert legs(plan) == [
        (LIGHTNING, -4),
        (wallet_account(WALLET), 4),
        (LIGHTNING, -9),
        (wallet_account(WALLET), 9),
    ]
    assert plan.paid == [hash_of("a")]
    assert [step.also_takes for step in plan.steps] == [(KEY,), ()]
    assert (plan.cursors[NODE].settle_index, plan.cursors[NODE].checkpoint_hash) == (2, None)
    later = facts(expected(paid=True), booked={SET_KEYS[0], KEY})
    plan = decide([second], later, price=None)
    assert (plan.outcomes, plan.paid) == ([Posted(SET_KEYS[1], 9, False)], [])


def test_a_set_asks_whether_another_one_came_before() -> None:
    """By its own key and by the invoice's."""
    assert {SET_KEYS[0], KEY} <= wanted_by([settled("a", 1, 4_000, settled_id=SETS[0])]).keys


def test_a_set_of_an_invoice_that_another_program_marked_paid_is_a_gap() -> None:
    """No key of ours says that it was tellerd who marked it."""
    plan = decide([settled("a", 1, 4_000, settled_id=SETS[0])], facts(expected(paid=True)), price=None)
    assert (plan.steps, plan.outcomes) == ([], [GapFound(SET_KEYS[0])])


def test_a_set_for_a_dollar_wallet_waits_for_a_person() -> None:
    """The cents of the document are those of one payment at one moment."""
    in_dollars = expected(currency=Currency.USD, wallet_currency=Currency.USD, cents=100)
    plan = decide([settled("a", 1, 4_000, settled_id=SETS[0])], facts(in_dollars), price=None)
    assert plan.outcomes == [Suspended(SET_KEYS[0], 4, "not_priced")]


def test_a_spontaneous_amp_payment_is_nobodys() -> None:
    """Its set id is all it has, and no document has that for a hash."""
    spontaneous = replace(settled("a", 1, 4_000), payment_hash=PaymentHash(SETS[0]), settled_id=SETS[0])
    plan = decide([spontaneous], facts(expected()), price=None)
    assert plan.outcomes == [Suspended(SET_KEYS[0], 4, "no_expectation")]


def spontaneous(wallet: str | None, received_msat: int = 4_000) -> InvoiceSettled:
    return replace(settled("a", 1, received_msat), wallet_named=wallet)


def wallets(*, currency: Currency = Currency.BTC, barred: Barred | None = None) -> ChainFacts:
    return ChainFacts(currencies={WALLET: currency}, barred={} if barred is None else {WALLET: barred})


def test_a_spontaneous_payment_is_credited_to_the_wallet_that_it_names() -> None:
    """There is no document to mark; it is told like any other, under its hash."""
    assert wanted_by([spontaneous(WALLET)]).wallet_ids == {WALLET}
    known = facts()
    known.chain = wallets()
    plan = decide([spontaneous(WALLET), spontaneous(WALLET)], known, price=None)
    assert legs(plan) == [(LIGHTNING, -4), (wallet_account(WALLET), 4)]
    assert (plan.paid, plan.outcomes) == ([], [Posted(KEY, 4, False), AlreadyPosted(KEY)])
    (told,) = plan.steps[0].events
    assert (told.type, told.wallet_ids, told.payload["external_id"]) == ("invoice.settled", (WALLET,), hash_of("a"))


@pytest.mark.parametrize(
    ("named", "chain", "reason"),
    [
        (None, wallets(), "no_expectation"),
        ("nobody", wallets(), "no_wallet"),
        ("", wallets(), "no_wallet"),
        (WALLET, wallets(currency=Currency.USD), "currency_differs"),
        (WALLET, wallets(barred=Barred.LOCKED), Barred.LOCKED.value),
    ],
)
def test_a_spontaneous_payment_that_names_no_wallet_of_sats_waits(
    named: str | None, chain: ChainFacts, reason: str
) -> None:
    """In suspense, with the reason."""
    known = facts()
    known.chain = chain
    plan = decide([spontaneous(named)], known, price=None)
    assert plan.outcomes == [Suspended(KEY, 4, reason)]


def test_a_spontaneous_payment_from_before_the_opening_is_part_of_it() -> None:
    """Whose that money was is settled already, by whatever came before tellerd."""
    old = facts(cursor=replace(OPEN, opening_index=1))
    fresh = facts(cursor=LndCursor(pubkey=NODE, name=""))
    for known in (old, fresh):
        known.chain = wallets()
        plan = decide([spontaneous(WALLET)], known, price=None)
        assert (plan.steps, plan.outcomes) == ([], [PartOfOpening(KEY)])


def test_a_document_goes_before_what_the_payer_says() -> None:
    """Who knows the hash cannot send the money elsewhere."""
    known = facts(expected())
    known.chain = ChainFacts(currencies={WalletId("other"): Currency.BTC})
    plan = decide([spontaneous("other")], known, price=None)
    assert legs(plan) == [(LIGHTNING, -4), (wallet_account(WALLET), 4)]


def test_money_that_comes_again_to_a_spontaneous_payment_follows_the_first() -> None:
    """What has arrived in all is the wallet's."""
    known = facts(booked={KEY}, received={KEY: 4_000})
    known.chain = wallets()
    plan = decide([spontaneous(WALLET, 9_500)], known, price=None)
    assert legs(plan) == [(LIGHTNING, -5), (wallet_account(WALLET), 5)]
    assert plan.outcomes == [Posted(f"{KEY}:+9500", 5, False)]


def test_money_in_suspense_moves_when_a_document_expects_it() -> None:
    """By a journal of its own; the node's sums do not move again; it is told as settled."""
    plan = decide([settled("a", 1, 4_500)], facts(expected(), booked={KEY}, suspense=waiting()), price=None)
    assert legs(plan) == [(SUSPENSE, -4), (wallet_account(WALLET), 4)]
    assert plan.outcomes == [Posted(assignment_key(KEY), 4, False)]
    assert plan.suspense_assigned[KEY].assigned_to == WALLET
    assert plan.paid == [hash_of("a")]
    assert plan.cursors[NODE].booked_msat == 0
    assert [event.type for event in plan.steps[0].events] == ["suspense.assigned", "invoice.settled"]


def test_money_in_suspense_moves_once() -> None:
    """Twice in a batch, or assigned before."""
    event = settled("a", 1, 4_500)
    plan = decide([event, event], facts(expected(), booked={KEY}, suspense=waiting()), price=None)
    assert [type(outcome) for outcome in plan.outcomes] == [Posted, AlreadyPosted]
    done = replace(waiting(), assigned_to=WalletId("somebody"))
    plan = decide([event], facts(expected(), booked={KEY}, suspense=done), price=None)
    assert plan.outcomes == [AlreadyPosted(KEY)]


def test_less_than_a_sat_is_kept_as_remainder() -> None:
    """No journal, but the key, the event, the paid mark and the msats."""
    plan = decide([settled("a", 1, 999)], facts(expected()), price=None)
    assert (legs(plan), plan.paid) == ([], [hash_of("a")])
    assert [step.key for step in plan.steps] == [KEY]
    assert plan.cursors[NODE].remainder_msat == 999


def test_remainders_that_add_up_to_a_sat_are_booked() -> None:
    """Each full sat by its own journal, so that the asset account equals the node to the msat."""
    cursor = replace(OPEN, booked_msat=800, remainder_msat=800)
    plan = decide([settled("a", 1, 2_300), settled("b", 2, 950)], facts(expected(), cursor=cursor), price=None)
    assert legs(plan) == [
        (LIGHTNING, -2),
        (wallet_account(WALLET), 2),
        (LIGHTNING, -1),
        (ROUNDING, 1),
        (LIGHTNING, -1),
        (ROUNDING, 1),
    ]
    moved_to = plan.cursors[NODE]
    assert (moved_to.booked_msat, moved_to.remainder_msat, moved_to.rounding_sats) == (4_050, 50, 2)
    assert len({step.key for step in plan.steps}) == len(plan.steps)


def test_a_receipt_that_another_program_booked_is_not_booked_again() -> None:
    """Its leg {hash, type invoice} counts; the cursor moves on."""
    known = facts(expected(paid=True), elsewhere={hash_of("a")})
    plan = decide([settled("a", 1, 5_000)], known, price=None)
    assert (plan.steps, plan.outcomes) == ([], [AlreadyPosted(KEY)])
    assert plan.cursors[NODE].settle_index == 1


def test_an_invoice_paid_without_a_journal_is_a_counted_gap() -> None:
    """Never an automatic credit (design.md section 3)."""
    plan = decide([settled("a", 1, 5_000)], facts(expected(paid=True)), price=None)
    assert (plan.steps, plan.outcomes) == ([], [GapFound(KEY)])
    assert (plan.gaps[KEY].kind, plan.gaps[KEY].amount_msat) == ("paid_without_journal", 5_000)


def test_before_the_opening_only_awaited_payments_are_booked() -> None:
    """The rest belongs to what the node held, and does not count as booked until the opening is."""
    fresh = LndCursor(pubkey=NODE, name="")
    plan = decide([settled("a", 2, 5_000), settled("b", 1, 7_000)], facts(expected(), cursor=None), price=None)
    assert [type(outcome) for outcome in plan.outcomes] == [Posted, PartOfOpening]
    assert plan.cursors[NODE] == replace(fresh, booked_above=((2, 2),), booked_msat=5_000)


def test_the_opening_books_what_the_node_held_less_what_was_credited() -> None:
    """From then on books plus remainder equal the node, and the cursor stands at the listing's end."""
    cursor = LndCursor(pubkey=NODE, name="", booked_above=((2, 2),), booked_msat=5_300, remainder_msat=300)
    plan = decide([opening_of(12_900, through=2)], facts(cursor=cursor, lightning_sat=5), price=None)
    assert legs(plan) == [(LIGHTNING, -7), (OPENING, 7)]
    after = plan.cursors[NODE]
    assert (after.booked_msat, after.remainder_msat, after.settle_index) == (12_900, 900, 2)
    assert (after.opening_index, after.name, after.opened) == (2, "lnd1", True)
    assert plan.outcomes == [CursorMoved(opening_key(NODE))]


def test_the_opening_may_be_below_zero_or_nothing() -> None:
    """Credits that were spent since; the remainder stays between 0 and 999 msat."""
    cursor = LndCursor(pubkey=NODE, name="", booked_msat=5_300, remainder_msat=300)
    spent = decide([opening_of(2_100)], facts(cursor=cursor, lightning_sat=5), price=None)
    assert legs(spent) == [(OPENING, -3), (LIGHTNING, 3)]
    assert spent.cursors[NODE].remainder_msat == 100
    nothing = decide([opening_of(0)], facts(cursor=None), price=None)
    assert legs(nothing) == []
    assert nothing.cursors[NODE].opened


def test_the_first_opening_leaves_out_what_other_programs_have_booked() -> None:
    """On a database that Blink has used, the opening is what its journals do not explain: no sat counts twice."""
    cursor = LndCursor(pubkey=NODE, name="", booked_msat=5_300, remainder_msat=300)
    adopted = ForeignJournalFound(
        journal_id=JournalId("aa" * 12), datetime_ms=1, memo="", legs=moved(LIGHTNING, "Liabilities:w", 20)
    )
    plan = decide([adopted, opening_of(12_900)], facts(cursor=cursor, lightning_sat=105), price=None)
    assert legs(plan)[2:] == [(OPENING, -113), (LIGHTNING, 113)]  # 105 + 20 booked, 12 there
    after = plan.cursors[NODE]
    assert (after.booked_msat, after.remainder_msat, after.absorbed_sat) == (12_900, 900, 120)


def test_a_later_opening_takes_only_its_own_node() -> None:
    """What other programs book after the first opening are movements of their own."""
    first = replace(OPEN, booked_msat=50_000)
    second = replace(opening_of(7_000), pubkey=OTHER_NODE)
    plan = decide([second], facts(cursor=first, lightning_sat=30), price=None)
    assert legs(plan) == [(LIGHTNING, -7), (OPENING, 7)]
    assert plan.cursors[OTHER_NODE].absorbed_sat == 0


def test_a_foreign_journal_that_is_no_money_is_a_gap_once() -> None:
    """Fractions of a sat cannot be added up: told, its key taken, no balance moved."""
    broken = ForeignJournalFound(
        journal_id=JournalId("aa" * 12), datetime_ms=1, memo="", legs=(), unreadable="debit 0.5"
    )
    plan = decide([broken, broken], facts(), price=None)
    assert [type(outcome) for outcome in plan.outcomes] == [GapFound, AlreadyPosted]
    assert legs(plan) == []
    assert [gap.kind for gap in plan.gaps.values()] == ["foreign_journal_unreadable"]


def test_the_opening_is_booked_once() -> None:
    """A repeat changes nothing."""
    plan = decide([opening_of(5_000)], facts(booked={opening_key(NODE)}), price=None)
    assert plan.outcomes == [AlreadyPosted(opening_key(NODE))]
    assert plan.writes_nothing()


def test_old_money_that_turns_out_to_be_awaited_comes_out_of_the_opening() -> None:
    """It is in the books already: it moves from there, and the node's sums stay."""
    cursor = replace(OPEN, settle_index=9, opening_index=9, booked_msat=50_000)
    plan = decide([settled("a", 3, 4_500)], facts(expected(), cursor=cursor), price=None)
    assert legs(plan) == [(OPENING, -4), (wallet_account(WALLET), 4)]
    assert plan.cursors[NODE] == cursor


def test_old_money_that_nobody_awaits_stays_in_the_opening() -> None:
    """Not in suspense, however often it is seen."""
    cursor = replace(OPEN, settle_index=9, opening_index=9, booked_msat=50_000)
    plan = decide([settled("a", 3, 4_500)], facts(cursor=cursor), price=None)
    assert plan.outcomes == [PartOfOpening(KEY)]
    assert plan.writes_nothing()


def test_a_completed_listing_closes_gaps() -> None:
    """Indexes that never were do not hold the watermark for ever."""
    cursor = replace(OPEN, settle_index=2, booked_above=((5, 6),))
    done = ListingCompleted(pubkey=NODE, through_index=6, checkpoint_hash=hash_of("c"))
    plan = decide([done], facts(cursor=cursor), price=None)
    assert plan.cursors[NODE] == replace(OPEN, settle_index=6, checkpoint_hash=hash_of("c"))
    assert not plan.writes_nothing()


def test_a_restored_node_begins_a_new_epoch() -> None:
    """Positions start over, sums stay."""
    cursor = replace(OPEN, settle_index=7, booked_msat=1_234)
    plan = decide([NodeRestored(pubkey=NODE, newest_index=3)], facts(cursor=cursor), price=None)
    assert plan.cursors[NODE] == replace(OPEN, epoch=1, booked_msat=1_234, htlc_checked_through=3)


def foreign(*its_legs: Leg) -> ForeignJournalFound:
    return ForeignJournalFound(journal_id=JournalId("f" * 24), datetime_ms=MORNING_MS, memo="m", legs=its_legs)


def test_another_programs_journal_is_adopted_once() -> None:
    """Its legs count, its documents are left alone, its wallets are told."""
    found = foreign(*moved("Liabilities:w1", LIGHTNING, 5))
    plan = decide([found, found], facts(), price=None)
    assert plan.outcomes == [Adopted(foreign_key(found.journal_id)), AlreadyPosted(foreign_key(found.journal_id))]
    (step,) = plan.steps
    assert step.adopted_id == found.journal_id
    assert step.events[0].wallet_ids == ("w1",)
    assert decide([found], facts(booked={step.key}), price=None).writes_nothing()


def test_another_programs_unbalanced_journal_is_adopted_and_shown() -> None:
    """Its mistake is not ours to stop for."""
    found = foreign(Leg(account="Liabilities:w1", currency="BTC", credit=5))
    plan = decide([found], facts(), price=None)
    key = foreign_key(found.journal_id)
    assert plan.gaps[key].kind == "foreign_journal_unbalanced"
    assert plan.outcomes == [Adopted(key)]


def test_each_event_has_one_outcome() -> None:
    """Posting counts them side by side."""
    events: list[NodeEvent] = [
        settled("a", 1, 1_000),
        settled("a", 1, 1_000),
        settled("b", 2, 1_000, pubkey=OTHER_NODE),
        ListingCompleted(pubkey=NODE, through_index=1, checkpoint_hash=None),
        opening_of(5),
        NodeRestored(pubkey=OTHER_NODE, newest_index=0),
        foreign(*moved("a", "b", 1)),
    ]
    assert len(decide(events, facts(expected()), price=None).outcomes) == len(events)


def test_a_batch_asks_for_all_that_its_decisions_rest_on() -> None:
    """Keys, documents and cursors; nothing of it may be taken for absent because nobody asked."""
    found = foreign(*moved("a", "b", 1))
    wanted = wanted_by([settled("a", 1, 1_000), opening_of(5), found, NodeRestored(pubkey=OTHER_NODE, newest_index=0)])
    assert wanted.keys == {KEY, assignment_key(KEY), opening_key(NODE), foreign_key(found.journal_id)}
    assert wanted.payment_hashes == {hash_of("a")}
    assert wanted.pubkeys == {NODE, NodePubkey(OTHER_NODE)}


def test_a_key_cannot_be_taken_twice_in_a_plan() -> None:
    """Better stopped than booked twice."""
    plan = Plan(facts(booked={"old"}))
    plan.take(Step("new", None, ()))
    for key in ("old", "new"):
        with pytest.raises(InvariantViolation):
            plan.take(Step(key, None, ()))
