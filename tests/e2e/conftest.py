"""The stack is started once for all end-to-end tests; every test has a bank of its own on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regtest.binaries import redis_server
from regtest.mongod import forgetting_soon
from regtest.redis_server import RedisServer
from regtest.stack import Stack
from tests.e2e.bank import Bank
from tests.e2e.chain_bank import ChainBank

FAIL_POINTS = ("--setParameter=enableTestCommands=1",)
"""MongoDB's own fail points hold a command where a test wants the daemon to be killed."""

SNAPSHOTS_S = 30
"""Every bank has a database of its own. No snapshot here is read for so long."""

HANGS_S = 900
"""A test that lasts so long hangs. The longest takes 100 s, its stack included, on two cores that are idle; a busy
machine was seen to be six times as slow."""


_KILLED = pytest.StashKey[list[str]]()
_LND_KILLS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def killed_in_a_transaction(request: pytest.FixtureRequest) -> list[str]:
    """Where the daemon was killed with a transaction open on the server; counted at the end of the run."""
    return request.config.stash.setdefault(_KILLED, [])


@pytest.fixture(scope="session")
def lnd_kills(request: pytest.FixtureRequest) -> list[str]:
    """What killing LND under load has cost; told at the end of the run."""
    return request.config.stash.setdefault(_LND_KILLS, [])


@pytest.fixture(scope="session")
def figures(lnd_kills: list[str]) -> list[str]:
    """Other lines that are told at the end of the run."""
    return lnd_kills


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this folder have their own bound against hanging."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(HANGS_S))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run in several processes, each tells the first one its part of the count."""
    workeroutput: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["killed"] = session.config.stash.get(_KILLED, [])
        workeroutput["lnd_kills"] = session.config.stash.get(_LND_KILLS, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The first process hears it (pytest-xdist)."""
    told = getattr(node, "workeroutput", {})
    node.config.stash.setdefault(_KILLED, []).extend(told.get("killed", []))
    node.config.stash.setdefault(_LND_KILLS, []).extend(told.get("lnd_kills", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The count of such kills, where there were any, and what was seen when LND was killed."""
    killed = config.stash.get(_KILLED, [])
    if killed:
        terminalreporter.write_line(f"killed with a transaction open: {len(killed)} times: {', '.join(killed)}")
    for line in config.stash.get(_LND_KILLS, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Real nodes with a funded channel; what cannot be had is a failure, never a skip."""
    with Stack(mongod_flags=(*FAIL_POINTS, *forgetting_soon(snapshots_s=SNAPSHOTS_S))) as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Blink's, for a bank beside it (blinks_redis.beside_blink)."""
    running = RedisServer(redis_server(), tmp_path / "redis")
    running.start()
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()


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


@pytest.fixture
def chain(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ChainBank]:
    """A bank at the tip of a chain of its own; its books are checked when the test is done."""
    bank = ChainBank(stack, tmp_path, **getattr(request, "param", {}))
    try:
        bank.open()
        yield bank
        bank.check_books()
        bank.bank.command("verify")
    finally:
        bank.close()


@pytest.fixture(scope="module")
def _module_chain(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ChainBank]:
    bank = ChainBank(stack, tmp_path_factory.mktemp("chain"), **getattr(request.module, "SHARED_CHAIN", {}))
    try:
        bank.open()
        yield bank
        bank.bank.command("verify")  # it takes a second, and covers all that the module's tests have booked
    finally:
        bank.close()


@pytest.fixture
def shared_chain(_module_chain: ChainBank) -> Iterator[ChainBank]:
    """One bank for all tests of a module (made as its `SHARED_CHAIN` says), for tests that leave it at a tip that
    it follows; its books are checked after each of them."""
    yield _module_chain
    _module_chain.check_books()
