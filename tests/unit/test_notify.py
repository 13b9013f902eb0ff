"""What the service manager hears, on a socket that plays systemd."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from daemon.notify import Notifier
from daemon.serving.heartbeat import Heartbeat


@dataclass
class Manager:
    """Listens at `address`, as $NOTIFY_SOCKET gives it."""

    address: str
    listener: socket.socket

    def heard(self) -> list[str]:
        """All that has arrived since the last time: a datagram is there when it was sent."""
        told = []
        while True:
            try:
                told.append(self.listener.recv(4096).decode())
            except BlockingIOError:
                return told


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """systemd uses either kind of name."""
    name = f"tellerd-test-{uuid.uuid4().hex}"
    address = f"@{name}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        listener.bind(f"\0{name}" if request.param == "abstract" else address)
        yield Manager(address, listener)


def test_ready_and_stopping_are_told_with_a_line_for_people(manager: Manager) -> None:
    """In systemd's own words, and in order."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address}, pid=7)
    notifier.ready("standby")
    notifier.ready("leading")
    notifier.stopping()
    notifier.close()
    notifier.ready("after the end")
    assert manager.heard() == [
        "READY=1\nSTATUS=standby",
        "READY=1\nSTATUS=leading",
        "STOPPING=1\nSTATUS=draining",
    ]


@pytest.mark.parametrize(
    ("environment", "heard"),
    [
        ({}, []),
        ({"WATCHDOG_USEC": "30000000"}, ["WATCHDOG=1"]),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, ["WATCHDOG=1"]),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, []),
    ],
)
def test_a_beat_is_told_only_where_a_watchdog_wants_it(
    manager: Manager, environment: dict[str, str], heard: list[str]
) -> None:
    """And not if the watchdog is another process's."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **environment}, pid=7)
    Heartbeat(on_beat=notifier.alive).beat()
    notifier.close()
    assert manager.heard() == heard


def test_without_a_service_manager_nothing_happens() -> None:
    """As from a shell."""
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1"}, pid=7)
    notifier.ready("leading")
    notifier.alive()
    notifier.stopping()
    notifier.close()


def test_a_manager_that_is_gone_is_logged_once_and_stops_nothing(tmp_path: Path) -> None:
    """Until one listens again."""
    address = tmp_path / "notify"
    notifier = Notifier(str(address), watched=True)
    with structlog.testing.capture_logs() as logs:
        notifier.ready("leading")
        notifier.alive()
        assert [line["event"] for line in logs] == ["notify.failed"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            notifier.alive()
            assert listener.recv(64) == b"WATCHDOG=1"
        notifier.alive()
        assert [line["event"] for line in logs] == ["notify.failed"] * 2
    notifier.close()


def test_a_manager_that_does_not_read_blocks_nobody(manager: Manager) -> None:
    """Its buffer is full after some hundred datagrams: the rest is dropped, not waited for."""
    notifier = Notifier(manager.address, watched=True)
    with structlog.testing.capture_logs() as logs:
        for _ in range(10_000):
            notifier.alive()
    notifier.close()
    assert [line["event"] for line in logs] == ["notify.failed"]
    assert 0 < len(manager.heard()) < 10_000
