"""What is done with a payment that a node holds."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from daemon.domain.books import Expectation
from daemon.domain.holds import HoldDeltas, HoldRules, Release, deltas_of
from daemon.domain.identifiers import AccountId, PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.ports import HoldState, InvoiceState
from daemon.matching.holds import Cancel, HoldFacts, Settle, Wait, deadline_of, decide_hold
from tests.samples import hash_of, preimage_of

RULES = HoldRules(release=Release.AUTOMATIC, margin_blocks=6)
V20, V21 = "0.20.3-beta commit=v0.20.3-beta", "0.21.3-beta commit=v0.21.3-beta"


def expected(**changes: object) -> Expectation:
    """A document whose wallet is fine and whose preimage is known."""
    expectation = Expectation(
        payment_hash=hash_of("a"),
        wallet_id=WalletId("wallet-1"),
        account_id=AccountId("account-1"),
        external_id="a",
        currency=Currency.BTC,
        wallet_currency=Currency.BTC,
        cents=None,
        paid=False,
        preimage=preimage_of("a").hex(),
    )
    return replace(expectation, **changes)  # type: ignore[arg-type]  # handed through as they are


def held(received_msat: int = 1_000_000, *, expiry_height: int = 1_000) -> HoldState:
    """A payment that waits."""
    return HoldState(
        payment_hash=hash_of("a"),
        state=InvoiceState.ACCEPTED,
        is_hold=True,
        received_msat=received_msat,
        expiry_height=expiry_height,
        accepted_at_s=0,
        created_at_s=0,
        expiry_s=3600,
    )


def facts(**changes: object) -> HoldFacts:
    """Everything is fine, a day before the end."""
    fine = HoldFacts(hold=held(), expectation=expected(), not_credited=None, not_priced=None, height=856, version=V21)
    return replace(fine, **changes)  # type: ignore[arg-type]  # handed through as they are


def test_what_can_be_credited_is_taken() -> None:
    """At once, with the preimage of the document, which no repr shows."""
    decision = decide_hold(facts(), RULES)
    assert decision == Settle(preimage_of("a"))
    assert preimage_of("a").hex() not in repr(decision)
    assert repr(preimage_of("a")) not in repr(decision)


@pytest.mark.parametrize(
    ("expectation", "not_credited", "not_priced", "reason"),
    [
        (expected(), "no_wallet", None, "no_wallet"),
        (expected(), "no_dealer", None, "no_dealer"),
        (expected(), "not_priced", "price_stale", "price_stale"),
        (expected(release=Release.MANUAL), None, None, "not_released"),
        (expected(release=Release.MANUAL, preimage=""), None, None, "not_released"),
        (expected(preimage=""), None, None, "no_preimage"),
        (expected(preimage=None), None, None, "no_preimage"),
        (expected(preimage="00" * 32), None, None, "no_preimage"),
        (expected(preimage="no hex"), None, None, "no_preimage"),
        (expected(preimage="", release=Release.AUTOMATIC), None, None, "no_preimage"),
    ],
)
def test_what_lacks_something_waits_and_goes_back_near_its_end(
    expectation: Expectation, not_credited: str | None, not_priced: str | None, reason: str
) -> None:
    """Up to six blocks before LND would give it back at 18; the reason is the same."""
    lacking = facts(expectation=expectation, not_credited=not_credited, not_priced=not_priced)
    assert decide_hold(lacking, RULES) == Wait(reason, 976)
    assert decide_hold(replace(lacking, height=975), RULES) == Wait(reason, 976)
    assert decide_hold(replace(lacking, height=976), RULES) == Cancel(reason)
    assert deadline_of(lacking.hold, version=V21, rules=RULES) == 976


def test_what_nobody_released_while_its_price_held_goes_back() -> None:
    """At once; and nothing else does for it: what is released, what lacks something else, what has no price yet."""
    unreleased = facts(expectation=expected(release=Release.MANUAL), price_is_over=True)
    assert decide_hold(unreleased, RULES) == Cancel("quote_expired")
    assert decide_hold(replace(unreleased, price_is_over=False), RULES) == Wait("not_released", 976)
    assert isinstance(decide_hold(facts(price_is_over=True), RULES), Settle)
    assert decide_hold(replace(unreleased, not_credited="account_locked"), RULES) == Wait("account_locked", 976)
    assert decide_hold(facts(expectation=expected(preimage=""), price_is_over=True), RULES) == Wait("no_preimage", 976)


def test_what_waits_for_a_person_needs_no_price_before_he_has_released_it() -> None:
    """Then it does."""
    unpriced = facts(expectation=expected(release=Release.MANUAL), not_credited="not_priced")
    assert decide_hold(unpriced, RULES) == Wait("not_released", 976)
    assert decide_hold(replace(unpriced, expectation=expected()), RULES) == Wait("not_priced", 976)


def test_what_can_be_credited_is_taken_near_the_end_too() -> None:
    """Settled if it can be: as long as a settlement gets through before LND would close the channel over it."""
    for height in (976, 983):
        assert isinstance(decide_hold(facts(height=height), RULES), Settle)
    assert decide_hold(facts(height=984), RULES) == Cancel("too_late")


def test_an_older_lnd_lets_it_wait_longer() -> None:
    """Up to v0.20 it gives back at 12 blocks."""
    lacking = facts(not_credited="no_wallet", version=V20)
    assert decide_hold(replace(lacking, height=981), RULES) == Wait("no_wallet", 982)
    assert decide_hold(replace(lacking, height=982), RULES) == Cancel("no_wallet")
    assert isinstance(decide_hold(facts(height=989, version=V20), RULES), Settle)
    assert decide_hold(facts(height=990, version=V20), RULES) == Cancel("too_late")


@pytest.mark.parametrize(
    ("version", "deltas"),
    [
        ("0.18.5-beta", HoldDeltas(auto_cancel=12, broadcast=10)),
        (V20, HoldDeltas(auto_cancel=12, broadcast=10)),
        (V21, HoldDeltas(auto_cancel=18, broadcast=16)),
        ("v0.22.0-beta.rc1", HoldDeltas(auto_cancel=18, broadcast=16)),
        ("1.0.0", HoldDeltas(auto_cancel=18, broadcast=16)),
        ("", HoldDeltas(auto_cancel=18, broadcast=16)),
        ("a build of my own", HoldDeltas(auto_cancel=18, broadcast=16)),
    ],
)
def test_an_unknown_version_counts_as_the_newest(version: str, deltas: HoldDeltas) -> None:
    """Too early is safe."""
    assert deltas_of(version) == deltas


@pytest.mark.parametrize("received_msat", [0, 1, 995, 999])
def test_less_than_a_sat_is_declined(received_msat: int) -> None:
    """Whoever releases it: no wallet can get it."""
    for release in (Release.AUTOMATIC, Release.MANUAL):
        small = facts(hold=held(received_msat), expectation=expected(release=release))
        assert decide_hold(small, RULES) == Cancel("under_one_sat")
    assert isinstance(decide_hold(facts(hold=held(1_000)), RULES), Settle)


@pytest.mark.parametrize("not_credited", ["already_paid", "under_one_cent"])
def test_what_no_time_will_mend_goes_back_at_once(not_credited: str) -> None:
    """The payer need not wait for his money."""
    assert decide_hold(facts(not_credited=not_credited), RULES) == Cancel(not_credited)


def test_a_closed_invoice_takes_no_payment() -> None:
    """Another program has closed it."""
    assert decide_hold(facts(expectation=expected(completed=True)), RULES) == Cancel("closed")


@pytest.mark.parametrize("not_credited", ["no_expectation", "other_node"])
def test_what_is_nobodys_here_is_left_alone(not_credited: str) -> None:
    """Whatever the height: it may be another program's, which knows what it does."""
    for height in (856, 999, None):
        others = facts(expectation=None, not_credited=not_credited, height=height)
        assert decide_hold(others, RULES) == Wait(not_credited, None)


