"""A daemon's chain follower and posting on a store and a bitcoind in memory, in simulated time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from adapters.memory import MemoryStore
from adapters.memory.chain_node import MemoryChain
from adapters.memory.raw_blocks import MemoryTx
from adapters.prices.nothing import NoPrice
from daemon.domain.accounts import wallet_account
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.chain_events import ChainMoved
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent
from daemon.domain.ports import ChainInfo, Dealer, DerivedAddress, HeaderInfo, MempoolSnapshot
from daemon.domain.status import ChainStatus
from daemon.ingest.chain import ChainFollower, ChainLimits
from daemon.ingest.clock import Clock
from daemon.ingest.handover import Inbox
from daemon.posting.board import Board
from daemon.posting.poster import INBOX_BATCHES, Poster
from daemon.supervision import TaskState, keep_running
from tests.samples import MORNING_MS
from tests.silent import SilentMetrics
from tests.simulation.inline_threads import inline_threads

AMOUNT_SAT = 100_000
CREDITED_SAT = 97_000  # less the flat fee
KEY_ID = "k" * 16
PATIENCE_S = 600.0  # simulated: how long a test waits for what must come; it decides nothing else


class SpiedChain(MemoryChain):
    """Counts what it is asked; `before[name]` is called with the arguments just before the call `name`."""

    def __init__(self, *, zmq: bool = True) -> None:
        super().__init__(zmq=zmq)
        self.asked: Counter[str] = Counter()
        self.before: dict[str, Callable[..., object]] = {}

    def _spy(self, name: str, *arguments: object) -> None:
        self.asked[name] += 1
        if name in self.before:
            self.before[name](*arguments)

    def info(self) -> ChainInfo:
        self._spy("info")
        return super().info()

    def tip(self) -> BlockRef:
        self._spy("tip")
        return super().tip()

    def header(self, block_hash: BlockHash) -> HeaderInfo | None:
        self._spy("header", block_hash)
        return super().header(block_hash)

    def block_hash_at(self, height: int) -> BlockHash | None:
        self._spy("block_hash_at", height)
        return super().block_hash_at(height)

    def block(self, block_hash: BlockHash) -> bytes:
        self._spy("block", block_hash)
        return super().block(block_hash)

    def mempool(self) -> MempoolSnapshot:
        self._spy("mempool")
        return super().mempool()

    def mempool_tx(self, txid: Txid) -> bytes | None:
        self._spy("mempool_tx", txid)
        return super().mempool_tx(txid)


class Metrics(SilentMetrics):
    """Keeps what ingest counts."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, int]] = []

    def hints_lost(self, *, topic: str, missing: int) -> None:
        """Kept."""
        self.lost.append((topic, missing))


