"""A table of bits that says at once of most scripts that nobody watches them (a Bloom filter)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

_TABLE_BYTES: Final = 1 << 24
"""16 MiB, whatever the number of scripts: 2^27 bits, three of them set for each script."""

_BYTE: Final = _TABLE_BYTES - 1
_HIGH: Final = 37
"""The upper 27 of a hash's 64 bits are the second probe; the lower 27 are the first, both XORed the third."""


class ScriptFilter:
    """The scripts that were added, so far as bits can tell: what was added is always a candidate.

    Of 10,000 others 0.1 are candidates, too, with a million scripts added, 80 with ten million, 7,100 with a hundred
    million. Nobody outside can choose scripts that are: Python keys its hash of bytes anew in every process.
    Of several threads one may add while others ask; what is counted is in the table.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_TABLE_BYTES)
        self.count = 0
        """Scripts added."""

    def add(self, scripts: Collection[bytes]) -> None:
        """Adds scripts that were not added before."""
        bits = self._bits
        for script in scripts:
            low = hash(script)
            high = low >> _HIGH
            both = low ^ high
            bits[low >> 3 & _BYTE] |= 1 << (low & 7)
            bits[high >> 3 & _BYTE] |= 1 << (high & 7)
            bits[both >> 3 & _BYTE] |= 1 << (both & 7)
        self.count += len(scripts)

    def candidates(self, scripts: Iterable[bytes]) -> list[bytes]:
        """Those of these scripts that were added, and now and then another."""
        # The hot path, some 0.2 microseconds a script: one probe settles nearly all of them.
        bits = self._bits
        return [
            script
            for script in scripts
            if bits[(low := hash(script)) >> 3 & _BYTE] >> (low & 7) & 1 and self._has_others(low)
        ]

    def _has_others(self, low: int) -> bool:
        bits, high = self._bits, low >> _HIGH
        both = low ^ high
        return bool(bits[high >> 3 & _BYTE] >> (high & 7) & bits[both >> 3 & _BYTE] >> (both & 7) & 1)
