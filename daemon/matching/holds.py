"""What to do with a payment that a node holds: take it, give it back, or wait. Pure; nothing here credits anything.

| the payment | decision |
| --- | --- |
| is nobody's here: no document, or another node's | wait: whoever made the invoice decides |
| its invoice is paid or closed already | cancel |
| below one sat; below one cent, and no wallet for the sats | cancel: it could be credited to nobody |
| can be credited, the preimage is known, the release is automatic | settle |
| the same, but nobody has released it, or the preimage is elsewhere, or the wallet or the price is not fine | wait |
| nobody has released it, nothing else is missing, and the price that its invoice was given is over | cancel |
| waits, near the end | cancel: what nobody has said yes to goes back |
| later than LND itself would let it wait for | cancel |

Near the end means: `HoldRules.margin_blocks` before the height at which LND gives it back by itself. So whatever could
be settled has been settled by then, and everybody hears of the rest while it can still be changed by a call.

What waits for a person is no option on the price (`daemon.domain.quotes.release_until_ms`): a price that was given with
the invoice holds for minutes, and a payment that is priced while it is held is priced when it is released, no earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from daemon.domain.books import Expectation
from daemon.domain.holds import ALREADY_PAID, HoldRules, Release, deltas_of, is_preimage
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.ports import HoldState

_NOT_OURS: Final = frozenset({"no_expectation", "other_node"})
_NOT_RELEASED: Final = "not_released"
_PRICED_LATER: Final = "not_priced"
"""No price yet; of what waits for a release it says nothing."""
_NEVER: Final = frozenset({ALREADY_PAID, "under_one_cent"})
"""Reasons of `daemon.matching.decide.why_not_credited` that time does not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldFacts:
    """What a decision rests on.

    `not_credited` is why the payment could not be credited if it were settled now
    (`daemon.matching.decide.why_not_credited`), `not_priced` why there is no price for it (`daemon.posting.pricing`).
    `price_is_over`: nobody may release it any more at the price that its invoice was given.
    `height` is the node's newest block, None while it is not known; `version` is what LND says of itself.
    """

    hold: HoldState
    expectation: Expectation | None
    not_credited: str | None
    not_priced: str | None
    height: int | None
    version: str
    price_is_over: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """Take it."""

    preimage: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give it back; `reason` is told."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later. At `deadline_height` it is decided whatever is missing; None where we never decide."""

    reason: str
    deadline_height: int | None


def decide_hold(facts: HoldFacts, rules: HoldRules) -> Settle | Cancel | Wait:
    """The table above, in its order."""
    expectation = facts.expectation
    if expectation is None or facts.not_credited in _NOT_OURS:
        return Wait(facts.not_credited or "no_expectation", None)
    if facts.not_credited in _NEVER:
        return Cancel(facts.not_credited)
    if expectation.completed:
        return Cancel("closed")
    if facts.hold.received_msat < MSAT_PER_SAT:
        return Cancel("under_one_sat")
    deltas = deltas_of(facts.version)
    expiry_height = facts.hold.expiry_height
    if facts.height is not None and facts.height + deltas.broadcast >= expiry_height:
        return Cancel("too_late")
    preimage = preimage_of(expectation)
    reason = _missing(facts, expectation, preimage, rules)
    if reason is None and preimage is not None:
        return Settle(preimage)
    if reason == _NOT_RELEASED and facts.price_is_over:
        return Cancel("quote_expired")
    deadline_height = expiry_height - deltas.auto_cancel - rules.margin_blocks
    if facts.height is not None and facts.height >= deadline_height:
        return Cancel(reason or "no_preimage")
    return Wait(reason or "no_preimage", deadline_height)


def deadline_of(hold: HoldState, *, version: str, rules: HoldRules) -> int:
    """The height at which a held payment is decided at the latest."""
    return hold.expiry_height - deltas_of(version).auto_cancel - rules.margin_blocks


def preimage_of(expectation: Expectation) -> bytes | None:
    """The preimage in the document, None if there is none or it is another invoice's."""
    try:
        preimage = bytes.fromhex(expectation.preimage or "")
    except ValueError:
        return None
    return preimage if is_preimage(preimage, expectation.payment_hash) else None


def waits_for_release(expectation: Expectation, rules: HoldRules) -> bool:
    """Whether a person has to take it, and has not."""
    return (expectation.release or rules.release) is Release.MANUAL


def _missing(facts: HoldFacts, expectation: Expectation, preimage: bytes | None, rules: HoldRules) -> str | None:
    """What is missing for a settlement; None if nothing is. What a caller can do something about comes last."""
    if facts.not_priced is not None:
        return facts.not_priced
    unreleased = waits_for_release(expectation, rules)
    if facts.not_credited is not None and not (unreleased and facts.not_credited == _PRICED_LATER):
        return facts.not_credited
    if unreleased:
        return _NOT_RELEASED
    return "no_preimage" if preimage is None else None
