"""One suite, two nodes: the memory chain, and BitcoindNode on a real bitcoind over RPC, REST and ZMQ."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pytest
import trio

from adapters.bitcoind.node import BitcoindNode
from adapters.memory.chain_node import MemoryChain
from adapters.memory.raw_blocks import MemoryTx
from daemon.domain.blocks import parse_tx, scan
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, outpoint_of
from daemon.domain.ports import ChainHint, ChainNode, HintsLost, RawTx, TipChanged, TxAdded, TxRemoved
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind

PATIENCE_S = 30.0  # how long a test waits for what must come; it decides nothing else
AMOUNT_SAT = 1_000_000


@dataclass(frozen=True)
class Sent:
    """A tx that pays AMOUNT_SAT to `script` in its output `vout`."""

    txid: Txid
    inputs: tuple[Outpoint, ...]
    vout: int
    script: bytes

    @property
    def paid(self) -> Outpoint:
        """Its output."""
        return outpoint_of(self.txid, self.vout)


class World(Protocol):
    """A node under test, and what the outside world does to it. All of it blocks."""

    @property
    def node(self) -> ChainNode:
        """The port."""
        ...

    def send(self) -> Sent:
        """Somebody pays: a tx is in the mempool."""
        ...

    def replace(self, sent: Sent) -> Txid:
        """The payer replaces it by another tx, that spends the same coins."""
        ...

    def mine(self) -> BlockHash:
        """A block with the whole mempool."""
        ...

    def invalidate(self, block: BlockHash) -> None:
        """The tip, this block, is disconnected."""
        ...

    def restart(self) -> None:
        """The node goes away, cleanly, and is back when this returns."""
        ...

    def crash(self) -> None:
        """kill -9 and a start: the newest block, mined since the last restart, is forgotten."""
        ...

    def return_block(self, raw: bytes) -> None:
        """The forgotten block comes back."""
        ...


class MemoryWorld:
    """The fake."""

    def __init__(self) -> None:
        self.node = MemoryChain()
        self.node.mine_empty(3)
        self._sent: dict[Txid, MemoryTx] = {}

    def send(self) -> Sent:
        script = b"\x00\x14" + len(self._sent).to_bytes(20, "big")
        tx = self.node.payment((b"\x51", 5), (script, AMOUNT_SAT))
        self._sent[tx.txid] = tx
        return Sent(txid=self.node.submit(tx), inputs=tx.inputs, vout=1, script=script)

    def replace(self, sent: Sent) -> Txid:
        return self.node.submit(self.node.payment((sent.script, AMOUNT_SAT - 1), spends=sent.inputs))

    def mine(self) -> BlockHash:
        return self.node.mine().hash

    def invalidate(self, block: BlockHash) -> None:
        assert self.node.tip().hash == block
        self.node.invalidate(1)

    def restart(self) -> None:
        self.node.restart()

    def crash(self) -> None:
        self.node.crash(forget=1)

    def return_block(self, raw: bytes) -> None:
        self.node.return_blocks()


class RealWorld:
    """BitcoindNode on a bitcoind whose wallet pays and mines."""

    def __init__(self, bitcoind: Bitcoind) -> None:
        self._bitcoind = bitcoind
        self.node = connect(bitcoind)

    def send(self) -> Sent:
        address = self._bitcoind.new_address()
        script = bytes.fromhex(self._bitcoind.rpc("getaddressinfo", address)["scriptPubKey"])
        txid = Txid(self._bitcoind.send(address, AMOUNT_SAT))
        decoded = self._bitcoind.rpc("getrawtransaction", txid, 1)
        (vout,) = [one["n"] for one in decoded["vout"] if one["scriptPubKey"]["hex"] == script.hex()]
        inputs = tuple(outpoint_of(Txid(one["txid"]), one["vout"]) for one in decoded["vin"])
        return Sent(txid=txid, inputs=inputs, vout=vout, script=script)

    def replace(self, sent: Sent) -> Txid:
        return Txid(self._bitcoind.rpc("bumpfee", sent.txid)["txid"])

    def mine(self) -> BlockHash:
        return BlockHash(self._bitcoind.mine(1)[-1])

    def invalidate(self, block: BlockHash) -> None:
        self._bitcoind.rpc("invalidateblock", block)

    def restart(self) -> None:
        self._bitcoind.restart()

    def crash(self) -> None:
        self._bitcoind.kill()
        self._bitcoind.start()
        self._bitcoind.wait_ready()

    def return_block(self, raw: bytes) -> None:
        assert self._bitcoind.rpc("submitblock", raw.hex()) is None


def connect(bitcoind: Bitcoind) -> BitcoindNode:
    """The adapter on a bitcoind."""
    return BitcoindNode(
        name="bitcoind",
        rpc_url=bitcoind.rpc_url,
        rpc_cookie_file=bitcoind.cookie_file,
        zmq=bitcoind.zmq_addresses,
    )


@pytest.fixture(scope="module")
def bitcoind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """One for this module, with money in its wallet."""
    running = Bitcoind(binaries.bitcoind(), tmp_path_factory.mktemp("bitcoind"))
    running.start()
    try:
        running.wait_ready()
        running.mine(MATURITY_BLOCKS + 20)
        yield running
    finally:
        running.kill()


@pytest.fixture(params=["memory", pytest.param("bitcoind", marks=pytest.mark.regtest)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A node of each kind; the real one keeps its history from test to test, with an empty mempool."""
    if request.param == "memory":
        yield MemoryWorld()
        return
    real = RealWorld(request.getfixturevalue("bitcoind"))
    yield real
    real.mine()
    real.node.close()


