"""The stack is started once for all end-to-end tests; every test has a bank of its own on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regtest.stack import Stack
from tests.e2e.bank import Bank


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Real nodes with a funded channel; what cannot be had is a failure, never a skip."""
    with Stack() as running:
        yield running


@pytest.fixture
def bank(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bank]:
    """A bank that is open: tellerd leads, and the opening balance is booked."""
    bank = Bank(stack, tmp_path)
    try:
        bank.open()
        yield bank
    finally:
        bank.close()
