"""BitcoindNode when something is wrong: real bitcoinds with other settings, and a server that misbehaves."""

from __future__ import annotations

import base64
import hmac
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest

from adapters.bitcoind.node import BitcoindNode
from daemon.domain.chain import BlockRef
from daemon.domain.errors import BlockPruned, Misconfigured, NodeRefused, Unavailable
from daemon.domain.identifiers import BlockHash
from regtest import binaries
from regtest.bitcoind import Bitcoind
from regtest.process import NodeError

PATIENCE_S = 30.0
ELSEWHERE = "bcrt1q6rz28mcfaxtmd6v789l9rrlrusdprr9pz3cppk"  # m/84'/1'/0'/0/0 of "abandon … about"
PASSWORD = "p@ss:w/rd#?%20 with all that URLs cannot hold"


@contextmanager
def started(folder: Path, *flags: str) -> Iterator[Bitcoind]:
    """A bitcoind with more flags."""
    bitcoind = Bitcoind(binaries.bitcoind(), folder, flags)
    bitcoind.start()
    try:
        bitcoind.wait_ready()
        yield bitcoind
    finally:
        bitcoind.kill()


def connect(bitcoind: Bitcoind, *, timeout_s: float = 10.0) -> closing[BitcoindNode]:
    """The adapter on it, without hints."""
    return closing(
        BitcoindNode(
            name="bitcoind", rpc_url=bitcoind.rpc_url, rpc_cookie_file=bitcoind.cookie_file, timeout_s=timeout_s
        )
    )


@pytest.fixture(scope="module")
def bitcoind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """With REST, and one user beside the cookie, whose password is a hard one."""
    salt = "00" * 16
    hashed = hmac.new(salt.encode(), PASSWORD.encode(), "sha256").hexdigest()
    with started(
        tmp_path_factory.mktemp("bitcoind"),
        f"-rpcauth=teller:{salt}${hashed}",
        f"-rpcauth=narrow:{salt}${hashed}",
        "-rpcwhitelist=narrow:getbestblockhash",
        "-rpcwhitelistdefault=0",
    ) as running:
        running.mine(3)
        yield running


