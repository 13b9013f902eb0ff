"""Money in suspense on either store: why it is there, who gets it, once, and what is kept of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from daemon.domain import outbox
from daemon.domain.accounts import LIGHTNING, ON_CHAIN, SUSPENSE, Barred, wallet_account
from daemon.domain.books import SuspenseEntry, SuspenseState, Wanted
from daemon.domain.errors import BadInput
from daemon.domain.identifiers import WalletId, assignment_key, deposit_key, lightning_key, outpoint_of, repeat_key
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent, NodeOpened, SuspenseAssigned
from daemon.domain.outcomes import AlreadyPosted, Assigned, AssignmentProblem, NotAssigned, Outcome, Suspended
from daemon.domain.ports import Wallet
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from daemon.matching.decide import decide, wanted_by
from daemon.posting.seal import seal
from tests.contract.conftest import Database
from tests.samples import (
    MORNING_MS,
    NODE,
    OTHER_NODE,
    block_at,
    chain_moved,
    connected,
    deposit_due,
    hash_of,
    invoice,
    moved,
    output,
    settled,
    txid_of,
)

KEY = lightning_key(NODE, hash_of("a"))
LATER_MS = MORNING_MS + 60_000
OPENED = NodeOpened(
    pubkey=NODE, name="lnd1", funds_msat=0, through_index=0, checkpoint_hash=None, opened_at_ms=MORNING_MS
)


def post(store: Database, *events: NodeEvent) -> list[Outcome]:
    """Decides and commits, as posting does."""
    plan = decide(events, store.books.read_facts(wanted_by(events)), price=None)
    if not plan.writes_nothing():
        store.books.commit(seal(plan, now_ms=LATER_MS, writer_id=store.books.writer_id))
    return plan.outcomes


def assign(store: Database, key: str, wallet_id: str, **fields: Any) -> Outcome:
    entry = store.suspense.get(key)
    asked = SuspenseAssigned(
        key=key,
        wallet_id=WalletId(wallet_id),
        by="ann",
        reason="ticket 7",
        at_ms=LATER_MS,
        payment_hash=entry.payment_hash or None if entry else None,
        outpoint=entry.outpoint if entry else None,
    )
    (outcome,) = post(store, replace(asked, **fields))
    return outcome


def problem(outcome: Outcome) -> AssignmentProblem:
    assert isinstance(outcome, NotAssigned)
    return outcome.problem


def entry_of(store: Database, key: str = KEY) -> SuspenseEntry:
    entry = store.suspense.get(key)
    assert entry is not None
    return entry


def told(store: Database, key: str) -> dict[str, dict[str, Any]]:
    """Payloads by type of what was told under a key."""
    events = store.ledger.events(after_sequence=0, limit=1000)
    return {one.type: dict(one.payload) for one in events if one.id.startswith(f"{key}#")}


def usd_wallet(store: Database) -> Wallet:
    return store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")


def dealt(cents: int = 60, sat: int = 1_000) -> Deal:
    return Deal(amount_sat=sat, amount_cents=cents, price="60000.00", source="fixed")


@pytest.fixture
def opened(store: Database) -> Database:
    """Books of a node that is open, where 1,000.999 sats came that nobody expects."""
    post(store, OPENED, settled("a", 1, 1_000_999))
    assert entry_of(store).state is SuspenseState.WAITING
    return store


# --- assignments ------------------------------------------------------------------------------------


def test_an_assignment_moves_the_money_and_is_kept_with_its_words(opened: Database) -> None:
    """From suspense to the wallet, once, with a trail in the entry and in the event."""
    wallet = opened.new_wallet().wallet_id
    outcome = assign(opened, KEY, wallet)
    assert isinstance(outcome, Assigned)
    assert not outcome.again
    assert outcome.entry == entry_of(opened)
    assert (opened.balance(SUSPENSE), opened.balance(wallet_account(wallet))) == (0, 1_000)
    entry = entry_of(opened)
    assert (entry.state, entry.assigned_to, entry.amount_sat, entry.received_msat) == (
        SuspenseState.ASSIGNED,
        wallet,
        1_000,
        1_000_999,
    )
    (change,) = entry.trail
    assert (change.by, change.reason, change.at_ms, change.wallet_id) == ("ann", "ticket 7", LATER_MS, wallet)
    payload = told(opened, assignment_key(KEY))[outbox.SUSPENSE_ASSIGNED]
    assert (payload["key"], payload["by"], payload["reason"], payload["wallet_id"]) == (KEY, "ann", "ticket 7", wallet)


def test_a_repeat_gets_the_first_answer_and_another_wallet_nothing(opened: Database) -> None:
    """Whatever its words are; the first ones stay."""
    wallet, other = opened.new_wallet().wallet_id, opened.new_wallet("other").wallet_id
    assign(opened, KEY, wallet)
    first, sequence = entry_of(opened), opened.ledger.head().sequence
    repeat = assign(opened, KEY, wallet, by="bob", reason="again")
    assert repeat == Assigned(KEY, first, again=True)
    assert problem(assign(opened, KEY, other)) is AssignmentProblem.ASSIGNED
    assert (entry_of(opened), opened.ledger.head().sequence) == (first, sequence)
    assert opened.balance(wallet_account(other)) == 0


def test_two_in_one_batch_are_one_assignment(opened: Database) -> None:
    """The second one sees what the first has done."""
    wallet, other = opened.new_wallet().wallet_id, opened.new_wallet("other").wallet_id
    asked = SuspenseAssigned(
        key=KEY, wallet_id=wallet, by="ann", reason="why", at_ms=LATER_MS, payment_hash=hash_of("a")
    )
    first, again, elsewhere = post(opened, asked, replace(asked), replace(asked, wallet_id=other))
    assert isinstance(first, Assigned)
    assert again == Assigned(KEY, first.entry, again=True)
    assert problem(elsewhere) is AssignmentProblem.ASSIGNED
    assert opened.balance(wallet_account(wallet)) == 1_000


def test_what_does_not_exist_is_refused(opened: Database) -> None:
    """An entry, or a wallet."""
    wallet = opened.new_wallet().wallet_id
    assert problem(assign(opened, "ln:nothing", wallet)) is AssignmentProblem.NO_ENTRY
    assert problem(assign(opened, KEY, "nobody")) is AssignmentProblem.NO_WALLET
    assert entry_of(opened).state is SuspenseState.WAITING


def test_a_dollar_wallet_gets_cents_at_the_price_of_the_moment(opened: Database) -> None:
    """Through the dealer's wallets; not without a price, not for other sats than were priced, not below a cent."""
    wallet = usd_wallet(opened).wallet_id
    for deal, expected in (
        (None, AssignmentProblem.NO_PRICE),
        (Unpriced(UnpricedReason.STALE), AssignmentProblem.NO_PRICE),
        (dealt(sat=999), AssignmentProblem.CHANGED),
        (dealt(cents=0), AssignmentProblem.UNDER_ONE_CENT),
        (dealt(cents=2**53), AssignmentProblem.NO_PRICE),
    ):
        assert problem(assign(opened, KEY, wallet, deal=deal)) is expected
    assert isinstance(assign(opened, KEY, wallet, deal=dealt()), Assigned)
    assert opened.balance(wallet_account(wallet), "USD") == 60
    assert opened.balance(SUSPENSE) == 0
    assert told(opened, assignment_key(KEY))[outbox.SUSPENSE_ASSIGNED]["amount_cents"] == 60


