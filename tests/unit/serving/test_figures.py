"""The figures from the database: read in turns, shown only as far and as long as they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from adapters.memory import MemoryStore
from adapters.memory.gaps import MemoryGaps
from adapters.prices.fixed import FixedPrice
from daemon.domain.accounts import LIGHTNING, ON_CHAIN, wallet_account
from daemon.domain.books import GapState
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.money import Price
from daemon.domain.ports import BookTotals, SuspenseTotal, SystemWallet
from daemon.posting.board import Board
from daemon.serving.figures import ACCOUNTS, EVERY_S, FigureReader, Reading
from daemon.serving.metrics import PrometheusMetrics
from daemon.serving.money_metrics import MAX_AGE_S, MoneyCollector

PRICE = Price.from_usd_per_btc(Decimal(50_000))
WALLETS: Mapping[SystemWallet, WalletId] = {wallet: WalletId(wallet.value) for wallet in SystemWallet}


class BrokenGaps(MemoryGaps):
    """`Gaps` that does not answer."""

    def __init__(self) -> None:
        pass

    def totals(self) -> Mapping[tuple[str, GapState], tuple[int, int]]:
        raise Unavailable("gaps")


@dataclass
class Books:
    """`Figures` of an empty store; what is in `away` does not answer."""

    store: MemoryStore = field(default_factory=MemoryStore)
    away: set[str] = field(default_factory=set)
    readings: list[Reading | None] = field(default_factory=list)
    broken: bool = False

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: object) -> object:
            if self.broken:
                raise InvariantViolation("the head is gone")
            if name in self.away:
                raise Unavailable(name)
            return getattr(self.store.figures, name)(*arguments)

        return answer

    def reader(self) -> FigureReader:
        return FigureReader(
            figures=self,
            gaps=BrokenGaps() if "gaps" in self.away else self.store.gaps,
            deposits=self.store.deposits,
            prices=FixedPrice(Decimal(50_000)),
            show=self.readings.append,
            clock=lambda: 5.0,
        )


def shown(reading: Reading | None, *, blink: bool = False, age_s: float = 0.0) -> dict[str, float]:
    """Samples by name, with the account where there is one."""
    collector = MoneyCollector(blink=blink, clock=lambda: age_s)
    collector.show(reading)
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    return {":".join([one.name, *one.labels.values()]): one.value for one in samples}


def reading(
    *,
    wallets: Mapping[SystemWallet, WalletId] | None = WALLETS,
    price: Price | None = PRICE,
    dealer_cents: int = 25_000,
) -> Reading:
    """5,000 sats on Lightning and 2,000 on the chain; owed to customers, suspense and the system's wallets; and
    cents that the dealer owes."""
    held = {SystemWallet.BANK_OWNER: 30, SystemWallet.DEALER_BTC: 400, SystemWallet.FUNDER: 50}
    balances = dict.fromkeys([(account, "BTC") for account in ACCOUNTS], 0) | {
        (LIGHTNING, "BTC"): -5_000,
        (ON_CHAIN, "BTC"): -2_000,
        ("Liabilities:Teller:Suspense", "BTC"): 70,
    }
    for wallet, wallet_id in (wallets or {}).items():
        balances[wallet_account(wallet_id), wallet.currency] = held.get(wallet, dealer_cents)
    return Reading(
        read_at_s=0.0,
        suspense=SuspenseTotal(payments=2, amount_sat=70),
        pending=(3, 90_000),
        outbox_rows=11,
        system_wallets=wallets,
        totals=BookTotals(
            roots={
                ("Assets", "BTC"): -7_000,
                ("Liabilities", "BTC"): 7_000,
                ("Liabilities", "USD"): dealer_cents,
                ("Assets", "USD"): -dealer_cents,
            },
            balances=balances,
        ),
        price=price,
        gaps={("paid_without_journal", GapState.OPEN): (2, 7_000), ("sent_elsewhere", GapState.EXPLAINED): (1, -5)},
    )


def test_a_turn_reads_everything() -> None:
    """Nothing is missing where nothing fails."""
    found = Books().reader().read()
    assert found.read_at_s == 5.0
    assert None not in (
        found.suspense,
        found.pending,
        found.outbox_rows,
        found.system_wallets,
        found.totals,
        found.price,
        found.gaps,
    )


READ = ("suspense", "outbox_rows", "totals", "system_wallets", "gaps")


@pytest.mark.parametrize("away", READ)
def test_what_cannot_be_read_is_left_out_and_the_rest_is_there(away: str) -> None:
    """One figure that fails takes none of the others with it, and none is guessed."""
    books = Books(away={away})
    found = books.reader().read()
    assert getattr(found, away) is None
    assert [name for name in READ if getattr(found, name) is None] == [away]


def test_a_broken_invariant_is_not_an_outage() -> None:
    """It ends the process like any other."""
    with pytest.raises(InvariantViolation):
        Books(broken=True).reader().read()


async def test_it_is_read_again_and_again_and_taken_away_at_the_end(mock_clock: MockClock) -> None:
    """At the start, then every few seconds; a daemon that leads no more shows nothing."""
    books = Books()

    async def wait_readings(count: int) -> None:
        while len(books.readings) < count:  # noqa: ASYNC110 (a thread reads; the clock stands still meanwhile)
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.reader().run)
        await wait_readings(1)
        mock_clock.jump(EVERY_S - 0.1)
        await wait_all_tasks_blocked()
        assert len(books.readings) == 1
        mock_clock.jump(0.1)
        await wait_readings(2)
        nursery.cancel_scope.cancel()
    assert [one is None for one in books.readings] == [False, False, True]


def test_money_is_shown_as_the_books_have_it() -> None:
    """What waits, tellerd's own accounts with their sign, all wallets together, and the difference, which is 0."""
    samples = shown(reading())
    others = ("tellerd_account", "tellerd_gaps")
    assert {name: value for name, value in samples.items() if not name.startswith(others)} == {
        "tellerd_suspense_payments": 2,
        "tellerd_suspense_satoshis": 70,
        "tellerd_pending_deposits": 3,
        "tellerd_pending_deposits_satoshis": 90_000,
        "tellerd_outbox_events": 11,
        "tellerd_wallets_balance_satoshis": 6_930,
        "tellerd_wallets_balance_cents": 25_000,
        "tellerd_dealer_balance_satoshis": 400,
        "tellerd_dealer_balance_cents": 25_000,
        "tellerd_books_difference_satoshis": 0,
        "tellerd_books_difference_cents": 0,
    }
    assert samples["tellerd_account_balance_satoshis:Assets:Reserve:Lightning"] == -5_000
    assert samples["tellerd_gaps:paid_without_journal:open"] == 2
    assert samples["tellerd_gaps_millisatoshis:sent_elsewhere:explained"] == -5
    assert samples["tellerd_account_balance_satoshis:Liabilities:Teller:Suspense"] == 70
    assert len([name for name in samples if name.startswith("tellerd_account")]) == len(ACCOUNTS)