def test_without_a_height_nothing_is_given_back_for_its_age() -> None:
    """What can be taken is taken, the rest waits."""
    assert isinstance(decide_hold(facts(height=None), RULES), Settle)
    assert decide_hold(facts(height=None, not_credited="no_wallet"), RULES) == Wait("no_wallet", 976)


def test_the_document_goes_before_the_configuration() -> None:
    """`holds.release` counts where the document does not say."""
    manual = HoldRules(release=Release.MANUAL)
    assert decide_hold(facts(), manual) == Wait("not_released", 976)
    assert isinstance(decide_hold(facts(expectation=expected(release=Release.AUTOMATIC)), manual), Settle)


def test_the_payment_hash_is_the_documents() -> None:
    """A preimage of another invoice would be told to the node for nothing."""
    other = expected(payment_hash=PaymentHash("00" * 32))
    assert decide_hold(facts(expectation=other), RULES) == Wait("no_preimage", 976)


def test_a_preimage_has_32_bytes() -> None:
    """Another one fits no HTLC (BOLT 3), and LND refuses it: it would be asked until the payment goes back."""
    short = bytes(31)
    other = expected(payment_hash=PaymentHash(hashlib.sha256(short).hexdigest()), preimage=short.hex())
    assert decide_hold(facts(expectation=other), RULES) == Wait("no_preimage", 976)
