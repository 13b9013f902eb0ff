"""Catching up with a chain of full blocks, beside a bare client that only fetches them.

One bitcoind, one mongod; bitcoind with REST, then the same without. In each round in turns: the bare client (block by
height -> hash -> bytes, one after another on one connection, nothing else), the daemon as an operator starts it with
1,000 watched scripts, and with 1,000,000. Each catch-up has books of its own and begins at the same block. bitcoind
stands still until the daemon has started, so that its start is no part of it.

What is timed are the cursors in the database, looked for every 5 ms: the rate counts from the cursor of the first
blocks (MOVE_OUTPUTS deposits) to the one at the tip. The column `first` is what comes once: from the cursor that it
begins with to that of the first blocks, less these blocks at the rate. What the daemon reads of the scripts at its
start, before that cursor, stands with the memory.
"""

from __future__ import annotations

import http.client
import logging
import random
import re
import statistics
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog
from bitcoinrpc.authproxy import AuthServiceProxy
from bson.int64 import Int64
from pymongo.collection import Collection

from adapters.bitcoind.node import BitcoindNode
from adapters.mongo import collections as names
from adapters.mongo.documents import Document
from adapters.mongo.schema import wallet_document
from adapters.mongo.script_numbers import COUNTER
from adapters.mongo.store import MongoStore
from daemon.domain.blocks import scan
from daemon.domain.chain import BlockRef
from daemon.domain.chain_events import ChainMoved, ConnectedBlock
from daemon.domain.identifiers import BlockHash
from daemon.domain.money import Currency
from daemon.ingest.chain_walk import MOVE_OUTPUTS
from daemon.ingest.scanned_blocks import connect
from daemon.matching.decide import decide, wanted_by
from daemon.posting.seal import seal
from regtest import binaries
from regtest.bitcoind import Bitcoind
from regtest.mongod import Mongod
from regtest.process import take_port
from regtest.stack import TELLERD_TOML, mongod_only
from regtest.tellerd import Tellerd
from tests.bench.chain_blocks import DEPOSITS, TXS, BlockMaker
from tests.bench.path import LONG_LEASE, SimulatedLndProcess, Use, cpu_s

BLOCKS: Final = 150
"""Fifty come before the first cursor with deposits, a hundred are timed; made in under a minute."""

SCRIPTS: Final = (1_000, 1_000_000)

ROUNDS: Final = 3
"""The median counts."""

_WALLETS: Final = 100
_INSERT: Final = 20_000
"""Documents of one insert: 2 MB."""

_BARE_S: Final = 1.0
"""The bare client goes over all blocks again until this has passed."""

_LOOK_S: Final = 0.005
"""Between looks at the cursor: each costs the database 0.1 ms."""

_WAIT_S: Final = 120.0
"""A catch-up takes seconds; one that takes this long is broken."""

_ALONE_BLOCKS: Final = 40
"""Taken apart under a stopwatch."""