Hints = AsyncIterator[Sequence[ChainHint]]


async def told(stream: Hints, wanted: Callable[[ChainHint], bool]) -> list[ChainHint]:
    """What is told up to a hint that is wanted."""
    hints: list[ChainHint] = []
    with trio.fail_after(PATIENCE_S):
        async for batch in stream:
            assert batch
            for hint in batch:
                hints.append(hint)
                if wanted(hint):
                    return hints
    pytest.fail("the stream ended")


async def standing(world: World, stream: Hints) -> None:
    """Until the subscriptions to `sequence` and to `rawtx` stand, and nothing of before is on its way any more.

    ZMQ does not tell it, so txs are sent until one is told by both; then one more, up to its last hint.
    """
    topics: set[type] = set()
    with trio.fail_after(PATIENCE_S):
        while not topics >= {TxAdded, RawTx}:
            await trio.to_thread.run_sync(world.send)
            with trio.move_on_after(0.5):
                while not topics >= {TxAdded, RawTx}:
                    topics.update(map(type, await anext(stream)))
    last = await trio.to_thread.run_sync(world.send)
    remaining = {TxAdded, RawTx}

    def is_last(hint: ChainHint) -> bool:
        if is_added(hint, last.txid) or txid_of(hint) == last.txid:
            remaining.discard(type(hint))
        return not remaining

    await told(stream, is_last)


def is_added(hint: ChainHint, txid: Txid) -> bool:
    """Whether it tells of this tx in the mempool."""
    return isinstance(hint, TxAdded) and str(hint) == txid


def txid_of(hint: ChainHint) -> Txid | None:
    """Of a RawTx."""
    return parse_tx(hint.raw).txid if isinstance(hint, RawTx) else None


def test_it_says_who_it_is(world: World) -> None:
    """Network and genesis, and how far it is."""
    info = world.node.info()
    assert info.network == "regtest"
    assert info.genesis == world.node.block_hash_at(0)
    assert info.tip == world.node.tip()
    assert info.headers == info.tip.height
    assert info.prune_height is None
    assert not info.initial_download
    assert info.version.startswith("Satoshi:")


def test_the_tip_moves_with_every_block(world: World) -> None:
    """Up by one, and it is the block at its height."""
    before = world.node.tip()
    mined = world.mine()
    tip = world.node.tip()
    assert (tip.height, tip.hash) == (before.height + 1, mined)
    assert world.node.block_hash_at(tip.height) == mined
    header = world.node.header(mined)
    assert header is not None
    assert (header.block, header.previous, header.in_best_chain) == (tip, before.hash, True)


