"""What is away comes back: bitcoind, its messages, its cookie, its blocks. Every deposit is found, and Lightning
goes on meanwhile."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.mongo.collections import CURSORS, OUTBOX, WALLETS
from daemon.ingest.pace import Pace
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind
from regtest.process import NodeError, take_port
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import XPUB, ChainBank
from tests.e2e.chain_books import check_books_equal_chain
from tests.e2e.chain_rig import BACK_S, Rig
from tests.e2e.fail_points import Point, slowed

AMOUNT_SAT = 500_000
SETTLED = ("deposit.detected", "deposit.confirmed", "deposit.settled")
"""Told of every deposit, also of one that is first seen in a block."""


@pytest.fixture(scope="module")
def rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests that leave it as they found it."""
    rig = Rig(stack, tmp_path_factory.mktemp("outages"))
    try:
        rig.open()
        yield rig
        rig.bank.command("verify")
    finally:
        rig.close()


@pytest.fixture
def followed(rig: Rig) -> Iterator[Rig]:
    """The shared one, followed; its books are checked after the test."""
    with rig.bank.tellerd.client() as client:
        rig.wait_live(client)
        yield rig
        rig.wait_live(client)
    rig.check()


@contextmanager
def started_with(bitcoind: Bitcoind, *flags: str) -> Iterator[None]:
    """bitcoind is restarted with more flags, and without them afterwards."""
    command = bitcoind.process.command
    bitcoind.process.command = (*command, *flags)
    try:
        bitcoind.restart()
        yield
    finally:
        bitcoind.process.command = command
        bitcoind.restart()


@contextmanager
def configured(chain: ChainBank, old: str, new: str) -> Iterator[None]:
    """tellerd is restarted with another line in its configuration, and with the old one afterwards."""
    daemon = chain.bank.tellerd
    text = daemon.config_file.read_text()
    assert text.count(old) == 1
    daemon.process.stop()
    daemon.config_file.write_text(text.replace(old, new))
    try:
        daemon.start()
        daemon.wait_ready()
        yield
    finally:
        daemon.process.stop()
        daemon.config_file.write_text(text)
        daemon.start()
        daemon.wait_ready()


LONG_AGO_S = 600
"""By the clocks that a test sets, the blocks of before are so old; by the real one its own are of the future, which
bitcoind allows for two hours."""


@contextmanager
def dated(bitcoind: Bitcoind, unix_s: int) -> Iterator[None]:
    """Its clock stands: the blocks that it mines are of then, however long they are on their way."""
    bitcoind.rpc("setmocktime", unix_s)
    try:
        yield
    finally:
        bitcoind.rpc("setmocktime", 0)


def zmq_line(addresses: Sequence[str]) -> str:
    """As in the file."""
    return "zmq = [" + ", ".join(f'"{address}"' for address in addresses) + "]"


# --- bitcoind away --------------------------------------------------------------------------------------


