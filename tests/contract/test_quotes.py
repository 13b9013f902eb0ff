"""The port `Quotes`, and `Books` for dollar wallets: what is kept, what a decision is read from, what is credited."""

from __future__ import annotations

from dataclasses import replace

from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.books import Wanted
from daemon.domain.identifiers import outpoint_of
from daemon.domain.money import Currency
from daemon.domain.ports import SystemWallet, Wallet
from daemon.domain.quotes import Deal, Quote, QuoteState
from tests.contract.conftest import Database
from tests.samples import (
    MORNING_MS,
    block_at,
    chain_moved,
    connected,
    deposit_due,
    hash_of,
    invoice,
    moved,
    node_opened,
    output,
    settled,
    txid_of,
)

OPENED = node_opened()


def quote(name: str = "a", *, cents: int = 150, sat: int = 2_500, at_ms: int = MORNING_MS, wallet: str = "w") -> Quote:
    """At 60,000 dollars, for five minutes."""
    return Quote(
        payment_hash=hash_of(name),
        wallet_id=invoice(name, wallet).wallet_id,
        cents=cents,
        sat=sat,
        price="60000.00000001",
        source="http",
        created_at_ms=at_ms,
        expires_at_ms=at_ms + 300_000,
    )


def expect(store: Database, name: str, wallet: Wallet, cents: int | None) -> None:
    """A dollar document of this name."""
    document = invoice(name, wallet.wallet_id, account_id=wallet.account_id, currency=Currency.USD)
    store.invoices.insert(replace(document, cents=cents))


def dealer_of(store: Database) -> tuple[str, str]:
    """The accounts of the dealer's wallets, in sats and in cents."""
    wallets = store.figures.system_wallets()
    return wallet_account(wallets[SystemWallet.DEALER_BTC]), wallet_account(wallets[SystemWallet.DEALER_USD])


def test_a_quote_is_read_back_as_it_was_kept(store: Database) -> None:
    """To the last digit of its price, and to amounts beyond 32 bits."""
    large = quote(cents=10**11, sat=2**45)
    assert store.quotes.get(hash_of("a")) is None
    assert store.quotes.keep(large) == large
    assert store.quotes.get(hash_of("a")) == large


def test_an_open_quote_stays_until_it_expires(store: Database) -> None:
    """The bank stands by it; after that a newer one takes its place."""
    first = store.quotes.keep(quote())
    early = quote(cents=140, at_ms=MORNING_MS + 299_999)
    assert store.quotes.keep(early) == first
    late = quote(cents=140, at_ms=MORNING_MS + 300_000)
    assert store.quotes.keep(late) == late
    assert store.quotes.get(hash_of("a")) == late


def test_a_quote_is_given_up_for_another_one_by_name(store: Database) -> None:
    """Another payment came in its place; if somebody else was faster, his counts."""
    first = store.quotes.keep(quote())
    second = quote(cents=60, sat=1_000, at_ms=MORNING_MS + 1)
    assert store.quotes.keep(second, instead_of=replace(first, sat=1)) == first
    assert store.quotes.keep(second, instead_of=first) == second
    assert store.quotes.keep(quote(cents=1, at_ms=MORNING_MS + 2), instead_of=first) == second


def test_a_used_quote_stays_for_good(store: Database) -> None:
    """It says what was credited."""
    wallet = store.new_dollar_wallet()
    expect(store, "a", wallet, None)
    kept = store.quotes.keep(quote(wallet=wallet.wallet_id))
    store.post(OPENED, settled("a", 1, 2_500_000))
    used = replace(kept, state=QuoteState.USED)
    assert store.quotes.get(hash_of("a")) == used
    late = quote(cents=1, at_ms=MORNING_MS + 10**9)
    assert store.quotes.keep(late) == used
    assert store.quotes.keep(late, instead_of=used) == used


def test_a_document_has_its_cents(store: Database) -> None:
    """`invoiceusers.cents`: there for a dollar amount, absent for sats and where the payer decides."""
    wallet = store.new_dollar_wallet()
    expect(store, "a", wallet, 150)
    expect(store, "b", wallet, None)
    first, second = store.invoices.get(hash_of("a")), store.invoices.get(hash_of("b"))
    assert first is not None
    assert second is not None
    assert (first.cents, first.currency, second.cents) == (150, Currency.USD, None)
    known = store.books.read_facts(Wanted(payment_hashes={hash_of("a"), hash_of("b")})).expectations
    assert (known[hash_of("a")].cents, known[hash_of("b")].cents) == (150, None)
    assert known[hash_of("a")].is_in_dollars


def test_a_dollar_invoice_is_credited_through_the_dealer(store: Database) -> None:
    """Balances per currency, the document paid, the event with the cents."""
    wallet, (dealer_btc, dealer_usd) = store.new_dollar_wallet(), dealer_of(store)
    expect(store, "a", wallet, 150)
    store.quotes.keep(quote(wallet=wallet.wallet_id))
    store.post(OPENED, settled("a", 1, 2_600_000))
    account = wallet_account(wallet.wallet_id)
    assert (store.balance(account, "USD"), store.balance(account)) == (150, 0)
    assert (store.balance(dealer_usd, "USD"), store.balance(dealer_btc)) == (-150, 2_600)
    assert store.balance(LIGHTNING) == -2_600
    assert store.ledger.trial_balance(after=None, limit=100).totals == {"BTC": 0, "USD": 0}
    told = store.invoices.settlement(hash_of("a"))
    assert told is not None
    assert (told["amount_cents"], told["amount_sat"]) == (150, 2_600)
    document = store.invoices.get(hash_of("a"))
    assert document is not None
    assert (document.paid, document.completed) == (True, True)


