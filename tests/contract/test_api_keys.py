"""The port `ApiKeys`: what is written is read back, a revocation is for good, and times never move back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from daemon.domain.api_keys import ApiKey, Scope
from daemon.domain.errors import AlreadyExists, BadInput
from tests.contract.conftest import Database

AT_MS = 1_790_000_000_123


def key(letter: str, *, created_at_ms: int = AT_MS) -> ApiKey:
    return ApiKey(
        key_id=f"tlr_{letter * 8}",
        name=f"key {letter}",
        secret_hash=letter * 64,
        scopes=frozenset({Scope.READ, Scope.RECEIVE}),
        created_at_ms=created_at_ms,
    )


def test_a_key_is_read_back_as_it_was_written(store: Database) -> None:
    """To the millisecond, with and without an expiry; another id is unknown."""
    plain, expiring = key("a"), replace(key("b"), expires_at_ms=AT_MS + 1, scopes=frozenset(Scope))
    store.api_keys.insert(plain)
    store.api_keys.insert(expiring)
    assert store.api_keys.get(plain.key_id) == plain
    assert store.api_keys.get(expiring.key_id) == expiring
    assert store.api_keys.get("tlr_cccccccc") is None


def test_an_id_is_taken_once(store: Database) -> None:
    """The second key is refused, and the first stays."""
    store.api_keys.insert(key("a"))
    with pytest.raises(AlreadyExists):
        store.api_keys.insert(replace(key("a"), name="another", secret_hash="f" * 64))
    assert store.api_keys.get("tlr_aaaaaaaa") == key("a")


def test_a_revocation_is_for_good(store: Database) -> None:
    """The first time counts, also for those at once; nothing else changes; an unknown key is none."""
    store.api_keys.insert(key("a"))
    store.api_keys.insert(key("b"))
    with ThreadPoolExecutor(4) as threads:
        revoked = set(threads.map(lambda n: store.api_keys.revoke("tlr_aaaaaaaa", at_ms=AT_MS + n), range(1, 5)))
    assert len(revoked) == 1
    (first,) = revoked
    assert first is not None
    assert first.revoked_at_ms in range(AT_MS + 1, AT_MS + 5)
    assert first == replace(key("a"), revoked_at_ms=first.revoked_at_ms)
    assert store.api_keys.revoke("tlr_aaaaaaaa", at_ms=AT_MS + 9) == first
    assert store.api_keys.get("tlr_aaaaaaaa") == first
    assert store.api_keys.get("tlr_bbbbbbbb") == key("b")
    assert store.api_keys.revoke("tlr_cccccccc", at_ms=AT_MS) is None


def test_the_last_use_never_moves_back(store: Database) -> None:
    """Two daemons note uses of one key in any order; of an unknown key nothing is kept."""
    store.api_keys.insert(key("a"))
    store.api_keys.touch_last_used("tlr_bbbbbbbb", at_ms=AT_MS)
    for at_ms in (AT_MS + 5, AT_MS + 3, AT_MS + 4):
        store.api_keys.touch_last_used("tlr_aaaaaaaa", at_ms=at_ms)
    store.api_keys.insert(key("c"))  # a majority write after them: with it all before is seen
    used = replace(key("a"), last_used_at_ms=AT_MS + 5)
    assert store.api_keys.get("tlr_aaaaaaaa") == used
    assert store.api_keys.get("tlr_bbbbbbbb") is None
    assert store.api_keys.page(after=None, limit=10)[0] == [key("c"), used]


def test_keys_are_listed_newest_first_in_pages(store: Database) -> None:
    """Those of one moment by their ids; every key stands on one page, revoked ones, too."""
    made = [key(letter, created_at_ms=AT_MS + n // 2) for n, letter in enumerate("abcde")]
    for one in made:
        store.api_keys.insert(one)
    store.api_keys.revoke("tlr_cccccccc", at_ms=AT_MS)
    seen, token, sizes = [], None, []
    while True:
        page, token = store.api_keys.page(after=token, limit=2)
        seen += [one.key_id for one in page]
        sizes.append(len(page))
        if token is None:
            break
    assert seen == [one.key_id for one in reversed(made)]
    assert sizes == [2, 2, 1]
    assert store.api_keys.page(after=None, limit=5)[1] is None


def test_a_token_of_another_list_is_refused(store: Database) -> None:
    """It cannot be mistaken for a place."""
    with pytest.raises(BadInput, match="page_token"):
        store.api_keys.page(after="yesterday:tlr_aaaaaaaa", limit=2)