@pytest.mark.regtest
class TestRealNodes:
    """What bitcoind itself answers."""

    def test_rest_and_rpc_give_the_same_block(self, bitcoind: Bitcoind) -> None:
        """Byte for byte; and REST is what is used where it is offered."""
        with connect(bitcoind) as node:
            tip = node.tip()
            by_rest = node._rest.fetch(tip.hash, outages_seen=0)
            assert by_rest == node._block_by_rpc(tip.hash) == node.block(tip.hash)

    def test_a_node_without_rest_is_asked_by_rpc(self, tmp_path: Path) -> None:
        """And by REST again when it was restarted with it."""
        with started(tmp_path, "-rest=0") as bitcoind, connect(bitcoind) as node:
            (mined,) = bitcoind.mine(1)
            for _ in range(2):
                assert block_hash(node.block(BlockHash(mined))) == mined
            assert node._rest.fetch(BlockHash(mined), outages_seen=node._rpc.failures) is None
            bitcoind.stop()
            with pytest.raises(Unavailable, match="does not listen: start it, or check rpc_url"):
                node.tip()
            bitcoind.process.command = tuple(flag for flag in bitcoind.process.command if flag != "-rest=0")
            bitcoind.start()
            bitcoind.wait_ready()
            assert block_hash(node.block(BlockHash(mined))) == mined
            assert node._rest.fetch(BlockHash(mined), outages_seen=node._rpc.failures) is not None

    def test_a_password_may_have_any_characters(self, bitcoind: Bitcoind, tmp_path: Path) -> None:
        """From its file, whose last line end does not count; a wrong one is Unavailable, and is read again."""
        file = tmp_path / "password"
        file.write_text(PASSWORD + "\n")
        node = BitcoindNode(
            name="bitcoind", rpc_url=bitcoind.rpc_url, rpc_user="teller", rpc_password_file=file, timeout_s=10.0
        )
        assert node.tip().height == 3
        file.write_text("another")
        other = BitcoindNode(name="bitcoind", rpc_url=bitcoind.rpc_url, rpc_user="teller", rpc_password_file=file)
        with pytest.raises(Unavailable, match="refuses the credentials: check rpc_cookie_file") as refused:
            other.tip()
        assert_no_secret(refused.value, "another")
        file.write_text(PASSWORD)
        assert other.tip().height == 3
        node.close()
        other.close()

    def test_a_forbidden_call_is_waited_for(self, bitcoind: Bitcoind, tmp_path: Path) -> None:
        """An operator mends it at the node; the others work."""
        file = tmp_path / "password"
        file.write_text(PASSWORD)
        node = BitcoindNode(name="bitcoind", rpc_url=bitcoind.rpc_url, rpc_user="narrow", rpc_password_file=file)
        with pytest.raises(Unavailable, match=r"forbids this call: look at its rpcwhitelist .*getmempoolinfo"):
            node.mempool()
        node.close()

    def test_a_refusal_names_call_and_code(self, bitcoind: Bitcoind) -> None:
        """It is not asked again and again; afterwards the connection is used again."""
        with connect(bitcoind) as node:
            with pytest.raises(NodeRefused, match=r"bitcoind refused deriveaddresses: .* \(-5\)"):
                node.derive("wpkh(nonsense)", 0)
            assert node._rpc.failures == 0

    def test_the_nodes_derivation_is_the_standards(self, bitcoind: Bitcoind) -> None:
        """BIP84's test vector, whose account key is written here for a test network."""
        account = (
            "vpub5Y6cjg78GGuNLsaPhmYsiw4gYX3HoQiRBiSwDaBXKUafCt9bNw"
            "WQiitDk5VZ5BVxYnQdwoTyXSs2JHRPAgjAvtbBrf8ZhDYe2jWAqvZVnsc"
        )
        key = in_base58(bytes.fromhex("043587cf") + from_base58(account)[4:])
        descriptor = bitcoind.rpc("getdescriptorinfo", f"wpkh({key}/0/*)")["descriptor"]
        with connect(bitcoind) as node:
            # m/84'/1'/0'/0/0 and /1 of "abandon … about", the well-known testnet addresses' programs
            assert node.derive(descriptor, 0) == ELSEWHERE
            assert node.derive(descriptor, 0) != node.derive(descriptor, 1)

    def test_amounts_are_exact(self, bitcoind: Bitcoind) -> None:
        """Decimal, never float: a price of 0.1 BTC is 10,000,000 sat."""
        with connect(bitcoind) as node:
            block = node._rpc.call("getblock", node.tip().hash, 2)
            value = block["tx"][0]["vout"][0]["value"]
            assert isinstance(value, Decimal)
            assert value == Decimal(50)

    def test_a_pruned_block_is_gone_for_good(self, tmp_path: Path) -> None:
        """That is not waited for; and the node says from where on it has blocks."""
        with started(tmp_path, "-txindex=0", "-prune=1", "-fastprune") as bitcoind, connect(bitcoind) as node:
            first = BlockHash(bitcoind.mine(650, ELSEWHERE)[0])
            assert node.info().prune_height == 0
            bitcoind.rpc("pruneblockchain", 300)
            with pytest.raises(BlockPruned, match=f"has pruned block {first}"):
                node.block(first)
            prune_height = node.info().prune_height
            assert prune_height is not None
            assert prune_height > 1
            lowest = node.block_hash_at(prune_height)
            assert lowest is not None
            assert block_hash(node.block(lowest)) == lowest

    def test_a_block_of_which_only_the_header_came_is_waited_for(self, bitcoind: Bitcoind, tmp_path: Path) -> None:
        """It is on its way."""
        with started(tmp_path) as other:
            other.mine(1)
            mined = BlockHash(other.rpc("getbestblockhash"))
            bitcoind.rpc("submitheader", other.rpc("getblockheader", mined, False))
            with connect(bitcoind) as node:
                header = node.header(mined)
                assert header is not None
                assert not header.in_best_chain
                with pytest.raises(Unavailable, match=f"has not block {mined} now: .*not fully downloaded"):
                    node.block(mined)

    def test_nodes_that_mined_apart_agree_once_they_are_joined(self, tmp_path: Path) -> None:
        """The longer branch wins: the other one's blocks are known, and out of the best chain."""
        with (
            started(tmp_path / "one") as one,
            started(tmp_path / "two") as two,
            connect(one) as node,
        ):
            lost = [BlockHash(each) for each in one.mine(2)]
            won = two.mine(3)
            one.connect(two)
            until(lambda: node.tip().hash == won[-1])
            assert [node.block_hash_at(height) for height in (1, 2, 3)] == won
            for block in lost:
                header = node.header(block)
                assert header is not None
                assert not header.in_best_chain

    def test_an_overloaded_node_is_waited_for(self, tmp_path: Path) -> None:
        """Its one thread is busy, its queue of one is full: 503, for RPC and for REST."""
        with (
            started(tmp_path, "-rpcworkqueue=1", "-rpcthreads=1") as bitcoind,
            connect(bitcoind, timeout_s=0.5) as node,
        ):
            tip = tip_of(bitcoind)
            ended = threading.Event()
            blockers = [threading.Thread(target=ask_long, args=(bitcoind, ended)) for _ in range(3)]
            for blocker in blockers:
                blocker.start()
            try:
                until(
                    lambda: "takes no calls now" in (said := said_by(node.tip)) and "Work queue depth exceeded" in said
                )
                until(lambda: "takes no calls now" in said_by(lambda: node.block(tip.hash)))
            finally:
                ended.set()
                for blocker in blockers:
                    blocker.join()
            until(lambda: said_by(node.tip) == "")

    def test_a_hung_node_is_noticed_in_time(self, bitcoind: Bitcoind) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        tip = tip_of(bitcoind)
        with connect(bitcoind, timeout_s=0.3) as node:
            until(lambda: said_by(node.tip) == "")
            bitcoind.pause()
            try:
                began = time.monotonic()
                with pytest.raises(Unavailable, match="did not answer in time"):
                    node.tip()
                with pytest.raises(Unavailable, match="did not answer in time"):
                    node.block(tip.hash)
                assert time.monotonic() - began < PATIENCE_S
            finally:
                bitcoind.resume()
            until(lambda: said_by(node.tip) == "")
        assert tip_of(bitcoind) == tip

    def test_a_node_that_starts_is_waited_for(self, bitcoind: Bitcoind) -> None:
        """From the moment it is gone until it is back nothing but Unavailable, whatever it answers."""
        with connect(bitcoind) as node:
            tip = node.tip()
            causes: set[str] = set()
            ended = threading.Event()

            def ask() -> None:
                while not ended.is_set():
                    causes.add(said_by(node.tip))
                    causes.add(said_by(lambda: node.block(tip.hash)))

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                bitcoind.restart()
                until(lambda: said_by(node.tip) == "")
            finally:
                ended.set()
                asking.join()
            assert any("does not listen" in cause for cause in causes)


