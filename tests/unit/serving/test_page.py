"""The page for people: every part of it, what is wrong said first, and nothing that could run or be loaded."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daemon.domain import outbox
from daemon.domain.books import Gap
from daemon.domain.chain import BlockRef
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import BlockHash, NodePubkey
from daemon.domain.ports import AccountRow, LeaseView, StoredEvent, StoreInfo, TrialBalancePage
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.gate import Role
from daemon.serving.heartbeat import MAX_AGE_S, Heartbeat
from daemon.serving.overview import (
    ACCOUNTS_SHOWN,
    EVENTS_SHOWN,
    LEAST_PAUSE_S,
    MAX_WAITING,
    PAUSE_FACTOR,
    BooksReader,
    BooksView,
    ReconciliationView,
    overview,
    read_books,
)
from daemon.serving.page import STYLE, amounts_of, render
from tests.unit.serving.bank_in_memory import START, open_bank
from tests.unit.serving.bank_on_chain import open_chain_bank
from tests.unit.serving.page_samples import EVIL, NOW, PUBKEY, WALLET, Reading, books, compared, event, text, view
from tests.unit.serving.reconciliation_samples import CHECK, LIGHTNING_SIDE, look

OPEN_GAP = Gap(
    key="gap-key",
    kind="coin_spent",
    detail="nobody knows by whom",
    amount_msat=-7_001,
    seen_at_ms=int(START.timestamp() * 1000),
    reference="ab" * 32,
    node="bitcoind",
)


def test_where_all_is_well_it_says_so_and_shows_every_part() -> None:
    """Nodes, lease, events with amounts, accounts with their total, deposits, feed, database, version, uptime."""
    shown = text(view())
    for part in (
        "all is well",
        "2026-11-22 11:03:00 UTC",
        "regtest",
        "Lightning: lnd1 state live connected since 2026-11-21 09:00:00 UTC settle index 5,678 open gaps 0",
        "Chain: bitcoind state live connected since 2026-11-21 09:00:00 UTC in the books block 840,000",
        "block 840,000 node's tip block 840,000 behind 0 blocks ZMQ live",
        "role leader leader teller1:77:abcd, fence 3 lease until 2026-11-22 11:03:05 UTC",
        "feed event 1,234 journals 1,200 database MongoDB 6.0.5, rs0",
        "up 1 d 2 h, since 2026-11-21 09:00:00 UTC version 0.1.0",
        f"invoice.settled 1,234 21,000 sat 2026-11-21 09:00:00 UTC {WALLET}",
        "suspense.received 1,233 7 sat",
        "Assets:Reserve:Lightning in our Lightning nodes -271,000 sat",
        "Total of all accounts, BTC 0 sat They add up to 0.",
        "In suspense: 0 sat Pending deposits None.",
        "Books against nodes: Assets:Reserve:Lightning nodes hold 999,988,499 msat books say 1,000,000,500 msat",
        "sent elsewhere -9,001 msat under way -3,000 msat unknown 0 msat compared 2026-11-22 11:02:00 UTC",
        "Books against nodes: Assets:OnChain nodes hold 500,000,000 msat books say 500,000,000 msat unknown 0 msat",
        "full check 2026-11-22 11:02:00 UTC: 1,200 invoices, 34 deposits up",
    ):
        assert part in shown, part
    assert shown.index("1,234 21,000") < shown.index("1,233 7")


def test_without_a_chain_there_is_no_word_of_one() -> None:
    """Lightning only."""
    lightning_only = replace(
        compared(), steady=replace(look(), sides=(LIGHTNING_SIDE,)), full_check=replace(CHECK, deposits=0)
    )
    shown = text(view(chain=None, reconciliation=lightning_only))
    assert "Chain" not in shown
    assert "deposits" not in shown.replace("deposits too small", "")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"loop_age_s": MAX_AGE_S + 1}, "The main loop has not turned for 16 s"),
        ({"books_problem": "MongoDB, probe: no primary"}, "The books cannot be read: MongoDB, probe: no primary"),
        ({"refusal": "shutting down"}, "This daemon does not serve: shutting down."),
        ({"nodes": [NodeStatus(name="n", last_error="is locked: unlock it")]}, "n is not followed: is locked: unlock"),
        ({"nodes": [NodeStatus(name="n", state="connecting")]}, "n is not followed: connecting"),
        (
            {"cursors": [LndCursor(pubkey=PUBKEY, name="n", settle_index=1, booked_above=((5, 6),))]},
            "lnd1: 3 settle indexes are not explained yet",
        ),
        ({"chain": ChainStatus(last_error="refused")}, "bitcoind is not followed: refused"),
        ({"chain": ChainStatus(connected=True, halted=True, last_error="too deep")}, "until a person has looked: too"),
        (
            {
                "chain": ChainStatus(
                    connected=True,
                    tip=BlockRef(height=9, hash=BlockHash("09")),
                    cursor=BlockRef(height=6, hash=BlockHash("06")),
                )
            },
            "The books are 3 blocks behind bitcoind.",
        ),
        ({"chain": ChainStatus(connected=True, hints="silent")}, "No ZMQ message of bitcoind arrives"),
        ({"books": books(suspense_sat=5_000)}, "5,000 sat in suspense: no wallet expected them."),
        ({"books": books(gaps=[OPEN_GAP], open_gaps=1)}, "1 gaps are open: things that do not add up"),
        (
            {"reconciliation": compared(unknown_msat=-7)},
            "The nodes hold 7 msat less than Assets:Reserve:Lightning says, and nothing explains it.",
        ),
        ({"reconciliation": compared(unknown_msat=1_500)}, "The nodes hold 1,500 msat more than Assets:Reserve"),
        ({"reconciliation": compared(problem="lnd1 is away")}, "Books and nodes are not compared: lnd1 is away"),
        ({"reconciliation": compared(ago_s=901)}, "Books and nodes were last compared at 2026-11-22 10:47:59 UTC."),
    ],
)
def test_what_is_wrong_is_said_at_the_top(changed: dict[str, object], said: str) -> None:
    """Before everything else, in words, and the title counts it."""
    html = render(view(**changed))
    shown = Reading(html).text
    assert said in shown
    assert shown.index(said) < shown.index("Lightning: ")
    assert "all is well" not in shown
    assert "<title>(1) tellerd</title>" in html or "books_problem" in changed


def test_a_difference_that_nothing_explains_is_red() -> None:
    """In the table, too; what is explained is not."""
    html = render(view(reconciliation=compared(unknown_msat=-7)))
    assert '<li class="bad">The nodes hold 7 msat less' in html
    assert html.count('<span class="bad">-7 msat</span>') == 1
    assert html.count('<span class="good">0 msat</span>') == 1
    assert 'class="bad"' not in render(view())


def test_before_the_first_comparison_there_is_no_figure() -> None:
    """No 0 that nobody has seen; a standby does not speak of it at all."""
    shown = text(view(reconciliation=ReconciliationView(steady=None, full_check=None, problem="")))
    assert "Books against nodes compared not compared yet in a moment in which nothing moved" in shown
    assert "all is well" in shown
    assert "Books against nodes" not in text(view(reconciliation=None))
    none_yet = replace(compared(), full_check=None)
    assert "full check" not in text(view(reconciliation=none_yet))
    partly = replace(compared(), full_check=replace(CHECK, unfinished=("lnd1: away",)))
    assert "34 deposits; not all: lnd1: away" in text(view(reconciliation=partly))


def test_open_gaps_are_shown_with_their_reference() -> None:
    """The newest of them, and how many there are."""
    shown = text(view(books=books(gaps=[OPEN_GAP, replace(OPEN_GAP, reference="")], open_gaps=12)))
    assert "Open gaps what amount seen reference coin_spent bitcoind nobody knows by whom -7,001 msat" in shown
    assert f"-7,001 msat 2026-11-21 09:00:00 UTC {'ab' * 32} coin_spent" in shown
    assert "-7,001 msat 2026-11-21 09:00:00 UTC gap-key The newest of 12." in shown
    assert "Open gaps" not in text(view())


def test_books_that_do_not_add_up_are_loud() -> None:
    """At the top and below the accounts, in the colour of what is wrong, and no word of adding up to 0."""
    page = TrialBalancePage(rows=[], totals={"BTC": 5, "USD": 0}, sequence=1, next_token=None)
    html = render(view(books=books(accounts=page)))
    assert '<li class="bad">THE BOOKS DO NOT ADD UP: 5 sat instead of 0.' in html
    assert '<p class="bad">THE BOOKS DO NOT ADD UP TO 0' in html
    assert '<td class="number bad">5 sat</td>' in html
    assert "They add up" not in html


def test_a_standby_says_what_it_is_and_shows_the_books() -> None:
    """It follows no node: that is not reported as an outage of the nodes."""
    standby = view(
        role=Role.STANDBY,
        refusal="standby: another daemon leads; call that one",
        nodes=[NodeStatus(name="lnd1")],
        cursors=[None],
        chain=ChainStatus(),
    )
    shown = text(standby)
    assert "This daemon does not serve: standby: another daemon leads; call that one." in shown
    assert "not followed here: this daemon is standby" in shown
    assert "is not followed:" not in shown
    assert "leader teller1:77:abcd" in shown
    assert "They add up to 0." in shown


def test_without_a_database_the_rest_is_shown() -> None:
    """And why the books are not."""
    shown = text(view(books=None, books_problem="MongoDB, probe: no primary"))
    assert "The books cannot be read: MongoDB, probe: no primary" in shown
    assert "Lightning: lnd1 state live" in shown
    assert "role leader" in shown
    assert "add up" not in shown
    assert "Accounts" not in shown


def test_what_was_read_before_an_outage_has_its_time_beside_it() -> None:
    """Nobody takes it for the present."""
    old = books(read_at=START)
    assert "What is shown of them is of 2026-11-21 09:00:00 UTC." in text(view(books=old, books_problem="no primary"))


def test_everything_that_others_wrote_is_text_and_nothing_else() -> None:
    """Names, errors, accounts, events: no tag and no attribute comes of them."""
    hostile = view(
        network=EVIL,
        version=EVIL,
        refusal=EVIL,
        nodes=[NodeStatus(name=EVIL, pubkey=NodePubkey(EVIL), state=EVIL, last_error=EVIL)],
        chain=ChainStatus(name=EVIL, state=EVIL, last_error=EVIL),
        books_problem=EVIL,
        reconciliation=replace(compared(problem=EVIL), full_check=replace(CHECK, unfinished=(EVIL,))),
        books=books(
            store=StoreInfo(replica_set=EVIL, version=EVIL),
            lease=LeaseView(holder=EVIL, fence=1, expires_at=NOW),
            gaps=[replace(OPEN_GAP, kind=EVIL, detail=EVIL, node=EVIL, reference=EVIL)],
            open_gaps=1,
            events=[
                replace(event(1), type=EVIL, wallet_ids=(EVIL,)),
                event(2, outbox.JOURNAL_ADOPTED, legs=[{"account": EVIL, "currency": EVIL, "credit": 5, "debit": 0}]),
            ],
            accounts=TrialBalancePage(
                rows=[AccountRow(account=EVIL, currency=EVIL, balance=1)],
                totals={EVIL: 1},
                sequence=1,
                next_token=EVIL,
            ),
        ),
    )
    plain, reading = Reading(render(view())), Reading(render(hostile))
    assert {tag for tag, _ in reading.tags} <= {tag for tag, _ in plain.tags} | {"ul", "li", "p"}
    assert not [tag for tag, attributes in reading.tags if {"src", "onclick", "onerror"} & set(attributes)]
    assert reading.text.count('alert("x")') > 10


def test_nothing_is_loaded_and_nothing_runs() -> None:
    """No script, no form, no address of anything; the icon is empty, for browsers would ask for one."""
    html = render(view())
    reading = Reading(html)
    assert not {tag for tag, _ in reading.tags} & {"script", "img", "iframe", "form", "a", "object", "svg"}
    assert [(tag, a["href"]) for tag, a in reading.tags if "href" in a] == [("link", "data:,")]
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "style=" not in html  # the policy forbids it
    metas = [attributes for tag, attributes in reading.tags if tag == "meta"]
    assert {"http-equiv": "refresh", "content": "10"} in metas
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (event(1, outbox.BOOKS_OPENED, amount_msat=250_000_001), ["250,000,001 msat"]),
        (event(1, outbox.WALLET_OVERDRAWN, balance_sat=-3_000), ["balance -3,000 sat"]),
        (event(1, outbox.WALLET_OVERDRAWN, balance_cents=-1_000), ["balance -1,000 cents"]),
        (event(1, outbox.INVOICE_SETTLED, amount_sat=1_667, amount_cents=100), ["1,667 sat", "100 cents"]),
        (event(1, outbox.DEPOSIT_SETTLED, amount_sat=100_000, credited_cents=5_820), ["100,000 sat", "5,820 cents"]),
        (event(1, outbox.DEPOSIT_REVERSED, amount_sat=100_000, credited_cents=5_820), ["-100,000 sat", "-5,820 cents"]),
        (event(1, outbox.DEPOSIT_REVERSED, amount_sat=9_000, credited_sat=6_000), ["-9,000 sat"]),
        (event(1, outbox.HTLC_LOST, amount_msat=21_000_500), ["-21,000,500 msat"]),
        (event(1, outbox.CHANNEL_FEE_BOOKED, fee_msat=153_500, amount_sat=154), ["-154 sat"]),
        (event(1, outbox.ROUTING_BOOKED, fee_msat=2_100, amount_sat=2), ["2 sat"]),
        (event(1, outbox.DEPOSIT_SETTLED, amount_sat=9_000, credited_sat=6_000), ["9,000 sat"]),
        (
            event(
                1,
                outbox.JOURNAL_ADOPTED,
                legs=[
                    {"account": "a", "currency": "BTC", "debit": 5, "credit": 0},
                    {"account": "b", "currency": "BTC", "debit": 0, "credit": 5},
                    {"account": "c", "currency": "USD", "debit": 7, "credit": 0},
                    {"account": "d", "currency": "USD", "debit": 0, "credit": 7},
                ],
            ),
            ["5 sat", "7 cents"],
        ),
    ],
)
def test_the_amount_of_each_kind_of_event(told: StoredEvent, said: list[str]) -> None:
    """With its sign and unit."""
    assert list(amounts_of(told)) == said


def test_the_books_are_read_from_the_store_within_bounds() -> None:
    """The newest events first, no more of anything than is shown, pending deposits counted whole."""
    chain = open_chain_bank()
    bank = chain.bank
    bank.open_books()
    for number in range(ACCOUNTS_SHOWN + 5):
        wallet = bank.wallet(f"w{number}")
        chain.see(chain.output(wallet, 10_000 + number))
        chain.mine(chain.output(wallet, 20_000))
    found = read_books(bank.api)
    assert [event.sequence for event in found.events] == list(
        range(found.head.sequence, found.head.sequence - EVENTS_SHOWN, -1)
    )
    assert found.pending_count == 2 * (ACCOUNTS_SHOWN + 5)
    assert len(found.deposits) == 10
    assert found.accounts.totals == {} or set(found.accounts.totals.values()) == {0}
    shown = text(overview(bank.api, Heartbeat(), BooksReader(lambda: read_books(bank.api))))
    assert f"{found.pending_count} with {found.pending_sat:,} sat not settled yet." in shown


def test_suspense_is_read_from_its_account() -> None:
    """What a payer sent to an invoice that nobody knows."""
    bank = open_bank()
    bank.open_books()
    made = bank.api.nodes[0]
    assert made is bank.node
    found = read_books(bank.api)
    assert found.suspense_sat == 0
    invoice = bank.node.invoice_by_hand(7_000)
    bank.pay(invoice, 7_000_000)
    assert read_books(bank.api).suspense_sat == 7_000


class Source:
    """Readings that tests hold up, and let fail."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readings = 0
        self.takes_s = 0.0
        self.failure: BaseException | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Event()

    def __call__(self) -> BooksView:
        self.readings += 1
        self.begun.set()
        assert self.may_go_on.wait(30)
        self.now += self.takes_s
        if self.failure is not None:
            raise self.failure
        return books(pending_count=self.readings)

    def reader(self) -> BooksReader:
        return BooksReader(self, clock=lambda: self.now)


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.may_go_on.set()


