"""The port `Books`: what a commit promises, on memory and on MongoDB alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.accounts import GAP, LIGHTNING, OPENING, ROUNDING, SUSPENSE, wallet_account
from daemon.domain.books import Changes, Facts, Gap, Head, KeyRecord, Known, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Conflict, InvariantViolation, LeaseLost
from daemon.domain.identifiers import lightning_key, opening_key
from daemon.domain.money import Currency
from daemon.domain.node_events import HtlcLost, HtlcRef, HtlcsChecked, NodeOpened
from daemon.matching.decide import decide, wanted_by
from daemon.posting.seal import seal
from tests.contract.conftest import Database
from tests.samples import MORNING_MS, NODE, OTHER_NODE, hash_of, invoice, moved, node_opened, settled

ALL = Wanted(
    keys={lightning_key(NODE, hash_of(name)) for name in "abcdef"},
    payment_hashes={hash_of(name) for name in "abcdef"},
    pubkeys={NODE, OTHER_NODE},
)


@pytest.fixture
def opened(store: Database) -> Database:
    """Books of a node that is open already: what nobody expects goes to suspense."""
    store.post(opening(NODE))
    return store


def opening(pubkey: str, funds_msat: int = 0) -> NodeOpened:
    return node_opened(funds_msat, pubkey=type(NODE)(pubkey))


def all_of(store: Database) -> tuple[Facts, object, object, object]:
    """Everything a commit could have left."""
    trial = store.ledger.trial_balance(after=None, limit=100)
    return (
        store.books.read_facts(ALL),
        trial,
        store.ledger.events(after_sequence=0, limit=100),
        [store.ledger.entries(account=row.account, before=None, limit=100) for row in trial.rows],
    )


def expect_a_payment(store: Database, name: str = "a") -> str:
    """A document that waits for a payment; its wallet's account."""
    wallet = store.new_wallet(f"wallet-of-{name}")
    store.another.insert_invoice(invoice(name, wallet.wallet_id, account_id=wallet.account_id))
    return wallet_account(wallet.wallet_id)


def test_a_credit_is_written_whole(opened: Database) -> None:
    """One commit leaves key, paid mark, balances, feed, journal, cursor and head together."""
    account = expect_a_payment(opened)
    changes = opened.post(settled("a", 1, 21_500))
    facts = opened.books.read_facts(ALL)
    assert facts.head == changes.after
    assert facts.booked == {lightning_key(NODE, hash_of("a"))}
    assert facts.expectations[hash_of("a")].paid
    assert facts.cursors[NODE] == changes.cursors[0]
    assert opened.balance(account) == 21
    assert opened.balance(LIGHTNING) == -21
    stored = opened.invoices.get(hash_of("a"))
    assert stored is not None
    assert (stored.paid, stored.completed) == (True, True)
    told = opened.ledger.events(after_sequence=1, limit=10)
    assert [(row.sequence, row.type) for row in told] == [(2, "invoice.settled")]
    assert told[0].payload["journal_id"] == changes.entries[0].journal_id


def test_facts_tell_what_an_expectation_needs(store: Database) -> None:
    """An expectation has the document's fields, its node, and the currency of its wallet."""
    wallet = store.new_wallet()
    store.another.insert_invoice(invoice("a", wallet.wallet_id, account_id=wallet.account_id), cents=150)
    store.another.insert_invoice(invoice("b", "no-such-wallet", currency=Currency.USD, pubkey=OTHER_NODE))
    expectations = store.books.read_facts(ALL).expectations
    assert set(expectations) == {hash_of("a"), hash_of("b")}
    known, unknown = expectations[hash_of("a")], expectations[hash_of("b")]
    assert (known.wallet_id, known.account_id) == (wallet.wallet_id, wallet.account_id)
    assert (known.currency, known.wallet_currency, known.cents) == (Currency.BTC, Currency.BTC, 150)
    assert (known.paid, known.external_id, known.pubkey) == (False, "ext-a", NODE)
    assert known.preimage == invoice("a", "any").preimage
    assert (unknown.currency, unknown.wallet_currency, unknown.cents) == (Currency.USD, None, None)
    assert unknown.pubkey == OTHER_NODE


