"""What tellerd does beside Blink's own processes: the same locks, the same messages (blink-contract.md 3.5, 3.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A message for whoever listens on a channel now; `payload` becomes JSON."""

    channel: str
    payload: Mapping[str, Any]


class Beside(Protocol):
    """Locks that other programs take, too, and messages that they listen for. Every call is one round trip and raises
    Unavailable where nobody answers; then locks may have been taken or not, and may be asked for again."""

    def take(self, names: Sequence[str], *, ttl_ms: int) -> frozenset[str]:
        """Takes, or prolongs, those locks that nobody else holds, and returns them. A lock ends by itself after
        `ttl_ms`."""
        ...

    def release(self, names: Sequence[str]) -> None:
        """Gives back those of these locks that are still ours."""
        ...

    def announce(self, messages: Sequence[Announcement]) -> None:
        """Sends the messages; who does not listen now never gets them."""
        ...
