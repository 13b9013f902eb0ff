"""One node process: its life, its log, its readiness, its ports.

A node cannot outlive its launcher: it is killed by the kernel when the launcher ends (tether.py). It has a session
of its own, so that Ctrl-C reaches the launcher only, which then stops the nodes in order.
"""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from regtest.descriptors import raise_limit

T = TypeVar("T")

STOP_S: Final = 60.0
"""LND and mongod end in 0.1-3 s, in 10 s with a busy disk. After it comes SIGKILL."""

KILL_S: Final = 60.0
"""The kernel ends a killed process at once unless it sits in a disk write."""

POLL_S: Final = 0.02
"""Short against the 0.3-4 s that a node takes to get ready, long against what a poll costs."""

TAIL_LINES: Final = 15

raise_limit()  # before the first node: it inherits it

# The kernel sends the death signal when the *thread* that forked ends, not the process. So one thread, which lives
# as long as the launcher, starts every node; a node started from a pool's thread would be killed with that thread.
_SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="regtest-spawner")


class NodeError(Exception):
    """A node could not be started, has ended, or did not get ready in time; the message ends with its log."""


class NodeProcess:
    """A child process that can be started again and again with the same command line and the same log file."""

    def __init__(
        self, name: str, command: tuple[str, ...], log_file: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is added to the launcher's own; secrets go there, never into `command`."""
        self.name = name
        self.command = command
        self.log_file = log_file
        self._environment = dict(environment or {})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """True from start() until the process has ended; a paused process is alive."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process id; NodeError when the node was never started."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """None while alive or never started; negative: the signal that ended it."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Start the process and append its output to the log file; NodeError if it runs already."""
        if self.alive:
            raise NodeError(f"{self.name} is already running as process {self.pid}")
        tether = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tether.py")), str(os.getpid())]
        self._child = _SPAWNER.submit(self._spawn, [*tether, *self.command]).result()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """SIGTERM, a bounded wait, then SIGKILL; returns when the process has ended. Does nothing if it has."""
        if not self.alive:
            return
        child = self._started()
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)  # a paused process would not see SIGTERM
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the process has ended. Does nothing if it has."""
        if self.alive:
            child = self._started()
            child.kill()
            child.wait(KILL_S)

    def pause(self) -> None:
        """SIGSTOP: a node that hangs; its sockets stay open and answer nothing."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: go on after pause()."""
        self._started().send_signal(signal.SIGCONT)

    def wait_until(self, ready: Callable[[], T | None], what: str, timeout_s: float) -> T:
        """Poll `ready` until it gives something true and return that.

        `ready` returns None or raises OSError or NodeError for "not yet". NodeError, with the log's tail and the
        last refusal, after `timeout_s` seconds, or as soon as the process has ended.
        """
        deadline = time.monotonic() + timeout_s
        refusal = "no answer yet"
        while time.monotonic() < deadline:
            try:
                if answer := ready():
                    return answer
            except (OSError, NodeError) as not_yet:
                refusal = str(not_yet) or repr(not_yet)
            if not self.alive:
                raise NodeError(f"{self.name} ended with code {self.exit_code} before {what}\n{self.log_tail()}")
            time.sleep(POLL_S)
        raise NodeError(f"{self.name}: not {what} in {timeout_s:.0f} s ({refusal})\n{self.log_tail()}")

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log, indented, after a line that names the file."""
        if not self.log_file.exists():
            return f"  {self.log_file}: no such file"
        tail = self.log_file.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"  {self.log_file}:", *(f"  | {line}" for line in tail)])

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise NodeError(f"{self.name} was never started")
        return self._child


class Node:
    """What every node can do; `data_folder` and ports stay the same over restarts."""

    process: NodeProcess
    data_folder: Path

    def start(self) -> None:
        """Start it; it is not ready yet (wait_ready)."""
        self.data_folder.mkdir(parents=True, exist_ok=True)
        self.process.start()

    def wait_ready(self) -> None:
        """Return when it can be used; NodeError if not in time."""
        raise NotImplementedError

    def stop(self) -> None:
        """SIGTERM: a clean end."""
        self.process.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def pause(self) -> None:
        """SIGSTOP: it hangs."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self.process.resume()

    def restart(self) -> None:
        """Stop, start with the same data on the same ports, and wait until ready."""
        self.stop()
        self.start()
        self.wait_ready()

    def wipe(self) -> None:
        """Replace it by an empty one at the same address, ready."""
        self.kill()
        shutil.rmtree(self.data_folder)
        self.start()
        self.wait_ready()


_RESERVED: Final[list[socket.socket]] = []  # held open for the launcher's life: what keeps the ports ours


@atexit.register
def _release_ports() -> None:
    while _RESERVED:
        _RESERVED.pop().close()


def take_port() -> int:
    """A free TCP port on 127.0.0.1 that stays ours while this process lives, also over a node's restart.

    It is drawn from below the range that the kernel hands out by itself (bind to port 0, and every outgoing
    connection): while a node is down, one of its clients could otherwise be given the node's port. Launchers keep
    out of each other's way by an abstract Unix socket per port, which ends with its process.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (10_240, first_ephemeral) if first_ephemeral > 12_000 else (20_000, 65_536)
    for _ in range(1_000):  # each try fails only if that port is in use: 1,000 in a row means something is broken
        port = random.randrange(low, high)
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0tellerd-regtest-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _RESERVED.append(reservation)
        return port
    raise NodeError("no free TCP port on 127.0.0.1")