_CHAIN_TOML: Final = """
[bitcoind]
rpc_url = "{rpc_url}"
rpc_cookie_file = "{cookie_file}"
zmq = [{zmq}]
start_height = {start_height}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUp:
    """One catch-up: seconds of a block, and of what came once: before the first, and from the tip until everything
    that is deep enough was credited. CPU seconds of a block, by process."""

    block_s: float
    first_s: float
    credit_s: float
    used: dict[str, float]
    tellerd_mb: float
    tellerd_peak_mb: float
    mongod_mb: float


@dataclass(slots=True)
class Transport:
    """What one way of fetching blocks gave: seconds of a block of the bare client, the catch-ups by number of
    scripts, milliseconds of the steps alone."""

    name: str
    bare_s: list[float] = field(default_factory=list)
    caught_up: defaultdict[int, list[CatchUp]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[int, list[tuple[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The full blocks of the chain: heights from `first` to `last`."""

    first: int
    last: int
    size_bytes: int
    outputs: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class WatchingDatabase:
    """A database with this many watched scripts, and books that can be begun anew."""

    def __init__(self, url: str, watched: Sequence[bytes], count: int) -> None:
        """All of `watched` are among the scripts; the others are strangers to the chain."""
        self.count = count
        self.name = f"chain_{count}"
        self.store = MongoStore.connect(url, self.name)
        self.db = self.store.db
        self._wallets = [wallet_document(str(uuid.uuid4()), Currency.BTC) for _ in range(_WALLETS)]
        self.store.init()
        others = random.Random(count)
        scripts = [*watched, *(b"\x00\x14" + others.randbytes(20) for _ in range(count - len(watched)))]
        self.db[names.SCRIPTS].drop_indexes()  # made over all at once by `init` they cost a fraction
        for start in range(0, count, _INSERT):
            documents = [self._document(start + n, one) for n, one in enumerate(scripts[start : start + _INSERT])]
            self.db[names.SCRIPTS].insert_many(documents, ordered=False)
        self.store.init()
        self.db[names.DERIVATIONS].update_one({"_id": COUNTER}, {"$set": {"n": Int64(count)}})
        began = time.perf_counter()
        self.store.scripts.owners([])
        self.load_s = time.perf_counter() - began

    def _document(self, index: int, script: bytes) -> Document:
        """As MongoAddresses leaves it, the text of the address apart, which nobody reads."""
        return {
            "_id": script,
            "address": f"bcrt1q{script[3:].hex()}",
            "wallet_id": self._wallets[index % _WALLETS]["id"],
            "key_id": "bench",
            "index": Int64(index),
            "n": Int64(index + 1),
        }

    def begin_anew(self) -> None:
        """Nothing but scripts and wallets, as `tellerd init` leaves it."""
        for name in self.db.list_collection_names():
            if name not in (names.SCRIPTS, names.DERIVATIONS):  # scripts and their number belong together
                self.db.drop_collection(name)
        self.store.init()
        self.db[names.WALLETS].insert_many(self._wallets)

    def cached_mb(self) -> tuple[float, float]:
        """What the scripts with their indexes take of the database's cache, and on disk."""
        stats = self.db.command("collStats", names.SCRIPTS, indexDetails=True)
        parts = [stats["wiredTiger"], *stats["indexDetails"].values()]
        cached = sum(part["cache"]["bytes currently in the cache"] for part in parts)
        return cached / 1e6, (stats["storageSize"] + stats["totalIndexSize"]) / 1e6


def run(rounds: int = ROUNDS, blocks: int = BLOCKS) -> None:
    """Measures and prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.monotonic()
    watched = [b"\x00\x14" + random.Random(n).randbytes(20) for n in range(min(SCRIPTS))]
    with mongod_only() as mongod, ExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory(prefix="tellerd-bench-")))
        made, seconds = _make_chain(folder, watched, blocks)
        _say(f"{blocks} blocks made in {seconds:.0f} s")
        lnd = SimulatedLndProcess(folder)
        resources.callback(lnd.stop)
        bench = _Bench(mongod, lnd, folder, made)
        few = WatchingDatabase(mongod.url, watched, min(SCRIPTS))
        resources.callback(few.store.close)
        with _bitcoind(folder, rest=True) as bitcoind:
            warm_up = bench.catch_up(bitcoind, few)  # memory with nothing but these
        many = WatchingDatabase(mongod.url, watched, max(SCRIPTS))
        resources.callback(many.store.close)
        _say(f"{many.count} scripts are there")
        transports = [bench.measure(folder, rest, (few, many), rounds) for rest in (True, False)]
        caches = {one.count: one.cached_mb() for one in (few, many)}
        load_s = {one.count: one.load_s for one in (few, many)}
    for transport in transports:
        _print_transport(transport, made)
    _print_memory(transports, warm_up, caches, load_s)
    print(f"\n{time.monotonic() - began:.0f} s in all, {seconds:.0f} s of them to make the blocks")


@contextmanager
def _bitcoind(folder: Path, *, rest: bool) -> Iterator[Bitcoind]:
    """The bench's node, on the same chain every time."""
    node = Bitcoind(binaries.bitcoind(), folder / "bitcoind", (f"-rest={rest:d}",))
    node.start()
    try:
        node.wait_ready()
        yield node
    finally:
        node.stop()


