"""What is kept of the API's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemon.domain.api_keys import ApiKey


class ApiKeys(Protocol):
    """`teller_api_keys`. Keys are never deleted: what was revoked stays on record."""

    def insert(self, key: ApiKey) -> None:
        """Writes a new key; AlreadyExists if its id is taken."""
        ...

    def get(self, key_id: str) -> ApiKey | None:
        """The key, None if there is none. Sees every revocation that was answered before."""
        ...

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[ApiKey], str | None]:
        """Keys, newest first, and the token of the next page, None after the last. BadInput for a token not ours."""
        ...

    def revoke(self, key_id: str, *, at_ms: int) -> ApiKey | None:
        """Ends a key for good and returns it, None if there is none; a repeat keeps the first time."""
        ...

    def touch_last_used(self, key_id: str, *, at_ms: int) -> None:
        """Notes a use, to be seen within moments; the time never moves back. May be lost in a fail-over: nothing
        rests on it."""
        ...
