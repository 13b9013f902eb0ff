"""Keys of the API: made, listed and revoked; and who a caller is.

A refusal tells nothing: a key that is unknown, wrong, expired, revoked or not written like one gets the same
text. Secrets are compared in constant time, an unknown key's with a stand-in. What a caller could still measure
is whether the database was asked, so whether an id is in use; ids are no secret.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import structlog

from daemon.domain.api_keys import ID_BYTES, SECRET_BYTES, ApiKey, KeyText, Scope, is_key_id
from daemon.domain.errors import BadInput, NotFound, TellerdError, Unavailable
from daemon.domain.ports import ApiKeys
from daemon.serving import paging
from daemon.serving.scopes import scope_of

CACHE_S = 3.0
"""How long a key is taken as it was read: a revoked key works for at most this long. A caller's thousand calls a
second ask the database once in this time."""

MAX_CACHED = 1_000
"""Keys in use at once; with more, some are read more often."""

TOUCH_MS = 60_000
"""The last use is noted once a minute: it answers whether a key is still needed, not when a call was made."""

MAX_NAME_CHARS = 100
MAX_AGE_MS = 100 * 365 * 86_400_000
"""A later expiry is taken for a slip: leave it out for a key that never expires."""

_NO_HASH = "0" * 64
"""What the secret of an unknown key is compared with; no SHA-256 that anybody knows a text for."""

_SCHEME = "bearer"
_TOKEN_KIND = "api_keys"  # noqa: S105 (names a list, is no secret)

log = structlog.get_logger()


class Unauthenticated(TellerdError):
    """No key that counts was given; which of the reasons it is stays untold."""

    def __init__(self) -> None:
        super().__init__('give a valid API key in the metadata, as "authorization: Bearer tlr_…"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls: the key that was given, without its secret; both are empty where callers need none."""

    key_id: str = ""
    name: str = ""


class Forbidden(TellerdError):
    """The key counts, but not for this method; `caller` has it."""

    def __init__(self, caller: Caller | None = None) -> None:
        super().__init__("this API key does not allow the call")
        self.caller = caller


def create_api_key(
    keys: ApiKeys, *, name: str, scopes: Collection[Scope | None], expires_at_ms: int | None, now_ms: int
) -> tuple[ApiKey, KeyText]:
    """A new key and its text, which cannot be had again. None among the scopes stands for one that does not exist.

    Raises BadInput, Unavailable.
    """
    known = frozenset(scope for scope in scopes if scope is not None)
    if not known or None in scopes:
        raise BadInput(field="scopes", value=[], remedy=f"give one or more of {', '.join(Scope)}")
    if expires_at_ms is not None and not now_ms < expires_at_ms <= now_ms + MAX_AGE_MS:
        remedy = "give a time in the future, at most 100 years on, or none"
        raise BadInput(field="expires_at", value=expires_at_ms, remedy=remedy)
    text = KeyText.from_random(for_id=secrets.token_bytes(ID_BYTES), for_secret=secrets.token_bytes(SECRET_BYTES))
    key = ApiKey(
        key_id=text.key_id,
        name=_name(name),
        secret_hash=text.secret_hash(),
        scopes=known,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
    )
    keys.insert(key)
    log.info("api_key.created", key_id=key.key_id, name=key.name, scopes=sorted(key.scopes))
    return key, text


def list_api_keys(keys: ApiKeys, *, page_size: int, page_token: str) -> tuple[Sequence[ApiKey], str]:
    """A page of keys, newest first, and the next page's token. Raises BadInput, Unavailable."""
    limit = paging.page_size(page_size)
    page, next_after = keys.page(after=paging.read_token(_TOKEN_KIND, page_token), limit=limit)
    return page, paging.make_token(_TOKEN_KIND, next_after)


def revoke_api_key(keys: ApiKeys, key_id: str, *, now_ms: int) -> ApiKey:
    """Ends a key for good; it is refused within CACHE_S. Raises BadInput, NotFound, Unavailable."""
    if not is_key_id(key_id):
        # Whoever gives the whole key here must not find it in a log.
        remedy = "give the key's first 12 characters, tlr_ and 8 more"
        raise BadInput(field="key_id", value="(not shown)", remedy=remedy)
    key = keys.revoke(key_id, at_ms=now_ms)
    if key is None:
        raise NotFound(f"key_id: there is no key {key_id}")
    log.info("api_key.revoked", key_id=key.key_id, name=key.name)
    return key


def _name(value: str) -> str:
    text = value.strip()
    if not 1 <= len(text) <= MAX_NAME_CHARS or not text.isprintable():
        remedy = f"say on one line who will have the key, in 1 to {MAX_NAME_CHARS} printable characters"
        raise BadInput(field="name", value=value, remedy=remedy)
    return text


@dataclass(frozen=True, slots=True)
class _Read:
    key: ApiKey
    at_s: float


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class KeyCheck:
    """Says who calls, and refuses who may not. Used by many threads at once."""

    def __init__(
        self,
        keys: ApiKeys,
        *,
        now_ms: Callable[[], int] = _unix_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._cache: dict[str, _Read] = {}

    def authorise(self, method: str, authorization: Sequence[str]) -> Caller:
        """Who calls `package.Service/Method` with these values of the metadata `authorization`.

        Raises Unauthenticated, Forbidden, and Unavailable while a key cannot be looked up.
        """
        given = _bearer(authorization)
        key = None if given is None else self._known(given.key_id)
        offered = _NO_HASH if given is None else given.secret_hash()
        matches = hmac.compare_digest(offered, _NO_HASH if key is None else key.secret_hash)
        now_ms = self._now_ms()
        if key is None or not matches or not key.in_force(now_ms):
            raise Unauthenticated
        caller = Caller(key_id=key.key_id, name=key.name)
        scope = scope_of(method)
        if scope is None or not key.allows(scope):
            raise Forbidden(caller)
        self._note_use(key, now_ms)
        return caller

    def _known(self, key_id: str) -> ApiKey | None:
        """The key, at most CACHE_S old. Only keys that exist are cached: guesses cannot push them out."""
        asked_at_s = self._monotonic_s()
        with self._lock:
            read = self._cache.get(key_id)
        if read is not None and asked_at_s - read.at_s < CACHE_S:
            return read.key
        key = self._keys.get(key_id)
        with self._lock:
            self._cache.pop(key_id, None)
            if key is not None:
                if len(self._cache) >= MAX_CACHED:
                    del self._cache[next(iter(self._cache))]  # the one that was read longest ago
                self._cache[key_id] = _Read(key, asked_at_s)
        return key

    def _note_use(self, key: ApiKey, now_ms: int) -> None:
        """At most once a minute, by one thread; an outage is no reason to refuse the call."""
        if key.last_used_at_ms is not None and now_ms - key.last_used_at_ms < TOUCH_MS:
            return
        with self._lock:
            read = self._cache.get(key.key_id)
            if read is None or read.key is not key:
                return  # another thread notes it
            self._cache[key.key_id] = replace(read, key=replace(key, last_used_at_ms=now_ms))
        try:
            self._keys.touch_last_used(key.key_id, at_ms=now_ms)
        except Unavailable as outage:
            log.debug("api_key.use_not_noted", key_id=key.key_id, cause=str(outage))


def _bearer(authorization: Sequence[str]) -> KeyText | None:
    """The key in the only value there is, by RFC 6750's scheme; None for anything else."""
    if len(authorization) != 1:
        return None
    scheme, _, text = authorization[0].partition(" ")
    return KeyText.parse(text) if scheme.lower() == _SCHEME else None
