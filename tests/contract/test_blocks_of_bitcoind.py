"""The block parser against bitcoind's own reading of the same bytes (getblock 2, decoderawtransaction).

One regtest chain holds every kind of script as an output, every kind of witness and signature as an input.
"""

from __future__ import annotations

import hashlib
import random
import struct
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from embit.ec import PrivateKey
from embit.networks import NETWORKS

from daemon.domain.blocks import MAX_MONEY_SAT, BlockOutput, MalformedBlock, Tx, header_of, parse_tx, scan
from daemon.domain.identifiers import Outpoint, Txid
from regtest import binaries
from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind, BitcoindRpcError

pytestmark = pytest.mark.regtest

NOBODYS_KEY = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"
"""BIP341: a point of which nobody knows the discrete logarithm, so that only the script path can spend."""

SPENT_KINDS = (
    "pk({})",
    "pkh({})",
    "wpkh({})",
    "sh(wpkh({}))",
    "multi(2,{},{})",
    "sh(multi(3,{},{},{}))",  # its scriptSig has more than 252 bytes
    "wsh(multi(2,{},{}))",
    "sh(wsh(multi(1,{},{})))",
    "tr({})",
    f"tr({NOBODYS_KEY},pk({{}}))",
    f"tr({NOBODYS_KEY},{{{{pk({{}}),multi_a(2,{{}},{{}})}}}})",
)
"""Output descriptors, one coinbase paid to each and spent again by the wallet."""

DECODES = -22
"""bitcoind's code for "TX decode failed"."""

OP_TRUE = b"\x51"
DROPS_260 = b"\x6d" * 130 + OP_TRUE
"""A witness script that takes 260 items off the stack (130 OP_2DROP) and is content."""

ODD_SCRIPTS = (
    b"",
    OP_TRUE,
    b"\x6a",
    b"\x6a\x04data",
    b"\x6a" + b"\x4d\x2c\x01" + bytes(300),
    b"\x51\x02\x4e\x73",  # pay to anchor
    b"\x52\x20" + bytes(32),  # witness version 2
    b"\x60\x28" + bytes(40),  # witness version 16, the longest program
    b"\x51\x21" + b"\x02" * 33,  # version 1 with 33 bytes: no taproot
    b"\x21" + b"\x02" * 33 + b"\xac",
    b"\x41" + b"\x04" * 65 + b"\xac",
    b"\xff\xfe\xfd",  # no script at all
    b"\x6a" * 252,
    b"\x6a" * 253,
    b"\x6a" * 65_535,
    b"\x6a" * 65_536,
)


def number(value: int) -> bytes:
    """A compact size."""
    if value < 253:
        return bytes([value])
    return b"\xfd" + struct.pack("<H", value) if value < 0x1_0000 else b"\xfe" + struct.pack("<I", value)


def unsigned(
    spent: Sequence[tuple[str, int]], paid: Sequence[tuple[int, bytes]], stacks: Sequence[Sequence[bytes]] = ()
) -> str:
    """A tx with empty scriptSigs, in hex; `paid` are (value in sat, script)."""
    inputs = b"".join(bytes.fromhex(txid)[::-1] + struct.pack("<I", vout) + b"\0" + b"\xff" * 4 for txid, vout in spent)
    outputs = b"".join(struct.pack("<Q", value_sat) + number(len(script)) + script for value_sat, script in paid)
    body = number(len(spent)) + inputs + number(len(paid)) + outputs
    witness = b"".join(number(len(stack)) + b"".join(number(len(it)) + it for it in stack) for stack in stacks)
    return (b"\x02\0\0\0" + (b"\0\x01" if stacks else b"") + body + witness + bytes(4)).hex()


def spending_every_kind(node: Bitcoind) -> None:
    """Blocks with coinbases to SPENT_KINDS, and one in which a single tx spends all of them."""
    keys = [PrivateKey(bytes([place + 1]) * 32) for place in range(3)]
    coins = []
    for kind in SPENT_KINDS:
        private = kind.format(*[key.wif(NETWORKS["regtest"]) for key in keys])
        checked = node.rpc("getdescriptorinfo", private)
        request = {"desc": f"{private}#{checked['checksum']}", "timestamp": "now"}
        (answer,) = node.rpc("importdescriptors", [request])
        assert answer["success"], answer
        (block_hash,) = node.rpc("generatetodescriptor", 1, checked["descriptor"])
        coins.append({"txid": node.rpc("getblock", block_hash)["tx"][0], "vout": 0})
    node.mine(MATURITY_BLOCKS)
    swept = node.rpc("sendall", [node.new_address()], None, "unset", 5, {"inputs": coins, "add_to_wallet": False})
    assert swept["complete"], swept
    node.rpc("generateblock", node.new_address(), [swept["hex"]])


