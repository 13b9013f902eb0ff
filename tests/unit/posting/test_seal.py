"""From a plan to the writes of one commit."""

from __future__ import annotations

import pytest

from daemon.domain.books import AccountEffect, Facts, Gap, Head, KeyRecord, SuspenseEntry
from daemon.domain.cursors import LndCursor
from daemon.domain.entries import JournalEntry, Leg
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import JournalId
from daemon.domain.outbox import OutboxEvent
from daemon.matching.plan import Plan, Step
from daemon.posting.chain import link_hash
from daemon.posting.seal import journal_id, seal
from tests.samples import MORNING_MS, NODE, hash_of, moved

WRITER = bytes.fromhex("a1a2a3a4a5")
HEAD = Head(fence=4, sequence=10, chain_length=7, chain_hash="ab" * 32)
FOREIGN = JournalId("6ab1c0de0102030405000001")


def plan_of(*steps: Step) -> Plan:
    """A plan of these steps on top of HEAD."""
    plan = Plan(Facts(head=HEAD, booked=set(), expectations={}, suspense={}, cursors={}, booked_elsewhere=set()))
    for step in steps:
        plan.take(step)
    return plan


def step(key: str, *legs: Leg, events: int = 1, adopted_id: JournalId | None = None) -> Step:
    """A fact with a journal of these legs, none if there are none, and some events."""
    entry = JournalEntry(key=key, memo="", datetime_ms=MORNING_MS, legs=legs) if legs else None
    told = tuple(
        OutboxEvent(type=f"type-{n}", key=key, occurred_at_ms=MORNING_MS, wallet_ids=(), payload={})
        for n in range(events)
    )
    return Step(key, entry, told, adopted_id=adopted_id)


def test_a_journal_id_is_time_writer_and_position() -> None:
    """An ObjectId: Unix seconds, the writer's bytes, the position modulo 2^24."""
    now_ms = 0x6AB1C0DE * 1000 + 999
    assert journal_id(now_ms=now_ms, writer_id=WRITER, position=1) == "6ab1c0de" + "a1a2a3a4a5" + "000001"
    assert journal_id(now_ms=now_ms, writer_id=WRITER, position=(1 << 24) + 2) == "6ab1c0de" + "a1a2a3a4a5" + "000002"


def test_links_follow_the_head_and_each_other() -> None:
    """Positions go on without gaps, each link rests on the one before, and the new head on the last."""
    changes = seal(
        plan_of(step("one", *moved("A", "B", 5)), step("two", *moved("B", "C", 3))),
        now_ms=MORNING_MS,
        writer_id=WRITER,
    )
    one, two = changes.entries
    assert (one.position, two.position) == (8, 9)
    assert (one.previous, two.previous) == (HEAD.chain_hash, one.hash)
    assert one.journal_id == journal_id(now_ms=MORNING_MS, writer_id=WRITER, position=8)
    assert one.hash == link_hash(
        previous=HEAD.chain_hash,
        key="one",
        journal_id=one.journal_id,
        datetime_ms=MORNING_MS,
        legs=moved("A", "B", 5),
    )
    assert changes.before == HEAD
    assert changes.after == Head(fence=4, sequence=12, chain_length=9, chain_hash=two.hash)


def test_sequences_are_gapless_and_keys_name_the_last() -> None:
    """Each event has a number of its own; a key has its journal and the last event told of it."""
    changes = seal(
        plan_of(step("one", *moved("A", "B", 5), events=2), step("two"), step("three", events=0)),
        now_ms=MORNING_MS,
        writer_id=WRITER,
    )
    booked = changes.entries[0].journal_id
    assert [row.sequence for row in changes.outbox] == [11, 12, 13]
    assert [(row.event.id, row.journal_id) for row in changes.outbox] == [
        ("one#type-0", booked),
        ("one#type-1", booked),
        ("two#type-0", None),
    ]
    assert changes.keys == [
        KeyRecord(key="one", journal_id=booked, sequence=12),
        KeyRecord(key="two", journal_id=None, sequence=13),
        KeyRecord(key="three", journal_id=None, sequence=None),
    ]
    assert changes.after.sequence == 13


