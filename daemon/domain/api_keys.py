"""Keys of the API: what they allow, how they are written, what is kept of them.

A key reads `tlr_<8 characters>_<43 characters>`. The part before the second underscore is its id, which may be
shown; the rest is the secret, 32 random bytes. Only the secret's SHA-256 is kept. A slow hash, as for passwords,
would protect nothing more: nobody guesses 256 random bits, however fast guesses can be tried, and it would cost
each call its time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

ID_BYTES = 5
"""8 characters of base32: two of ten thousand keys get the same id with a chance of 1 in 20,000, and the second of
them is refused when it is made."""

SECRET_BYTES = 32

_KEY_ID = re.compile(r"tlr_[a-z2-7]{8}")
_KEY_TEXT = re.compile(rf"({_KEY_ID.pattern})_([A-Za-z0-9_-]{{43}})")


class Scope(StrEnum):
    """What a key allows; each method needs one of them."""

    READ = "read"
    """To see wallets, invoices, deposits, books, events and status."""
    RECEIVE = "receive"
    """To have money come in: wallets, invoices, addresses."""
    WRITE = "write"
    """To change customers' money or settings."""
    ADMIN = "admin"
    """Everything, keys and policies included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key; times in Unix milliseconds. `secret_hash` is 64 hex digits."""

    key_id: str
    name: str
    secret_hash: str = field(repr=False)
    scopes: frozenset[Scope]
    created_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None

    def in_force(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at_ms is None and (self.expires_at_ms is None or now_ms < self.expires_at_ms)

    def allows(self, scope: Scope) -> bool:
        """Whether a method that needs this scope may be called."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyText:
    """A whole key, as its owner has it; the secret is in no repr."""

    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def from_random(cls, *, for_id: bytes, for_secret: bytes) -> KeyText:
        """A new key out of ID_BYTES and SECRET_BYTES from a cryptographic source."""
        if (len(for_id), len(for_secret)) != (ID_BYTES, SECRET_BYTES):
            raise ValueError(f"a key is made of {ID_BYTES} and {SECRET_BYTES} random bytes")
        return cls(
            key_id="tlr_" + base64.b32encode(for_id).decode().lower(),
            secret=base64.urlsafe_b64encode(for_secret).decode().rstrip("="),
        )

    @classmethod
    def parse(cls, text: str) -> KeyText | None:
        """The key that a caller gave; None if it is not written like one."""
        match = _KEY_TEXT.fullmatch(text)
        return None if match is None else cls(key_id=match[1], secret=match[2])

    def reveal(self) -> str:
        """The whole text: for its owner's eyes, once."""
        return f"{self.key_id}_{self.secret}"

    def secret_hash(self) -> str:
        """What is kept of the secret."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()


def is_key_id(text: str) -> bool:
    """Whether this is written like a key's id."""
    return _KEY_ID.fullmatch(text) is not None
