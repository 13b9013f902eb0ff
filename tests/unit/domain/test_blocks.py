"""Blocks and txs as bytes, made by hand: every kind of script and witness, and every way of being malformed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import pytest

from daemon.domain.blocks import (
    HEADER_BYTES,
    MAX_BYTES,
    MAX_MONEY_SAT,
    MalformedBlock,
    hash_of,
    header_of,
    parse_tx,
    scan,
)
from daemon.domain.identifiers import Outpoint, Txid, outpoint_of

GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3"
    "888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c0101000000010000000000000000000000000000000000000000000000000000"
    "000000000000ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e2062"
    "72696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe554827"
    "1967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
    "ac00000000"
)
"""The first block of mainnet, which every node has compiled in."""

BIP143 = bytes.fromhex(
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f00000000494830450221008b9d1dc26ba6"
    "a9cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1c0a19c0489bc22ede944ccf4ecbab4cc"
    "618ef3ed01eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600"
    "0000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0"
    "167faa815988ac000247304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c45183315"
    "61406f90300e8f3358f51928d43c212a8caed02de67eebee0121025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07ae"
    "ee635711000000"
)
"""BIP143, "Native P2WPKH", the signed tx: one legacy input with a signature, one with a witness."""

HEADER = bytes(range(HEADER_BYTES))
VERSION = b"\x02\0\0\0"
SEQUENCE = b"\xfd\xff\xff\xff"
LOCK_TIME = b"\x11\x22\x33\x44"
SPENT = bytes(range(32)) + b"\x07\0\0\0"
SPENT_NAME = bytes(range(31, -1, -1)).hex() + ":7"
INPUT = SPENT + b"\0" + SEQUENCE
OUTPUT = struct.pack("<Q", 546) + b"\x01\x51"
PLAIN = VERSION + b"\x01" + INPUT + b"\x01" + OUTPUT + LOCK_TIME
COINBASE_INPUT = bytes(32) + b"\xff\xff\xff\xff" + b"\x03abc" + b"\xff\xff\xff\xff"

SCRIPTS = {
    "P2PK": b"\x21" + b"\x02" * 33 + b"\xac",
    "P2PK uncompressed": b"\x41" + b"\x04" * 65 + b"\xac",
    "P2PKH": b"\x76\xa9\x14" + b"\x11" * 20 + b"\x88\xac",
    "P2SH": b"\xa9\x14" + b"\x22" * 20 + b"\x87",
    "P2WPKH": b"\x00\x14" + b"\x33" * 20,
    "P2WSH": b"\x00\x20" + b"\x44" * 32,
    "P2TR": b"\x51\x20" + b"\x55" * 32,
    "P2A": b"\x51\x02\x4e\x73",
    "future witness version": b"\x60\x28" + b"\x66" * 40,
    "bare multisig": b"\x51" + (b"\x21" + b"\x03" * 33) * 2 + b"\x52\xae",
    "OP_RETURN": b"\x6a\x04data",
    "empty": b"",
    "252 bytes": b"\x6a" * 252,
    "253 bytes": b"\x6a" * 253,
    "65,535 bytes": b"\x6a" * 65_535,
    "65,536 bytes": b"\x6a" * 65_536,
}

WITNESSES = {
    "P2WPKH": [b"\x30" * 71, b"\x02" * 33],
    "P2TR key path": [b"\x77" * 64],
    "P2TR script path with annex": [b"\x77" * 64, b"\x20" + b"\x01" * 32 + b"\xac", b"\xc0" + b"\x02" * 32, b"\x50"],
    "P2WSH with empty items": [b"", b"\x30" * 72, b"\x30" * 72, b"\x52" * 105],
    "an item of 252 bytes": [b"\x01" * 252],
    "an item of 253 bytes": [b"\x01" * 253],
    "an item of 400,000 bytes": [b"\x01" * 400_000],
    "252 items": [b"\x01"] * 252,
    "300 items": [b"\x01", b""] * 150,
}


def number(value: int) -> bytes:
    """A compact size in its shortest form."""
    if value < 253:
        return bytes([value])
    return b"\xfd" + struct.pack("<H", value) if value < 0x1_0000 else b"\xfe" + struct.pack("<I", value)


def sized(data: bytes) -> bytes:
    """Bytes after their size."""
    return number(len(data)) + data


def output(script: bytes, value_sat: int = 1_000) -> bytes:
    """An output."""
    return struct.pack("<Q", value_sat) + sized(script)


def witness(items: Sequence[bytes]) -> bytes:
    """One input's stack."""
    return number(len(items)) + b"".join(map(sized, items))