def test_facts_of_dollars_are_read_only_for_dollar_invoices(store: Database) -> None:
    """Dealer, quotes of the wanted hashes, and BTC wallets only where less than a cent was quoted."""
    sats = store.new_wallet("sats")
    dollars = store.new_dollar_wallet(account_id=sats.account_id)
    store.invoices.insert(invoice("b", sats.wallet_id, account_id=sats.account_id))
    expect(store, "a", dollars, None)
    store.quotes.keep(quote("b"))
    facts = store.books.read_facts(Wanted(payment_hashes={hash_of("b")})).dollars
    assert (facts.dealer, facts.quotes, facts.btc_wallets) == (None, {}, {})
    facts = store.books.read_facts(Wanted(payment_hashes={hash_of("a"), hash_of("b")})).dollars
    assert facts.dealer is not None
    assert dealer_of(store) == (wallet_account(facts.dealer.btc), wallet_account(facts.dealer.usd))
    assert (facts.quotes, facts.btc_wallets) == ({}, {})
    small = store.quotes.keep(quote("a", cents=0, sat=16))
    facts = store.books.read_facts(Wanted(payment_hashes={hash_of("a"), hash_of("b")})).dollars
    assert facts.quotes == {hash_of("a"): small}
    assert facts.btc_wallets == {sats.account_id: sats.wallet_id}


def test_an_account_without_a_btc_wallet_has_none(store: Database) -> None:
    """Then less than a cent waits in suspense."""
    wallet = store.new_dollar_wallet()
    expect(store, "a", wallet, None)
    store.quotes.keep(quote(cents=0, sat=16, wallet=wallet.wallet_id))
    store.post(OPENED, settled("a", 1, 16_000))
    assert store.balance("Liabilities:Teller:Suspense") == 16


def test_a_deposit_to_a_dollar_wallet_comes_and_goes_with_the_same_cents(store: Database) -> None:
    """Credited through the dealer; a reorg takes exactly that back, at whatever price."""
    wallet, (dealer_btc, dealer_usd) = store.new_dollar_wallet(), dealer_of(store)
    assert store.deposits.in_dollars({wallet.wallet_id, store.new_wallet().wallet_id}) == {wallet.wallet_id}
    paid = output("a", wallet.wallet_id, 100_000)
    block = block_at(101)
    store.post(chain_moved(None, connected(block_at(100))), chain_moved(block_at(100), connected(block, paid)))
    store.post(chain_moved(block, connected(block_at(102))))
    deal = Deal(amount_sat=100_000, amount_cents=6_000, price="60000.00", source="fixed")
    store.post(replace(deposit_due("a"), deal=deal))
    account = wallet_account(wallet.wallet_id)
    assert (store.balance(account, "USD"), store.balance(dealer_usd, "USD")) == (5_820, -5_820)
    assert (store.balance(dealer_btc), store.balance(account)) == (97_000, 0)
    known = store.deposits.get(outpoint_of(txid_of("a"), 0))
    assert known is not None
    assert known.booking is not None
    assert (known.booking.cents, known.booking.fee_cents) == (5_820, 180)
    assert known.booking.dealer is not None
    lost = [block_at(102), block]
    other = connected(block_at(101, "other"))
    store.post(chain_moved(block_at(102), other, lost=lost, fork=block_at(100)))
    assert {
        store.balance(one, currency) for one in (account, dealer_usd, dealer_btc) for currency in ("BTC", "USD")
    } == {0}


def test_a_deposit_that_waits_for_a_price_is_due_again(store: Database) -> None:
    """One that is held for another reason is not."""
    wallet = store.new_dollar_wallet()
    block = block_at(101)
    outputs = (output("a", wallet.wallet_id), output("b", "nobody"))
    store.post(chain_moved(None, connected(block_at(100))), chain_moved(block_at(100), connected(block, *outputs)))
    store.post(chain_moved(block, connected(block_at(102))))
    store.post(deposit_due("a"), deposit_due("b"))
    held = {txid: store.deposits.get(outpoint_of(txid_of(txid), 0)) for txid in "ab"}
    assert {name: one.held_reason for name, one in held.items() if one is not None} == {
        "a": "price_missing",
        "b": "no_wallet",
    }
    assert [one.txid for one in store.deposits.due(height=102, after=None, limit=9)] == [txid_of("a")]


def test_a_wallet_that_a_reversal_overdraws_is_told_in_its_own_unit(store: Database) -> None:
    """Its cents were spent meanwhile."""
    wallet = store.new_dollar_wallet()
    account = wallet_account(wallet.wallet_id)
    block = block_at(101)
    paid = output("a", wallet.wallet_id, 100_000)
    store.post(chain_moved(None, connected(block_at(100))), chain_moved(block_at(100), connected(block, paid)))
    store.post(chain_moved(block, connected(block_at(102))))
    deal = Deal(amount_sat=100_000, amount_cents=6_000, price="60000.00", source="fixed")
    store.post(replace(deposit_due("a"), deal=deal))
    store.another.write_journal(moved(account, "Liabilities:somebody", 1_000, currency="USD"))
    store.post(*store.journals.foreign_journals(after=None, limit=9))
    lost = [block_at(102), block]
    changes = store.post(chain_moved(block_at(102), connected(block_at(101, "other")), lost=lost, fork=block_at(100)))
    (told,) = [row.event for row in changes.outbox if row.event.type == "wallet.overdrawn"]
    assert (told.payload["balance_cents"], "balance_sat" in told.payload) == (-1_000, False)