def test_money_that_another_program_credited_is_not_given_out_again(opened: Database) -> None:
    """Its leg of a receipt with this payment hash says so."""
    wallet = opened.new_wallet()
    legs = moved(LIGHTNING, wallet_account(wallet.wallet_id), 1_000)
    opened.another.write_journal(legs, details={"type": "invoice", "hash": hash_of("a"), "pending": False})
    assert problem(assign(opened, KEY, wallet.wallet_id)) is AssignmentProblem.BOOKED_ELSEWHERE


def test_money_that_another_program_credited_is_not_assigned_by_itself_either(opened: Database) -> None:
    """Its journal came, and then an unpaid document: a document alone does not say that nobody was credited."""
    wallet = opened.new_wallet()
    legs = moved(LIGHTNING, wallet_account(wallet.wallet_id), 1_000)
    opened.another.write_journal(legs, details={"type": "invoice", "hash": hash_of("a"), "pending": False})
    opened.another.insert_invoice(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    post(opened, settled("a", 1, 1_000_999))
    assert entry_of(opened).state is SuspenseState.WAITING
    assert opened.balance(SUSPENSE) == 1_000


def test_the_same_hash_paid_on_another_node_waits_whatever_another_program_has_booked(store: Database) -> None:
    """Its journal is about the node that the document names. Who has paid that invoice knows its preimage, and can send
    as much with the same hash to another node: that is money of its own, and a person may give it to somebody."""
    wallet, key = store.new_wallet(), lightning_key(OTHER_NODE, hash_of("a"))
    store.another.insert_invoice(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.another.mark_paid(hash_of("a"))
    legs = moved(LIGHTNING, wallet_account(wallet.wallet_id), 5)
    store.another.write_journal(legs, details={"type": "invoice", "hash": hash_of("a"), "pending": False})
    there = settled("a", 1, 5_000, pubkey=OTHER_NODE)
    outcomes = post(store, OPENED, replace(OPENED, pubkey=OTHER_NODE), settled("a", 1, 5_000), there)
    assert outcomes[2:] == [AlreadyPosted(KEY), Suspended(key, 5, "other_node")]
    assert isinstance(assign(store, key, wallet.wallet_id), Assigned)
    assert store.balance(wallet_account(wallet.wallet_id)) == 5


def test_less_than_a_sat_is_no_dollars(store: Database) -> None:
    """Whatever the price: no call at a better moment would help. A wallet in sats can have it, and gets none."""
    post(store, OPENED, settled("a", 1, 999))
    assert problem(assign(store, KEY, usd_wallet(store).wallet_id)) is AssignmentProblem.UNDER_ONE_CENT
    assert isinstance(assign(store, KEY, store.new_wallet().wallet_id), Assigned)


def test_money_that_came_again_pays_no_document(opened: Database) -> None:
    """It is money on top of the invoice's own: a document that appears for that waits on."""
    wallet, again = opened.new_wallet(), repeat_key(KEY, 3_000_999)
    assign(opened, KEY, opened.new_wallet("other").wallet_id)
    post(opened, settled("a", 1, 3_000_999))
    assert entry_of(opened, again).amount_sat == 2_000
    opened.another.insert_invoice(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    assert isinstance(assign(opened, again, wallet.wallet_id), Assigned)
    assert set(told(opened, assignment_key(again))) == {outbox.SUSPENSE_ASSIGNED}
    stored = opened.invoices.get(hash_of("a"))
    assert stored is not None
    assert not stored.paid


# --- sets of an AMP invoice ----------------------------------------------------------------------------


SETS = ("a1" * 32, "a2" * 32)
SET_KEYS = [lightning_key(NODE, one) for one in SETS]


def sets_wait_for_locked_account(store: Database) -> Wallet:
    """An AMP invoice of a locked account was paid twice; it is active again."""
    wallet = store.new_wallet()
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.another.set_status(wallet.account_id, "locked")
    paid = [settled("a", index, index * 2_000, settled_id=one) for index, one in enumerate(SETS, 1)]
    assert post(store, OPENED, *paid)[1:] == [
        Suspended(SET_KEYS[0], 2, "account_locked"),
        Suspended(SET_KEYS[1], 4, "account_locked"),
    ]
    store.another.set_status(wallet.account_id, "active")
    return wallet


def test_sets_of_an_amp_invoice_are_assigned_as_its_payments(store: Database) -> None:
    """The first marks the document paid, each is told to the wallet; the next set is credited as always."""
    wallet = sets_wait_for_locked_account(store)
    for key, amount_sat in zip(SET_KEYS, (2, 4), strict=True):
        assert isinstance(assign(store, key, wallet.wallet_id), Assigned)
        events = told(store, assignment_key(key))
        assert set(events) == {outbox.SUSPENSE_ASSIGNED, outbox.INVOICE_SETTLED}
        assert events[outbox.INVOICE_SETTLED]["amount_sat"] == amount_sat
        assert store.open_invoices.open_invoices(pubkey=NODE, after=None, limit=10) == []
    settlement = store.invoices.settlement(hash_of("a"))
    assert settlement is not None
    assert settlement["amount_sat"] == 2
    post(store, settled("a", 3, 8_000, settled_id="a3" * 32))
    assert store.balance(wallet_account(wallet.wallet_id)) == 14


def test_both_sets_in_one_batch_pay_their_invoice_once(store: Database) -> None:
    """The second one sees what the first has done."""
    wallet = sets_wait_for_locked_account(store)
    both = [
        SuspenseAssigned(
            key=key, wallet_id=wallet.wallet_id, by="ann", reason="why", at_ms=LATER_MS, payment_hash=hash_of("a")
        )
        for key in SET_KEYS
    ]
    assert all(isinstance(outcome, Assigned) for outcome in post(store, *both))
    assert store.balance(wallet_account(wallet.wallet_id)) == 6


def test_an_amp_invoice_whose_set_went_elsewhere_is_paid_all_the_same(store: Database) -> None:
    """Its wallet is told of nothing, and gets what comes with the next set."""
    wallet, other = sets_wait_for_locked_account(store), store.new_wallet("other")
    assert isinstance(assign(store, SET_KEYS[0], other.wallet_id), Assigned)
    assert set(told(store, assignment_key(SET_KEYS[0]))) == {outbox.SUSPENSE_ASSIGNED}
    assert store.invoices.settlement(hash_of("a")) is None
    assert store.open_invoices.open_invoices(pubkey=NODE, after=None, limit=10) == []
    post(store, settled("a", 3, 8_000, settled_id="a3" * 32))
    assert store.balance(wallet_account(other.wallet_id)) == 2
    assert store.balance(wallet_account(wallet.wallet_id)) == 8


# --- locked and closed accounts ---------------------------------------------------------------------


@pytest.mark.parametrize(("status", "reason"), [("locked", Barred.LOCKED), ("closed", Barred.CLOSED)])
def test_money_for_a_locked_or_closed_account_waits(store: Database, status: str, reason: Barred) -> None:
    """In suspense, with its reason; the invoice stays unpaid until a person says whose it is, then it is paid."""
    wallet = store.new_wallet()
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.another.set_status(wallet.account_id, status)
    assert store.wallets.barred(wallet) is reason
    assert post(store, OPENED, settled("a", 1, 5_000))[1] == Suspended(KEY, 5, reason.value)
    assert entry_of(store).reason == reason.value
    assert problem(assign(store, KEY, wallet.wallet_id)) is AssignmentProblem.BARRED
    store.another.set_status(wallet.account_id, "active")
    post(store, settled("a", 1, 5_000))
    assert entry_of(store).state is SuspenseState.WAITING  # a person decides, not the order of events
    assert isinstance(assign(store, KEY, wallet.wallet_id), Assigned)
    assert store.balance(wallet_account(wallet.wallet_id)) == 5
    stored = store.invoices.get(hash_of("a"))
    assert stored is not None
    assert stored.paid
    settlement = store.invoices.settlement(hash_of("a"))
    assert settlement is not None
    assert settlement["amount_sat"] == 5


def test_an_invoice_whose_money_went_elsewhere_is_paid_all_the_same(store: Database) -> None:
    """So that no program credits it a second time; its wallet is told of nothing."""
    wallet, other = store.new_wallet(), store.new_wallet("other")
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.another.set_status(wallet.account_id, "locked")
    post(store, OPENED, settled("a", 1, 5_000))
    assign(store, KEY, other.wallet_id)
    stored = store.invoices.get(hash_of("a"))
    assert stored is not None
    assert stored.paid
    assert store.balance(wallet_account(other.wallet_id)) == 5
    assert set(told(store, assignment_key(KEY))) == {outbox.SUSPENSE_ASSIGNED}


def test_an_account_that_is_active_again_or_has_no_history_is_credited(store: Database) -> None:
    """The last status counts."""
    wallet, other = store.new_wallet(), store.new_wallet("other")
    for status in ("locked", "active"):
        store.another.set_status(wallet.account_id, status)
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.invoices.insert(invoice("b", other.wallet_id, account_id="nobody's account"))
    post(store, OPENED, settled("a", 1, 5_000), settled("b", 2, 7_000))
    assert store.balance(wallet_account(wallet.wallet_id)) == 5
    assert store.balance(wallet_account(other.wallet_id)) == 7
    assert store.wallets.barred(wallet) is None


@pytest.mark.parametrize("written", ["", "nobody's account"])
def test_a_document_with_a_wrong_account_does_not_open_the_lock(store: Database, written: str) -> None:
    """Whose wallet it is says the wallet; also of a dollar wallet, and of one that was read while it was active."""
    wallet = store.new_wallet()
    dollars = store.wallets.create(account_id=wallet.account_id, currency=Currency.USD, external_id="dollars")
    for name, owner in (("a", wallet), ("b", dollars), ("c", wallet)):
        store.invoices.insert(invoice(name, owner.wallet_id, account_id=written))
    post(store, OPENED, settled("c", 1, 7_000))
    store.another.set_status(wallet.account_id, "locked")
    outcomes = post(store, settled("a", 2, 5_000), settled("b", 3, 6_000))
    assert outcomes == [
        Suspended(KEY, 5, "account_locked"),
        Suspended(lightning_key(NODE, hash_of("b")), 6, "account_locked"),
    ]
    assert store.balance(wallet_account(wallet.wallet_id)) == 7


def test_only_those_accounts_are_told_that_are_barred(store: Database) -> None:
    """Of a batch's invoices and of a batch's wallets; several wallets of one account each."""
    wallet, other = store.new_wallet(), store.new_wallet("other")
    second = store.wallets.create(account_id=wallet.account_id, currency=Currency.USD, external_id="second")
    store.another.set_status(wallet.account_id, "closed")
    for name, owner in (("a", wallet), ("b", second), ("c", other)):
        store.invoices.insert(invoice(name, owner.wallet_id, account_id=owner.account_id))
    wallets = {wallet.wallet_id, second.wallet_id, other.wallet_id}
    facts = store.books.read_facts(Wanted(payment_hashes=set(map(hash_of, "abc")), wallet_ids=wallets))
    assert {name: facts.expectations[hash_of(name)].barred for name in "abc"} == {
        "a": Barred.CLOSED,
        "b": Barred.CLOSED,
        "c": None,
    }
    assert facts.chain.barred == {wallet.wallet_id: Barred.CLOSED, second.wallet_id: Barred.CLOSED}


def test_what_was_settled_before_the_opening_and_is_awaited_waits_from_there(store: Database) -> None:
    """The opening balance has it already: it moves from there to suspense, not in again."""
    wallet = store.new_wallet()
    store.invoices.insert(invoice("a", wallet.wallet_id, account_id=wallet.account_id))
    store.another.set_status(wallet.account_id, "locked")
    post(store, replace(OPENED, funds_msat=9_000, through_index=3), settled("a", 2, 5_000))
    assert (store.balance(LIGHTNING), store.balance(SUSPENSE)) == (-9, 5)


# --- deposits ---------------------------------------------------------------------------------------


OUTPOINT = outpoint_of(txid_of("a"), 0)
FIRST, SECOND = deposit_key(OUTPOINT, 1), deposit_key(OUTPOINT, 2)


def settle(store: Database, wallet_id: str, *, base: int = 100, branch: str = "main") -> None:
    """A deposit of 100,000 sats in block `base + 1`, two deep, and due."""
    paid = connected(block_at(base + 1, branch), output("a", wallet_id))
    post(
        store,
        chain_moved(block_at(base), paid, connected(block_at(base + 2, branch))),
        deposit_due("a"),
    )


@pytest.fixture
def suspended(store: Database) -> tuple[Database, Wallet]:
    """A deposit to the wallet of a locked account."""
    wallet = store.new_wallet()
    store.another.set_status(wallet.account_id, "locked")
    post(store, chain_moved(None, connected(block_at(100))))
    settle(store, wallet.wallet_id)
    return store, wallet


def test_a_deposit_for_a_locked_account_waits_less_its_fee(suspended: tuple[Database, Wallet]) -> None:
    """The money is the bank's coin all the same; no wallet hears that it was credited."""
    store, wallet = suspended
    entry = entry_of(store, FIRST)
    assert (entry.reason, entry.outpoint, entry.received_msat) == ("account_locked", OUTPOINT, 100_000_000)
    assert store.balance(ON_CHAIN) == -100_000
    assert 0 < store.balance(SUSPENSE) == entry.amount_sat < 100_000
    assert store.balance(wallet_account(wallet.wallet_id)) == 0
    assert set(told(store, FIRST)) == {outbox.SUSPENSE_RECEIVED}
    assert told(store, FIRST)[outbox.SUSPENSE_RECEIVED]["txid"] == txid_of("a")


def test_a_deposit_is_assigned_to_its_own_wallet_once_that_is_unlocked(suspended: tuple[Database, Wallet]) -> None:
    """It hears of it as of any deposit, and a reorg takes it back from there."""
    store, wallet = suspended
    amount_sat = entry_of(store, FIRST).amount_sat
    store.another.set_status(wallet.account_id, "active")
    assert isinstance(assign(store, FIRST, wallet.wallet_id), Assigned)
    assert set(told(store, assignment_key(FIRST))) == {outbox.SUSPENSE_ASSIGNED, outbox.DEPOSIT_SETTLED}
    assert store.balance(wallet_account(wallet.wallet_id)) == amount_sat
    reorg(store)
    assert (store.balance(wallet_account(wallet.wallet_id)), store.balance(SUSPENSE)) == (0, 0)
    assert store.balance(ON_CHAIN) == 0


REORG = chain_moved(block_at(102), lost=[block_at(102), block_at(101)], fork=block_at(100))


def reorg(store: Database) -> None:
    post(store, REORG)


def test_a_reorg_takes_a_waiting_deposit_out_of_suspense(suspended: tuple[Database, Wallet]) -> None:
    """Nobody can have it then; when it confirms again it has another entry, which says it all again."""
    store, wallet = suspended
    reorg(store)
    assert (store.balance(ON_CHAIN), store.balance(SUSPENSE)) == (0, 0)
    entry = entry_of(store, FIRST)
    assert (entry.state, [change.by for change in entry.trail]) == (SuspenseState.REVERSED, ["tellerd"])
    assert set(told(store, f"{FIRST}:reorg")) == {outbox.SUSPENSE_REVERSED}
    other = store.new_wallet("other")
    assert problem(assign(store, FIRST, other.wallet_id)) is AssignmentProblem.REVERSED
    assert store.figures.suspense().payments == 0
    settle(store, wallet.wallet_id, branch="other")
    assert entry_of(store, SECOND).state is SuspenseState.WAITING
    assert store.balance(SUSPENSE) == entry_of(store, SECOND).amount_sat


def test_a_reorg_takes_an_assigned_deposit_from_whoever_has_it(suspended: tuple[Database, Wallet]) -> None:
    """The wallet that it was assigned to, in dollars to the cent; the one that was paid hears of nothing."""
    store, _ = suspended
    entry, dollars = entry_of(store, FIRST), usd_wallet(store).wallet_id
    assert isinstance(assign(store, FIRST, dollars, deal=dealt(5_700, entry.amount_sat)), Assigned)
    assert store.balance(wallet_account(dollars), "USD") == 5_700
    assert store.balance(SUSPENSE) == 0
    reorg(store)
    assert store.balance(wallet_account(dollars), "USD") == 0
    assert (store.balance(ON_CHAIN), store.balance(SUSPENSE)) == (0, 0)
    assert [change.state for change in entry_of(store, FIRST).trail] == [SuspenseState.ASSIGNED, SuspenseState.REVERSED]
    events = told(store, f"{FIRST}:reorg")
    assert events[outbox.DEPOSIT_REVERSED]["wallet_id"] == dollars
    assert events[outbox.SUSPENSE_REVERSED]["wallet_id"] == dollars


def test_a_reorg_that_takes_what_was_spent_tells_the_assigned_wallet(suspended: tuple[Database, Wallet]) -> None:
    """Its balance is looked at, not that of the wallet that was paid."""
    store, _ = suspended
    other, third = store.new_wallet("other").wallet_id, store.new_wallet("third").wallet_id
    assign(store, FIRST, other)
    store.another.write_journal(moved(wallet_account(other), wallet_account(third), 1_000))
    post(store, *store.journals.foreign_journals(after=None, limit=10))
    reorg(store)
    assert told(store, f"{FIRST}:reorg")[outbox.WALLET_OVERDRAWN]["wallet_id"] == other


def test_a_repeat_after_a_reorg_does_not_say_that_it_is_the_wallets(suspended: tuple[Database, Wallet]) -> None:
    """The money is gone: whoever reads only whether it went well must not read that it did."""
    store, _ = suspended
    other, third = store.new_wallet("other").wallet_id, store.new_wallet("third").wallet_id
    assert isinstance(assign(store, FIRST, other), Assigned)
    reorg(store)
    for wallet_id in (other, third):
        assert problem(assign(store, FIRST, wallet_id)) is AssignmentProblem.REVERSED


def asked_for(store: Database, wallet_id: WalletId) -> SuspenseAssigned:
    return SuspenseAssigned(
        key=FIRST, wallet_id=wallet_id, by="ann", reason="why", at_ms=LATER_MS, outpoint=entry_of(store, FIRST).outpoint
    )


@pytest.mark.parametrize(("before_sat", "meanwhile_sat", "is_overdrawn"), [(-300, 100, True), (300, -100, False)])
def test_assigned_and_taken_back_in_one_batch(
    suspended: tuple[Database, Wallet], before_sat: int, meanwhile_sat: int, is_overdrawn: bool
) -> None:
    """What the new owner had before the batch counts, whether that is more than nothing or less."""
    store, _ = suspended
    other = store.new_wallet("other").wallet_id

    def another_moves(amount_sat: int) -> NodeEvent:
        source, target = wallet_account(other), "Assets:Elsewhere"
        legs = moved(target, source, amount_sat) if amount_sat > 0 else moved(source, target, -amount_sat)
        store.another.write_journal(legs)
        return store.journals.foreign_journals(after=None, limit=10)[-1]

    post(store, another_moves(before_sat))
    meanwhile = another_moves(meanwhile_sat)
    post(store, asked_for(store, other), meanwhile, REORG)
    assert store.balance(wallet_account(other)) == before_sat + meanwhile_sat
    assert (outbox.WALLET_OVERDRAWN in told(store, f"{FIRST}:reorg")) is is_overdrawn


# --- lists ------------------------------------------------------------------------------------------


def test_entries_are_listed_by_state_newest_first(opened: Database) -> None:
    """In pages; a token that is none of ours is refused."""
    post(opened, *(settled(name, index, index * 1_000) for index, name in enumerate("bcd", 2)))
    assign(opened, KEY, opened.new_wallet().wallet_id)
    keys = {name: lightning_key(NODE, hash_of(name)) for name in "abcd"}

    def listed(state: SuspenseState | None) -> list[str]:
        page, token = opened.suspense.page(state=state, after=None, limit=10)
        assert token is None
        return [entry.key for entry in page]

    assert listed(SuspenseState.WAITING) == [keys["d"], keys["c"], keys["b"]]
    assert listed(SuspenseState.ASSIGNED) == [keys["a"]]
    assert listed(SuspenseState.REVERSED) == []
    assert listed(None) == [keys["d"], keys["c"], keys["b"], keys["a"]]
    first, token = opened.suspense.page(state=SuspenseState.WAITING, after=None, limit=2)
    rest, end = opened.suspense.page(state=SuspenseState.WAITING, after=token, limit=2)
    assert [entry.key for entry in (*first, *rest)] == listed(SuspenseState.WAITING)
    assert end is None
    with pytest.raises(BadInput):
        opened.suspense.page(state=None, after="yesterday", limit=1)