def block(*txs: bytes) -> bytes:
    """A block of these txs."""
    return HEADER + number(len(txs)) + b"".join(txs)


def txid_of(stripped: bytes) -> str:
    """The id of a tx whose bytes without witness these are."""
    return hashlib.sha256(hashlib.sha256(stripped).digest()).digest()[::-1].hex()


def test_the_first_block_of_mainnet_is_read() -> None:
    """Hash, time, txid, value and script are those that everybody knows."""
    found = scan(GENESIS)
    assert found.header.hash == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert found.header.previous_hash == "0" * 64
    assert found.header.time_s == 1_231_006_505
    assert found.tx_count == 1
    (coinbase,) = found.outputs_to(set(found.scripts))
    assert coinbase.txid == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert (coinbase.vout, coinbase.value_sat) == (0, 50 * 100_000_000)
    assert coinbase.script.startswith(bytes.fromhex("4104678afdb0fe55"))
    assert len(coinbase.script) == 67
    assert (coinbase.is_coinbase, coinbase.inputs) == (True, ())


def test_the_signed_tx_of_bip143_is_read() -> None:
    """Its txid leaves marker, flag and witness out; its inputs are named as RPC names them."""
    found = parse_tx(BIP143)
    assert found.txid == "e8151a2af31c368a35053ddd4bdb285a8595c769a3ad83e0fa02314a602d4609"
    assert found.inputs == (
        "9f96ade4b41d5433f4eda31e1738ec2b36f6e7d1420d94a6af99801a88f7f7ff:0",
        "8ac60eb9575db5b2d987e29f301b5b819ea83a5c6579d282d189cc04b8e151ef:1",
    )
    assert not found.is_coinbase
    assert [(out.vout, out.value_sat, out.script.hex()) for out in found.outputs] == [
        (0, 112_340_000, "76a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac"),
        (1, 223_450_000, "76a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac"),
    ]
    assert {(out.txid, out.inputs, out.is_coinbase) for out in found.outputs} == {(found.txid, found.inputs, False)}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_every_kind_of_script_is_given_as_it_stands(script: bytes) -> None:
    """Whatever an output's script is, it is found, with what stands before and after it."""
    body = b"\x01" + INPUT + b"\x03" + OUTPUT + output(script, 42) + OUTPUT
    found = scan(block(PLAIN, VERSION + body + LOCK_TIME, PLAIN))
    assert found.scripts == [b"\x51", b"\x51", script, b"\x51", b"\x51"]
    (ours,) = found.outputs_to({script})
    assert (ours.txid, ours.vout, ours.value_sat, ours.script) == (txid_of(VERSION + body + LOCK_TIME), 1, 42, script)
    assert ours.inputs == (SPENT_NAME,)


@pytest.mark.parametrize("items", WITNESSES.values(), ids=WITNESSES.keys())
def test_every_kind_of_witness_is_passed_over(items: list[bytes]) -> None:
    """Also beside an input with an empty stack; the txid does not depend on it."""
    body = b"\x02" + INPUT + INPUT + b"\x01" + output(b"ours", 7)
    raw = VERSION + b"\0\x01" + body + witness(items) + b"\0" + LOCK_TIME
    (ours,) = scan(block(PLAIN, raw, PLAIN)).outputs_to([b"ours"])
    assert (ours.txid, ours.vout, ours.value_sat) == (txid_of(VERSION + body + LOCK_TIME), 0, 7)
    assert parse_tx(raw).outputs == (ours,)


def test_a_coinbase_with_a_witness_spends_nothing() -> None:
    """Its only input is no outpoint, and every output of it is known to have to mature."""
    body = b"\x01" + COINBASE_INPUT + b"\x02" + output(b"ours", 9) + output(b"\x6a\x24" + bytes(36), 0)
    raw = VERSION + b"\0\x01" + body + witness([bytes(32)]) + LOCK_TIME
    first, second = scan(block(raw, PLAIN)).outputs_to({b"ours", b"\x51"})
    assert (first.txid, first.is_coinbase, first.inputs) == (txid_of(VERSION + body + LOCK_TIME), True, ())
    assert (second.is_coinbase, second.inputs) == (False, (SPENT_NAME,))


