"""Whatever the facts, a held payment is decided in time, and never taken without everything that a credit needs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from daemon.domain.books import Expectation
from daemon.domain.holds import HoldRules, Release, deltas_of
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.ports import HoldState, InvoiceState
from daemon.matching.holds import Cancel, HoldFacts, Settle, Wait, decide_hold
from tests.samples import hash_of, preimage_of

_REASONS = st.sampled_from(
    [None, "no_expectation", "other_node", "already_paid", "no_wallet", "currency_differs", "no_dealer", "not_priced"]
)


@st.composite
def _facts(draw: st.DrawFn) -> HoldFacts:
    expectation = Expectation(
        payment_hash=hash_of("a"),
        wallet_id=WalletId("wallet"),
        account_id=AccountId("account"),
        external_id="a",
        currency=Currency.BTC,
        wallet_currency=Currency.BTC,
        cents=None,
        paid=False,
        preimage=draw(st.sampled_from([None, "", "zz", preimage_of("b").hex(), preimage_of("a").hex()])),
        completed=draw(st.booleans()),
        release=draw(st.sampled_from([None, *Release])),
    )
    hold = HoldState(
        payment_hash=hash_of("a"),
        state=InvoiceState.ACCEPTED,
        is_hold=True,
        received_msat=draw(st.integers(0, 5_000)),
        expiry_height=draw(st.integers(1, 300)),
        accepted_at_s=0,
        created_at_s=0,
        expiry_s=60,
    )
    return HoldFacts(
        hold=hold,
        expectation=draw(st.sampled_from([expectation, None])),
        not_credited=draw(_REASONS),
        not_priced=draw(st.sampled_from([None, "price_stale"])),
        height=draw(st.one_of(st.none(), st.integers(0, 320))),
        version=draw(st.sampled_from(["0.18.5-beta", "0.20.0-beta", "0.21.3-beta", "what"])),
        price_is_over=draw(st.booleans()),
    )


_RULES = st.builds(HoldRules, release=st.sampled_from(Release), margin_blocks=st.integers(0, 40))


@given(_facts(), _RULES)
def test_what_is_taken_can_be_credited(facts: HoldFacts, rules: HoldRules) -> None:
    """Settle only with this invoice's preimage, a sat at least, nothing missing, released, and early enough."""
    decision = decide_hold(facts, rules)
    if isinstance(decision, Settle):
        assert decision.preimage == preimage_of("a")
        assert facts.expectation is not None
        assert not facts.expectation.completed
        assert (facts.not_credited, facts.not_priced) == (None, None)
        assert facts.hold.received_msat >= 1_000
        assert (facts.expectation.release or rules.release) is Release.AUTOMATIC
        assert facts.height is None or facts.hold.expiry_height - facts.height > deltas_of(facts.version).broadcast


@given(_facts(), _RULES)
def test_what_waits_is_decided_before_lnd_decides(facts: HoldFacts, rules: HoldRules) -> None:
    """A deadline that is not reached yet, and at which the same facts give another answer; or nobody's business."""
    decision = decide_hold(facts, rules)
    if not isinstance(decision, Wait):
        return
    if decision.deadline_height is None:
        assert facts.expectation is None or facts.not_credited in ("no_expectation", "other_node")
        return
    assert decision.deadline_height <= facts.hold.expiry_height - deltas_of(facts.version).auto_cancel
    assert facts.height is None or facts.height < decision.deadline_height
    later = HoldFacts(
        hold=facts.hold,
        expectation=facts.expectation,
        not_credited=facts.not_credited,
        not_priced=facts.not_priced,
        height=decision.deadline_height,
        version=facts.version,
        price_is_over=facts.price_is_over,
    )
    assert isinstance(decide_hold(later, rules), Cancel)


@given(_facts(), _RULES, st.integers(1, 50))
def test_time_only_moves_towards_an_end(facts: HoldFacts, rules: HoldRules, blocks: int) -> None:
    """What is given back now is not taken later by the same facts."""
    if facts.height is None or not isinstance(decide_hold(facts, rules), Cancel):
        return
    later = HoldFacts(
        hold=facts.hold,
        expectation=facts.expectation,
        not_credited=facts.not_credited,
        not_priced=facts.not_priced,
        height=facts.height + blocks,
        version=facts.version,
        price_is_over=facts.price_is_over,
    )
    assert isinstance(decide_hold(later, rules), Cancel)


@given(_facts(), _RULES)
def test_a_price_that_is_over_gives_back_only_what_waits_for_a_person(facts: HoldFacts, rules: HoldRules) -> None:
    """Whatever else the facts are, nobody's automatic release depends on it."""
    over, holds = (decide_hold(replace(facts, price_is_over=is_over), rules) for is_over in (True, False))
    if over == holds:
        return
    assert over == Cancel("quote_expired")
    assert facts.expectation is not None
    assert (facts.expectation.release or rules.release) is Release.MANUAL
    assert holds == Cancel("not_released") or (isinstance(holds, Wait) and holds.reason == "not_released")
