"""What is kept of an API call that may change something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ENTRY_ID = re.compile(r"[0-9]{13}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call, after it ended. `method` is `package.Service/Method`, `code` the name of a gRPC status.

    `key_id` and `key_name` are the caller's key, both empty where callers need none; `peer` is his address as gRPC
    writes it. `subjects` are the ids that request and answer name, never a secret.
    """

    entry_id: str
    at_ms: int
    method: str
    key_id: str
    key_name: str
    peer: str
    code: str
    subjects: Mapping[str, str]


def entry_id(at_ms: int, random: bytes) -> str:
    """An id that sorts by time: Unix milliseconds (13 digits until the year 2286), then six random bytes."""
    return f"{at_ms:013d}-{random[:6].hex()}"


def is_entry_id(text: str) -> bool:
    """Whether this is written like an entry's id."""
    return _ENTRY_ID.fullmatch(text) is not None
