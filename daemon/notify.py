"""What systemd is told of this process (sd_notify(3)): ready, alive, stopping.

One datagram each to the socket that $NOTIFY_SOCKET names: no library is needed. Without the variable nothing is
sent. A service manager that cannot be reached is logged once and never stops the daemon: it counts money.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Self

import structlog

log = structlog.get_logger()


class Notifier:
    """Tells the service manager; safe from any thread, never blocks, never raises."""

    def __init__(self, address: str | None, *, watched: bool) -> None:
        """`address` as in $NOTIFY_SOCKET, None: nobody listens. `watched`: signs of life are expected."""
        self._address = address
        self._watched = watched
        self._failed = False
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, pid: int) -> Self:
        """As systemd sets it: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID for whom it is meant."""
        watched = bool(environ.get("WATCHDOG_USEC")) and environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(environ.get("NOTIFY_SOCKET") or None, watched=watched)

    def ready(self, status: str) -> None:
        """The start is done; `status` is one line for `systemctl status`. May be repeated with another status."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """The main loop turns: without this for WatchdogSec= the process is started anew."""
        if self._watched:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The drain has begun."""
        self._send("STOPPING=1\nSTATUS=draining")

    def close(self) -> None:
        """Closes the socket; nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str) -> None:
        if self._socket is None or self._address is None:
            return
        # An @ stands for the NUL byte that begins the name of an abstract socket.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._socket.sendto(state.encode(), address)
        except OSError as problem:  # nobody listens, or its buffer is full: the next one may arrive
            if not self._failed:
                log.warning("notify.failed", cause=str(problem))
            self._failed = True
        else:
            self._failed = False
