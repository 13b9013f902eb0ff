"""Keys of nobody: extended keys made from a seed, in every spelling."""

from __future__ import annotations

import hashlib

from embit.bip32 import HDKey
from embit.networks import NETWORKS

TEST = NETWORKS["test"]
MAIN = NETWORKS["main"]


def private_account(seed: int) -> HDKey:
    """The private key at m/84h/1h/0h of a seed."""
    root = HDKey.from_seed(hashlib.sha512(b"tellerd tests %d" % seed).digest(), version=TEST["xprv"])
    return root.derive("m/84h/1h/0h")


def tpub(seed: int) -> str:
    """An account's public key."""
    return str(private_account(seed).to_public().to_base58(TEST["xpub"]))


def tprv(seed: int) -> str:
    """The same account's private key."""
    return str(private_account(seed).to_base58(TEST["xprv"]))


def wif(seed: int) -> str:
    """A single private key."""
    return str(private_account(seed).key.wif(TEST))


def fixed_key(seed: int) -> str:
    """A single public key, 66 hex digits."""
    return bytes(private_account(seed).key.sec()).hex()