@pytest.mark.parametrize("count", [252, 253, 1_000])
def test_a_tx_with_many_inputs_and_outputs_is_read(count: int) -> None:
    """On both sides of where a count needs more than one byte."""
    inputs = b"".join(
        bytes(32) + struct.pack("<I", place) + sized(b"\x01" * place) + SEQUENCE for place in range(count)
    )
    outputs = b"".join(output(b"%d" % place, place) for place in range(count))
    raw = VERSION + number(count) + inputs + number(count) + outputs + LOCK_TIME
    found = parse_tx(raw)
    assert found.txid == txid_of(raw)
    assert found.inputs == tuple(f"{'0' * 64}:{place}" for place in range(count))
    assert [(out.vout, out.value_sat, out.script) for out in found.outputs] == [
        (place, place, b"%d" % place) for place in range(count)
    ]
    with_witness = VERSION + b"\0\x01" + raw[4:-4] + witness([b"\x01"]) * count + LOCK_TIME
    assert parse_tx(with_witness) == found


@pytest.mark.parametrize("count", [1, 253, 300])
def test_the_smallest_parts_are_not_taken_for_missing_ones(count: int) -> None:
    """What is refused for want of room is less than the least that the counted things take."""
    smallest = output(b"", 0)
    many_inputs = VERSION + number(count) + INPUT * count + b"\x01" + smallest + LOCK_TIME
    assert len(parse_tx(many_inputs).inputs) == count
    many_outputs = VERSION + b"\x01" + INPUT + number(count) + smallest * count + LOCK_TIME
    assert len(parse_tx(many_outputs).outputs) == count
    many_items = b"\x01" + INPUT + b"\x01" + smallest + number(count) + bytes(count)
    assert len(parse_tx(VERSION + b"\0\x01" + many_items + LOCK_TIME).outputs) == 1
    one = VERSION + b"\x01" + INPUT + b"\x01" + smallest + LOCK_TIME
    assert scan(block(*[one] * count)).tx_count == count


def test_a_block_of_many_txs_is_read() -> None:
    """The count of txs may need more than one byte, and an output is found in the tx it stands in."""
    marked = VERSION + b"\x01" + INPUT + b"\x01" + output(b"ours") + LOCK_TIME
    found = scan(block(*[PLAIN] * 300, marked, *[PLAIN] * 20))
    assert found.tx_count == 321
    assert [out.txid for out in found.outputs_to({b"ours"})] == [txid_of(marked)]


def test_one_tx_may_pay_several_watched_scripts_and_one_twice() -> None:
    """Each output counts once, in the order of the block; the others are left out."""
    paying = VERSION + b"\x01" + INPUT + b"\x04" + output(b"a", 1) + output(b"x", 2) + output(b"b", 3) + output(b"a", 4)
    found = scan(block(PLAIN, paying + LOCK_TIME, PLAIN, paying + LOCK_TIME)).outputs_to({b"a", b"b", b"c"})
    assert [(out.vout, out.value_sat, out.script) for out in found] == [(0, 1, b"a"), (2, 3, b"b"), (3, 4, b"a")] * 2


def test_nothing_watched_gives_nothing() -> None:
    """A block with no output of ours has no outputs to show."""
    assert scan(block(PLAIN)).outputs_to(frozenset()) == []


def test_the_tx_that_spends_an_output_is_found() -> None:
    """Wherever it stands in the block, with and without witness; several outputs at once."""
    coinbase = VERSION + b"\x01" + COINBASE_INPUT + b"\x01" + OUTPUT + LOCK_TIME
    found = scan(block(coinbase, PLAIN, BIP143))
    assert found.spenders_of([outpoint_of(Txid("77" * 32), 0)]) == {}
    legacy, segwit = parse_tx(BIP143).inputs
    spender = parse_tx(BIP143).txid
    assert found.spenders_of([legacy, segwit, Outpoint(SPENT_NAME)]) == {
        legacy: spender,
        segwit: spender,
        SPENT_NAME: txid_of(PLAIN),
    }
    txid, _, vout = segwit.partition(":")
    assert found.spenders_of([outpoint_of(Txid(txid), int(vout) + 1)]) == {}


