"""Ctrl-C and SIGTERM, once: what was started is stopped in order, however often the signal is sent."""

from __future__ import annotations

import signal
from types import FrameType


def interrupt_on_signals() -> None:
    """From now on the first SIGINT or SIGTERM raises KeyboardInterrupt; stopping takes some seconds, and more signals
    must not cut that short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)
