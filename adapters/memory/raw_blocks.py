"""Txs and blocks of the memory chain, serialised as Bitcoin Core serialises them: real parsers read them.

Layout: Bitcoin Core `primitives/transaction.h` and `primitives/block.h`; the witness: BIP144. There are no
signatures and no proof of work in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

from daemon.domain.identifiers import BlockHash, Outpoint, Txid, outpoint_of

_NO_OUTPOINT: Final = bytes(32) + b"\xff\xff\xff\xff"
"""What the only input of a coinbase spends."""

_FINAL: Final = b"\xff\xff\xff\xff"
_REGTEST_BITS: Final = 0x207FFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOutput:
    """What a tx pays to a scriptPubKey."""

    script: bytes
    value_sat: int


@dataclass(frozen=True, kw_only=True)
class MemoryTx:
    """A tx. A coinbase spends no outpoint; it has `note` as its input's script, to be like no other.

    `witness` is the stack of every input, none in the legacy serialisation.
    """

    inputs: tuple[Outpoint, ...]
    outputs: tuple[MemoryOutput, ...]
    witness: tuple[bytes, ...] = ()
    note: bytes = b""

    @property
    def is_coinbase(self) -> bool:
        """Whether it makes new money."""
        return not self.inputs

    @cached_property
    def txid(self) -> Txid:
        """The hash of its serialisation without witness."""
        return Txid(_hash(self._serialized(with_witness=False)).hex())

    @property
    def raw(self) -> bytes:
        """Its serialisation, with the witness if it has one."""
        return self._serialized(with_witness=bool(self.witness))

    def outpoint(self, vout: int) -> Outpoint:
        """One of its outputs."""
        return outpoint_of(self.txid, vout)

    @cached_property
    def outpoints(self) -> tuple[Outpoint, ...]:
        """All its outputs."""
        return tuple(outpoint_of(self.txid, vout) for vout in range(len(self.outputs)))

    def _serialized(self, *, with_witness: bool) -> bytes:
        spent = [_outpoint(one) for one in self.inputs] or [_NO_OUTPOINT]
        inputs = [outpoint + _sized(self.note) + _FINAL for outpoint in spent]
        outputs = [one.value_sat.to_bytes(8, "little") + _sized(one.script) for one in self.outputs]
        stack = _compact_size(len(self.witness)) + b"".join(map(_sized, self.witness))
        return b"".join(
            (
                (2).to_bytes(4, "little"),
                b"\x00\x01" if with_witness else b"",
                _counted(inputs),
                _counted(outputs),
                stack * len(inputs) if with_witness else b"",
                bytes(4),
            )
        )


@dataclass(frozen=True)
class MemoryBlock:
    """A block and where it stands; `previous` is None for the genesis."""

    height: int
    previous: BlockHash | None
    time_s: int
    txs: tuple[MemoryTx, ...]

    @property
    def raw(self) -> bytes:
        """Header and txs."""
        return self.header + _counted([tx.raw for tx in self.txs])

    @cached_property
    def hash(self) -> BlockHash:
        """The hash of its header."""
        return BlockHash(_hash(self.header).hex())

    @property
    def header(self) -> bytes:
        """80 bytes."""
        return b"".join(
            (
                (0x2000_0000).to_bytes(4, "little"),
                bytes(32) if self.previous is None else bytes.fromhex(self.previous)[::-1],
                _merkle_root([bytes.fromhex(tx.txid)[::-1] for tx in self.txs]),
                self.time_s.to_bytes(4, "little"),
                _REGTEST_BITS.to_bytes(4, "little"),
                bytes(4),
            )
        )


def _merkle_root(hashes: Sequence[bytes]) -> bytes:
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [_hash(level[i] + level[i + 1])[::-1] for i in range(0, len(level), 2)]
    return level[0]


def _hash(data: bytes) -> bytes:
    """Double SHA-256, in the order of bitcoind's RPC (reversed)."""
    return sha256(sha256(data).digest()).digest()[::-1]


def _outpoint(outpoint: Outpoint) -> bytes:
    txid, _, vout = outpoint.partition(":")
    return bytes.fromhex(txid)[::-1] + int(vout).to_bytes(4, "little")


def _counted(things: Sequence[bytes]) -> bytes:
    return _compact_size(len(things)) + b"".join(things)


def _sized(data: bytes) -> bytes:
    return _compact_size(len(data)) + data


def _compact_size(number: int) -> bytes:
    if number < 253:
        return bytes([number])
    if number < 2**16:
        return b"\xfd" + number.to_bytes(2, "little")
    return b"\xfe" + number.to_bytes(4, "little")