def test_the_bytes_of_an_outpoint_in_somebodys_data_are_no_spend() -> None:
    """In a header, a script or a witness it spends nothing; a tx after them that does spend it is found."""
    noted = VERSION + b"\x01" + b"\x99" * 36 + b"\0" + SEQUENCE + b"\x01" + output(b"\x6a\x24" + SPENT) + LOCK_TIME
    stripped = VERSION + b"\x01" + b"\x98" * 36 + b"\0" + SEQUENCE + b"\x01" + OUTPUT
    witnessed = stripped[:4] + b"\0\x01" + stripped[4:] + witness([SPENT]) + LOCK_TIME
    assert scan(SPENT + bytes(44) + number(2) + noted + witnessed).spenders_of([Outpoint(SPENT_NAME)]) == {}
    found = scan(block(noted, witnessed, PLAIN))
    assert found.spenders_of([Outpoint(SPENT_NAME)]) == {SPENT_NAME: txid_of(PLAIN)}


def test_a_header_is_read_alone_and_from_a_block() -> None:
    """The node's REST gives headers alone; the hash is of the first 80 bytes, whatever follows."""
    assert header_of(GENESIS[:HEADER_BYTES]) == header_of(GENESIS) == scan(GENESIS).header
    assert hash_of(GENESIS[:HEADER_BYTES]) == header_of(GENESIS).hash
    assert header_of(HEADER).previous_hash == HEADER[4:36][::-1].hex()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"\xfd\x01\x00", "1"),
        (b"\xfd\xfc\x00", "252"),
        (b"\xfe\x01\x00\x00\x00", "1"),
        (b"\xfe\xff\xff\x00\x00", "65535"),
        (b"\xff\x01" + bytes(7), "1"),
        (b"\xff\xff\xff\xff\xff" + bytes(4), "4294967295"),
    ],
)
def test_a_number_not_in_its_shortest_form_is_refused_wherever_it_stands(written: bytes, meant: str) -> None:
    """bitcoind refuses them; to read them would give one tx several forms. Each has room for what it counts."""
    rest = bytes(70_000)
    script = b"\x01\x51"
    stack = VERSION + b"\0\x01\x01" + INPUT + b"\x01" + OUTPUT
    for before in (
        VERSION,
        VERSION + b"\x01" + SPENT,
        VERSION + b"\x01" + INPUT,
        VERSION + b"\x01" + INPUT + b"\x01" + bytes(8),
        stack,
        stack + b"\x01",
    ):
        with pytest.raises(MalformedBlock, match=f"{meant} written in {len(written)} bytes.* at byte {len(before)}$"):
            parse_tx(before + written + script + rest)
    with pytest.raises(MalformedBlock, match=f"{meant} written in {len(written)} bytes.* at byte 80$"):
        scan(HEADER + written + PLAIN)


@pytest.mark.parametrize(
    "huge", [b"\xfd\xff\xff", b"\xfe\xff\xff\xff\xff", b"\xff" + b"\xff" * 8], ids=["16 bit", "32 bit", "64 bit"]
)
def test_a_count_or_size_beyond_the_end_is_refused_before_it_is_used(huge: bytes) -> None:
    """A count of 2^64 - 1 neither loops nor takes memory."""
    stack = VERSION + b"\0\x01\x01" + INPUT + b"\x01" + OUTPUT
    for before in (
        VERSION,
        VERSION + b"\x01" + SPENT,
        VERSION + b"\x01" + INPUT,
        VERSION + b"\x01" + INPUT + b"\x01" + bytes(8),
        stack,
        stack + b"\x01",
    ):
        with pytest.raises(MalformedBlock, match=f"more than .* at byte {len(before)}$"):
            parse_tx(before + huge + bytes(1_000))
    with pytest.raises(MalformedBlock, match=r"more than there is room for, at byte 80$"):
        scan(HEADER + huge + PLAIN)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (VERSION + b"\0\0" + LOCK_TIME, "without inputs"),
        (VERSION + b"\0\x02\x01" + INPUT + b"\x01" + OUTPUT + b"\x01\0" + LOCK_TIME, "unknown kind"),
        (VERSION + b"\0\x01\0\x01" + OUTPUT + LOCK_TIME, "without inputs"),
        (VERSION + b"\x01" + INPUT + b"\0" + LOCK_TIME, "without outputs"),
        (VERSION + b"\0\x01\x01" + INPUT + b"\x01" + OUTPUT + b"\0" + LOCK_TIME, "a witness without items"),
        (VERSION + b"\x01" + INPUT + b"\x01" + output(b"", MAX_MONEY_SAT + 1) + LOCK_TIME, "more money than there is"),
        (VERSION + b"\x01" + INPUT + b"\x01" + output(b"", 2**64 - 1) + LOCK_TIME, "more money than there is"),
    ],
    ids=["nothing", "flag 2", "no inputs", "no outputs", "no items", "a sat too much", "a negative value"],
)
def test_what_no_tx_can_be_is_refused(raw: bytes, message: str) -> None:
    """No inputs, no outputs, an unknown flag, a witness that says nothing, more money than there is."""
    with pytest.raises(MalformedBlock, match=message):
        parse_tx(raw)
    with pytest.raises(MalformedBlock, match=message):
        scan(block(PLAIN, raw, BIP143)).outputs_to({b"", b"\x51"})