def _make_chain(folder: Path, watched: Sequence[bytes], count: int) -> tuple[Blocks, float]:
    with _bitcoind(folder, rest=True) as bitcoind:
        began = time.monotonic()
        maker = BlockMaker(bitcoind, watched)
        first = bitcoind.height() + 1
        maker.mine(count)
        seconds = time.monotonic() - began
        newest = bitcoind.rpc("getblock", bitcoind.rpc("getbestblockhash"), 0)
        raw = bytes.fromhex(newest)
        assert scan(raw).tx_count == TXS + 1
        return Blocks(first, bitcoind.height(), len(raw), len(scan(raw).scripts)), seconds


@dataclass(slots=True)
class _Bench:
    mongod: Mongod
    lnd: SimulatedLndProcess
    folder: Path
    blocks: Blocks

    def measure(self, folder: Path, rest: bool, databases: Sequence[WatchingDatabase], rounds: int) -> Transport:
        """Bare client and catch-ups in turns."""
        result = Transport("REST" if rest else "getblock 0")
        with _bitcoind(folder, rest=rest) as bitcoind:
            for number in range(1, rounds + 1):
                _say(f"{result.name}, round {number} of {rounds}")
                result.bare_s.append(self.bare(bitcoind, rest))
                for database in databases:
                    result.caught_up[database.count].append(self.catch_up(bitcoind, database))
            for database in databases:
                result.alone[database.count] = self.alone(bitcoind, database)
        return result

    def bare(self, bitcoind: Bitcoind, rest: bool) -> float:
        """Seconds that the bare client needs for a block."""
        fetch = _bare_rest(bitcoind) if rest else _bare_rpc(bitcoind)
        began, passes = time.perf_counter(), 0
        while time.perf_counter() - began < _BARE_S:
            for height in range(self.blocks.first, self.blocks.last + 1):
                assert len(fetch(height)) > TXS
            passes += 1
        return (time.perf_counter() - began) / (passes * self.blocks.count)

    def catch_up(self, bitcoind: Bitcoind, database: WatchingDatabase) -> CatchUp:
        """From an empty database to the tip."""
        database.begin_anew()
        tellerd = self._tellerd(bitcoind, database)
        cursors, deposits = database.db[names.CURSORS], database.db[names.DEPOSITS]

        def use() -> Use:
            pids = {"tellerd": tellerd.process.pid, "mongod": self.mongod.process.pid, "bitcoind": bitcoind.process.pid}
            return Use({name: cpu_s(pid) for name, pid in pids.items()})

        bitcoind.pause()
        try:
            tellerd.start()
            tellerd.wait_ready()
            _wait(lambda: cursors.find_one({"opening_index": {"$ne": None}}) is not None, tellerd)
        finally:
            bitcoind.resume()
        try:
            base, first = self.blocks.first - 1, self.blocks.first
            _wait(lambda: _height(cursors) >= base, tellerd)
            base_at = time.perf_counter()
            _wait(lambda: _height(cursors) >= first, tellerd)
            first_at, reached, before = time.perf_counter(), _height(cursors), use()
            _wait(lambda: _height(cursors) == self.blocks.last, tellerd)
            tip_at, used, timed = time.perf_counter(), use().since(before), self.blocks.last - reached
            due = DEPOSITS * (self.blocks.count - 1)  # the newest block's have not two confirmations
            _wait(lambda: deposits.count_documents({"state": "settled"}) == due, tellerd)
            credit_s = time.perf_counter() - tip_at
            assert deposits.count_documents({}) == DEPOSITS * self.blocks.count
            memory, mongod = _memory_mb(tellerd.process.pid), _memory_mb(self.mongod.process.pid)
        finally:
            tellerd.process.stop()
        block_s = (tip_at - first_at) / timed
        return CatchUp(
            block_s=block_s,
            first_s=first_at - base_at - (reached - base) * block_s,
            credit_s=credit_s,
            used={name: seconds / timed for name, seconds in used.items()},
            tellerd_mb=memory["VmRSS"],
            tellerd_peak_mb=memory["VmHWM"],
            mongod_mb=mongod["VmRSS"],
        )

    def _tellerd(self, bitcoind: Bitcoind, database: WatchingDatabase) -> Tellerd:
        api, metrics = take_port(), take_port()
        config = self.folder / f"{database.name}.toml"
        lnd = TELLERD_TOML.format(
            mongo_url=self.mongod.url,
            database=database.name,
            lnd_address=self.lnd.files["address"],
            tls_cert_file=self.lnd.files["tls_cert_file"],
            macaroon_file=self.lnd.files["macaroon_file"],
            api_port=api,
            http_port=metrics,
        )
        chain = _CHAIN_TOML.format(
            rpc_url=bitcoind.rpc_url,
            cookie_file=bitcoind.cookie_file,
            zmq=", ".join(f'"{address}"' for address in bitcoind.zmq_addresses),
            start_height=self.blocks.first,
        )
        config.write_text(lnd + LONG_LEASE + chain)
        return Tellerd(config, api=f"127.0.0.1:{api}", http_address=f"127.0.0.1:{metrics}", name=database.name)

    def alone(self, bitcoind: Bitcoind, database: WatchingDatabase) -> list[tuple[str, float]]:
        """Milliseconds of a block that each step takes, one after another in this process."""
        spent: defaultdict[str, float] = defaultdict(float)

        @contextmanager
        def step(name: str) -> Iterator[None]:
            began = time.perf_counter()
            yield
            spent[name] += time.perf_counter() - began

        database.begin_anew()
        database.store.open()
        database.store.leases.acquire(holder="bench", ttl_s=600)
        node = BitcoindNode(name="bitcoind", rpc_url=bitcoind.rpc_url, rpc_cookie_file=bitcoind.cookie_file)
        first = self.blocks.first
        start = BlockRef(height=first - 1, hash=_known(node.block_hash_at(first - 1)))
        genesis = _known(node.block_hash_at(0))
        connected: list[ConnectedBlock] = []
        for height in range(first, first + _ALONE_BLOCKS):
            with step("height -> hash"):
                block_hash = _known(node.block_hash_at(height))
            with step("hash -> bytes"):
                raw = node.block(block_hash)
            with step("scan"):
                scanned = scan(raw)
            with step("owners, outputs to them"):
                block = connect(BlockRef(height=height, hash=block_hash), scanned, database.store.scripts.owners)
            with step("  of it the owners"):
                database.store.scripts.owners(set(scanned.scripts))
            connected.append(block)
        node.close()

        def moved(base: BlockRef | None, blocks: Sequence[ConnectedBlock]) -> ChainMoved:
            now_ms = time.time_ns() // 1_000_000
            return ChainMoved(
                genesis=genesis, base=base, fork=None, disconnected=(), connected=tuple(blocks), moved_at_ms=now_ms
            )

        _post(database.store, moved(None, [ConnectedBlock(block=start, outputs=())]))
        base, size = start, MOVE_OUTPUTS // DEPOSITS
        with step("posting"):
            for begin in range(0, len(connected), size):
                chunk = connected[begin : begin + size]
                _post(database.store, moved(base, chunk))
                base = chunk[-1].block
        return [(name, seconds * 1e3 / _ALONE_BLOCKS) for name, seconds in spent.items()]