def test_the_genesis_has_no_previous_block(world: World) -> None:
    """That is where a walk back ends."""
    genesis = world.node.header(world.node.info().genesis)
    assert genesis is not None
    assert (genesis.block.height, genesis.previous, genesis.in_best_chain) == (0, None, True)


def test_what_does_not_exist_is_none(world: World) -> None:
    """A hash that nobody has, a height above the tip; that is an answer, not an error. A block of it is waited for."""
    unknown = BlockHash("12" * 32)
    assert world.node.header(unknown) is None
    assert world.node.block_hash_at(world.node.tip().height + 1) is None
    assert world.node.mempool_tx(Txid(unknown)) is None
    assert not world.node.is_in_mempool(Txid(unknown))
    assert not world.node.is_unspent(outpoint_of(Txid(unknown), 0))
    with pytest.raises(Unavailable, match=unknown):
        world.node.block(unknown)


def test_a_stale_block_is_known_and_not_in_the_best_chain(world: World) -> None:
    """Its header and its body are there for the walk back to the fork."""
    fork = world.node.tip()
    stale = world.mine()
    world.invalidate(stale)
    assert world.node.tip() == fork
    world.mine()
    header = world.node.header(stale)
    assert header is not None
    assert (header.block.height, header.previous, header.in_best_chain) == (fork.height + 1, fork.hash, False)
    assert scan(world.node.block(stale)).header.hash == stale
    assert world.node.block_hash_at(fork.height + 1) not in (None, stale)


def test_a_block_is_bytes_that_parse(world: World) -> None:
    """Its own hash, its previous block, its txs; what pays a script is found with its value."""
    before = world.node.tip()
    sent = world.send()
    raw = world.node.block(world.mine())
    block = scan(raw)
    assert block.header.previous_hash == before.hash
    assert block.tx_count == 2
    (found,) = block.outputs_to({sent.script})
    assert (found.txid, found.vout, found.value_sat) == (sent.txid, sent.vout, AMOUNT_SAT)
    assert found.inputs == sent.inputs
    assert not found.is_coinbase


def test_a_tx_is_in_the_mempool_until_a_block_has_it(world: World) -> None:
    """Afterwards the mempool has it no more, though a node with txindex finds it all the same."""
    before = world.node.mempool()
    sent = world.send()
    after = world.node.mempool()
    assert after.txids - before.txids == {sent.txid}
    assert after.next_sequence > before.next_sequence
    assert world.node.is_in_mempool(sent.txid)
    raw = world.node.mempool_tx(sent.txid)
    assert raw is not None
    assert parse_tx(raw).txid == sent.txid
    assert parse_tx(raw).inputs == sent.inputs
    world.mine()
    assert world.node.mempool().txids == frozenset()
    assert not world.node.is_in_mempool(sent.txid)
    assert world.node.mempool_tx(sent.txid) is None


def test_a_spender_is_found_in_the_mempool_only(world: World) -> None:
    """Who spends one of these outputs; in a block it does not count."""
    sent = world.send()
    assert world.node.mempool_spender([sent.paid, *sent.inputs]) == sent.txid
    assert world.node.mempool_spender([sent.paid]) is None
    assert world.node.mempool_spender([]) is None
    world.mine()
    assert world.node.mempool_spender(sent.inputs) is None


def test_an_output_is_unspent_until_a_block_spends_it(world: World) -> None:
    """The mempool counts neither for nor against it; a disconnected block does not count any more."""
    sent = world.send()
    coin = sent.inputs[0]
    assert (world.node.is_unspent(coin), world.node.is_unspent(sent.paid)) == (True, False)
    block = world.mine()
    assert (world.node.is_unspent(coin), world.node.is_unspent(sent.paid)) == (False, True)
    world.invalidate(block)
    assert (world.node.is_unspent(coin), world.node.is_unspent(sent.paid)) == (True, False)
    assert world.node.is_in_mempool(sent.txid)


