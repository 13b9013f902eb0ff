"""The block parser against a serializer and a reader that share nothing with it, and against broken bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TypeVar

import hypothesis.strategies as st
from hypothesis import example, given, settings

from daemon.domain.blocks import BlockOutput, MalformedBlock, Tx, parse_tx, scan
from daemon.domain.identifiers import Outpoint, Txid

MAX_MONEY_SAT = 21_000_000 * 100_000_000
HEADER = bytes(range(80))

T = TypeVar("T")


@dataclass(frozen=True)
class PlainInput:
    """An input as it is serialised; `stack` is its witness."""

    txid: bytes
    vout: int
    script: bytes
    sequence: int
    stack: tuple[bytes, ...]


@dataclass(frozen=True)
class PlainTx:
    """A tx as it is serialised; `outputs` are (value in sat, script)."""

    version: int
    inputs: tuple[PlainInput, ...]
    outputs: tuple[tuple[int, bytes], ...]
    lock_time: int

    def stripped(self) -> bytes:
        """Without the witness, as the txid wants it."""
        return le(self.version, 4) + self._body() + le(self.lock_time, 4)

    def serialised(self) -> bytes:
        """With the witness, if there is one."""
        if not any(spent.stack for spent in self.inputs):
            return self.stripped()
        stacks = b"".join(number(len(spent.stack)) + b"".join(map(sized, spent.stack)) for spent in self.inputs)
        return le(self.version, 4) + b"\0\x01" + self._body() + stacks + le(self.lock_time, 4)

    def _body(self) -> bytes:
        inputs = b"".join(
            spent.txid + le(spent.vout, 4) + sized(spent.script) + le(spent.sequence, 4) for spent in self.inputs
        )
        outputs = b"".join(le(value_sat, 8) + sized(script) for value_sat, script in self.outputs)
        return number(len(self.inputs)) + inputs + number(len(self.outputs)) + outputs

    def expected(self) -> Tx:
        """What the parser must make of it."""
        txid = Txid(hashlib.sha256(hashlib.sha256(self.stripped()).digest()).digest()[::-1].hex())
        first = self.inputs[0]
        is_coinbase = len(self.inputs) == 1 and (first.txid, first.vout) == (bytes(32), 0xFFFFFFFF)
        spent = () if is_coinbase else tuple(Outpoint(f"{one.txid[::-1].hex()}:{one.vout}") for one in self.inputs)
        outputs = tuple(
            BlockOutput(txid=txid, vout=vout, value_sat=value_sat, script=script, is_coinbase=is_coinbase, inputs=spent)
            for vout, (value_sat, script) in enumerate(self.outputs)
        )
        return Tx(txid=txid, is_coinbase=is_coinbase, inputs=spent, outputs=outputs)


def le(value: int, length: int) -> bytes:
    """An integer, its lowest byte first."""
    return value.to_bytes(length, "little")


def number(value: int) -> bytes:
    """A compact size in its shortest form."""
    for limit, prefix, length in ((253, b"", 1), (1 << 16, b"\xfd", 2), (1 << 32, b"\xfe", 4)):
        if value < limit:
            return prefix + le(value, length)
    return b"\xff" + le(value, 8)


def sized(data: bytes) -> bytes:
    """Bytes after their size."""
    return number(len(data)) + data


def serialised(txs: list[PlainTx]) -> bytes:
    """A block of these txs."""
    return HEADER + number(len(txs)) + b"".join(tx.serialised() for tx in txs)


class Refused(Exception):
    """The reader below does not take the bytes."""


class Reader:
    """Reads slowly and strictly, piece by piece: the judge over broken bytes."""

    def __init__(self, raw: bytes) -> None:
        self._left = len(raw)
        self._stream = io.BytesIO(raw)

    def block(self) -> list[PlainTx]:
        """All txs; nothing may be left."""
        self._take(80)
        txs = [self._tx() for _ in range(self._number())]
        return self._whole(txs)

    def tx(self) -> list[PlainTx]:
        """One tx; nothing may be left."""
        return self._whole([self._tx()])

    def _whole(self, txs: list[PlainTx]) -> list[PlainTx]:
        if self._left or not txs:
            raise Refused
        return txs

    def _tx(self) -> PlainTx:
        version = self._int(4)
        inputs = [self._input() for _ in range(self._number())]
        has_witness = not inputs
        if has_witness:
            if self._take(1) != b"\x01":
                raise Refused
            inputs = [self._input() for _ in range(self._number())]
        outputs = tuple((self._int(8), self._sized()) for _ in range(self._number()))
        if has_witness:
            inputs = [
                PlainInput(one.txid, one.vout, one.script, one.sequence, self._stack())  # in the order of inputs
                for one in inputs
            ]
            if not any(one.stack for one in inputs):
                raise Refused
        if not inputs or not outputs:
            raise Refused
        return PlainTx(version, tuple(inputs), outputs, self._int(4))

    def _input(self) -> PlainInput:
        return PlainInput(self._take(32), self._int(4), self._sized(), self._int(4), ())

    def _stack(self) -> tuple[bytes, ...]:
        return tuple(self._sized() for _ in range(self._number()))

    def _sized(self) -> bytes:
        return self._take(self._number())

    def _number(self) -> int:
        first = self._int(1)
        value = first if first < 253 else self._int({253: 2, 254: 4, 255: 8}[first])
        if number(value)[0] != first or value > self._left:
            raise Refused
        return value

    def _int(self, length: int) -> int:
        return int.from_bytes(self._take(length), "little")

    def _take(self, length: int) -> bytes:
        if length > self._left:
            raise Refused
        self._left -= length
        return self._stream.read(length)


def outcome_of_scan(raw: bytes) -> list[BlockOutput] | None:
    """Every output, or None for MalformedBlock; any other exception is the test's failure."""
    try:
        found = scan(raw)
        return found.outputs_to(set(found.scripts))
    except MalformedBlock:
        return None