def paying_every_kind(node: Bitcoind) -> None:
    """Blocks with odd outputs, hundreds of inputs and outputs, hundreds of witness items."""
    coin = max(node.rpc("listunspent"), key=lambda found: found["amount"])
    of_drops = b"\x00\x20" + hashlib.sha256(DROPS_260).digest()
    paid = [(10_000, script) for script in ODD_SCRIPTS] + [(10_000, of_drops)] + [(500, OP_TRUE)] * 300
    signed = node.rpc("signrawtransactionwithwallet", unsigned([(coin["txid"], coin["vout"])], paid))
    assert signed["complete"], signed
    node.rpc("generateblock", node.new_address(), [signed["hex"]])
    txid = node.rpc("decoderawtransaction", signed["hex"])["txid"]
    many_inputs = unsigned([(txid, len(paid) - 1 - place) for place in range(300)], [(1_000, OP_TRUE)])
    stack = [b"\x01" * 300, b"", *[b"\x01"] * 258, DROPS_260]
    many_items = unsigned([(txid, len(ODD_SCRIPTS))], [(1_000, OP_TRUE)], [stack])
    node.rpc("generateblock", node.new_address(), [many_inputs, many_items])


def paying_from_the_wallet(node: Bitcoind) -> None:
    """A block of ordinary txs to every kind of address, through the mempool."""
    for kind in ("legacy", "p2sh-segwit", "bech32", "bech32m"):
        node.send(node.rpc("getnewaddress", "", kind), 100_000)
    node.rpc("send", {"data": "00" * 80})
    node.mine(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """A bitcoind whose chain holds all of the above."""
    bitcoind = Bitcoind(binaries.bitcoind(), tmp_path_factory.mktemp("bitcoind"))
    try:
        bitcoind.start()
        bitcoind.wait_ready()
        spending_every_kind(bitcoind)
        paying_every_kind(bitcoind)
        paying_from_the_wallet(bitcoind)
        yield bitcoind
    finally:
        bitcoind.stop()


def blocks_of(node: Bitcoind) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every block of the chain: as bitcoind reads it, and its bytes."""
    for height in range(node.height() + 1):
        block_hash = node.rpc("getblockhash", height)
        yield node.rpc("getblock", block_hash, 2), bytes.fromhex(node.rpc("getblock", block_hash, 0))


def as_decoded(tx: dict[str, Any]) -> Tx:
    """What the parser must make of a tx that bitcoind has decoded."""
    is_coinbase = "coinbase" in tx["vin"][0]
    txid = Txid(tx["txid"])
    inputs = () if is_coinbase else tuple(Outpoint(f"{spent['txid']}:{spent['vout']}") for spent in tx["vin"])
    outputs = tuple(
        BlockOutput(
            txid=txid,
            vout=out["n"],
            value_sat=int(out["value"].scaleb(8)),
            script=bytes.fromhex(out["scriptPubKey"]["hex"]),
            is_coinbase=is_coinbase,
            inputs=inputs,
        )
        for out in tx["vout"]
    )
    return Tx(txid=txid, is_coinbase=is_coinbase, inputs=inputs, outputs=outputs)


def test_the_chain_holds_every_kind(node: Bitcoind) -> None:
    """Otherwise the tests below would show less than they say."""
    txs = [tx for block, _ in blocks_of(node) for tx in block["tx"]]
    types = {out["scriptPubKey"]["type"] for tx in txs for out in tx["vout"]}
    assert types >= {
        *("pubkey", "pubkeyhash", "scripthash", "multisig", "nulldata", "nonstandard", "anchor"),
        *("witness_v0_keyhash", "witness_v0_scripthash", "witness_v1_taproot", "witness_unknown"),
    }
    inputs = [spent for tx in txs for spent in tx["vin"] if "txid" in spent]
    stacks = [spent.get("txinwitness", []) for spent in inputs]
    assert any([len(item) for item in stack] == [128] for stack in stacks), "taproot, key path"
    controls = {len(stack[-1]) // 2 for stack in stacks if len(stack) > 2 and stack[-1][:2] in ("c0", "c1")}
    assert controls >= {33, 65}, "taproot, script path, with one leaf and with two"
    assert any(len(stack) > 252 and len(stack[0]) // 2 > 252 for stack in stacks)
    assert any(len(spent["scriptSig"]["hex"]) // 2 > 252 for spent in inputs)
    assert any(len(tx["vin"]) > 252 for tx in txs)
    assert any(len(tx["vout"]) > 252 for tx in txs)
    assert any("txinwitness" in tx["vin"][0] for tx in txs if "coinbase" in tx["vin"][0])


def test_every_output_of_every_block_is_as_bitcoind_reads_it(node: Bitcoind) -> None:
    """txid, vout, value, script, coinbase or not, and the outpoints that its tx spends."""
    for block, raw in blocks_of(node):
        found = scan(raw)
        expected = [output for tx in block["tx"] for output in as_decoded(tx).outputs]
        assert found.scripts == [output.script for output in expected], block["hash"]
        assert found.outputs_to(set(found.scripts)) == expected, block["hash"]
        assert found.tx_count == block["nTx"]


def test_every_tx_alone_is_as_bitcoind_reads_it(node: Bitcoind) -> None:
    """With its witness, as ZMQ and getrawtransaction give it."""
    for block, _ in blocks_of(node):
        for tx in block["tx"]:
            assert parse_tx(bytes.fromhex(tx["hex"])) == as_decoded(tx)


def test_every_header_is_as_bitcoind_reads_it(node: Bitcoind) -> None:
    """Each hash is that which was asked for, and each names the block before it."""
    for block, raw in blocks_of(node):
        header = scan(raw).header
        assert header.hash == block["hash"]
        assert header.previous_hash == block.get("previousblockhash", "0" * 64)
        assert header.time_s == block["time"]
        assert header_of(bytes.fromhex(node.rpc("getblockheader", block["hash"], False))) == header


def test_rest_gives_the_bytes_that_the_parser_reads(node: Bitcoind) -> None:
    """The faster way to a block is the same block."""
    block_hash = node.rpc("getbestblockhash")
    with urllib.request.urlopen(f"{node.rest_url}/block/{block_hash}.bin", timeout=10) as answer:
        raw = answer.read()
    assert scan(raw).header.hash == block_hash
    assert raw.hex() == node.rpc("getblock", block_hash, 0)


def test_damaged_txs_are_refused_where_bitcoind_refuses_them(node: Bitcoind) -> None:
    """And where bitcoind still reads a tx, it is the same tx; but none without inputs, outputs or with odd money."""
    chance = random.Random(7)  # the same damages in every run
    txs = [bytes.fromhex(tx["hex"]) for block, _ in blocks_of(node) for tx in block["tx"]]
    readable = [tx for tx in {len(tx): tx for tx in txs}.values() if len(tx) < 5_000]
    taken = refused = 0
    for _ in range(1_500):
        whole = chance.choice(readable)
        at = min(chance.randrange(len(whole)), chance.randrange(len(whole)))  # counts stand rather in front
        byte = bytes([chance.choice([0, 1, 2, 22, 252, 253, 254, 255])])
        damaged = whole[:at] + byte + whole[at + chance.randint(0, 1) :]
        decoded = decoded_by(node, damaged)
        if decoded is None or not is_possible(decoded):
            refused += 1
            with pytest.raises(MalformedBlock):
                parse_tx(damaged)
        else:
            taken += 1
            assert parse_tx(damaged) == as_decoded(decoded)
    assert min(taken, refused) > 100


def decoded_by(node: Bitcoind, raw: bytes) -> dict[str, Any] | None:
    """The tx as bitcoind decodes it, None if it does not."""
    try:
        decoded: dict[str, Any] = node.rpc("decoderawtransaction", raw.hex(), True)
    except BitcoindRpcError as refusal:
        if refusal.code != DECODES:
            raise
        return None
    return decoded


def is_possible(tx: dict[str, Any]) -> bool:
    """Whether a tx that could be decoded could stand in a block; the parser refuses the others."""
    values_sat = [out["value"].scaleb(8) for out in tx["vout"]]
    return bool(tx["vin"]) and bool(values_sat) and all(0 <= value_sat <= MAX_MONEY_SAT for value_sat in values_sat)
