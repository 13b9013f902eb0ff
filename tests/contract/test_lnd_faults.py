"""LndNode against what LND does when something is wrong, on the simulated LND: real gRPC, real TLS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import trio

from adapters.lnd import stream as stream_module
from adapters.lnd.node import Deadlines, LndNode
from daemon.domain.errors import NodeRefused, Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import NewInvoice
from tests.simulated_lnd.node import Ending, Stream
from tests.simulated_lnd.server import SimulatedLnd


@pytest.fixture
def lnd(tmp_path: Path) -> Iterator[SimulatedLnd]:
    """A server that is up."""
    with SimulatedLnd(tmp_path) as lnd:
        yield lnd


@pytest.fixture
def node(lnd: SimulatedLnd) -> Iterator[LndNode]:
    """The adapter on it."""
    node = connect(lnd)
    yield node
    node.close()


def connect(lnd: SimulatedLnd, *, macaroon_file: Path | None = None) -> LndNode:
    """An adapter with its own connection."""
    return LndNode(
        name="lnd1",
        address=lnd.address,
        tls_cert_file=lnd.tls_cert_file,
        macaroon_file=macaroon_file or lnd.macaroon_file,
        deadlines=Deadlines(call_s=5.0, info_s=5.0, page_s=5.0),
    )


def asked(memo: str = "") -> NewInvoice:
    """An invoice with a new preimage."""
    return NewInvoice(preimage=os.urandom(32), value_msat=1_000, memo=memo, description_hash=b"", expiry_s=60)


async def read_all(stream: AsyncIterator[Sequence[InvoiceSettled]], read: list[InvoiceSettled]) -> None:
    """Reads until the stream ends, in whatever way."""
    async for batch in stream:
        read.extend(batch)


def until_answered(node: LndNode) -> None:
    """gRPC takes up to two seconds to connect again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            node.get_info()
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wallet locked, unlock it to enable full RPC access", "lnd1 is locked: unlock it"),
        ("wallet not created, create one to enable full RPC access", "lnd1 has no wallet yet: create it"),
        ("the RPC server is in the process of starting up, but not yet ready to accept calls", "lnd1 is starting"),
        ("permission denied", "lnd1 refuses the macaroon: its permissions do not cover this call"),
        ("cannot get macaroon: root key with id 7 doesn't exist", "its root key was deleted; bake a new one"),
        ("database not open", "database not open"),
    ],
)
def test_an_lnd_that_cannot_answer_is_waited_for(lnd: SimulatedLnd, node: LndNode, text: str, said: str) -> None:
    """Reads and AddInvoice alike are Unavailable, with what to do about it."""
    lnd.node.fault = text
    calls = (
        node.get_info,
        node.funds,
        lambda: node.add_invoice(asked()),
        lambda: node.lookup_invoice(PaymentHash("00" * 32)),
        lambda: node.list_invoices(after_add_index=0, limit=1),
    )
    for call in calls:
        with pytest.raises(Unavailable, match=said):
            call()
    lnd.node.fault = None
    assert node.get_info().pubkey == lnd.node.pubkey


async def test_a_stream_of_a_locked_lnd_is_not_entered(lnd: SimulatedLnd, node: LndNode) -> None:
    """What cannot stand is not said to stand."""
    lnd.node.fault = "wallet locked, unlock it to enable full RPC access"
    with pytest.raises(Unavailable, match="unlock it"):
        async with node.settlements(after_settle_index=0):
            pytest.fail("entered")


