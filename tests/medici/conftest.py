"""One mongod; per test a teller on a fresh database, and Blink's ledger library on the same one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from bson import json_util

from daemon.domain.identifiers import JournalId
from regtest.mongod import Mongod
from regtest.stack import mongod_only
from tests.contract.teller import Teller, teller_on
from tests.medici.node import HERE, Node, node, packages

_AWARE = json_util.JSONOptions(tz_aware=True, tzinfo=UTC)

EXIT_S = 10.0
"""Node.js ends within a second of the end of its input."""


class Medici:
    """ledger.js on one database, driven by lines of JSON. An answer that is an error raises."""

    def __init__(self, programs: Node, modules: Path, url: str, database: str) -> None:
        self._process = subprocess.Popen(
            (*programs.node, str(HERE / "ledger.js"), url, database),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(modules)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes the pipes
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(EXIT_S)
            finally:
                self._process.kill()

    def _ask(self, command: str, **values: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **values}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"ledger.js ended with code {self._process.wait(EXIT_S)}"
        answer = json_util.loads(line, json_options=_AWARE)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def balance(self, account: str, currency: str = "BTC") -> int:
        """medici's balance, which must be a whole number."""
        balance = self._ask("balance", account=account, currency=currency)["balance"]
        assert balance == int(balance)
        return int(balance)

    def ledger(self, account: str, currency: str = "BTC") -> list[dict[str, Any]]:
        """The account's legs, newest first."""
        legs: list[dict[str, Any]] = self._ask("ledger", account=account, currency=currency)
        return legs

    def write(
        self,
        legs: Sequence[Mapping[str, Any]],
        common: Mapping[str, Any],
        *,
        memo: str = "",
        datetime_ms: int | None = None,
    ) -> JournalId:
        """Writes a journal; a leg is {account, debit or credit, details}."""
        when = {} if datetime_ms is None else {"datetime_ms": datetime_ms}
        return JournalId(str(self._ask("write", legs=legs, common=common, memo=memo, **when)))

    def settle(self, payment_hash: str) -> int:
        """Takes `pending` off the legs of a send; returns how many there were."""
        return int(self._ask("settle", hash=payment_hash))

    def void(self, journal: JournalId, reason: str) -> JournalId:
        """Voids a journal; returns the mirrored one."""
        return JournalId(str(self._ask("void", journal=journal, reason=reason)))


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """One mongod for the whole run."""
    with mongod_only() as running:
        yield running


@pytest.fixture(scope="session")
def programs() -> Node:
    """Node.js and npm."""
    return node()


@pytest.fixture(scope="session")
def modules(programs: Node) -> Path:
    """medici and mongoose, installed once into the cache."""
    return packages(programs)


@pytest.fixture
def teller(mongod: Mongod) -> Iterator[Teller]:
    """A leader whose node is opened empty."""
    with teller_on(mongod) as teller:
        teller.open_node()
        yield teller


@pytest.fixture
def medici(teller: Teller, mongod: Mongod, programs: Node, modules: Path) -> Iterator[Medici]:
    """Blink's ledger library on the teller's database."""
    with Medici(programs, modules, mongod.url, teller.store.database) as running:
        yield running
