"""HTLCs of settled invoices that were failed back: what the books make of them."""

from __future__ import annotations

from dataclasses import replace

from daemon.domain import outbox
from daemon.domain.accounts import GAP, LIGHTNING, ROUNDING
from daemon.domain.books import Facts, GapState, Head
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import check_balanced
from daemon.domain.identifiers import PaymentHash, lightning_key, loss_key
from daemon.domain.node_events import HtlcLost, HtlcRef, HtlcsChecked, HtlcsUnprovable, HtlcUnproven
from daemon.domain.outcomes import AlreadyPosted, CursorMoved, GapFound, LossBooked, PartOfOpening
from daemon.matching.decide import decide, wanted_by
from daemon.matching.plan import Plan
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of
from tests.unit.matching.test_decide import expected

CURSOR = LndCursor(
    pubkey=NODE, name="lnd1", settle_index=9, opening_index=3, booked_msat=50_300, remainder_msat=300, opened_at_ms=1
)
RECEIPT = lightning_key(NODE, hash_of("a"))
KEY = loss_key(NODE, 77, 5)


def facts(*booked: str, cursor: LndCursor = CURSOR, elsewhere: set[PaymentHash] | None = None) -> Facts:
    return Facts(
        head=Head(fence=1),
        booked=set(booked),
        expectations={},
        suspense={},
        cursors={NODE: cursor},
        booked_elsewhere=elsewhere or set(),
    )


def lost(amount_msat: int = 1_500, *, settle_index: int = 7, htlc_index: int = 5, settled_at_s: int = 0) -> HtlcLost:
    return HtlcLost(
        pubkey=NODE,
        payment_hash=hash_of("a"),
        settled_id=hash_of("a"),
        settle_index=settle_index,
        htlc=HtlcRef(77, htlc_index, amount_msat, settled_at_s),
        seen_at_ms=MORNING_MS,
    )


def moves(plan: Plan) -> list[tuple[str, int]]:
    entries = [step.entry for step in plan.steps if step.entry is not None]
    return [(leg.account, leg.credit - leg.debit) for entry in entries for leg in entry.legs]


def test_a_lost_htlc_goes_to_the_gap_account_to_the_msat() -> None:
    """Whole sats rounded up, the rest back to the node's remainder: books and node are equal, the wallet unharmed."""
    plan = decide([lost()], facts(RECEIPT), price=None)
    assert moves(plan) == [(GAP, -2), (LIGHTNING, 2)]
    assert plan.outcomes == [LossBooked(KEY, 1_500)]
    assert plan.cursors[NODE] == replace(CURSOR, booked_msat=48_800, remainder_msat=800)
    entry = plan.steps[0].entry
    assert entry is not None
    check_balanced(entry.legs, what="the loss")


def test_it_is_told_and_kept_as_a_gap() -> None:
    """An event with what a person has to look for, and an open gap with the amount that the node lacks."""
    plan = decide([lost()], facts(RECEIPT), price=None)
    (event,) = plan.steps[0].events
    assert (event.type, event.key, event.wallet_ids) == (outbox.HTLC_LOST, KEY, ())
    assert event.payload["amount_msat"] == 1_500
    assert (event.payload["payment_hash"], event.payload["chan_id"]) == (hash_of("a"), "77")
    gap = plan.gaps[KEY]
    assert (gap.kind, gap.state, gap.amount_msat) == ("htlc_lost", GapState.OPEN, -1_500)
    assert (gap.reference, gap.node) == (hash_of("a"), "lnd1")


def test_rests_of_losses_make_full_sats_as_those_of_receipts_do() -> None:
    """Two rests of 999 msat and one of 300: one sat is booked as rounding, and the sums stay exact."""
    plan = decide([lost(1), lost(1, htlc_index=6)], facts(RECEIPT), price=None)
    assert moves(plan) == [
        (GAP, -1),
        (LIGHTNING, 1),
        (LIGHTNING, -1),
        (ROUNDING, 1),
        (GAP, -1),
        (LIGHTNING, 1),
        (LIGHTNING, -1),
        (ROUNDING, 1),
    ]
    cursor = plan.cursors[NODE]
    assert (cursor.booked_msat, cursor.remainder_msat, cursor.rounding_sats) == (50_298, 298, 2)


