"""What bitcoind publishes by ZMQ, as hints (node-interfaces.md B.6). Under Trio and without a thread of ours.

One SUB socket listens to all addresses. A message has three frames: topic, body, and a number that the notifier
counts up by one for each message it sends: a hole in the numbers tells what was lost on the way, a number that falls
tells a restart. Numbers cannot tell what was published before a subscription stood, and after a restart the number
may by chance be the one that was expected. So each new connection is told, at once, as `HintsLost("connection", 0)`.
It matters also because ZMQ subscribes again after a reconnect only when somebody looks at the socket (seen: a reader
that was busy while bitcoind restarted got none of its announcements).

The topics: `sequence` says what happened to the mempool and to the chain; `rawtx` brings txs, and loses many by
design; `hashblock` and `rawblock` only wake, where `sequence` is not published. What is not published is silent.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
import zmq
from zmq.utils.monitor import parse_monitor_message

from daemon.domain.blocks import MAX_BYTES
from daemon.domain.errors import Misconfigured
from daemon.domain.ports import ChainHint, HintsLost, RawTx, TipChanged, TxAdded, TxRemoved

MAX_BATCH: Final = 1_000
"""Messages in one batch: some 10 ms of reading, after which other tasks have their turn."""

CONNECTION: Final = "connection"
"""The topic of a HintsLost that says: what was published before is not known."""

_MAX_WAITING: Final = 20_000
"""Messages that ZMQ keeps for us per address. A block is followed by a rawtx for each of its txs, seldom more than
5,000, so this is some blocks at once and some megabytes; beyond it messages are lost, which the numbers tell."""

_RECONNECT_MS: Final = 1
"""A restarted node announces its mempool at once; with ZMQ's own 100 ms the first of it would be missed."""

_NUMBERS: Final = 2**32
"""The third frame is an uint32, little-endian."""

_HASH_BYTES: Final = 32
_MEMPOOL_SEQUENCE_BYTES: Final = 8

_Reader = Callable[[bytes], ChainHint]


@asynccontextmanager
async def hint_stream(addresses: Sequence[str], *, node: str) -> AsyncIterator[HintStream]:
    """See `ChainNode.hints`. Raises Misconfigured for an address that ZMQ cannot connect to."""
    await trio.lowlevel.checkpoint()
    context = zmq.Context()
    try:
        socket = context.socket(zmq.SUB)
        connected = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        _connect(socket, addresses, node=node)
        with select.epoll() as either:
            either.register(int(socket.getsockopt(zmq.FD)), select.EPOLLIN)
            either.register(int(connected.getsockopt(zmq.FD)), select.EPOLLIN)
            try:
                yield HintStream(socket, connected, either)
            finally:
                trio.lowlevel.notify_closing(either)
    finally:
        context.destroy(linger=0)


class HintStream:
    """The iteration: each step takes what has arrived, MAX_BATCH messages at most."""

    def __init__(self, socket: zmq.Socket[bytes], connected: zmq.Socket[bytes], either: select.epoll) -> None:
        """`connected` tells of new connections of `socket`; `either` is readable when one of them has changed."""
        self._socket = socket
        self._connected = connected
        self._either = either
        self._numbers = Numbers()

    def __aiter__(self) -> HintStream:
        return self

    async def __anext__(self) -> Sequence[ChainHint]:
        await trio.lowlevel.checkpoint()
        while True:
            if batch := self._take():
                return batch
            # The descriptors tell of changes only. EVENTS says what there is, and takes the change away.
            if not (_has_waiting(self._socket) or _has_waiting(self._connected)):
                await trio.lowlevel.wait_readable(self._either)

    def _take(self) -> list[ChainHint]:
        messages: list[list[bytes]] = []
        while len(messages) < MAX_BATCH:
            try:
                messages.append(self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        # Asked after the messages: every connection that one of them came by has been told by now.
        hints: list[ChainHint] = []
        if self._has_connected():
            self._numbers = Numbers()
            hints.append(HintsLost(CONNECTION, 0))
        for message in messages:
            hints.extend(self._numbers.hints(message))
        return hints

    def _has_connected(self) -> bool:
        """Whether a connection was made since the last look."""
        found = False
        while True:
            try:
                event = parse_monitor_message(self._connected.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return found
            found = found or event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED


class Numbers:
    """Reads messages, and knows which number each topic's next one must have."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}

    def hints(self, message: Sequence[bytes]) -> list[ChainHint]:
        """The hint of this message, after a HintsLost if some before it are missing; only that, if it is malformed."""
        topic = message[0]
        name = topic.decode("ascii", "replace")[:20]
        read = _READERS.get(topic)
        if read is None or len(message) != 3 or len(message[2]) != 4:
            self._next.pop(topic, None)
            return [HintsLost(name, 1)]
        lost = self._missing(topic, int.from_bytes(message[2], "little"))
        try:
            hint = read(message[1])
        except ValueError:
            return [HintsLost(name, 1 + (lost or 0))]
        return [hint] if lost is None else [HintsLost(name, lost), hint]

    def _missing(self, topic: bytes, number: int) -> int | None:
        """How many are missing before this number, at least; None if none is."""
        expected = self._next.get(topic, number)
        self._next[topic] = (number + 1) % _NUMBERS
        if number == expected:
            return None
        # A smaller number is a restart's: what it sent up to it was not seen, nor what was sent before it.
        return number - expected if number > expected else number


def _has_waiting(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def _sequence(body: bytes) -> ChainHint:
    block_hash_or_txid, label = body[:_HASH_BYTES].hex(), body[_HASH_BYTES : _HASH_BYTES + 1]
    rest_bytes = len(body) - _HASH_BYTES - 1
    if label in (b"C", b"D") and rest_bytes == 0:
        return TipChanged()
    if label == b"A" and rest_bytes == _MEMPOOL_SEQUENCE_BYTES:
        return TxAdded(block_hash_or_txid)
    if label == b"R" and rest_bytes == _MEMPOOL_SEQUENCE_BYTES:
        return TxRemoved(block_hash_or_txid)
    raise ValueError("not a message of the sequence topic")


def _tip_changed(_body: bytes) -> ChainHint:
    return TipChanged()


_READERS: Final[dict[bytes, _Reader]] = {
    b"sequence": _sequence,
    b"rawtx": RawTx,
    b"hashblock": _tip_changed,
    b"rawblock": _tip_changed,
}


def _connect(socket: zmq.Socket[bytes], addresses: Sequence[str], *, node: str) -> None:
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RCVHWM, _MAX_WAITING)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)  # a peer that sends more is no bitcoind, and is hung up on
    for topic in _READERS:
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    for address in addresses:
        try:
            socket.connect(address)
        except zmq.ZMQError as problem:
            raise Misconfigured(f"{node}: zmq: {address!r} cannot be used ({problem}); write tcp://host:port") from None