class ChainTeller:
    """One store, one bitcoind, one wallet with an address; `follow` runs follower and posting while it is entered."""

    def __init__(self, chain: SpiedChain | None = None, *, zmq: bool = True, blocks: int = 5) -> None:
        self.chain = chain or SpiedChain(zmq=zmq)
        self.chain.mine_empty(blocks)
        self.store = MemoryStore(now_s=lambda: MORNING_MS / 1000)
        self.board = Board()
        self.metrics = Metrics()
        self.status = ChainStatus()
        self.states: list[TaskState] = []
        self.handed_over: list[NodeEvent] = []
        self.network = "regtest"
        self.limits = ChainLimits()
        self.dealer: Dealer = NoPrice()
        self.deliver = trio.Event()  # until it is set nothing reaches posting
        self.deliver.set()
        self._fence = self.store.leases.acquire(holder="test", ttl_s=3600.0) or 0
        self.wallet = self.store.wallets.create(
            account_id=None, currency=Currency.BTC, external_id="wallet-1"
        ).wallet_id
        self.script = self.give(0)

    def give(self, index: int) -> bytes:
        """The script of one more address of the wallet."""
        script = script_of(index)
        derived = DerivedAddress(index=index, address=f"bcrt1q{index}", script=script)
        self.store.addresses.give(self.wallet, derived, key_id=KEY_ID)
        return script

    # --- payments -----------------------------------------------------------------------------------

    def payment(self, script: bytes | None = None, *, spends: Sequence[Outpoint] = ()) -> MemoryTx:
        """A tx, not sent yet, whose output 0 pays AMOUNT_SAT to the wallet."""
        return self.chain.payment((script or self.script, AMOUNT_SAT), spends=spends)

    def pay(self) -> MemoryTx:
        """The same, sent."""
        tx = self.payment()
        self.chain.submit(tx)
        return tx

    # --- what stands in the books -------------------------------------------------------------------

    def deposit(self, tx: MemoryTx) -> Deposit | None:
        """The deposit that output 0 is."""
        return self.store.deposits.get(tx.outpoint(0))

    def state(self, tx: MemoryTx) -> DepositState | None:
        """Its state, None while it is unknown."""
        found = self.deposit(tx)
        return None if found is None else found.state

    @property
    def cursor(self) -> BlockRef | None:
        """The block that the books are at."""
        cursor = self.store.deposits.cursor()
        return None if cursor is None else cursor.block

    @property
    def is_at_tip(self) -> bool:
        """Whether the books are where the node is."""
        return self.cursor == MemoryChain.tip(self.chain)

    @property
    def credited_sat(self) -> int:
        """What the wallet has."""
        return self.store.ledger.balance((wallet_account(WalletId(self.wallet)), "BTC"))[0]

    @property
    def moves(self) -> list[ChainMoved]:
        """How posting was told that the chain went."""
        return [event for event in self.handed_over if isinstance(event, ChainMoved)]

    # --- the daemon ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[ChainFollower]:
        """The follower under supervision, and posting; worker threads are simulated (tests/simulation)."""
        send, recv = trio.open_memory_channel[Sequence[NodeEvent]](0)
        poster_send, poster_recv = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
        poster = Poster(
            books=self.store.books,
            prices=NoPrice(),
            board=self.board,
            metrics=self.metrics,
            fence=self._fence,
            now_ms=now_ms,
            rng=random.Random(1),
        )

        async def record() -> None:
            async with poster_send:
                async for events in recv:
                    await self.deliver.wait()
                    self.handed_over.extend(events)
                    await poster_send.send(events)

        follower = self.follower(send)
        keep = partial(keep_running, follower.run, name="chain", rng=random.Random(1), on_state=self._show(follower))
        with inline_threads(lambda: 0.0005):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poster.run, poster_recv)
                nursery.start_soon(record)
                nursery.start_soon(keep)
                yield follower
                nursery.cancel_scope.cancel()

    def follower(self, inbox: Inbox) -> ChainFollower:
        """As the composition root builds it."""
        return ChainFollower(
            node=self.chain,
            network=self.network,
            deposits=self.store.deposits,
            scripts=self.store.scripts,
            board=self.board,
            inbox=inbox,
            status=self.status,
            metrics=self.metrics,
            limits=self.limits,
            dealer=self.dealer,
            clock=Clock(now_ms=now_ms),
        )

    def _show(self, follower: ChainFollower) -> Callable[[TaskState], None]:
        def show(state: TaskState) -> None:
            if not state.healthy:
                self.states.append(state)
            follower.show(state)

        return show

    async def live(self) -> None:
        """Waits until the follower has done all there is to do."""
        await until(lambda: self.is_at_tip and self.status.state == "live")


def script_of(index: int) -> bytes:
    """A P2WPKH script."""
    return b"\x00\x14" + index.to_bytes(20, "big")


def now_ms() -> int:
    """Simulated."""
    return MORNING_MS + int(trio.current_time() * 1000)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits in simulated time until it holds; fails loudly if it never does."""
    with trio.move_on_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 what is waited for is seen from outside only
            await trio.sleep(0.01)
    assert condition(), what or "did not come true in time"