def test_a_replaced_tx_leaves_the_mempool(world: World) -> None:
    """Its inputs have another spender."""
    sent = world.send()
    replacement = world.replace(sent)
    assert not world.node.is_in_mempool(sent.txid)
    assert world.node.mempool_tx(sent.txid) is None
    assert world.node.mempool_spender(sent.inputs) == replacement


async def test_hints_tell_of_mempool_and_chain(world: World) -> None:
    """A tx that comes, one that is replaced, a block, a block undone, and the tx that is back then."""
    hints = world.node.hints()
    assert hints is not None
    async with hints as stream:
        await standing(world, stream)
        sent = await trio.to_thread.run_sync(world.send)
        await told(stream, lambda hint: is_added(hint, sent.txid))
        replacement = await trio.to_thread.run_sync(world.replace, sent)
        seen = await told(stream, lambda hint: is_added(hint, replacement))
        assert TxRemoved(sent.txid) in [hint for hint in seen if isinstance(hint, TxRemoved)]
        block = await trio.to_thread.run_sync(world.mine)
        await told(stream, lambda hint: isinstance(hint, TipChanged))
        await trio.to_thread.run_sync(world.invalidate, block)
        seen = await told(stream, lambda hint: is_added(hint, replacement))
        assert TipChanged() in seen
        assert not [hint for hint in seen if isinstance(hint, HintsLost)]


async def test_raw_txs_come_as_hints(world: World) -> None:
    """With their bytes, so that nobody needs to ask."""
    hints = world.node.hints()
    assert hints is not None
    async with hints as stream:
        await standing(world, stream)
        sent = await trio.to_thread.run_sync(world.send)
        await told(stream, lambda hint: txid_of(hint) == sent.txid)


async def test_a_restart_is_told_as_lost_hints(world: World) -> None:
    """And the stream goes on: it needs nobody to open it again."""
    hints = world.node.hints()
    assert hints is not None
    async with hints as stream:
        await standing(world, stream)
        await trio.to_thread.run_sync(world.restart)
        await told(stream, lambda hint: isinstance(hint, HintsLost))
        await standing(world, stream)


async def test_leaving_the_hints_ends_them(world: World) -> None:
    """Cancelled while nothing comes, and opened again."""
    for _ in range(2):
        hints = world.node.hints()
        assert hints is not None
        with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
            async with hints as stream:
                scope.deadline = trio.current_time() + 0.1
                async for _ in stream:
                    pass
        assert scope.cancelled_caught


def test_a_restarted_node_answers_again(world: World) -> None:
    """With a new cookie, and over connections that it has closed: nothing of it is seen."""
    tip = world.node.tip()
    world.restart()
    assert world.node.tip() == tip
    assert scan(world.node.block(tip.hash)).header.hash == tip.hash


def test_a_crashed_node_forgets_its_newest_block_for_a_while(world: World) -> None:
    """Its hash is unknown then, which is no error; the block that comes back is the same."""
    world.restart()  # what was mined before is on disk
    before = world.node.tip()
    mined = world.mine()
    raw = world.node.block(mined)
    world.crash()
    assert world.node.tip() == before
    assert world.node.header(mined) is None
    assert world.node.block_hash_at(before.height + 1) is None
    with pytest.raises(Unavailable, match=mined):
        world.node.block(mined)
    world.return_block(raw)
    assert world.node.tip().hash == mined
    assert world.node.block(mined) == raw


def test_many_threads_ask_at_once(world: World) -> None:
    """More than there are connections: each gets its own answer."""

    async def ask_all() -> dict[int, BlockHash | None]:
        answers: dict[int, BlockHash | None] = {}

        def ask(height: int) -> None:
            for _ in range(20):
                answers[height] = world.node.block_hash_at(height)

        async with trio.open_nursery() as nursery:
            for height in range(12):
                nursery.start_soon(trio.to_thread.run_sync, ask, height)
        return answers

    top = min(12, world.node.tip().height + 1)
    expected = {height: world.node.block_hash_at(height) if height < top else None for height in range(12)}
    began = time.monotonic()
    assert trio.run(ask_all) == expected
    assert time.monotonic() - began < PATIENCE_S