def outcome_of_parse(raw: bytes) -> Tx | None:
    """The tx, or None for MalformedBlock."""
    try:
        return parse_tx(raw)
    except MalformedBlock:
        return None


def judged(raw: bytes, *, as_block: bool) -> list[PlainTx] | None:
    """What the slow reader makes of the bytes; what it takes, it can write again byte by byte."""
    try:
        txs = Reader(raw).block() if as_block else Reader(raw).tx()
    except Refused:
        return None
    again = raw[:80] + number(len(txs)) if as_block else b""
    assert again + b"".join(tx.serialised() for tx in txs) == raw
    if any(value_sat > MAX_MONEY_SAT for tx in txs for value_sat, _ in tx.outputs):
        return None
    return txs


def check_block(raw: bytes) -> None:
    """The parser says of these bytes what the slow reader says."""
    txs = judged(raw, as_block=True)
    expected = None if txs is None else [output for tx in txs for output in tx.expected().outputs]
    assert outcome_of_scan(raw) == expected


def check_tx(raw: bytes) -> None:
    """The same for a tx."""
    txs = judged(raw, as_block=False)
    assert outcome_of_parse(raw) == (None if txs is None else txs[0].expected())


# Scripts of more than 65,535 bytes stand in the unit tests: here they would only make the examples unreadable.
scripts = st.one_of(
    st.binary(max_size=40),
    st.binary(min_size=20, max_size=20).map(lambda program: b"\x00\x14" + program),
    st.binary(min_size=32, max_size=32).map(lambda program: b"\x51\x20" + program),
    st.builds(lambda length, fill: bytes([fill]) * length, st.sampled_from([251, 252, 253, 520]), st.integers(0, 255)),
)
small_scripts = st.binary(max_size=6)
four_bytes = st.integers(0, 2**32 - 1)
values_sat = st.integers(0, MAX_MONEY_SAT)
txids = st.binary(min_size=32, max_size=32)


