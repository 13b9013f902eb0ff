"""From an address, as any program may have written it, to its scriptPubKey.

embit's own conversion knows neither networks nor witness versions above 1, and bitcoinlib writes version 2 as 1
(node-interfaces.md C); so embit only checks and decodes base58 (with its checksum) and bech32 and bech32m (BIP173,
BIP350), and the script is put together here.
"""

from __future__ import annotations

from typing import Final

from embit import base58, bech32

from adapters.addresses.networks import Network, network_named

_LONGEST: Final = 90
"""Characters of a bech32 text (BIP173); base58 addresses are shorter. More is not even looked at."""

_HASH_BYTES: Final = 20
_OP_1: Final = 0x51


def script_of(address: str, *, network: str) -> bytes:
    """The scriptPubKey that pays `address`: P2PKH, P2SH, and segwit of every version, future ones included.

    ValueError, with the address in it, unless it is a whole address of this network. Upper-case bech32 is accepted
    (QR codes), mixed case is not.
    """
    there = network_named(network)
    if len(address) > _LONGEST:
        raise ValueError(f"{address[:_LONGEST]!r}... is too long for an address")
    prefix, separator, _ = address.lower().rpartition("1")
    if separator and prefix == there.bech32_prefix:
        return _witness_script(address, there)
    return _hash_script(address, there)


def _witness_script(address: str, network: Network) -> bytes:
    version, program = bech32.decode(network.bech32_prefix, address)
    if version is None:
        raise ValueError(f"{address!r} is no segwit address: its checksum, its length or its case is wrong")
    opcode = _OP_1 + version - 1 if version else 0
    return bytes([opcode, len(program), *program])


def _hash_script(address: str, network: Network) -> bytes:
    try:
        decoded: bytes = base58.decode_check(address)
    except ValueError:
        raise ValueError(f"{address!r} is no address of {network.name}, or a letter of it is wrong") from None
    version, payload = decoded[:1], decoded[1:]
    if len(payload) == _HASH_BYTES and version == network.prefixes["p2pkh"]:
        return b"\x76\xa9\x14" + payload + b"\x88\xac"
    if len(payload) == _HASH_BYTES and version == network.prefixes["p2sh"]:
        return b"\xa9\x14" + payload + b"\x87"
    raise ValueError(f"{address!r} is no address of {network.name}")