def test_another_head_refuses_the_commit_and_writes_nothing(opened: Database) -> None:
    """Two commits decided on one head: the second is a Conflict and leaves no trace."""
    expect_a_payment(opened, "a")
    first, second = opened.decided(settled("a", 1, 1000)), opened.decided(settled("b", 2, 2000))
    opened.books.commit(first)
    before = all_of(opened)
    with pytest.raises(Conflict):
        opened.books.commit(second)
    assert all_of(opened) == before


def test_each_part_of_the_head_is_compared(opened: Database) -> None:
    """A head that differs in sequence, chain length or chain hash refuses."""
    changes = opened.decided(settled("a", 1, 1000))
    before = all_of(opened)
    for other in (
        replace(changes.before, sequence=changes.before.sequence + 1),
        replace(changes.before, chain_length=changes.before.chain_length + 1),
        replace(changes.before, chain_hash="1" * 64),
    ):
        with pytest.raises(Conflict):
            opened.books.commit(replace_before(changes, other))
    assert all_of(opened) == before
    opened.books.commit(changes)


def replace_before(changes: Changes, before: Head) -> Changes:
    return replace(changes, before=before)


def test_a_key_is_taken_once(opened: Database) -> None:
    """A commit that takes a taken key is a Conflict, and nothing else of it is written."""
    expect_a_payment(opened, "b")
    changes = opened.post(settled("a", 1, 1000))
    again = opened.decided(settled("b", 2, 3000))
    taken = KeyRecord(key=changes.keys[0].key, journal_id=None, sequence=None)
    before = all_of(opened)
    with pytest.raises(Conflict):
        opened.books.commit(replace(again, keys=[*again.keys, taken]))
    assert all_of(opened) == before


def test_a_document_that_was_paid_meanwhile_refuses_the_commit(opened: Database) -> None:
    """The paid mark is set with a filter on paid:false: else Conflict and nothing written."""
    expect_a_payment(opened, "a")
    expect_a_payment(opened, "b")
    changes = opened.decided(settled("a", 1, 1000), settled("b", 2, 2000))
    opened.another.mark_paid(hash_of("b"))
    before = all_of(opened)
    with pytest.raises(Conflict):
        opened.books.commit(changes)
    assert all_of(opened) == before
    assert not opened.books.read_facts(ALL).expectations[hash_of("a")].paid


def test_balances_are_the_sums_of_legs(opened: Database) -> None:
    """After several commits every balance equals the fold of its account's journals."""
    account = expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 1_900), settled("b", 2, 5_900))
    opened.post(settled("c", 4, 900), settled("d", 3, 777_000))
    assert opened.balance(account) == 1
    assert opened.balance(SUSPENSE) == 5 + 0 + 777
    assert opened.balance(ROUNDING) == 2  # 900 + 900 + 900 msat are two full sats and 700 msat
    assert opened.balance(LIGHTNING) == -(1 + 5 + 777 + 2)
    for row in opened.ledger.trial_balance(after=None, limit=100).rows:
        entries = opened.ledger.entries(account=row.account, before=None, limit=100)
        assert row.balance == sum(entry.delta for entry in entries) == entries[0].balance_after


def test_suspense_is_read_back_and_assigned_once(opened: Database) -> None:
    """Money in suspense is a fact of its key; when a document expects it, it moves, and stays moved."""
    opened.post(settled("a", 1, 4_000))
    key = lightning_key(NODE, hash_of("a"))
    waiting = opened.books.read_facts(ALL).suspense[key]
    assert (waiting.amount_sat, waiting.received_msat, waiting.reason) == (4, 4_000, "no_expectation")
    assert (waiting.assigned_to, waiting.pubkey, waiting.payment_hash) == (None, NODE, hash_of("a"))
    assert waiting.received_at_ms == MORNING_MS + 1000
    account = expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 4_000))
    assert (opened.balance(SUSPENSE), opened.balance(account)) == (0, 4)
    assert opened.books.read_facts(ALL).suspense[key].assigned_to == account.removeprefix("Liabilities:")
    assert opened.decided(settled("a", 1, 4_000)).entries == []


