"""The stack is started once for all end-to-end tests; every test has a bank of its own on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regtest.stack import Stack
from tests.e2e.bank import Bank

FAIL_POINTS = ("--setParameter=enableTestCommands=1",)
"""MongoDB's own fail points hold a command where a test wants the daemon to be killed."""


_KILLED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def killed_in_a_transaction(request: pytest.FixtureRequest) -> list[str]:
    """Where the daemon was killed with a transaction open on the server; counted at the end of the run."""
    return request.config.stash.setdefault(_KILLED, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The count of such kills, where there were any."""
    killed = config.stash.get(_KILLED, [])
    if killed:
        terminalreporter.write_line(f"killed with a transaction open: {len(killed)} times: {', '.join(killed)}")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Real nodes with a funded channel; what cannot be had is a failure, never a skip."""
    with Stack(mongod_flags=FAIL_POINTS) as running:
        yield running


@pytest.fixture
def bank(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bank]:
    """A bank that is open: tellerd leads, and the opening balance is booked."""
    bank = Bank(stack, tmp_path, settings=getattr(request, "param", ""))
    try:
        bank.open()
        yield bank
    finally:
        bank.close()


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[Bank]:
    """A bank on a stack of its own, for tests that leave the nodes in another state."""
    with Stack() as stack:
        bank = Bank(stack, tmp_path)
        try:
            bank.open()
            yield bank
        finally:
            bank.close()
