"""Posting without threads: its blocking calls are made in place, so that a mock clock decides all timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """`trio.to_thread.run_sync` calls in place; it stays a checkpoint. What is called here never blocks."""

    async def in_place(function: Callable[..., Any], *values: Any, **_options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*values)

    monkeypatch.setattr(trio.to_thread, "run_sync", in_place)
