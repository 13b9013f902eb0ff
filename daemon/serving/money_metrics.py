"""Metrics of money: what waits, and what the books add up to, from the last reading of the database.

Amounts are sats or cents, whole numbers well below 2^53. A figure that was not read, or too long ago, has no series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.domain.accounts import LIGHTNING, ON_CHAIN, wallet_account
from daemon.domain.money import SATS_PER_BTC, Currency, Price, divide_half_down
from daemon.domain.ports import BookTotals, SystemWallet
from daemon.serving.figures import ACCOUNTS, Reading
from daemon.serving.reconciliation_metrics import gap_metrics

MAX_AGE_S: Final = 60.0
"""An older reading is shown no more: several readings must have failed to end in time."""

_BTC, _USD = Currency.BTC.value, Currency.USD.value
_MICROCENTS_PER_CENT: Final = 1_000_000


class MoneyCollector(Collector):
    """Shows the last reading at each scrape; `blink` adds the names of Blink's exporter (blink-contract.md 3.8)."""

    def __init__(self, *, blink: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._blink = blink
        self._clock = clock
        self._reading: Reading | None = None

    def show(self, reading: Reading | None) -> None:
        """Replaces what is shown; None: nothing."""
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """The base class's."""
        reading = self._reading
        if reading is None or self._clock() - reading.read_at_s > MAX_AGE_S:
            return
        yield from _waiting(reading)
        if reading.gaps is not None:
            yield from gap_metrics(reading.gaps)
        if reading.totals is not None:
            yield from _books(reading.totals)
            yield from _dealer(reading, reading.totals)
            if self._blink:
                yield from _blinks(reading, reading.totals)


def _gauge(name: str, what: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _waiting(reading: Reading) -> Iterator[GaugeMetricFamily]:
    if reading.suspense is not None:
        yield _gauge("tellerd_suspense_payments", "Payments in suspense.", reading.suspense.payments)
        yield _gauge("tellerd_suspense_satoshis", "What they brought in.", reading.suspense.amount_sat)
    if reading.pending is not None:
        deposits, amount_sat = reading.pending
        yield _gauge("tellerd_pending_deposits", "Deposits that are detected or confirmed, not settled.", deposits)
        yield _gauge("tellerd_pending_deposits_satoshis", "What they bring in.", amount_sat)
    if reading.outbox_rows is not None:
        yield _gauge("tellerd_outbox_events", "Events that the outbox keeps.", reading.outbox_rows)


def _books(totals: BookTotals) -> Iterator[GaugeMetricFamily]:
    balances = GaugeMetricFamily(
        "tellerd_account_balance_satoshis",
        "Credit minus debit of tellerd's own accounts: assets are negative.",
        labels=["account"],
    )
    for account in ACCOUNTS:
        balances.add_metric([account], totals.balances[account, _BTC])
    yield balances
    own_sat = sum(totals.balances[account, _BTC] for account in ACCOUNTS if account.startswith("Liabilities:"))
    wallets_sat = _root(totals, "Liabilities", _BTC) - own_sat
    yield _gauge("tellerd_wallets_balance_satoshis", "What all wallets hold in sats.", wallets_sat)
    yield _gauge("tellerd_wallets_balance_cents", "What all wallets hold in cents.", _root(totals, "Liabilities", _USD))
    for name, currency in (("satoshis", _BTC), ("cents", _USD)):
        difference = sum(balance for (_, one), balance in totals.roots.items() if one == currency)
        yield _gauge(f"tellerd_books_difference_{name}", "Sum of all accounts: 0, or the books are broken.", difference)


def _dealer(reading: Reading, totals: BookTotals) -> Iterator[GaugeMetricFamily]:
    """What the bank has to hedge: the sats that its dealer took for dollars, and the cents that he gave (below 0)."""
    for wallet, name in ((SystemWallet.DEALER_BTC, "satoshis"), (SystemWallet.DEALER_USD, "cents")):
        wallet_id = (reading.system_wallets or {}).get(wallet)
        if wallet_id is not None:
            balance = totals.balances[wallet_account(wallet_id), wallet.currency]
            yield _gauge(f"tellerd_dealer_balance_{name}", f"What the dealer's wallet holds in {name}.", balance)


def _blinks(reading: Reading, totals: BookTotals) -> Iterator[GaugeMetricFamily]:
    """Names, signs and sums of Blink's exporter; what the books do not know (nodes, cold storage) is left to it.

    Its difference is of a minute ago, because it reads assets and liabilities one after the other; ours are of one
    moment. Where it shows 0 for what could not be read, there is no series here.
    """
    assets_sat, liabilities_sat = _root(totals, "Assets", _BTC), _root(totals, "Liabilities", _BTC)
    yield _gauge("galoy_lightning", "Lightning's account: credit minus debit.", totals.balances[LIGHTNING, _BTC])
    yield _gauge("galoy_onchain", "The chain's account: credit minus debit.", totals.balances[ON_CHAIN, _BTC])
    yield _gauge("galoy_assetsEqLiabilities", "Assets plus liabilities: 0.", assets_sat + liabilities_sat)
    held = {
        wallet: totals.balances[wallet_account(wallet_id), wallet.currency]
        for wallet, wallet_id in (reading.system_wallets or {}).items()
    }
    for wallet, name in _BLINKS_WALLETS.items():
        if wallet in held:
            yield _gauge(f"galoy_{name}_balance", f"What the wallet {name} holds.", held[wallet])
    dealer_sat = held.get(SystemWallet.DEALER_BTC)
    if dealer_sat is None:
        return
    yield _gauge("galoy_assets", "Sats on the books, the dealer's left out.", abs(assets_sat) - dealer_sat)
    dollars_sat = _in_sats(held.get(SystemWallet.DEALER_USD), reading.price)
    if dollars_sat is not None:
        owed_sat = liabilities_sat - dealer_sat + dollars_sat
        yield _gauge("galoy_liabilities", "What customers hold, dollars in sats.", owed_sat)


_BLINKS_WALLETS: Final = {
    SystemWallet.DEALER_BTC: "dealer_btc",
    SystemWallet.DEALER_USD: "dealer_usd",
    SystemWallet.FUNDER: "funder",
    SystemWallet.BANK_OWNER: "bankowner",
}


def _in_sats(amount_cents: int | None, price: Price | None) -> int | None:
    """What cents are worth, without their sign as in Blink's exporter; None without a price, unless it is nothing."""
    if not amount_cents:
        return amount_cents
    if price is None:
        return None
    return divide_half_down(abs(amount_cents) * _MICROCENTS_PER_CENT * SATS_PER_BTC, price.microcents_per_btc)


def _root(totals: BookTotals, root: str, currency: str) -> int:
    return totals.roots.get((root, currency), 0)
