"""From address to scriptPubKey: the published vectors, and what must not be taken for an address."""

from __future__ import annotations

import pytest
from embit import base58, bech32
from embit.bech32 import Encoding

from adapters.addresses import script_of

PROGRAM = "751e76e8199196d454941c45d1b3a323f1433bd6"

# BIP173 and BIP350, "valid segwit addresses", with their scripts; then base58 as every explorer shows it.
VECTORS = [
    ("mainnet", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", f"0014{PROGRAM}"),
    ("testnet", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", f"0014{PROGRAM}"),
    ("signet", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", f"0014{PROGRAM}"),
    (
        "testnet",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "mainnet",
        "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
        f"5128{PROGRAM}{PROGRAM}",
    ),
    ("mainnet", "BC1SW50QGDZ25J", "6002751e"),
    ("mainnet", "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", f"5210{PROGRAM[:32]}"),
    (
        "mainnet",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    ("mainnet", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac"),
    ("mainnet", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
    ("testnet", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"),
    ("regtest", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "a9144e9f39ca4688ff102128ea4ccda34105324305b087"),
]


@pytest.mark.parametrize(("network", "address", "script"), VECTORS)
def test_published_vectors(network: str, address: str, script: str) -> None:
    """Each address pays its script, in upper case, too, where that is allowed."""
    assert script_of(address, network=network).hex() == script
    if address.lower().startswith(("bc1", "tb1")):
        assert script_of(address.swapcase(), network=network).hex() == script


def segwit(hrp: str, version: int, program: bytes, encoding: int) -> str:
    """A segwit text by parts, right or wrong."""
    return str(bech32.bech32_encode(encoding, hrp, [version, *bech32.convertbits(program, 8, 5)]))


GOOD = segwit("bcrt", 0, bytes(range(20)), Encoding.BECH32)
WRONG = {
    "v0 in bech32m": segwit("bcrt", 0, bytes(20), Encoding.BECH32M),
    "v1 in bech32": segwit("bcrt", 1, bytes(32), Encoding.BECH32),
    "v16 in bech32": segwit("bcrt", 16, bytes(32), Encoding.BECH32),
    "v17": segwit("bcrt", 17, bytes(32), Encoding.BECH32M),
    "v0 of 21 bytes": segwit("bcrt", 0, bytes(21), Encoding.BECH32),
    "v0 of 16 bytes": segwit("bcrt", 0, bytes(16), Encoding.BECH32),
    "v1 of 1 byte": segwit("bcrt", 1, bytes(1), Encoding.BECH32M),
    "v1 of 41 bytes": segwit("bcrt", 1, bytes(41), Encoding.BECH32M),
    "nothing encoded": str(bech32.bech32_encode(Encoding.BECH32, "bcrt", [])),
    "padding of 6 bits": str(bech32.bech32_encode(Encoding.BECH32M, "bcrt", [1, *[0] * 54])),
    "padding that is not zero": str(bech32.bech32_encode(Encoding.BECH32M, "bcrt", [1, *[0] * 51, 1])),
    "mixed case": GOOD[:-1] + GOOD[-1:].upper() if GOOD[-1].isalpha() else GOOD[:10].upper() + GOOD[10:],
    "a letter changed": GOOD[:12] + ("q" if GOOD[12] != "q" else "p") + GOOD[13:],
    "a letter lost": GOOD[:-1],
    "a letter that bech32 has not": GOOD[:12] + "b" + GOOD[13:],
    "testnet's prefix": segwit("tb", 0, bytes(20), Encoding.BECH32),
    "mainnet's prefix": segwit("bc", 0, bytes(20), Encoding.BECH32),
    "mainnet P2PKH": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    "mainnet P2SH": "3P14159f73E4gFr7JterCCQh9QjiTjiZrG",
    "P2PKH of 19 bytes": base58.encode_check(b"\x6f" + bytes(19)),
    "P2SH of 21 bytes": base58.encode_check(b"\xc4" + bytes(21)),
    "base58 checksum": "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfm",
    "a private key's version": base58.encode_check(b"\xef" + bytes(20)),
    "a space": f" {GOOD}",
    "nothing": "",
    "one digit": "1",
    "a key": "02" + "ab" * 32,
    "not ASCII": "bcrt1ключ",
}


@pytest.mark.parametrize("address", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_address_here_is_refused(address: str) -> None:
    """With the text in the error, for it is another program's and somebody must find it."""
    assert script_of(GOOD, network="regtest") == bytes([0, 20, *range(20)])
    with pytest.raises(ValueError, match=r"is no (segwit )?address") as refusal:
        script_of(address, network="regtest")
    assert repr(address) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_hostile_text_is_cut() -> None:
    """A megabyte in somebody's document is neither decoded nor logged."""
    with pytest.raises(ValueError, match="too long for an address") as refusal:
        script_of("1" * 1_000_000, network="regtest")
    assert len(str(refusal.value)) < 200