def test_a_loss_is_booked_once() -> None:
    """Within a batch and over batches; another HTLC of the same payment is a loss of its own."""
    plan = decide([lost(), lost(), lost(htlc_index=6)], facts(RECEIPT), price=None)
    assert plan.outcomes == [LossBooked(KEY, 1_500), AlreadyPosted(KEY), LossBooked(loss_key(NODE, 77, 6), 1_500)]
    again = decide([lost()], facts(RECEIPT, KEY), price=None)
    assert again.outcomes == [AlreadyPosted(KEY)]
    assert again.writes_nothing()


def test_what_the_opening_counted_is_no_loss_of_the_books() -> None:
    """By the index of the settlement, and by the HTLC's own age where money that came again gave a newer index."""
    for event in (lost(settle_index=3), lost(settle_index=8, settled_at_s=100)):
        cursor = replace(CURSOR, opened_at_ms=1_000_000_000)
        plan = decide([event], facts(RECEIPT, cursor=cursor), price=None)
        assert plan.outcomes == [PartOfOpening(KEY)]
        assert plan.writes_nothing()


def test_what_is_in_no_books_cannot_be_lost_by_them() -> None:
    """A settlement that nobody booked; but one that another program booked is the account's loss as well."""
    assert decide([lost()], facts(), price=None).outcomes == [PartOfOpening(KEY)]
    elsewhere = decide([lost()], facts(elsewhere={hash_of("a")}), price=None)
    assert elsewhere.outcomes == [LossBooked(KEY, 1_500)]
    there = facts(elsewhere={hash_of("a")})
    there.expectations = {hash_of("a"): expected(pubkey=OTHER_NODE)}  # its journal is about another node's money
    assert decide([lost()], there, price=None).outcomes == [PartOfOpening(KEY)]


def test_the_mark_follows_what_is_booked_and_never_falls() -> None:
    """A proof beyond the books' watermark counts up to it; an older one changes nothing."""
    known = facts(cursor=replace(CURSOR, htlc_checked_through=4))
    moved = decide([HtlcsChecked(pubkey=NODE, through_index=12)], known, price=None)
    assert moved.outcomes == [CursorMoved(NODE)]
    assert moved.cursors[NODE].htlc_checked_through == 9
    assert decide([HtlcsChecked(pubkey=NODE, through_index=2)], known, price=None).writes_nothing()


def test_what_cannot_be_proven_is_an_open_gap_without_an_amount() -> None:
    """Nobody knows whether anything is missing: it must not change what is missing."""
    unproven = HtlcUnproven(pubkey=NODE, payment_hash=hash_of("a"), htlc=HtlcRef(77, 5, 1_500), seen_at_ms=MORNING_MS)
    unprovable = HtlcsUnprovable(pubkey=NODE, through_index=9, htlcs=3, amount_msat=4_000, seen_at_ms=MORNING_MS)
    plan = decide([unproven, unprovable], facts(RECEIPT), price=None)
    assert [type(outcome) for outcome in plan.outcomes] == [GapFound, GapFound]
    assert plan.steps == []
    kinds = {gap.kind: (gap.state, gap.amount_msat) for gap in plan.gaps.values()}
    assert kinds == {"htlc_unproven": (GapState.OPEN, 0), "htlc_unprovable": (GapState.OPEN, 0)}
    assert any("1500 msat" in gap.detail for gap in plan.gaps.values())


def test_a_loss_asks_for_its_key_its_receipt_and_its_document() -> None:
    """Else the same loss would be booked again, or one of the opening as one of the books."""
    wanted = wanted_by([lost()])
    assert wanted.keys == {KEY, RECEIPT}
    assert wanted.payment_hashes == {hash_of("a")}
    assert wanted.pubkeys == {NODE}
