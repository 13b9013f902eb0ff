"""A descriptor in the one spelling that names its key: the same addresses have the same name in the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from embit.descriptor.checksum import add_checksum

INDEXES: Final = 2**31
"""Indexes of a key that is not hardened, 0 to 2^31 - 1 (BIP32)."""


@dataclass(frozen=True, slots=True)
class CanonicalDescriptor:
    """A descriptor without checksum, without the keys' origins (they change no address), on one path."""

    text: str

    @property
    def key_id(self) -> str:
        """16 hex digits: enough to tell the few keys of one bank apart, and short in a document's id."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def with_checksum(self) -> str:
        """As bitcoind asks for it (BIP380)."""
        return str(add_checksum(self.text))


def check_index(index: int) -> None:
    """ValueError for an index that no address can have."""
    if not 0 <= index < INDEXES:
        raise ValueError(f"index {index} is not between 0 and {INDEXES - 1}")