def tip_of(bitcoind: Bitcoind) -> BlockRef:
    """With patience."""
    with connect(bitcoind) as node:
        return node.tip()


def ask_long(bitcoind: Bitcoind, ended: threading.Event) -> None:
    """Holds the node's thread or its queue; whoever is told that there is no room, tries on."""
    while not ended.is_set():
        try:
            bitcoind.rpc("waitfornewblock", 1_000)
        except (NodeError, OSError):
            time.sleep(0.01)


def said_by(call: Callable[[], object]) -> str:
    """The outage's text, empty if there is none; any other error is the test's."""
    try:
        call()
    except Unavailable as outage:
        return str(outage)
    return ""


def until(condition: Callable[[], bool]) -> None:
    """Waits."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def block_hash(raw: bytes) -> str:
    """Of the first 80 bytes."""
    return sha256(sha256(raw[:80]).digest()).digest()[::-1].hex()


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def from_base58(text: str) -> bytes:
    """Without its checksum; the key has no leading zero byte."""
    number = 0
    for letter in text:
        number = number * 58 + _BASE58.index(letter)
    return number.to_bytes(82, "big")[:-4]


def in_base58(data: bytes) -> str:
    """With a checksum."""
    number = int.from_bytes(data + sha256(sha256(data).digest()).digest()[:4], "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text


# --- a server that misbehaves -------------------------------------------------------------------------


class Misbehaving:
    """Answers each request with the next of the given bytes; b"" hangs up, None keeps silent. Counts requests."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):  # the other side may give up
            while request := self._request(connection):
                self.requests.append(request)
                answer = self._answers.pop(0)
                if answer is None:
                    connection.recv(1)  # until the other side has had enough
                    break
                if not answer:
                    break
                connection.sendall(answer)
                if answer is CUT_SHORT:
                    break

    @staticmethod
    def _request(connection: socket.socket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            if not (more := connection.recv(65536)):
                return b""
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        while missing > 0:
            more = connection.recv(missing)
            received += more
            missing -= len(more)
        return received


def http_answer(body: bytes, *, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def result(value: object) -> bytes:
    """A result of JSON-RPC."""
    return http_answer(json.dumps({"result": value, "error": None, "id": 1}).encode())


def block_answer(raw: bytes) -> bytes:
    """A block by REST."""
    return http_answer(raw, content_type="application/octet-stream")


@pytest.fixture
def misbehaving(tmp_path: Path) -> Iterator[Callable[..., tuple[Misbehaving, BitcoindNode]]]:
    """Makes a server with these answers and an adapter on it, whose cookie is `user:secret`."""
    cookie = tmp_path / ".cookie"
    cookie.write_text("user:secret")
    made: list[tuple[Misbehaving, BitcoindNode]] = []

    def make(*answers: bytes | None) -> tuple[Misbehaving, BitcoindNode]:
        server = Misbehaving(*answers)
        timeout_s = 1.0 if None in answers else PATIENCE_S
        node = BitcoindNode(name="bitcoind", rpc_url=server.url, rpc_cookie_file=cookie, timeout_s=timeout_s)
        made.append((server, node))
        return made[-1]

    yield make
    for server, node in made:
        node.close()
        server.close()


HASH = BlockHash("12" * 32)
CUT_SHORT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
ANSWERS = [
    (b"<html>503</html>", "503 Service Unavailable", "text/html", "takes no calls now.*HTTP 503 <html>503</html>"),
    (b"", "401 Unauthorized", "text/html", "refuses the credentials"),
    (b"", "404 Not Found", "text/html", "cannot be asked .*HTTP 404"),
    (b"<html>", "200 OK", "text/html", "cannot be asked .*HTTP 200 <html>"),
    (b"{", "200 OK", "application/json", "not JSON-RPC"),
    (b"\xff", "200 OK", "application/json", "not JSON-RPC"),
    (b"[]", "200 OK", "application/json", "not JSON-RPC"),
    (b"7", "200 OK", "application/json", "not JSON-RPC"),
    (b'{"id":1,"error":null}', "200 OK", "application/json", "not JSON-RPC"),
    (b'{"id":1,"error":{"code":-28,"message":"Loading"}}', "500 X", "application/json", "is starting: Loading"),
    (b'{"id":1,"error":null,"result":7}', "200 OK", "application/json", "as bitcoind does not: is rpc_url right"),
    (b'{"id":1,"error":null,"result":"12"}', "200 OK", "application/json", "as bitcoind does not"),
]

Make = Callable[..., tuple[Misbehaving, BitcoindNode]]


@pytest.mark.parametrize(("body", "status", "content_type", "said"), ANSWERS)
def test_what_is_no_answer_is_an_outage(
    misbehaving: Make, body: bytes, status: str, content_type: str, said: str
) -> None:
    """With what was said instead, and without the credentials."""
    _, node = misbehaving(http_answer(body, status=status, content_type=content_type))
    with pytest.raises(Unavailable, match=said) as outage:
        node.tip()
    assert_no_secret(outage.value, "secret")


def test_a_closed_connection_is_replaced_once(misbehaving: Make) -> None:
    """bitcoind closes those that were idle; the caller sees nothing of it, and the call is sent once more only."""
    server, node = misbehaving(result(HASH), b"", result(HASH))
    assert [node.block_hash_at(1), node.block_hash_at(2)] == [HASH, HASH]
    assert len(server.requests) == 3


def test_a_new_connection_that_is_closed_is_an_outage(misbehaving: Make) -> None:
    """A node that hangs up at once is away."""
    server, node = misbehaving(b"")
    with pytest.raises(Unavailable, match="cannot be asked"):
        node.block_hash_at(1)
    assert len(server.requests) == 1


def test_after_a_late_answer_another_connection_is_used(misbehaving: Make) -> None:
    """A late answer can never be taken for the next call's; a call that took its time is not repeated."""
    server, node = misbehaving(None, result(HASH))
    with pytest.raises(Unavailable, match="did not answer in time"):
        node.block_hash_at(1)
    assert node.block_hash_at(2) == HASH
    assert len(server.requests) == 2


def test_half_an_answer_is_an_outage(misbehaving: Make) -> None:
    """The node was killed while it answered, to RPC or to REST."""
    _, node = misbehaving(CUT_SHORT, CUT_SHORT)
    for call in (node.tip, lambda: node.block(HASH)):
        with pytest.raises(Unavailable):
            call()


@pytest.mark.parametrize("raw", [b"", b"x" * 80, b"x" * 200], ids=["empty", "short", "other"])
def test_another_block_than_asked_for_is_refused(misbehaving: Make, raw: bytes) -> None:
    """Whoever answers."""
    _, node = misbehaving(block_answer(raw))
    with pytest.raises(Unavailable, match=f"gives {len(raw)} bytes for block {HASH} that are not this block"):
        node.block(HASH)


@pytest.mark.parametrize("length", ["Content-Length: 4000001", "Transfer-Encoding: chunked"])
def test_a_block_larger_than_any_is_not_read(misbehaving: Make, length: str) -> None:
    """Memory is bounded whatever answers."""
    _, node = misbehaving(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
    with pytest.raises(Unavailable, match="where 4000000 are the most"):
        node.block(HASH)


def test_the_credentials_go_to_rpc_only(misbehaving: Make) -> None:
    """REST needs none."""
    server, node = misbehaving(result(HASH), block_answer(b""))
    node.block_hash_at(1)
    with pytest.raises(Unavailable):
        node.block(HASH)
    by_rpc, by_rest = server.requests
    assert b"Authorization: Basic " + base64.b64encode(b"user:secret") in by_rpc
    assert b"authorization" not in by_rest.lower()


def test_a_cookie_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """bitcoind writes it when it starts; an empty file is no cookie."""
    file = tmp_path / ".cookie"
    node = BitcoindNode(name="bitcoind", rpc_url="http://127.0.0.1:1", rpc_cookie_file=file)
    with pytest.raises(Unavailable, match=r"rpc_cookie_file .*\.cookie cannot be read \(No such file"):
        node.tip()
    file.write_text("\n")
    with pytest.raises(Unavailable, match=r"rpc_cookie_file .* is empty"):
        node.tip()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:secret@127.0.0.1:8332", "has credentials in it"),
        ("https://127.0.0.1:8332", "speaks no TLS"),
        ("127.0.0.1:8332", "write http://host:port"),
        ("http://127.0.0.1", "write http://host:port"),
        ("http://127.0.0.1:99999", "is no URL"),
    ],
)
def test_a_url_that_cannot_be_is_misconfigured(url: str, said: str) -> None:
    """At once, and without the password that somebody wrote into it."""
    with pytest.raises(Misconfigured, match=said) as wrong:
        BitcoindNode(name="bitcoind", rpc_url=url, rpc_cookie_file=Path(".cookie"))
    assert_no_secret(wrong.value, "secret")


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"rpc_user": "teller"},
        {"rpc_password_file": Path("password")},
        {"rpc_cookie_file": Path(".cookie"), "rpc_user": "teller", "rpc_password_file": Path("password")},
    ],
)
def test_either_cookie_or_password(credentials: dict[str, object]) -> None:
    """One of them, whole."""
    with pytest.raises(Misconfigured, match="set either rpc_cookie_file, or rpc_user and rpc_password_file"):
        BitcoindNode(name="bitcoind", rpc_url="http://127.0.0.1:8332", **credentials)  # type: ignore[arg-type]  # of two types


def assert_no_secret(error: BaseException, secret: str) -> None:
    """Neither in the error nor in those that it came from."""
    shown = "".join(traceback.format_exception(error))
    shown = "\n".join(line for line in shown.splitlines() if "rpc_url=" not in line)  # a test's own source line
    for form in (secret, base64.b64encode(f"user:{secret}".encode()).decode()):
        assert form not in shown, shown
