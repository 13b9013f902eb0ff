"""The wall clock, as ingest needs it: injected, so that a test can set it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Unix time in milliseconds."""

    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
