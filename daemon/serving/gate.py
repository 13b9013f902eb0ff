"""Whether this process serves: as leader, and until it drains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum

from daemon.domain.errors import TellerdError


class Role(StrEnum):
    """What a daemon is among those that share a database."""

    STARTING = "starting"
    LEADER = "leader"
    STANDBY = "standby"


class Closed(TellerdError):
    """This process does not serve now; the text says why. Another may, or this one later."""


class Gate:
    """Set by the composition root, asked by API threads before each call and within each stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._role = Role.STARTING
        self._draining = False
        self._closed = threading.Event()
        self._closed.set()
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def role(self) -> Role:
        """What this process is now."""
        return self._role

    @property
    def is_open(self) -> bool:
        """Whether calls are served."""
        return not self._closed.is_set()

    def lead(self) -> None:
        """The lease is ours and posting runs."""
        self._turn(role=Role.LEADER)

    def stand_by(self) -> None:
        """Another daemon leads, or may."""
        self._turn(role=Role.STANDBY)

    def drain(self) -> None:
        """The process is about to end: new calls are refused and streams end; for good."""
        self._turn(draining=True)

    def check(self) -> None:
        """Raises Closed unless calls are served."""
        reason = self.refusal()
        if reason is not None:
            raise Closed(reason)

    def refusal(self) -> str | None:
        """Why calls are not served; None while they are."""
        with self._lock:
            if self._draining:
                return "shutting down: call again, the next daemon will answer"
            match self._role:
                case Role.LEADER:
                    return None
                case Role.STANDBY:
                    return "standby: another daemon leads; call that one"
                case Role.STARTING:
                    return "starting: call again in a few seconds"

    def pause(self, seconds: float) -> None:
        """Blocks a thread for this long, less if the gate closes."""
        self._closed.wait(seconds)

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """`listener(is_open)` is called now and after each change, one call at a time."""
        with self._lock:
            self._listeners.append(listener)
            listener(self.is_open)

    def _turn(self, *, role: Role | None = None, draining: bool = False) -> None:
        with self._lock:
            self._role = role or self._role
            self._draining = self._draining or draining
            if self._role is Role.LEADER and not self._draining:
                self._closed.clear()
            else:
                self._closed.set()
            for listener in self._listeners:
                listener(self.is_open)
