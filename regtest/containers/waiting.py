"""Waiting for another service, always with an end."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

POLL_S: Final = 0.2
"""Against nodes that take seconds to start, and share two cores with everything else."""


class NotInTime(Exception):
    """What was waited for did not come; the message says what, and the last refusal."""


def wait_until(ready: Callable[[], T | None], what: str, timeout_s: float, not_yet: tuple[type[Exception], ...]) -> T:
    """Poll `ready` until it gives something true, and return that; `not_yet` are the errors that mean "not yet"."""
    give_up_at = time.monotonic() + timeout_s
    refusal = "no answer yet"
    while time.monotonic() < give_up_at:
        try:
            if answer := ready():
                return answer
            refusal = "not yet"
        except not_yet as problem:
            refusal = str(problem) or repr(problem)
        time.sleep(POLL_S)
    raise NotInTime(f"not {what} in {timeout_s:.0f} s: {refusal}")