def test_all_the_money_there_is_may_be_in_one_output() -> None:
    """The bound itself is not beyond the bound."""
    raw = VERSION + b"\x01" + INPUT + b"\x01" + output(b"", MAX_MONEY_SAT) + LOCK_TIME
    assert parse_tx(raw).outputs[0].value_sat == MAX_MONEY_SAT


def test_bytes_after_the_last_tx_are_refused() -> None:
    """One byte too many, or a tx that the count does not know."""
    for rest in (b"\0", PLAIN):
        with pytest.raises(MalformedBlock, match=f"bytes after the last tx, at byte {len(GENESIS)}$"):
            scan(GENESIS + rest)
        with pytest.raises(MalformedBlock, match=f"bytes after the last tx, at byte {len(PLAIN)}$"):
            parse_tx(PLAIN + rest)


@pytest.mark.parametrize("raw", [GENESIS, block(PLAIN, BIP143, PLAIN)], ids=["genesis", "three txs"])
def test_a_block_that_is_cut_off_anywhere_is_refused(raw: bytes) -> None:
    """No beginning of a block is a block."""
    for end in range(len(raw)):
        with pytest.raises(MalformedBlock):
            scan(raw[:end])


@pytest.mark.parametrize("raw", [PLAIN, BIP143], ids=["plain", "with a witness"])
def test_a_tx_that_is_cut_off_anywhere_is_refused(raw: bytes) -> None:
    """No beginning of a tx is a tx."""
    for end in range(len(raw)):
        with pytest.raises(MalformedBlock):
            parse_tx(raw[:end])


def test_the_error_tells_the_tx_and_the_byte() -> None:
    """Whoever reads the log can look at the place."""
    raw = block(PLAIN, BIP143, PLAIN)
    with pytest.raises(MalformedBlock, match=f"ends inside tx 1, which begins at byte {81 + len(PLAIN)}, at byte 300$"):
        scan(raw[:300])
    with pytest.raises(MalformedBlock, match=r"a count of 3, more than there is room for, at byte 80$"):
        scan(raw[:200])
    with pytest.raises(MalformedBlock, match=r"ends inside the header, at byte 79$"):
        scan(raw[:79])
    with pytest.raises(MalformedBlock, match=r"ends after the header, at byte 80$"):
        scan(raw[:80])


@pytest.mark.parametrize("cut", [b"\xfd\xff", b"\xfe\xff\xff\xff", b"\xff" * 8])
def test_a_number_that_is_cut_off_is_refused(cut: bytes) -> None:
    """It is not read from the bytes that are there."""
    with pytest.raises(MalformedBlock, match=r"ends inside a number, at byte 80$"):
        scan(HEADER + cut)
    with pytest.raises(MalformedBlock, match=r"ends inside a number, at byte 4$"):
        parse_tx(VERSION + cut)


def test_a_block_without_txs_is_refused() -> None:
    """Every block has a coinbase."""
    with pytest.raises(MalformedBlock, match=r"without txs, at byte 80$"):
        scan(HEADER + b"\0")


def test_more_bytes_than_a_block_can_have_are_refused() -> None:
    """The largest block is read, one byte more is not even looked at."""
    room = MAX_BYTES - len(block(VERSION + b"\x01" + INPUT + b"\x01" + output(bytes(70_000)) + LOCK_TIME))
    largest = block(VERSION + b"\x01" + INPUT + b"\x01" + output(bytes(70_000 + room)) + LOCK_TIME)
    assert len(largest) == MAX_BYTES
    assert len(scan(largest).scripts[0]) == 70_000 + room
    with pytest.raises(MalformedBlock, match="larger than any block"):
        scan(largest + b"\0")
    with pytest.raises(MalformedBlock, match="larger than any block"):
        parse_tx(bytes(MAX_BYTES + 1))