def shown_count(found: tuple[BooksView | None, str]) -> int:
    """Which reading it is."""
    assert found[0] is not None
    return found[0].pending_count


def test_many_viewers_share_a_reading(source: Source) -> None:
    """A new one begins only after a pause that grows with what the last one took."""
    source.takes_s = 1.0
    reader = source.reader()
    assert [shown_count(reader.latest()) for _ in range(5)] == [1] * 5
    source.now += PAUSE_FACTOR - 0.1
    assert shown_count(reader.latest()) == 1
    source.now += 0.2
    source.takes_s = 0.0
    assert shown_count(reader.latest()) == 2
    source.now += LEAST_PAUSE_S - 0.1
    assert shown_count(reader.latest()) == 2
    source.now += 0.2
    assert shown_count(reader.latest()) == 3


def test_an_outage_keeps_the_last_reading_and_says_why(source: Source) -> None:
    """And it is over with the next one."""
    reader = source.reader()
    reader.latest()
    source.failure = Unavailable("no primary")
    source.now += 10
    found, problem = reader.latest()
    assert (found is not None, problem) == (True, "no primary")
    source.failure = None
    source.now += 10
    assert (shown_count(reader.latest()), reader.latest()[1]) == (3, "")


def test_a_database_that_hangs_is_waited_for_once_and_not_for_long(source: Source) -> None:
    """No second reading is begun, and viewers beyond a few are not held up at all."""
    reader = source.reader()
    reader.latest()
    source.now += 10
    source.may_go_on.clear()
    found, problem = reader.latest(wait_s=0.05)
    assert (found is not None, problem) == (True, "the database has not answered yet, after 0.05 s")
    held: list[threading.Thread] = [threading.Thread(target=reader.latest, args=()) for _ in range(MAX_WAITING)]
    for thread in held:
        thread.start()
    while reader._places._value:
        pass
    assert reader.latest()[1].startswith("the database has not answered")
    assert source.readings == 2
    source.may_go_on.set()
    for thread in held:
        thread.join(30)
    assert shown_count(reader.latest()) == 2


def test_broken_books_are_not_hidden(source: Source) -> None:
    """Whoever waits gets what broke: it is logged as every failed request is."""
    source.failure = InvariantViolation("teller_head has no head document")
    with pytest.raises(InvariantViolation):
        source.reader().latest()


def test_a_process_that_starts_asks_no_database(source: Source) -> None:
    """It may not be initialised yet."""
    bank = open_bank(leading=False)
    shown = overview(bank.api, Heartbeat(), source.reader())
    assert (source.readings, shown.books) == (0, None)
    assert "the database was not reached yet" in text(shown)


def test_every_time_is_utc() -> None:
    """Wherever the clock that gave it stands."""
    zone = datetime.fromisoformat("2026-11-21T09:00:00+09:00")
    assert "up 1 d" in text(view())
    assert "2026-11-21 00:00:00 UTC" in text(view(now=zone, started_at=zone))
    assert not re.search(r"\d\d:\d\d:\d\d(?! UTC)", text(view()))
    assert zone.astimezone(UTC).hour == 0