def _post(store: MongoStore, move: ChainMoved) -> None:
    facts = store.books.read_facts(wanted_by([move]))
    changes = seal(
        decide([move], facts, price=None), now_ms=time.time_ns() // 1_000_000, writer_id=store.books.writer_id
    )
    store.books.commit(changes)


def _bare_rest(bitcoind: Bitcoind) -> Callable[[int], bytes]:
    connection = http.client.HTTPConnection(bitcoind.rpc_address)

    def get(path: str) -> bytes:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == http.HTTPStatus.OK
        return response.read()

    def fetch(height: int) -> bytes:
        block_hash = get(f"/rest/blockhashbyheight/{height}.bin")[::-1].hex()
        return get(f"/rest/block/{block_hash}.bin")

    return fetch


def _bare_rpc(bitcoind: Bitcoind) -> Callable[[int], bytes]:
    proxy = AuthServiceProxy(f"http://{bitcoind.cookie_file.read_text()}@{bitcoind.rpc_address}")

    def fetch(height: int) -> bytes:
        return bytes.fromhex(proxy.getblock(proxy.getblockhash(height), 0))

    return fetch


def _known(block_hash: BlockHash | None) -> BlockHash:
    assert block_hash is not None
    return block_hash


def _height(cursors: Collection[Document]) -> int:
    """Where the books are; -1 where they have not begun."""
    cursor = cursors.find_one({"_id": {"$regex": "^chain:"}}, {"height": 1})
    return -1 if cursor is None else int(cursor["height"])