def test_books_that_do_not_balance_are_shown_as_they_are() -> None:
    """By how much, with its sign; other roots count, too."""
    totals = BookTotals(
        roots={("Assets", "BTC"): -7, ("Liabilities", "BTC"): 9, ("Equity", "BTC"): 1, ("Assets", "USD"): -2},
        balances=dict.fromkeys([(account, "BTC") for account in ACCOUNTS], 0),
    )
    samples = shown(Reading(read_at_s=0.0, totals=totals))
    assert samples["tellerd_books_difference_satoshis"] == 3
    assert samples["tellerd_books_difference_cents"] == -2


def test_what_was_not_read_has_no_series() -> None:
    """Absent, not 0; and nothing at all of a reading that is too old, or after the end."""
    assert shown(Reading(read_at_s=0.0), blink=True) == {}
    assert shown(None, blink=True) == {}
    assert shown(reading(), age_s=MAX_AGE_S + 0.1) == {}
    assert shown(reading(), age_s=MAX_AGE_S) != {}


def test_blinks_names_say_what_blinks_exporter_says() -> None:
    """blink-contract.md 3.8: assets without their sign and without the dealer's; what customers hold, with the
    dealer's dollars in sats (250.00 dollars at 50,000 a bitcoin are 500,000 sats)."""
    blinks = {name: value for name, value in shown(reading(), blink=True).items() if name.startswith("galoy_")}
    assert blinks == {
        "galoy_lightning": -5_000,
        "galoy_onchain": -2_000,
        "galoy_assetsEqLiabilities": 0,
        "galoy_assets": 6_600,
        "galoy_liabilities": 506_600,
        "galoy_dealer_btc_balance": 400,
        "galoy_dealer_usd_balance": 25_000,
        "galoy_funder_balance": 50,
        "galoy_bankowner_balance": 30,
    }


def test_blinks_names_are_off_unless_asked_for() -> None:
    """They would collide with an exporter of Blink's that is scraped, too."""
    assert not [name for name in shown(reading()) if name.startswith("galoy_")]


def test_blinks_liabilities_need_a_price_only_for_dollars() -> None:
    """Without one there is no series, unless there are no dollars to convert; a negative balance counts as Blink's."""
    assert "galoy_liabilities" not in shown(reading(price=None), blink=True)
    assert shown(reading(price=None, dealer_cents=0), blink=True)["galoy_liabilities"] == 6_600
    assert shown(reading(dealer_cents=-25_000), blink=True)["galoy_liabilities"] == 506_600


@pytest.mark.parametrize("wallets", [None, {SystemWallet.FUNDER: WalletId("f")}])
def test_blinks_sums_need_the_dealers_wallet(wallets: Mapping[SystemWallet, WalletId] | None) -> None:
    """Assets less an unknown is unknown."""
    samples = shown(reading(wallets=wallets), blink=True)
    assert "galoy_lightning" in samples
    assert not {"galoy_assets", "galoy_liabilities", "galoy_dealer_btc_balance"} & set(samples)


def test_a_scrape_shows_the_last_reading() -> None:
    """On the page, until it is taken away."""
    metrics = PrometheusMetrics(board=Board(), version="0", blink_metrics=True)
    found = Books().reader().read()
    metrics.show_figures(Reading(read_at_s=float("inf"), totals=found.totals, outbox_rows=0))
    page = metrics.page().decode().splitlines()
    assert "tellerd_outbox_events 0.0" in page
    assert "galoy_assetsEqLiabilities 0.0" in page
    metrics.show_figures(None)
    assert "tellerd_outbox_events" not in metrics.page().decode()