def test_cursors_come_back_as_they_were_written(opened: Database) -> None:
    """Ranges, checkpoint, epoch, sums and opening index survive the store unchanged."""
    changes = opened.post(settled("a", 2, 1_999), settled("b", 4, 1_999), settled("c", 5, 1_001))
    written = changes.cursors[0]
    assert written == LndCursor(
        pubkey=NODE,
        name="lnd1",
        booked_above=((2, 2), (4, 5)),
        opening_index=0,
        booked_msat=4_999,
        remainder_msat=999,
        rounding_sats=1,
        opened_at_ms=MORNING_MS,
    )
    assert opened.books.read_facts(ALL).cursors == {NODE: written}
    opened.post(settled("d", 1, 2**40))
    assert opened.books.read_facts(ALL).cursors[NODE].settle_index == 2
    checkpoint = opened.post(settled("e", 3, 1), settled("f", 6, 1)).cursors[0]
    assert checkpoint.checkpoint_hash == hash_of("f")
    assert opened.books.read_facts(ALL).cursors[NODE] == checkpoint
    checked = opened.post(HtlcsChecked(pubkey=NODE, through_index=4)).cursors[0]
    assert checked.htlc_checked_through == 4
    assert opened.books.read_facts(ALL).cursors[NODE] == checked


def test_what_has_arrived_in_all_is_kept_with_the_key(opened: Database) -> None:
    """Of settlements only; money that comes again raises it in the commit that books it, and an old sum does not."""
    account = expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 1_900), settled("b", 2, 700))
    key, other = lightning_key(NODE, hash_of("a")), lightning_key(NODE, hash_of("b"))
    wanted = Wanted(keys={key, other, opening_key(NODE), lightning_key(NODE, hash_of("never"))})
    assert opened.books.read_facts(wanted).received == {key: 1_900, other: 700}
    opened.post(settled("a", 1, 4_900), settled("b", 2, 5_700))
    facts = opened.books.read_facts(wanted)
    assert facts.received == {key: 4_900, other: 5_700}
    assert facts.suspense[other].received_msat == 5_700
    assert (opened.balance(account), opened.balance(SUSPENSE)) == (4, 5)
    assert opened.decided(settled("a", 1, 3_000), settled("b", 2, 5_700)).keys == []


def test_what_another_program_has_booked_is_read_with_its_amount(opened: Database) -> None:
    """What its legs take from the Lightning account, so that more money to the same invoice is noticed."""
    account = expect_a_payment(opened, "a")
    opened.another.write_journal(moved(LIGHTNING, account, 7), details={"type": "invoice", "hash": hash_of("a")})
    facts = opened.books.read_facts(ALL)
    assert facts.booked_elsewhere == {hash_of("a")}
    assert facts.booked_elsewhere_sat == {hash_of("a"): 7}


def test_a_lost_htlc_is_booked_whole(opened: Database) -> None:
    """Journal, key, event, gap and sums, once."""
    expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 5_000))
    lost = HtlcLost(
        pubkey=NODE,
        payment_hash=hash_of("a"),
        settled_id=hash_of("a"),
        settle_index=1,
        htlc=HtlcRef(16_000_000 << 40, 3, 5_000),
        seen_at_ms=MORNING_MS,
    )
    opened.post(lost)
    assert opened.balance(GAP) == -5
    assert opened.balance(LIGHTNING) == 0
    (event,) = [one for one in opened.ledger.events(after_sequence=0, limit=100) if one.type == "htlc.lost"]
    assert (event.payload["amount_msat"], event.payload["chan_id"]) == (5_000, str(16_000_000 << 40))
    assert opened.decided(lost).keys == []


def test_the_cursor_of_a_name_is_the_one_last_written(store: Database) -> None:
    """Two nodes that answered to one name: the cursor that moved last is the name's."""
    assert store.books.cursor_of_name("lnd1") is None
    store.post(opening(NODE))
    store.post(opening(OTHER_NODE))
    latest = store.books.cursor_of_name("lnd1")
    assert latest is not None
    assert latest.pubkey == OTHER_NODE
    store.post(settled("a", 1, 1_000))
    latest = store.books.cursor_of_name("lnd1")
    assert latest is not None
    assert (latest.pubkey, latest.settle_index) == (NODE, 1)
    assert store.books.cursor_of_name("lnd2") is None


def test_another_programs_receipt_counts_as_booked_elsewhere(opened: Database) -> None:
    """A leg {hash, type "invoice"} of another program says that the money is in the book; ours do not say so."""
    opened.another.write_journal(
        moved(LIGHTNING, "Liabilities:w", 5), details={"type": "invoice", "hash": hash_of("a")}
    )
    opened.another.write_journal(
        moved("Liabilities:w", "Liabilities:v", 5), details={"type": "ln_on_us", "hash": hash_of("b")}
    )
    expect_a_payment(opened, "c")
    opened.post(settled("c", 1, 1_000))
    assert opened.books.read_facts(ALL).booked_elsewhere == {hash_of("a")}


