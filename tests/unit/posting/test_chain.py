"""The hash chain's test vector: whoever writes another verifier must come to these hashes."""

from __future__ import annotations

import hashlib

import pytest

from daemon.domain.books import GENESIS_HASH
from daemon.domain.entries import Leg
from daemon.posting.chain import link_hash

JOURNAL = "6ab1c0de0102030405000001"
LEGS = (
    Leg(account="Assets:Reserve:Lightning", currency="BTC", debit=1_234),
    Leg(account='Liabilities:Zoë "Z"', currency="BTC", credit=1_234, details={"type": "invoice", "pending": True}),
)

# Canonical JSON (RFC 8785) written by hand: members by name, no spaces, UTF-8 instead of escapes.
FIRST = (
    '{"datetime_ms":1790000000123,"id":"6ab1c0de0102030405000001","key":"ln:02ab:cd","legs":['
    '["Assets:Reserve:Lightning","BTC",1234,0],["Liabilities:Zoë \\"Z\\"","BTC",0,1234]]}'
)
SECOND = '{"datetime_ms":0,"id":"6ab1c0de0102030405000002","key":"foreign:6ab1c0de0102030405000002","legs":[]}'

FIRST_LINK = "0c9c8ad0079a99a1fd58c0379c6dbae6b53da06ddb6b671be596300fb031816a"
SECOND_LINK = "814bfed3c7b242dd807a1e9a5e86976ec468f1d0ad76104090da6b267f0e1560"


def first_link(
    *,
    previous: str = GENESIS_HASH,
    key: str = "ln:02ab:cd",
    journal_id: str = JOURNAL,
    datetime_ms: int = 1_790_000_000_123,
    legs: tuple[Leg, ...] = LEGS,
) -> str:
    """The first link of the vector, or one that differs from it."""
    return link_hash(previous=previous, key=key, journal_id=journal_id, datetime_ms=datetime_ms, legs=legs)


def test_vector() -> None:
    """Each link is SHA-256 of the previous one (32 bytes, zeros before the first) and the canonical JSON."""
    by_hand = hashlib.sha256(bytes(32) + FIRST.encode()).hexdigest()
    assert first_link() == by_hand == FIRST_LINK
    by_hand = hashlib.sha256(bytes.fromhex(FIRST_LINK) + SECOND.encode()).hexdigest()
    second = link_hash(
        previous=FIRST_LINK,
        key="foreign:6ab1c0de0102030405000002",
        journal_id="6ab1c0de0102030405000002",
        datetime_ms=0,
        legs=(),
    )
    assert second == by_hand == SECOND_LINK


@pytest.mark.parametrize(
    "other",
    [
        first_link(previous="1" + GENESIS_HASH[1:]),
        first_link(key="ln:02ab:ce"),
        first_link(journal_id="6ab1c0de0102030405000002"),
        first_link(datetime_ms=1_790_000_000_124),
        first_link(legs=LEGS[::-1]),
        first_link(legs=LEGS[:1]),
        first_link(legs=(LEGS[0], Leg(account="Liabilities:Zoe", currency="BTC", credit=1_234))),
        first_link(legs=(LEGS[0], Leg(account=LEGS[1].account, currency="USD", credit=1_234))),
        first_link(legs=(LEGS[0], Leg(account=LEGS[1].account, currency="BTC", debit=1_234))),
    ],
)
def test_a_link_covers_what_nobody_may_change(other: str) -> None:
    """Key, id, time, place in the chain, and each leg with its order change the link."""
    assert other != FIRST_LINK


def test_a_link_leaves_out_what_blink_may_change() -> None:
    """Metadata of a leg is no part of it."""
    bare = tuple(Leg(account=leg.account, currency="BTC", debit=leg.debit, credit=leg.credit) for leg in LEGS)
    assert first_link(legs=bare) == FIRST_LINK
