"""tellerd as systemd runs it: what it tells the service manager, what it writes to the journal, and SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.mongo.collections import KEYS, OUTBOX
from daemon.posting.money_log import MONEY_FACTS
from regtest.process import NodeProcess
from tests.e2e.bank import Bank, wait_for


class Manager:
    """Listens as systemd does, and keeps all that was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(path))
        self._listener.setblocking(False)
        self._told: list[str] = []

    def told(self) -> list[str]:
        """Everything so far, in order."""
        while True:
            try:
                self._told.append(self._listener.recv(4096).decode())
            except BlockingIOError:
                return self._told

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


def log_of(bank: Bank) -> list[dict[str, Any]]:
    """The lines of tellerd's log: it is a file, so all of them are JSON."""
    whole, _, _ = bank.tellerd.process.log_file.read_text().rpartition("\n")  # the last line may be on its way
    return [json.loads(line) for line in whole.splitlines()]


def _rereadings(bank: Bank) -> int:
    return sum(line["event"] == "config.reread" for line in log_of(bank))


def test_the_service_manager_hears_of_start_life_and_end(bank: Bank, manager: Manager) -> None:
    """READY=1 as standby and as leader, WATCHDOG=1 from the main loop, STOPPING=1 at SIGTERM, and exit code 0."""
    bank.tellerd.process.stop()
    bank.tellerd.process = NodeProcess(
        "tellerd",
        bank.tellerd.process.command,
        bank.tellerd.process.log_file,
        {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "30000000"},
    )
    bank.tellerd.start()
    # Read all the while: the kernel keeps ten messages, and it says every second that it lives.
    wait_for(lambda: "READY=1\nSTATUS=leading" in manager.told(), "it says that it leads")
    ready = [told for told in manager.told() if told.startswith("READY=1")]
    assert ready == ["READY=1\nSTATUS=standby", "READY=1\nSTATUS=leading"]
    beats = manager.told().count("WATCHDOG=1")
    wait_for(lambda: manager.told().count("WATCHDOG=1") > beats + 1, "the main loop tells that it turns")
    assert "STOPPING=1\nSTATUS=draining" not in manager.told()
    bank.tellerd.process.stop()
    assert "STOPPING=1\nSTATUS=draining" in manager.told()
    assert bank.tellerd.process.exit_code == 0
    bank.tellerd.start()
    bank.tellerd.wait_ready()


def test_each_fact_that_moved_money_has_one_line_with_its_key(bank: Bank) -> None:
    """The same facts, keys, places and journals as in the books, and no others."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("logged")
        bank.pay(bank.invoices(client, wallet, [1_000, 2_000, 3_000]))
        bank.wait_balance(wallet, 6_000)
    booked = [
        (row["_id"], row["type"], row["id"].removesuffix(f"#{row['type']}"), row["payload"].get("journal_id"))
        for row in bank.db[OUTBOX].find({"type": {"$in": sorted(MONEY_FACTS)}}).sort("_id", 1)
    ]
    assert len(booked) >= 4  # the opening and the payments

    def logged() -> list[tuple[Any, ...]]:
        return [
            (line["sequence"], line["fact"], line["key"], line.get("journal_id"))
            for line in log_of(bank)
            if line["event"] == "money.posted"
        ]

    wait_for(lambda: len(logged()) >= len(booked), "every line is written")
    assert logged() == [(number, fact, key, journal and str(journal)) for number, fact, key, journal in booked]
    assert all(bank.db[KEYS].find_one({"_id": key}) for _, _, key, _ in booked)


def test_sighup_changes_the_level_and_a_wrong_file_does_not(bank: Bank) -> None:
    """The daemon goes on crediting either way."""
    config, process = bank.tellerd.config_file, bank.tellerd.process
    whole = config.read_text()
    config.write_text(whole + '\n[log]\nlevel = "loud"\n')
    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: "config.not_reread" in process.log_file.read_text(), "the wrong file is named")
    config.write_text(whole + '\n[log]\nlevel = "warning"\n')
    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: _rereadings(bank) == 1, "the level is warning")
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("quiet")
        before = process.log_file.read_text().count("money.posted")
        bank.pay(bank.invoices(client, wallet, [1_000]))
        bank.wait_balance(wallet, 1_000)
        assert process.log_file.read_text().count("money.posted") == before
        config.write_text(whole)
        os.kill(process.pid, signal.SIGHUP)
        wait_for(lambda: _rereadings(bank) == 2, "the level is info again")
        bank.pay(bank.invoices(client, wallet, [2_000]))
        bank.wait_balance(wallet, 3_000)
    wait_for(lambda: process.log_file.read_text().count("money.posted") == before + 1, "it is told again")