async def test_a_stream_that_lnd_refuses_is_not_entered(
    lnd: SimulatedLnd, node: LndNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A macaroon may allow GetInfo and not the stream."""

    def refuse(settle_index: int) -> Stream:
        stream = Stream(settle_index)
        stream.waiting.put(Ending("permission denied"))
        return stream

    monkeypatch.setattr(lnd.node, "subscribe", refuse)
    with pytest.raises(Unavailable, match="its permissions do not cover this call"):
        async with node.settlements(after_settle_index=1):
            pytest.fail("entered")


def test_a_refusal_is_a_refusal(node: LndNode) -> None:
    """What LND will never add is not asked for again and again."""
    with pytest.raises(NodeRefused, match="memo too large"):
        node.add_invoice(asked("m" * 700))


def test_nobody_there_is_said(tmp_path: Path) -> None:
    """With the remedy; and it is Unavailable."""
    with SimulatedLnd(tmp_path) as lnd:
        node = connect(lnd)
    with pytest.raises(Unavailable, match="does not listen: start it, or check its address"):
        node.get_info()
    node.close()


def test_a_new_certificate_is_taken_up(lnd: SimulatedLnd, node: LndNode) -> None:
    """LND makes a new one at a start; the file is read again, the process is not."""
    node.get_info()
    lnd.stop()
    lnd.renew_certificate()
    lnd.start()
    until_answered(node)


def test_another_certificate_is_refused_with_a_remedy(lnd: SimulatedLnd, node: LndNode, tmp_path: Path) -> None:
    """Somebody else at the address is not talked to."""
    certificate = lnd.tls_cert_file.read_bytes()
    lnd.stop()
    lnd.renew_certificate()
    lnd.start()
    lnd.tls_cert_file.write_bytes(certificate)
    with pytest.raises(Unavailable, match=r"shows another certificate: copy its tls\.cert to tls_cert_file"):
        node.get_info()


def test_a_macaroon_that_comes_later_is_taken_up(lnd: SimulatedLnd, tmp_path: Path) -> None:
    """An empty or missing file is said, and is read again."""
    file = tmp_path / "late.macaroon"
    node = connect(lnd, macaroon_file=file)
    with pytest.raises(Unavailable, match=r"macaroon_file .*late\.macaroon cannot be read"):
        node.get_info()
    file.write_bytes(b"")
    with pytest.raises(Unavailable, match="got no macaroon: check macaroon_file"):
        node.get_info()
    file.write_bytes(b"a macaroon")
    until_answered(node)
    node.close()


def test_the_macaroon_is_in_no_error_and_no_repr(lnd: SimulatedLnd, node: LndNode) -> None:
    """It is money."""
    lnd.node.fault = "permission denied"
    with pytest.raises(Unavailable) as refused:
        node.get_info()
    secret = lnd.macaroon_file.read_bytes()
    chain = f"{refused.value!r} {refused.value.__cause__!r} {node!r} {node._connection.wire()!r}"
    assert secret.hex() not in chain
    assert repr(secret)[2:-1] not in chain


@pytest.mark.parametrize("ending", [None, "server is shutting down"])
async def test_a_stream_that_ends_is_an_outage(lnd: SimulatedLnd, node: LndNode, ending: str | None) -> None:
    """With status OK, as in LND's clean shutdown, as with an error; what came before it is still read."""
    r_hashes = lnd.node.make_invoices(2)
    read: list[InvoiceSettled] = []
    async with node.settlements(after_settle_index=0) as stream:
        lnd.node.settle(r_hashes)
        lnd.node.end_streams(ending)
        with pytest.raises(Unavailable, match="lnd1"):
            await read_all(stream, read)
    assert [event.payment_hash for event in read] == [r_hash.hex() for r_hash in r_hashes]


async def test_a_slow_reader_loses_nothing(lnd: SimulatedLnd, node: LndNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer is bounded; beyond it gRPC holds back, and everything comes in order."""
    monkeypatch.setattr(stream_module, "MAX_BUFFERED", 10)
    r_hashes = lnd.node.make_invoices(500)
    sizes: list[int] = []
    read: list[int] = []
    async with node.settlements(after_settle_index=0) as stream:
        lnd.node.settle(r_hashes)
        async for batch in stream:
            sizes.append(len(batch))
            read.extend(event.settle_index for event in batch)
            if len(read) == 500:
                break
            await trio.sleep(0.001)
    assert read == list(range(1, 501))
    assert max(sizes) <= 10


async def test_a_reader_that_leaves_a_full_buffer_is_let_go(
    lnd: SimulatedLnd, node: LndNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that waits for room ends with the stream."""
    monkeypatch.setattr(stream_module, "MAX_BUFFERED", 1)
    r_hashes = lnd.node.make_invoices(50)
    with trio.fail_after(10):
        async with node.settlements(after_settle_index=0) as stream:
            lnd.node.settle(r_hashes)
            await anext(stream)
            await trio.sleep(0.05)


async def test_an_index_beyond_the_newest_is_silent(lnd: SimulatedLnd, node: LndNode) -> None:
    """That is LND's trap, which the follower guards against: the simulation has it, too."""
    silenced, told = lnd.node.make_invoices(2)
    async with node.settlements(after_settle_index=1) as stream:
        lnd.node.settle([silenced, told])
        read = await anext(stream)
    assert [event.payment_hash for event in read] == [told.hex()]


async def test_each_set_of_an_amp_invoice_is_one_settlement(lnd: SimulatedLnd, node: LndNode) -> None:
    """With its own index and amount, under the invoice's hash; the invoice itself stays open."""
    (r_hash,) = lnd.node.make_invoices(1)
    async with node.settlements(after_settle_index=0) as stream:
        lnd.node.settle_amp_set(r_hash, "aa" * 32, received_msat=700)
        lnd.node.settle_amp_set(r_hash, "bb" * 32, received_msat=900)
        read: list[InvoiceSettled] = []
        while len(read) < 2:
            read.extend(await anext(stream))
    expected = [("aa" * 32, 1, 700), ("bb" * 32, 2, 900)]
    assert [(e.settled_id, e.settle_index, e.received_msat) for e in read] == expected
    assert {event.payment_hash for event in read} == {r_hash.hex()}
    found = await trio.to_thread.run_sync(node.lookup_invoice, PaymentHash(r_hash.hex()))
    assert found is not None
    assert [(e.settled_id, e.settle_index, e.received_msat) for e in found.settlements] == expected


def lnd_process(folder: Path) -> subprocess.Popen[str]:
    """A simulated LND that can be stopped without stopping the test."""
    command = [sys.executable, "-m", "tests.simulated_lnd", "--folder", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
async def test_a_hung_lnd_is_noticed_within_30_s(tmp_path: Path) -> None:
    """SIGSTOP: the connection stays up, nothing answers; keepalive tells."""
    with lnd_process(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        node = LndNode(
            name="lnd1",
            address=started["address"],
            tls_cert_file=Path(started["tls_cert_file"]),
            macaroon_file=Path(started["macaroon_file"]),
        )
        try:
            async with node.settlements(after_settle_index=0) as stream:
                os.kill(process.pid, signal.SIGSTOP)
                with trio.fail_after(30), pytest.raises(Unavailable, match="hangs"):
                    await anext(stream)
        finally:
            os.kill(process.pid, signal.SIGCONT)
            process.stdin.close()
            node.close()
        assert process.wait(20) == 0