def test_bitcoind_stopped_and_back_with_a_new_cookie(followed: Rig) -> None:
    """Deposits that are paid, mined and buried while tellerd's bitcoind is away are found when it is back, although
    it wrote another cookie; status, metric and `check` say what is wrong meanwhile, and Lightning settles."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        addresses = [rig.new_address(client) for _ in range(3)]
        alice = client.create_wallet("alice")
        invoices = rig.bank.invoices(client, alice, [1_000])
        cookie = rig.bitcoind.cookie_file.read_bytes()
        rig.bitcoind.stop()
        wait_for(lambda: not rig.status(client).connected, "the outage is seen")
        txids = [rig.other.send(address, AMOUNT_SAT) for address in addresses]
        rig.other.mine(2)
        wait_for(lambda: "bitcoind" in rig.status(client).last_error, "the status says why")
        assert rig.status(client).state.startswith("waiting")
        assert rig.metric("tellerd_chain_connected") == 0
        assert re.search(r"FAILED +bitcoind", rig.bank.command("check", expect=1))
        rig.bank.pay(invoices)
        rig.bank.wait_balance(alice, 1_000)
        rig.bitcoind.start()
        rig.bitcoind.wait_ready()
        assert rig.bitcoind.cookie_file.read_bytes() != cookie
        rig.join()
        for txid in txids:
            rig.wait_told(txid, *SETTLED)
        rig.wait_live(client)
        assert rig.metric("tellerd_chain_connected") == 1


def test_bitcoind_killed_comes_back_lower_and_no_reorg_is_made_of_it(followed: Rig) -> None:
    """SIGKILL takes what bitcoind had not flushed: it does not know the books' block any more, later it knows the
    header only. Both are waited out and shown; nothing is reversed, and it goes on when the blocks are back."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        address = rig.new_address(client)
        rig.bitcoind.rpc("gettxoutsetinfo")  # flushes: this tip stays
        flushed = rig.bitcoind.height()
        txid = rig.bitcoind.send(address, AMOUNT_SAT)
        hashes = rig.bitcoind.mine(2)
        rig.wait_told(txid, *SETTLED)
        rig.in_step()
        headers = [rig.other.rpc("getblockheader", block_hash, False) for block_hash in hashes]
        sequence = rig.bank.db[OUTBOX].count_documents({})
        rig.bitcoind.kill()
        rig.bitcoind.start()
        rig.bitcoind.wait_ready()
        assert rig.bitcoind.height() == flushed
        wait_for(lambda: hashes[-1] in rig.status(client).last_error, "the unknown block is told", BACK_S)
        assert "does not know" in rig.status(client).last_error
        for header in headers:
            rig.bitcoind.rpc("submitheader", header)
        wait_for(lambda: "still loading" in rig.status(client).last_error, "the lower tip is told", BACK_S)
        assert rig.status(client).tip.height == flushed
        assert not rig.status(client).halted
        assert rig.bank.db[OUTBOX].count_documents({}) == sequence
        assert client.balance_sat(rig.owners[address]) == AMOUNT_SAT - 3_000
        rig.join()
        rig.wait_live(client)
        assert rig.bank.db[OUTBOX].count_documents({}) == sequence
        rig.bitcoind.mine(1)
        rig.chain.wait_followed()


def test_bitcoind_in_initial_download_is_waited_out(followed: Rig) -> None:
    """A bitcoind whose tip is old may be far behind the world: nothing is concluded from it, status and `check` say
    so; with the next block it goes on."""
    rig = followed
    later = int(time.time()) + LONG_AGO_S
    with rig.bank.tellerd.client() as client:
        address = rig.new_address(client)
        with started_with(rig.bitcoind, "-maxtipage=60", f"-mocktime={later}"), dated(rig.other, later):
            assert rig.bitcoind.rpc("getblockchaininfo")["initialblockdownload"]
            wait_for(lambda: "initial download" in rig.status(client).state, "initial download is shown", BACK_S)
            assert not rig.status(client).connected
            assert "still loads the chain" in rig.bank.command("check", expect=1)
            rig.join()
            txid = rig.other.send(address, AMOUNT_SAT)
            rig.other.mine(2)
            rig.in_step()
            rig.wait_told(txid, *SETTLED)
        rig.join()


def test_bitcoind_overloaded_is_waited_out(followed: Rig) -> None:
    """One RPC thread, held by other programs, and a full queue: HTTP 503 is shown, and what came is found after."""
    rig = followed
    with rig.bank.tellerd.client() as client, started_with(rig.bitcoind, "-rpcthreads=1", "-rpcworkqueue=8"):
        address = rig.new_address(client)
        rig.join()
        rig.wait_live(client)
        tip = rig.bitcoind.rpc("getbestblockhash")
        waiting = [threading.Thread(target=_hold, args=(rig.bitcoind, tip)) for _ in range(12)]
        for thread in waiting:
            thread.start()
        wait_for(lambda: "rpcworkqueue" in rig.status(client).last_error, "the overload is shown")
        assert not rig.status(client).connected
        txid = rig.other.send(address, AMOUNT_SAT)
        rig.other.mine(2)  # the block comes to bitcoind by its peer, and ends all the waiting
        for thread in waiting:
            thread.join()
        rig.wait_told(txid, *SETTLED)
    rig.join()