def many(one: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    """The same again and again, on both sides of where a count needs more than one byte."""
    return st.builds(lambda it, count: (it,) * count, one, st.sampled_from([252, 253, 300]))


def few(one: st.SearchStrategy[T], least: int, most: int) -> st.SearchStrategy[tuple[T, ...]]:
    """Different ones."""
    return st.lists(one, min_size=least, max_size=most).map(tuple)


stacks = few(scripts, 0, 4)
inputs = st.builds(PlainInput, txids, four_bytes, scripts, four_bytes, stacks)
small_inputs = st.builds(PlainInput, txids, four_bytes, small_scripts, four_bytes, few(small_scripts, 0, 3))
inputs_of_many_items = st.builds(PlainInput, txids, four_bytes, small_scripts, four_bytes, many(small_scripts))
coinbase_inputs = st.builds(PlainInput, st.just(bytes(32)), st.just(0xFFFFFFFF), scripts, four_bytes, stacks)
outputs = st.tuples(values_sat, scripts)
small_outputs = st.tuples(values_sat, small_scripts)

txs = st.one_of(
    st.builds(PlainTx, four_bytes, few(inputs, 1, 4), few(outputs, 1, 5), four_bytes),
    st.builds(PlainTx, four_bytes, few(coinbase_inputs, 1, 1), few(outputs, 1, 3), four_bytes),
    st.builds(PlainTx, four_bytes, few(inputs_of_many_items, 1, 2), few(outputs, 1, 2), four_bytes),
    st.builds(PlainTx, four_bytes, many(small_inputs), few(outputs, 1, 2), four_bytes),
    st.builds(PlainTx, four_bytes, few(inputs, 1, 2), many(small_outputs), four_bytes),
)
blocks = st.lists(txs, min_size=1, max_size=5)
small_txs = st.builds(PlainTx, four_bytes, few(small_inputs, 1, 3), few(small_outputs, 1, 3), four_bytes)
small_blocks = st.lists(small_txs, min_size=1, max_size=4)


@given(blocks)
def test_a_block_is_parsed_to_exactly_what_was_serialised(block: list[PlainTx]) -> None:
    """Every script in order, and every output with its txid, place, value and the inputs of its tx."""
    found = scan(serialised(block))
    assert found.scripts == [script for tx in block for _, script in tx.outputs]
    assert found.tx_count == len(block)
    assert found.outputs_to(set(found.scripts)) == [output for tx in block for output in tx.expected().outputs]


@given(blocks, st.data())
def test_only_watched_outputs_are_given(block: list[PlainTx], data: st.DataObject) -> None:
    """Whatever scripts are watched, in the block or not: exactly their outputs, in order."""
    raw = serialised(block)
    present = [script for tx in block for _, script in tx.outputs]
    watched = data.draw(st.frozensets(st.one_of(st.sampled_from(present), scripts), max_size=6))
    assert scan(raw).outputs_to(watched) == [
        output for tx in block for output in tx.expected().outputs if output.script in watched
    ]


@given(txs)
def test_a_tx_is_parsed_to_exactly_what_was_serialised(tx: PlainTx) -> None:
    """Alone, as it comes from the mempool, a tx is what it is in a block."""
    assert parse_tx(tx.serialised()) == tx.expected()


@given(small_blocks)
@settings(max_examples=30)
def test_a_block_cut_off_anywhere_is_malformed(block: list[PlainTx]) -> None:
    """At every byte, also where another tx would begin."""
    raw = serialised(block)
    assert all(outcome_of_scan(raw[:end]) is None for end in range(len(raw)))
    last = block[-1].serialised()
    assert all(outcome_of_parse(last[:end]) is None for end in range(len(last)))


@given(small_blocks, st.binary(min_size=1, max_size=100))
def test_bytes_behind_a_block_are_malformed(block: list[PlainTx], rest: bytes) -> None:
    """Nothing is left unread."""
    assert outcome_of_scan(serialised(block) + rest) is None
    assert outcome_of_parse(block[-1].serialised() + rest) is None


structure = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 2, 0x51, 252, 253, 254, 255]))
breaks = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), structure, st.sampled_from(["set", "insert", "delete"])),
    min_size=1,
    max_size=4,
)


def broken(raw: bytes, changes: list[tuple[float, int, str]]) -> bytes:
    """The bytes with some set, inserted or left out."""
    damaged = bytearray(raw)
    for where, byte, how in changes:
        at = int(where * len(damaged))
        damaged[at : at + (how != "insert")] = b"" if how == "delete" else bytes([byte])
    return bytes(damaged)


@given(small_blocks, breaks)
@settings(max_examples=400)
def test_a_damaged_block_is_malformed_or_is_another_block(
    block: list[PlainTx], changes: list[tuple[float, int, str]]
) -> None:
    """What is taken has exactly the outputs that a slow reader finds, and is written again byte by byte."""
    check_block(broken(serialised(block), changes))


@given(small_txs, breaks)
@settings(max_examples=400)
def test_a_damaged_tx_is_malformed_or_is_another_tx(tx: PlainTx, changes: list[tuple[float, int, str]]) -> None:
    """The same for a tx alone."""
    check_tx(broken(tx.serialised(), changes))


@given(st.binary(max_size=400))
@example(HEADER + b"\xff" * 400)
@example(HEADER + b"\0" * 400)
@example(b"\xff" * 400)
@example(b"\0" * 400)
def test_random_bytes_are_malformed(raw: bytes) -> None:
    """As block, as txs after a header, and as a tx: the clear error, or what the slow reader finds, too."""
    check_block(raw)
    check_block(HEADER + raw)
    check_tx(raw)


# Bytes out of which a parser makes sense far more often than out of random ones: small counts, sizes and marks.
likely = st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 3, 9, 41, 253, 254, 255]), max_size=250).map(bytes)


@given(likely)
@settings(max_examples=300)
def test_bytes_that_look_like_counts_are_malformed_or_a_tx(raw: bytes) -> None:
    """Long and short counts in all places: no other exception, and no other answer than the slow reader's."""
    check_tx(raw)
    check_block(HEADER + raw)