def _wait(condition: Callable[[], bool], tellerd: Tellerd) -> None:
    give_up_at = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the books do not get there\n{tellerd.process.log_tail()}")
        time.sleep(_LOOK_S)


def _memory_mb(pid: int) -> dict[str, float]:
    """Resident now and at most (proc(5), status: kB of 1,024 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kb) * 1024 / 1e6 for name, kb in re.findall(r"^(Vm\w+):\s+(\d+) kB$", status, re.MULTILINE)}


def _print_transport(transport: Transport, blocks: Blocks) -> None:
    median = statistics.median
    size_mb = blocks.size_bytes / 1e6
    print(f"\nblocks by {transport.name}: {TXS:,} txs, {blocks.outputs:,} outputs, {size_mb:.2f} MB each")
    print(f"{'':<53}{'once, s':>15}{'CPU ms of a block':>28}")
    print(
        f"{'catch-up':<20}{'blocks/s':>9}{'MB/s':>7}{'ratio':>7}{'ms a block':>11}{'first':>7}{'credits':>8}"
        f"{'tellerd':>10}{'mongod':>9}{'bitcoind':>9}   blocks/s by round"
    )

    def row(name: str, seconds: Sequence[float], ratio: str, more: str) -> None:
        rate = 1 / median(seconds)
        rounds = " ".join(f"{1 / one:.1f}" for one in seconds)
        print(f"{name:<20}{rate:>9.1f}{rate * size_mb:>7.1f}{ratio:>7}{1e3 / rate:>11.2f}{more:<43}   {rounds}")

    row("bare client", transport.bare_s, "", "")
    for count, caught_up in transport.caught_up.items():
        ratio = median(bare_s / one.block_s for bare_s, one in zip(transport.bare_s, caught_up, strict=True))
        once = f"{median(one.first_s for one in caught_up):>7.2f}{median(one.credit_s for one in caught_up):>8.2f} "
        cpu = "".join(f"{median(one.used[name] for one in caught_up) * 1e3:>9.1f}" for name in caught_up[0].used)
        row(f"{count:,} scripts", [one.block_s for one in caught_up], f"{ratio:.2f}", once + cpu)
    few, many = (transport.caught_up[count] for count in SCRIPTS)
    rates = median(one.block_s / other.block_s for one, other in zip(few, many, strict=True))
    print(f"rate with {max(SCRIPTS):,} scripts / with {min(SCRIPTS):,}: {rates:.2f}")
    print(f"{'one after another, ms of a block':<40}" + "".join(f"{count:>12,}" for count in SCRIPTS))
    for number, (name, _) in enumerate(transport.alone[SCRIPTS[0]]):
        print(f"  {name:<38}" + "".join(f"{transport.alone[count][number][1]:>12.2f}" for count in SCRIPTS))


def _print_memory(
    transports: Sequence[Transport],
    warm_up: CatchUp,
    caches: dict[int, tuple[float, float]],
    load_s: dict[int, float],
) -> None:
    print(
        f"\n{'memory, MB':<20}{'tellerd':>9}{'peak':>7}{'mongod':>8}{'scripts in its cache':>22}{'on disk':>9}"
        f"{'read at start, s':>18}"
    )
    for count in SCRIPTS:
        runs = [one for transport in transports for one in transport.caught_up[count]]
        mongod_mb = warm_up.mongod_mb if count == min(SCRIPTS) else max(one.mongod_mb for one in runs)
        rss, peak = max(one.tellerd_mb for one in runs), max(one.tellerd_peak_mb for one in runs)
        cached, stored = caches[count]
        print(
            f"{f'{count:,} scripts':<20}{rss:>9.0f}{peak:>7.0f}{mongod_mb:>8.0f}{cached:>22.1f}{stored:>9.1f}"
            f"{load_s[count]:>18.2f}"
        )


def _say(what: str) -> None:
    print(f"bench: chain: {what}", file=sys.stderr, flush=True)
