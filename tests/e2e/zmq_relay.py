"""A relay between bitcoind's ZMQ and tellerd: a test cuts it, or has it lose messages that ZMQ itself never would."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Final

from regtest.process import take_port

GREETING_BYTES: Final = 64
"""ZMTP 3: each side greets with so many bytes; frames follow (https://rfc.zeromq.org/spec/23/)."""

_MORE, _LONG, _COMMAND = 1, 2, 4
_AWAY_S: Final = 0.05
"""Before a subscriber is turned away whose publisher is not there: it would try again a thousand times a second."""


class ZmqRelay:
    """Hands on what one publisher says. `target` is `tcp://host:port`, set before anything is expected of it."""

    def __init__(self) -> None:
        self.target = ""
        self._port = take_port()
        self._lock = threading.Lock()
        self._to_lose = 0
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []

    @property
    def address(self) -> str:
        """Where the subscriber connects."""
        return f"tcp://127.0.0.1:{self._port}"

    @property
    def to_lose(self) -> int:
        """How many of the messages that lose() asked for are still to come."""
        with self._lock:
            return self._to_lose

    def start(self) -> None:
        """Takes connections, also again after cut()."""
        listener = socket.create_server(("127.0.0.1", self._port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Ends every connection, and takes no other."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            listener.close()
        with self._lock:
            ended, self._open = self._open, []
        for end in ended:
            _hang_up(end)

    def lose(self, messages: int) -> None:
        """The next so many messages do not arrive."""
        with self._lock:
            self._to_lose = messages

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                subscriber, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(listener, subscriber), daemon=True).start()

    def _connect(self, listener: socket.socket, subscriber: socket.socket) -> None:
        host, _, port = self.target.removeprefix("tcp://").rpartition(":")
        try:
            publisher = socket.create_connection((host, int(port)))
        except OSError:
            time.sleep(_AWAY_S)
            subscriber.close()
            return
        with self._lock:
            cut = self._listener is not listener
            if not cut:
                self._open += [subscriber, publisher]
        if cut:
            subscriber.close()
            publisher.close()
            return
        threading.Thread(target=_copy, args=(subscriber, publisher), daemon=True).start()
        self._hand_on(publisher, subscriber)

    def _hand_on(self, publisher: socket.socket, subscriber: socket.socket) -> None:
        """The publisher's side, message by message."""
        with suppress(OSError, EOFError), publisher.makefile("rb", buffering=0) as raw:
            greeted = 0
            while greeted < GREETING_BYTES:  # in pieces: each side waits for a part of the other's
                piece = raw.read(GREETING_BYTES - greeted)
                if not piece:
                    raise EOFError
                subscriber.sendall(piece)
                greeted += len(piece)
            while True:
                message, is_command = _message(raw)
                if is_command or not self._loses():
                    subscriber.sendall(message)
        _hang_up(publisher)
        _hang_up(subscriber)

    def _loses(self) -> bool:
        with self._lock:
            loses = self._to_lose > 0
            self._to_lose -= loses
        return loses


def _message(raw: socket.SocketIO) -> tuple[bytes, bool]:
    """All frames of the next message as they came, and whether it is a command of ZMTP's own."""
    parts = b""
    while True:
        flags = _exactly(raw, 1)
        size = _exactly(raw, 8 if flags[0] & _LONG else 1)
        parts += flags + size + _exactly(raw, int.from_bytes(size, "big"))
        if not flags[0] & _MORE:
            return parts, bool(flags[0] & _COMMAND)


def _exactly(raw: socket.SocketIO, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = raw.read(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    _hang_up(source)
    _hang_up(target)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
