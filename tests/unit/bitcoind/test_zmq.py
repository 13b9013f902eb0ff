"""What is read from ZMQ messages, and which numbers mean that some are missing."""

from __future__ import annotations

import time

import pytest
import trio
import zmq

from adapters.bitcoind.zmq import MAX_BATCH, Numbers, hint_stream
from daemon.domain.errors import Misconfigured
from daemon.domain.ports import ChainHint, HintsLost, RawTx, TipChanged, TxAdded, TxRemoved
from regtest.process import take_port

TXID = "ab" * 31 + "cd"


def message(topic: bytes, body: bytes, number: int) -> list[bytes]:
    """As bitcoind sends it."""
    return [topic, body, number.to_bytes(4, "little")]


def added(number: int) -> list[bytes]:
    """A message of the sequence topic."""
    return message(b"sequence", bytes.fromhex(TXID) + b"A" + bytes(8), number)


@pytest.mark.parametrize(
    ("topic", "body", "hint"),
    [
        (b"sequence", bytes.fromhex(TXID) + b"A" + bytes(8), TxAdded(TXID)),
        (b"sequence", bytes.fromhex(TXID) + b"R" + bytes(8), TxRemoved(TXID)),
        (b"sequence", bytes.fromhex(TXID) + b"C", TipChanged()),
        (b"sequence", bytes.fromhex(TXID) + b"D", TipChanged()),
        (b"hashblock", bytes.fromhex(TXID), TipChanged()),
        (b"rawblock", b"a large body", TipChanged()),
        (b"rawtx", b"a tx", RawTx(b"a tx")),
    ],
)
def test_every_message_is_one_hint(topic: bytes, body: bytes, hint: ChainHint) -> None:
    """Hashes come in the order of the RPC already."""
    (read,) = Numbers().hints(message(topic, body, 7))
    assert read == hint
    assert type(read) is type(hint)


def test_numbers_that_follow_lose_nothing() -> None:
    """Each topic counts by itself, beginning anywhere; after the largest number comes 0."""
    numbers = Numbers()
    for number in (2**32 - 2, 2**32 - 1, 0, 1):
        assert numbers.hints(added(number)) == [TxAdded(TXID)]
        assert numbers.hints(message(b"rawtx", b"", (number + 1_000) % 2**32)) == [RawTx(b"")]


def test_a_hole_is_told_before_what_follows_it() -> None:
    """With its size, and once."""
    numbers = Numbers()
    numbers.hints(added(10))
    assert numbers.hints(added(14)) == [HintsLost("sequence", 3), TxAdded(TXID)]
    assert numbers.hints(added(15)) == [TxAdded(TXID)]


@pytest.mark.parametrize("number", [0, 2])
def test_numbers_that_start_again_are_a_loss(number: int) -> None:
    """bitcoind restarted: what it sent before that was not seen, and maybe more from its life before."""
    numbers = Numbers()
    numbers.hints(added(10))
    assert numbers.hints(added(number)) == [HintsLost("sequence", number), TxAdded(TXID)]
    assert numbers.hints(added(number + 1)) == [TxAdded(TXID)]


@pytest.mark.parametrize(
    "malformed",
    [
        [b"sequence"],
        [b"sequence", b"body"],
        [b"sequence", b"body", b"123"],
        [b"sequence", b"body", bytes(4), b"more"],
        message(b"sequence", bytes(32), 11),
        message(b"sequence", bytes(32) + b"A", 11),
        message(b"sequence", bytes(32) + b"C" + bytes(8), 11),
        message(b"sequence", bytes(32) + b"X" + bytes(8), 11),
        message(b"sequence", b"", 11),
    ],
)
def test_what_is_malformed_counts_as_lost(malformed: list[bytes]) -> None:
    """It says that something happened, not what; the next good message is read."""
    numbers = Numbers()
    numbers.hints(added(10))
    assert numbers.hints(malformed) == [HintsLost("sequence", 1)]
    assert numbers.hints(added(12)) == [TxAdded(TXID)]


def test_a_topic_that_nobody_knows_is_a_loss() -> None:
    """Subscriptions go by the beginning of the name; a hostile name does not fill the logs."""
    assert Numbers().hints(message(b"rawtxs\xff" + b"x" * 1000, b"", 0)) == [HintsLost("rawtxs\ufffd" + "x" * 13, 1)]


async def test_an_address_that_cannot_be_is_said() -> None:
    """With the remedy."""
    with pytest.raises(Misconfigured, match=r"zmq: '127\.0\.0\.1:28332' cannot be used .*tcp://host:port"):
        async with hint_stream(["127.0.0.1:28332"], node="bitcoind"):
            pytest.fail("entered")


async def test_a_burst_comes_whole_and_in_bounded_batches() -> None:
    """From two publishers; a connection is told first; nothing is lost and nothing comes twice."""
    count = 3 * MAX_BATCH
    with zmq.Context() as context, context.socket(zmq.XPUB) as one, context.socket(zmq.XPUB) as two:
        for publisher in (one, two):
            publisher.setsockopt(zmq.SNDHWM, 10 * count)
            publisher.setsockopt(zmq.LINGER, 0)
        addresses = [f"tcp://127.0.0.1:{publisher.bind_to_random_port('tcp://127.0.0.1')}" for publisher in (one, two)]
        with trio.fail_after(30):
            async with hint_stream(addresses, node="bitcoind") as stream:
                assert await anext(stream) == [HintsLost("connection", 0)]
                for publisher in (one, two):
                    subscribed = {await trio.to_thread.run_sync(publisher.recv) for _ in range(4)}
                    assert subscribed == {b"\1sequence", b"\1rawtx", b"\1hashblock", b"\1rawblock"}
                for number in range(count):
                    one.send_multipart(added(number))
                    two.send_multipart(message(b"rawtx", number.to_bytes(4, "little"), number))
                hints: list[ChainHint] = []
                while len([hint for hint in hints if not isinstance(hint, HintsLost)]) < 2 * count:
                    batch = await anext(stream)
                    assert len(batch) <= MAX_BATCH + 1
                    hints += batch
    assert {hint for hint in hints if isinstance(hint, HintsLost)} <= {HintsLost("connection", 0)}
    raw = [hint.raw for hint in hints if isinstance(hint, RawTx)]
    assert raw == [number.to_bytes(4, "little") for number in range(count)]
    assert len([hint for hint in hints if isinstance(hint, TxAdded)]) == count


async def test_a_publisher_that_comes_back_is_heard_and_told() -> None:
    """At once, without any message of its own: what it sent meanwhile is not known."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as first, context.socket(zmq.XPUB) as second:
        address = f"tcp://127.0.0.1:{take_port()}"  # nobody else is given it in between
        first.bind(address)
        with trio.fail_after(30):
            async with hint_stream([address], node="bitcoind") as stream:
                assert await anext(stream) == [HintsLost("connection", 0)]
                first.unbind(address)
                first.close(linger=0)
                await trio.to_thread.run_sync(bind, second, address)
                assert await anext(stream) == [HintsLost("connection", 0)]
                await trio.to_thread.run_sync(second.recv)  # a subscription: it stands again
                second.close(linger=0)


def bind(publisher: zmq.Socket[bytes], address: str) -> None:
    """As soon as the address is free: ZMQ closes in the background."""
    for _ in range(1_000):
        try:
            publisher.bind(address)
        except zmq.ZMQError:
            time.sleep(0.01)
        else:
            return
    pytest.fail("the address is still in use")