HELD_MOST_MS = 120_000
"""Longer than the overload needs to be shown; a block ends it."""


def _hold(bitcoind: Bitcoind, tip: str) -> None:
    """Holds a place in bitcoind's queue until its tip is another one."""
    while True:
        try:
            bitcoind.rpc("waitfornewblock", HELD_MOST_MS, tip, timeout_s=2 * HELD_MOST_MS / 1000)
        except (NodeError, OSError):
            time.sleep(0.01)  # the queue is full already
            continue
        return


def test_without_rest_blocks_come_by_rpc(followed: Rig) -> None:
    """REST is off by default at bitcoind: getblock 0 gives the same blocks."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        address = rig.new_address(client)
        with started_with(rig.bitcoind, "-rest=0"):
            assert not _offers_rest(rig.bitcoind)
            txid = rig.bitcoind.send(address, AMOUNT_SAT)
            rig.bitcoind.mine(2)
            wait_for(lambda: rig.chain.told(txid)[-1:] == ["deposit.settled"], "settled", BACK_S)
        assert _offers_rest(rig.bitcoind)
        rig.join()


def _offers_rest(bitcoind: Bitcoind) -> bool:
    connection = http.client.HTTPConnection(bitcoind.rpc_address, timeout=CALL_S)
    connection.request("GET", "/rest/chaininfo.json")
    status = connection.getresponse().status
    connection.close()
    return status == 200


# --- ZMQ ------------------------------------------------------------------------------------------------

MEMPOOL_LOOK_S = Pace().mempool_hinted_s
"""Between looks at the whole mempool where nothing tells that one is due."""


def test_zmq_messages_lost_are_counted_and_made_up_for(followed: Rig) -> None:
    """The message that announces a deposit does not arrive: the next one's number tells, and the mempool is looked
    at whole, long before its time."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        address = rig.new_address(client)
        _wait_hinted(rig, client)
        counted = rig.metric('tellerd_zmq_messages_lost_total{topic="sequence"}')
        rig.relay.lose(1)
        txid = rig.bitcoind.send(address, AMOUNT_SAT)
        wait_for(lambda: rig.relay.to_lose == 0, "the announcement is lost")
        rig.bitcoind.send(rig.bitcoind.new_address(), AMOUNT_SAT)
        rig.wait_told(txid, "deposit.detected", timeout_s=MEMPOOL_LOOK_S / 2)
        assert rig.metric('tellerd_zmq_messages_lost_total{topic="sequence"}') == counted + 1
        rig.bitcoind.mine(2)
        rig.wait_told(txid, *SETTLED)


def test_zmq_that_dies_while_rpc_lives_is_shown_and_nothing_is_missed(followed: Rig) -> None:
    """The connection to ZMQ breaks and stays broken: polling finds the tx and its block, the status says that
    hints are silent; when ZMQ is back, it is live again."""
    rig = followed
    with rig.bank.tellerd.client() as client:
        address = rig.new_address(client)
        _wait_hinted(rig, client)
        assert rig.metric("tellerd_zmq_live") == 1
        rig.relay.cut()
        try:
            txid = rig.bitcoind.send(address, AMOUNT_SAT)
            rig.bitcoind.rpc("generateblock", rig.bitcoind.new_address(), [])  # a block without it: a look is due
            rig.wait_told(txid, "deposit.detected")
            wait_for(lambda: rig.status(client).zmq == admin_pb2.CHAIN_HINTS_SILENT, "the silence is shown")
            assert rig.metric("tellerd_zmq_live") == 0
            rig.bitcoind.mine(2)
            rig.wait_told(txid, *SETTLED)
            assert rig.status(client).connected
        finally:
            rig.relay.start()
        _wait_hinted(rig, client)
        assert rig.metric("tellerd_zmq_live") == 1