def test_a_step_may_take_further_keys_for_the_same_journal_and_news() -> None:
    """What has arrived in all is kept with the first only; none can be taken again."""
    plan = plan_of(Step("set", step("set", *moved("A", "B", 5)).entry, step("set").events, also_takes=("invoice",)))
    plan.received["set"] = 5_000
    changes = seal(plan, now_ms=MORNING_MS, writer_id=WRITER)
    (entry,) = changes.entries
    assert changes.keys == [
        KeyRecord(key="set", journal_id=entry.journal_id, sequence=11, received_msat=5_000),
        KeyRecord(key="invoice", journal_id=entry.journal_id, sequence=11),
    ]
    with pytest.raises(InvariantViolation, match="invoice taken twice"):
        plan.take(Step("another set", None, (), also_takes=("invoice",)))


def test_effects_are_summed_per_account_and_currency() -> None:
    """Credit minus debit, in the order of the first leg; deltas are summed over the batch."""
    changes = seal(
        plan_of(
            step("one", *moved("A", "B", 5), *moved("A", "B", 2), *moved("A", "B", 9, currency="USD")),
            step("two", *moved("B", "C", 4)),
        ),
        now_ms=MORNING_MS,
        writer_id=WRITER,
    )
    assert changes.entries[0].effects == (
        AccountEffect(account="A", currency="BTC", delta=-7),
        AccountEffect(account="B", currency="BTC", delta=7),
        AccountEffect(account="A", currency="USD", delta=-9),
        AccountEffect(account="B", currency="USD", delta=9),
    )
    assert changes.deltas == {
        ("A", "BTC"): -7,
        ("B", "BTC"): 3,
        ("A", "USD"): -9,
        ("B", "USD"): 9,
        ("C", "BTC"): 4,
    }


@pytest.mark.parametrize(
    "legs",
    [
        (Leg(account="A", currency="BTC", debit=5), Leg(account="B", currency="BTC", credit=4)),
        (Leg(account="A", currency="BTC", debit=5), Leg(account="B", currency="USD", credit=5)),
        (*moved("A", "B", 5), Leg(account="A", currency="BTC")),
        (Leg(account="A", currency="BTC", debit=-5), Leg(account="B", currency="BTC", credit=-5)),
    ],
)
def test_an_entry_of_ours_that_does_not_balance_is_refused(legs: tuple[Leg, ...]) -> None:
    """tellerd stops rather than write it."""
    with pytest.raises(InvariantViolation):
        seal(plan_of(step("one", *legs)), now_ms=MORNING_MS, writer_id=WRITER)


def test_an_adopted_journal_keeps_its_id_and_its_sums() -> None:
    """It is marked as another program's, and counts as it stands, balanced or not."""
    unbalanced = Leg(account="A", currency="BTC", credit=9)
    changes = seal(plan_of(step("foreign", unbalanced, adopted_id=FOREIGN)), now_ms=MORNING_MS, writer_id=WRITER)
    (sealed,) = changes.entries
    assert (sealed.journal_id, sealed.foreign) == (FOREIGN, True)
    assert changes.keys[0].journal_id == FOREIGN
    assert changes.deltas == {("A", "BTC"): 9}


def test_everything_else_of_the_plan_is_carried_over() -> None:
    """Paid marks, suspense, gaps and cursors are written with the journals."""
    plan = plan_of()
    waiting = SuspenseEntry(
        key="one",
        pubkey=NODE,
        payment_hash=hash_of("a"),
        amount_sat=1,
        received_msat=1_000,
        reason="no_expectation",
        received_at_ms=MORNING_MS,
    )
    gap = Gap(key="two", kind="kind", detail="", amount_msat=1, seen_at_ms=MORNING_MS)
    cursor = LndCursor(pubkey=NODE, name="lnd1", settle_index=3)
    plan.mark_paid(hash_of("a"))
    plan.suspense_new["one"] = plan.suspense_assigned["one"] = waiting
    plan.gaps["two"] = gap
    plan.move(cursor)
    changes = seal(plan, now_ms=MORNING_MS, writer_id=WRITER)
    assert changes.paid == [hash_of("a")]
    assert (changes.suspense_new, changes.suspense_assigned) == ([waiting], [waiting])
    assert (changes.gaps, changes.cursors) == ([gap], [cursor])
    assert (changes.after, changes.committed_at_ms) == (HEAD, MORNING_MS)