def test_money_with_a_known_hash_on_another_node_is_booked_there(opened: Database) -> None:
    """Who paid an invoice can send money with its hash to our other node: it is booked to suspense, not lost."""
    opened.post(opening(OTHER_NODE))
    account = expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 1_000))
    opened.post(settled("a", 1, 3_000, pubkey=OTHER_NODE))
    assert (opened.balance(account), opened.balance(SUSPENSE)) == (1, 3)
    assert opened.balance(LIGHTNING) == -4


def test_gaps_may_be_seen_again(opened: Database) -> None:
    """The same gap in two commits is no conflict."""
    gap = Gap(key="gap:1", kind="paid_without_journal", detail="x", amount_msat=7, seen_at_ms=MORNING_MS)
    for index in (1, 2):
        opened.books.commit(replace(opened.decided(settled("abc"[index], index, 1_000)), gaps=[gap]))
    assert opened.books.read_facts(ALL).head.sequence == 3


def test_an_entry_that_does_not_balance_never_reaches_the_store(opened: Database) -> None:
    """Sealing refuses it."""
    plan_events = [settled("a", 1, 1_000)]
    facts = opened.books.read_facts(wanted_by(plan_events))
    plan = decide(plan_events, facts, price=None)
    entry = plan.steps[0].entry
    assert entry is not None
    entry.legs = entry.legs[:1]
    with pytest.raises(InvariantViolation):
        seal(plan, now_ms=MORNING_MS, writer_id=opened.books.writer_id)


def test_the_opening_is_booked_once(store: Database) -> None:
    """What the node held is booked from Opening, less what was credited; a repeat books nothing."""
    store.post(opening(NODE, 1_234_567))
    assert (store.balance(LIGHTNING), store.balance(OPENING)) == (-1_234, 1_234)
    again = store.decided(opening(NODE, 9_999_999))
    assert (again.entries, again.keys) == ([], [])


def test_what_is_known_is_not_read(opened: Database) -> None:
    """The head and the cursors of the caller count, right or wrong; the rest is read, other cursors, too."""
    store = opened
    store.post(opening(OTHER_NODE))
    store.post(settled("a", 1, 1_000))
    read = store.books.read_facts(ALL)
    known = Known(head=Head(fence=7), cursors={NODE: replace(read.cursors[NODE], settle_index=99)})
    assert store.books.read_facts(replace(ALL, known=known)) == replace(
        read, head=known.head, cursors={**known.cursors, OTHER_NODE: read.cursors[OTHER_NODE]}
    )
    nothing = store.books.read_facts(Wanted(known=known))
    assert (nothing.head, nothing.cursors, nothing.booked) == (known.head, known.cursors, set())


def test_an_old_fence_cannot_commit(opened: Database) -> None:
    """After another daemon took the lease, what was decided under the old fence is LeaseLost, unwritten."""
    changes = opened.decided(settled("a", 1, 1000))
    fence = opened.leases.acquire(holder="second", ttl_s=5)
    assert fence == changes.before.fence + 1
    before = all_of(opened)
    with pytest.raises(LeaseLost):
        opened.books.commit(changes)
    assert all_of(opened) == before
    opened.post(settled("a", 1, 1000))
    assert opened.books.read_facts(ALL).head.fence == fence


def test_snapshots_that_hide_legs_are_deleted_and_others_stay(opened: Database) -> None:
    """medici's snapshot that ends beyond a leg which it has not counted goes; sound ones stay."""
    account = expect_a_payment(opened, "a")
    opened.post(settled("a", 1, 1_000))
    opened.another.take_snapshot(account, "BTC")
    opened.another.take_snapshot(LIGHTNING, "BTC")
    assert opened.books.sweep_snapshots() == 0
    opened.another.take_snapshot(SUSPENSE, "BTC", beyond_legs_to_come=True)
    opened.post(settled("b", 2, 1_000))
    assert opened.books.sweep_snapshots() == 1
    assert opened.another.snapshots() == [(account, "BTC"), (LIGHTNING, "BTC")]
    opened.post(settled("c", 3, 1_000))
    assert opened.books.sweep_snapshots() == 0