def _wait_hinted(rig: Rig, client: Client) -> None:
    """Returns when hints arrive: something is said until one does."""

    def live() -> bool:
        rig.bitcoind.mine(1)
        return rig.status(client).zmq == admin_pb2.CHAIN_HINTS_LIVE

    wait_for(live, "hints arrive")
    rig.wait_live(client)


@pytest.mark.parametrize("published", [False, True], ids=["none configured", "nobody publishes there"])
def test_without_zmq_deposits_are_found_by_polling(followed: Rig, published: bool) -> None:
    """No address, or one where nobody is: seen in the mempool and in blocks all the same."""
    rig = followed
    other = zmq_line([f"tcp://127.0.0.1:{take_port()}"] if published else [])
    with configured(rig.chain, zmq_line([rig.relay.address]), other), rig.bank.tellerd.client() as client:
        rig.wait_live(client)
        address = rig.new_address(client)
        txid = rig.bitcoind.send(address, AMOUNT_SAT)
        rig.wait_told(txid, "deposit.detected")
        rig.bitcoind.mine(2)
        rig.wait_told(txid, *SETTLED)
        expected = admin_pb2.CHAIN_HINTS_SILENT if published else admin_pb2.CHAIN_HINTS_OFF
        assert rig.status(client).zmq == expected
        assert rig.metric("tellerd_zmq_live") == 0


# --- the first start, and blocks that are gone --------------------------------------------------------------


@contextmanager
def begun(stack: Stack, folder: Path, *, keys: str = "", flags: tuple[str, ...] = ()) -> Iterator[ChainBank]:
    """A bank whose bitcoind is up, with coins that can be spent, and whose tellerd was never started."""
    chain = ChainBank(stack, folder, keys=keys, flags=flags)
    try:
        chain.start_bitcoind()
        chain.bitcoind.mine(MATURITY_BLOCKS + 20)
        yield chain
    finally:
        chain.close()


def test_the_first_start_begins_at_the_tip(stack: Stack, tmp_path: Path) -> None:
    """What was paid to an address before tellerd's first start is not credited, what comes after is."""
    with begun(stack, tmp_path) as chain:
        descriptor = chain.bitcoind.rpc("getdescriptorinfo", f"wpkh({XPUB}/0/*)")["descriptor"]
        (known,) = chain.bitcoind.rpc("deriveaddresses", descriptor, [0, 0])
        older = chain.bitcoind.send(known, AMOUNT_SAT)
        chain.bitcoind.mine(3)
        first_height = chain.bitcoind.height()
        chain.bank.open()
        with chain.bank.tellerd.client() as client:
            wallet = client.create_wallet("alice")
            address = chain.address(client, wallet)
            assert address == known
            txid = chain.bitcoind.send(address, AMOUNT_SAT + 1)
            chain.bitcoind.mine(2)
            wait_for(lambda: chain.told(txid) == list(SETTLED), "the deposit is settled")
            assert client.balance_sat(wallet) == AMOUNT_SAT + 1 - 3_000
        assert chain.told(older) == []
        assert check_books_equal_chain(chain, {address: wallet}, from_height=first_height) == 1


def _mine_many(bitcoind: Bitcoind, blocks: int) -> None:
    """In parts: on a busy machine many blocks take longer than one call may."""
    for _ in range(0, blocks, 100):
        bitcoind.mine(100)


CATCH_UP_BLOCKS = 600
"""Several commits of 100 blocks."""

MOVING = Point("moving the cursor", "update", CURSORS, in_transaction=True)
SLOWED_MS = 2_000
"""Each of these commits is held so long while the test looks."""


