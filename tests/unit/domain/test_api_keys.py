"""Keys of the API: how they are written, and what counts."""

from __future__ import annotations

import hashlib

import pytest

from daemon.domain.api_keys import ApiKey, KeyText, Scope, is_key_id

TEXT = KeyText.from_random(for_id=bytes(range(5)), for_secret=bytes(range(32)))
NOW_MS = 1_790_000_000_000


def key(*scopes: Scope, expires_at_ms: int | None = None, revoked_at_ms: int | None = None) -> ApiKey:
    return ApiKey(
        key_id=TEXT.key_id,
        name="core",
        secret_hash=TEXT.secret_hash(),
        scopes=frozenset(scopes),
        created_at_ms=NOW_MS - 1,
        expires_at_ms=expires_at_ms,
        revoked_at_ms=revoked_at_ms,
    )


def test_a_key_is_written_as_its_id_and_its_secret() -> None:
    """A vector: random bytes, text, and what is kept of it."""
    assert TEXT.reveal() == "tlr_aaaqeaye_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert TEXT.key_id == "tlr_aaaqeaye"
    kept = hashlib.sha256(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").hexdigest()
    assert TEXT.secret_hash() == kept
    assert KeyText.parse(TEXT.reveal()) == TEXT


def test_a_secret_with_underscores_is_read() -> None:
    """They are url-safe base64's, too, as is the hyphen."""
    text = KeyText.from_random(for_id=b"\xff" * 5, for_secret=b"\xff" * 32)
    assert text.reveal() == "tlr_77777777_" + "_" * 42 + "8"
    assert KeyText.parse(text.reveal()) == text


def test_a_key_has_its_random_bytes_and_no_fewer() -> None:
    """A source that runs dry makes no weak key."""
    for id_bytes, secret_bytes in ((4, 32), (5, 31), (5, 33)):
        with pytest.raises(ValueError, match="random bytes"):
            KeyText.from_random(for_id=bytes(id_bytes), for_secret=bytes(secret_bytes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tlr_",
        TEXT.key_id,
        TEXT.reveal()[:-1],
        TEXT.reveal() + "A",
        TEXT.reveal() + "\n",
        " " + TEXT.reveal(),
        TEXT.reveal().upper(),
        TEXT.reveal().replace("tlr_", "tlr-"),
        TEXT.reveal().replace("aaaq", "aaa1"),
        TEXT.reveal()[:-1] + "=",
        TEXT.reveal()[:-1] + "é",
    ],
)
def test_what_is_not_written_like_a_key_is_none(text: str) -> None:
    """One character more, less or other."""
    assert KeyText.parse(text) is None


def test_an_id_is_told_from_a_whole_key() -> None:
    """So that a whole key, given where an id belongs, is not taken for one."""
    assert is_key_id("tlr_aaaqeaye")
    assert not any(is_key_id(text) for text in (TEXT.reveal(), "aaaqeaye", "tlr_aaaqeay", "tlr_aaaqeay1", ""))


def test_no_repr_shows_the_secret_or_its_hash() -> None:
    """Logs and tracebacks are made of these."""
    shown = f"{TEXT!r} {TEXT} {key(Scope.READ)!r} {key(Scope.READ)}"
    assert TEXT.key_id in shown
    assert TEXT.secret not in shown
    assert TEXT.secret_hash() not in shown


def test_a_key_counts_until_it_expires_or_is_revoked() -> None:
    """The moment of expiry is past it; a revocation counts whatever its time."""
    assert key(Scope.READ).in_force(NOW_MS)
    assert key(Scope.READ, expires_at_ms=NOW_MS + 1).in_force(NOW_MS)
    assert not key(Scope.READ, expires_at_ms=NOW_MS).in_force(NOW_MS)
    assert not key(Scope.READ, revoked_at_ms=NOW_MS + 1).in_force(NOW_MS)


def test_a_scope_allows_itself_and_admin_allows_all() -> None:
    """No other scope stands for a second one."""
    for given in Scope:
        allowed = {asked for asked in Scope if key(given).allows(asked)}
        assert allowed == (set(Scope) if given is Scope.ADMIN else {given})
    assert {asked for asked in Scope if key(Scope.READ, Scope.WRITE).allows(asked)} == {Scope.READ, Scope.WRITE}
