"""A bitcoind in memory that behaves as bitcoind was seen to behave (node-interfaces.md B.6 to B.8)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from adapters.memory.raw_blocks import MemoryBlock, MemoryOutput, MemoryTx
from adapters.memory.waking import Waking
from daemon.domain.chain import BlockRef
from daemon.domain.errors import BlockPruned, NodeRefused, Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, outpoint_of
from daemon.domain.ports import (
    ChainHint,
    ChainInfo,
    HeaderInfo,
    HintsLost,
    MempoolSnapshot,
    RawTx,
    TipChanged,
    TxAdded,
    TxRemoved,
)

MAX_PENDING_HINTS = 100_000
"""As bitcoind's high-water mark in regtest; beyond it a test never reads, and is stopped."""

BLOCK_S = 600
"""Between two blocks' times."""

COINBASE_SAT = 5_000_000_000
_TRUE_SCRIPT = b"\x51"


class MemoryChain:
    """See `daemon.domain.ports.ChainNode`; the other methods are the outside world's.

    `zmq` False: no hints are configured. `hints_lost` True: what would be published is lost on the way (RPC lives
    on); the first message that gets through again is preceded by HintsLost. `initial_download` is what `info` says.
    `derive` is the node's own derivation, given by the test.
    """

    def __init__(
        self,
        *,
        name: str = "bitcoind",
        genesis_time_s: int = 1_296_688_602,
        zmq: bool = True,
        derive: Callable[[str, int], str] | None = None,
    ) -> None:
        self._name = name
        self._zmq = zmq
        self._derive = derive
        self._lock = threading.RLock()
        self._blocks: dict[BlockHash, MemoryBlock] = {}
        self._chain: list[MemoryBlock] = []
        self._unspent: set[Outpoint] = set()
        self._invalid: set[BlockHash] = set()
        self._mempool: dict[Txid, MemoryTx] = {}
        self._sequence = 1
        self._made = 0
        self._forgotten: list[MemoryBlock] = []
        self._prune_height: int | None = None
        self._away: str | None = None
        self._subscribers: list[_Subscriber] = []
        self._lost_hints = 0
        self.initial_download = False
        self.hints_lost = False
        self._connect(self._block((), None, genesis_time_s, 0))

    # --- the port ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    def info(self) -> ChainInfo:
        with self._reachable():
            return ChainInfo(
                network="regtest",
                genesis=self._chain[0].hash,
                version="Satoshi:29.4.0 memory",
                tip=_ref(self._chain[-1]),
                headers=self._chain[-1].height,
                initial_download=self.initial_download,
                prune_height=self._prune_height,
            )

    def tip(self) -> BlockRef:
        with self._reachable():
            return _ref(self._chain[-1])

    def header(self, block_hash: BlockHash) -> HeaderInfo | None:
        with self._reachable():
            block = self._blocks.get(block_hash)
            if block is None:
                return None
            return HeaderInfo(block=_ref(block), previous=block.previous, in_best_chain=self._is_in_chain(block))

    def is_invalid(self, block: BlockRef) -> bool:
        with self._reachable():
            return block.hash in self._invalid

    def block_hash_at(self, height: int) -> BlockHash | None:
        with self._reachable():
            return self._chain[height].hash if 0 <= height < len(self._chain) else None

    def block(self, block_hash: BlockHash) -> bytes:
        with self._reachable():
            block = self._blocks.get(block_hash)
            if block is None:
                raise Unavailable(f"{self._name} has not block {block_hash} now: Block not found")
            if self._prune_height is not None and block.height < self._prune_height:
                raise BlockPruned(f"{self._name} has pruned block {block_hash}: it is gone there")
            return block.raw

    def mempool(self) -> MempoolSnapshot:
        with self._reachable():
            return MempoolSnapshot(txids=frozenset(self._mempool), next_sequence=self._sequence)

    def mempool_tx(self, txid: Txid) -> bytes | None:
        with self._reachable():
            tx = self._mempool.get(txid)
            return None if tx is None else tx.raw

    def is_in_mempool(self, txid: Txid) -> bool:
        with self._reachable():
            return txid in self._mempool

    def mempool_spender(self, outpoints: Sequence[Outpoint]) -> Txid | None:
        with self._reachable():
            wanted = set(outpoints)
            return next((txid for txid, tx in self._mempool.items() if wanted.intersection(tx.inputs)), None)

    def is_unspent(self, outpoint: Outpoint) -> bool:
        with self._reachable():
            return outpoint in self._unspent

    def derive(self, descriptor: str, index: int) -> str:
        with self._reachable():
            if self._derive is None:
                raise NodeRefused(f"{self._name} refused deriveaddresses: it was given no derivation")
            return self._derive(descriptor, index)

    def hints(self) -> AbstractAsyncContextManager[AsyncIterator[Sequence[ChainHint]]] | None:
        return self._hint_stream() if self._zmq else None

    # --- the outside world: money -------------------------------------------------------------------

    def coin(self) -> Outpoint:
        """An output that somebody can spend: it was confirmed before the chain here begins."""
        with self._lock:
            coin = outpoint_of(Txid(self._next_number().to_bytes(32, "big").hex()), 0)
            self._unspent.add(coin)
            return coin

    def payment(self, *pays: tuple[bytes, int], spends: Sequence[Outpoint] = ()) -> MemoryTx:
        """A tx that pays these (script, value_sat), not sent yet; from a coin of its own unless it is told which."""
        with self._lock:
            return MemoryTx(
                inputs=tuple(spends) or (self.coin(),),
                outputs=tuple(MemoryOutput(script=script, value_sat=value_sat) for script, value_sat in pays),
                witness=(b"signature %d" % self._next_number(),),
            )

    def submit(self, tx: MemoryTx) -> Txid:
        """Sends a tx into the mempool, whose conflicting txs it replaces with all that spend from them."""
        with self._lock:
            if tx.txid in self._mempool:
                return tx.txid
            replaced = [one for one in self._mempool.values() if set(one.inputs) & set(tx.inputs)]
            gone = self._with_descendants(replaced)
            available = self._unspent.union(*(one.outpoints for one in self._mempool.values() if one not in gone))
            if missing := set(tx.inputs) - available:
                raise ValueError(f"the tx spends what is not there: {sorted(missing)}")
            self._remove(gone)
            self._add([tx])
            return tx.txid

    def evict(self, txid: Txid) -> None:
        """The mempool forgets a tx and all that spend from it (expired, or the mempool is full)."""
        with self._lock:
            self._remove(self._with_descendants([self._mempool[txid]]))

    # --- the outside world: the chain ---------------------------------------------------------------

    def mine(self, *txs: MemoryTx, coinbase_to: bytes = _TRUE_SCRIPT) -> BlockRef:
        """One block with the whole mempool, or exactly with these txs, which need not be there."""
        with self._lock:
            self._move(0, [txs or tuple(self._mempool.values())], coinbase_to)
            return _ref(self._chain[-1])

    def mine_empty(self, blocks: int = 1) -> BlockRef:
        """Blocks without txs."""
        with self._lock:
            for _ in range(blocks):
                self._move(0, [()], _TRUE_SCRIPT)
            return _ref(self._chain[-1])

    def invalidate(self, blocks: int) -> None:
        """The newest blocks are disconnected; their txs go back to the mempool (invalidateblock)."""
        with self._lock:
            self._invalid.update(block.hash for block in self._chain[-blocks:])
            self._move(blocks, [], _TRUE_SCRIPT)

    def reorganise(self, disconnect: int, *branch: Sequence[MemoryTx]) -> BlockRef:
        """A longer branch wins: one block for each list of txs, at once, as with nodes that mined apart."""
        if len(branch) <= disconnect:
            raise ValueError("a branch that is not longer does not win")
        with self._lock:
            self._move(disconnect, branch, _TRUE_SCRIPT)
            return _ref(self._chain[-1])

    # --- the outside world: trouble -----------------------------------------------------------------

    def go_away(self, why: str = "connection refused") -> None:
        """Stopped, starting, overloaded or hung: every call raises Unavailable; hints only fall silent."""
        with self._lock:
            self._away = why

    def come_back(self) -> None:
        """Reachable again, with all it knew."""
        with self._lock:
            self._away = None

    def restart(self) -> None:
        """Clean: nothing is lost; the mempool is announced again, as after every start."""
        with self._lock:
            self._sequence = 1 + len(self._mempool)
            self._tell_restart()

    def crash(self, forget: int) -> None:
        """kill -9 and a start: the newest blocks are unknown, without any hint, and the mempool is empty."""
        with self._lock:
            for _ in range(forget):
                block = self._disconnect()
                del self._blocks[block.hash]
                self._forgotten.insert(0, block)
            self._mempool.clear()
            self._sequence = 1
            self._tell_restart()

    def return_blocks(self) -> None:
        """The blocks that a crash lost are downloaded again."""
        with self._lock:
            returned, self._forgotten = self._forgotten, []
            for block in returned:
                if block.previous != self._chain[-1].hash:
                    raise ValueError("another block was mined meanwhile")
                self._connect(block)
                self._tell(TipChanged(), *(RawTx(tx.raw) for tx in block.txs))

    def prune(self, below_height: int) -> None:
        """Blocks below this height are thrown away."""
        with self._lock:
            self._prune_height = below_height

    # --- inside -------------------------------------------------------------------------------------

    def _move(self, disconnect: int, branch: Sequence[Sequence[MemoryTx]], coinbase_to: bytes) -> None:
        """All that happens to chain and mempool at once, told in bitcoind's order: D, R, A, C.

        What was in a disconnected block and now can be no more is in no message (node-interfaces.md B.8).
        """
        disconnected = [self._disconnect() for _ in range(disconnect)]
        for block in disconnected:
            self._tell(TipChanged(), *(RawTx(tx.raw) for tx in block.txs))
        connected = [self._mine(txs, coinbase_to) for txs in branch]
        mined = {tx.txid for block in connected for tx in block.txs}
        returning = [tx for block in reversed(disconnected) for tx in block.txs if not tx.is_coinbase]
        waiting = list(self._mempool.values())
        kept = self._spendable([tx for tx in (*returning, *waiting) if tx.txid not in mined])
        self._sequence += len(mined & self._mempool.keys())
        for txid in mined:
            self._mempool.pop(txid, None)
        self._remove([tx for tx in waiting if tx.txid not in kept and tx.txid not in mined])
        self._add([tx for tx in returning if tx.txid in kept])
        # Parents first, as in the real one's snapshot of ancestors: a returned parent precedes its children.
        self._mempool = {txid: tx for txid, tx in kept.items() if txid in self._mempool}
        for block in connected:
            self._tell(TipChanged(), *(RawTx(tx.raw) for tx in block.txs))

    def _spendable(self, txs: Sequence[MemoryTx]) -> dict[Txid, MemoryTx]:
        """Those of the txs, in order, whose inputs are there and not spent by one before."""
        available = set(self._unspent)
        kept: dict[Txid, MemoryTx] = {}
        for tx in txs:
            if available.issuperset(tx.inputs):
                available.difference_update(tx.inputs)
                available.update(tx.outpoints)
                kept[tx.txid] = tx
        return kept

    def _mine(self, txs: Sequence[MemoryTx], coinbase_to: bytes) -> MemoryBlock:
        tip = self._chain[-1]
        if len(self._spendable(txs)) != len(txs):
            raise ValueError("a tx of the block spends what is not there, or what another one spends")
        coinbase = MemoryTx(
            inputs=(),
            outputs=(MemoryOutput(script=coinbase_to, value_sat=COINBASE_SAT),),
            note=self._next_number().to_bytes(8, "little"),
        )
        block = self._block((coinbase, *txs), tip.hash, tip.time_s + BLOCK_S, tip.height + 1)
        self._connect(block)
        return block

    def _block(self, txs: tuple[MemoryTx, ...], previous: BlockHash | None, time_s: int, height: int) -> MemoryBlock:
        first = MemoryTx(inputs=(), outputs=(MemoryOutput(script=_TRUE_SCRIPT, value_sat=COINBASE_SAT),), note=b"first")
        return MemoryBlock(height, previous, time_s, txs or (first,))

    def _connect(self, block: MemoryBlock) -> None:
        for tx in block.txs:
            self._unspent.difference_update(tx.inputs)
            self._unspent.update(tx.outpoints)
        self._blocks[block.hash] = block
        self._chain.append(block)

    def _disconnect(self) -> MemoryBlock:
        if len(self._chain) == 1:
            raise ValueError("the genesis stays")
        block = self._chain.pop()
        for tx in reversed(block.txs):
            self._unspent.difference_update(tx.outpoints)
            self._unspent.update(tx.inputs)
        return block

    def _is_in_chain(self, block: MemoryBlock) -> bool:
        return block.height < len(self._chain) and self._chain[block.height] is block

    def _with_descendants(self, txs: Sequence[MemoryTx]) -> list[MemoryTx]:
        """These txs of the mempool and all there that spend from them; the mempool has parents before children."""
        gone = {tx.txid: tx for tx in txs}
        outpoints = {outpoint for tx in txs for outpoint in tx.outpoints}
        for txid, tx in self._mempool.items():
            if outpoints.intersection(tx.inputs):
                gone[txid] = tx
                outpoints.update(tx.outpoints)
        return list(gone.values())

    def _remove(self, txs: Sequence[MemoryTx]) -> None:
        for tx in txs:
            del self._mempool[tx.txid]
            self._sequence += 1
            self._tell(TxRemoved(tx.txid))

    def _add(self, txs: Sequence[MemoryTx]) -> None:
        for tx in txs:
            self._mempool[tx.txid] = tx
            self._sequence += 1
            self._tell(TxAdded(tx.txid), RawTx(tx.raw))

    def _next_number(self) -> int:
        self._made += 1
        return self._made

    def _reachable(self) -> threading.RLock:
        if self._away is not None:
            raise Unavailable(f"{self._name}: {self._away}")
        return self._lock

    def _tell_restart(self) -> None:
        self._tell(HintsLost("connection", 0))
        for tx in self._mempool.values():
            self._tell(TxAdded(tx.txid), RawTx(tx.raw))

    def _tell(self, *hints: ChainHint) -> None:
        if self.hints_lost:
            self._lost_hints += len(hints)
            return
        if self._lost_hints:
            hints = (HintsLost("sequence", self._lost_hints), *hints)
            self._lost_hints = 0
        for subscriber in self._subscribers:
            subscriber.put(hints)

    @asynccontextmanager
    async def _hint_stream(self) -> AsyncIterator[AsyncIterator[Sequence[ChainHint]]]:
        await trio.lowlevel.checkpoint()
        subscriber = _Subscriber()
        with self._lock:
            self._subscribers.append(subscriber)
        try:
            yield _Batches(subscriber)
        finally:
            with self._lock:
                self._subscribers.remove(subscriber)


class _Subscriber:
    """One stream: what it has not read yet."""

    def __init__(self) -> None:
        self.pending: deque[ChainHint] = deque()
        self.waking = Waking()

    def put(self, hints: Sequence[ChainHint]) -> None:
        """Adds hints and wakes the reader; for any thread."""
        if len(self.pending) + len(hints) > MAX_PENDING_HINTS:
            raise OverflowError("nobody reads the memory chain's hints")
        self.pending.extend(hints)
        self.waking.wake()


class _Batches:
    """The iteration over one stream: never ends by itself."""

    def __init__(self, subscriber: _Subscriber) -> None:
        self._subscriber = subscriber

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> Sequence[ChainHint]:
        subscriber = self._subscriber
        await subscriber.waking.wait_until(lambda: bool(subscriber.pending))
        return [subscriber.pending.popleft() for _ in range(len(subscriber.pending))]


def _ref(block: MemoryBlock) -> BlockRef:
    return BlockRef(height=block.height, hash=block.hash)