def test_the_first_start_begins_at_start_height(stack: Stack, tmp_path: Path) -> None:
    """A payment of that block, to an address that another program gave out, is credited, the one of the block before
    is not; log, status and metrics show how the way to the tip goes."""
    start_height = MATURITY_BLOCKS + 22
    keys = f"start_height = {start_height}\nforeign_addresses = true\nback_scan_blocks = 1"
    with begun(stack, tmp_path, keys=keys) as chain:
        address = chain.bitcoind.new_address()
        too_old = chain.bitcoind.send(address, AMOUNT_SAT)
        chain.bitcoind.mine(1)
        txid = chain.bitcoind.send(address, AMOUNT_SAT + 1)
        chain.bitcoind.mine(1)
        assert chain.bitcoind.height() == start_height
        _mine_many(chain.bitcoind, CATCH_UP_BLOCKS)
        chain.bank.command("init")
        wallet = chain.bank.write_wallet()
        chain.bank.db[WALLETS].update_one({"id": wallet}, {"$set": {"onchain": [{"address": address}]}})
        with (
            slowed(chain.bank.db.client, chain.bank.database, MOVING, by_ms=SLOWED_MS),
            chain.bank.tellerd.client() as client,
        ):
            chain.bank.tellerd.start()
            chain.bank.tellerd.wait_ready()
            _see_catching_up(chain, client)
        chain.bank.wait_opened()
        wait_for(lambda: chain.told(txid) == list(SETTLED), "the deposit is settled")
        assert chain.told(too_old) == []
        assert check_books_equal_chain(chain, {address: wallet}, from_height=start_height - 1) == 1
        log = chain.bank.tellerd.process.log_file.read_text()
        assert re.search(r'"done": \d+, "to_do": \d+, "blocks_per_s": \d+, "event": "chain.catching_up"', log)


def _see_catching_up(chain: ChainBank, client: Client) -> None:
    """Returns when status and metrics have shown it at one moment."""

    def seen() -> bool:
        status = client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).chain
        metrics = chain.bank.tellerd.get("/metrics").text
        behind = re.search(r"^tellerd_chain_blocks_behind ([1-9]\S+)$", metrics, re.MULTILINE)
        rate = re.search(r"^tellerd_chain_catch_up_blocks_per_second ([1-9]\S+)$", metrics, re.MULTILINE)
        return bool(
            re.fullmatch(r"catching up: block \d+ of \d+", status.state)
            and status.blocks_behind > 0
            and status.catch_up_blocks_per_s > 0
            and behind
            and rate
        )

    wait_for(seen, "catching up is shown")


PRUNED_FLAGS = ("-prune=1", "-fastprune", "-txindex=0")
"""Pruning on demand, block files of 64 kB."""


def test_a_pruned_block_that_is_needed_halts_the_chain_and_lightning_goes_on(stack: Stack, tmp_path: Path) -> None:
    """bitcoind has deleted blocks that the books have not: said clearly, in status, metric and log; the chain stands
    still, and invoices are paid and credited."""
    with begun(stack, tmp_path, flags=PRUNED_FLAGS) as chain:
        chain.bank.open()
        chain.wait_followed()
        cursor = chain.cursor_hash()
        chain.bank.tellerd.process.stop()
        _mine_many(chain.bitcoind, 500)
        assert chain.bitcoind.rpc("pruneblockchain", 300) > MATURITY_BLOCKS + 20
        chain.bank.tellerd.start()
        chain.bank.tellerd.wait_ready()
        with chain.bank.tellerd.client() as client:

            def status() -> admin_pb2.ChainStatus:
                return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).chain

            wait_for(lambda: status().halted, "the chain is halted")
            assert "pruned" in status().last_error
            assert not status().connected
            assert "tellerd_chain_halted 1.0" in chain.bank.tellerd.get("/metrics").text
            wallet = client.create_wallet("alice")
            chain.bank.pay(chain.bank.invoices(client, wallet, [1_000]))
            chain.bank.wait_balance(wallet, 1_000)
        assert chain.cursor_hash() == cursor
        assert chain.bank.tellerd.process.alive
        assert '"event": "chain.halted"' in chain.bank.tellerd.process.log_file.read_text()
