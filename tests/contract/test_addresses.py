"""Our addresses are bitcoind's: every kind of key, and every text that is or is not an address."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from embit.bech32 import Encoding, bech32_encode, convertbits

from adapters.addresses import address_source, script_of
from regtest import binaries
from regtest.bitcoind import Bitcoind
from tests.unit.addresses.keys import TEST, fixed_key, private_account, tpub

pytestmark = pytest.mark.regtest

A, B, C = tpub(11), tpub(12), tpub(13)
NOBODY = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"  # BIP341's point without a known key

KEYS = {
    "tpub": A,
    "vpub": private_account(11).to_public().to_base58(TEST["zpub"]),
    "wpkh": f"wpkh({A}/0/*)",
    "wpkh, origin": f"wpkh([d34db33f/84'/1h/0']{A}/0/*)",
    "wpkh, multipath": f"wpkh({A}/<3;4>/*)",
    "wpkh, no branch": f"wpkh({A}/*)",
    "wpkh, deep": f"wpkh({A}/1/2/3/*)",
    "pkh": f"pkh({A}/0/*)",
    "sh(wpkh)": f"sh(wpkh({A}/0/*))",
    "tr": f"tr({A}/0/*)",
    "tr, one leaf": f"tr({A}/0/*,pk({B}/0/*))",
    "tr, tree": f"tr({A}/0/*,{{pk({B}/0/*),{{multi_a(2,{B}/1/*,{C}/1/*),and_v(v:pk({C}/2/*),older(144))}}}})",
    "tr, nobody's key": f"tr({NOBODY},sortedmulti_a(2,{A}/0/*,{B}/0/*,{C}/0/*))",
    "wsh(multi)": f"wsh(multi(2,{A}/0/*,{B}/0/*,{C}/0/*))",
    "wsh(sortedmulti)": f"wsh(sortedmulti(2,{A}/0/*,{B}/0/*,{C}/0/*))",
    "wsh(sortedmulti), multipath": f"wsh(sortedmulti(2,[d34db33f/48h/1h/0h/2h]{A}/<0;1>/*,{B}/<0;1>/*))",
    "wsh(multi), a fixed key": f"wsh(multi(1,{A}/0/*,{fixed_key(14)}))",
    "sh(multi)": f"sh(multi(2,{A}/0/*,{B}/0/*))",
    "sh(sortedmulti)": f"sh(sortedmulti(1,{A}/0/*,{B}/0/*))",
    "sh(wsh(sortedmulti))": f"sh(wsh(sortedmulti(2,{A}/0/*,{B}/0/*)))",
    "wsh(pk)": f"wsh(pk({A}/0/*))",
    "wsh(miniscript)": f"wsh(or_d(pk({A}/0/*),and_v(v:pkh({B}/0/*),older(1008))))",
}
LARGE = (1_000, 65_535, 2**24 + 7, 2**31 - 2)


@pytest.fixture(scope="module")
def bitcoind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """One bitcoind for the module; only pure functions of it are asked."""
    node = Bitcoind(binaries.bitcoind(), tmp_path_factory.mktemp("bitcoind"))
    try:
        node.start()
        node.wait_ready()
        yield node
    finally:
        node.stop()


@pytest.mark.parametrize("text", KEYS.values(), ids=KEYS.keys())
def test_we_derive_what_bitcoind_derives(bitcoind: Bitcoind, tmp_path: Path, text: str) -> None:
    """Indexes 0 to 20 and some large ones: address, scriptPubKey and the descriptor's checksum."""
    source = address_source(text, network="regtest", state_folder=tmp_path)
    body, _, checksum = source.descriptor.partition("#")
    told = bitcoind.rpc("getdescriptorinfo", body)
    assert told["checksum"] == checksum
    assert told["isrange"]
    assert not told["hasprivatekeys"]
    assert told["descriptor"] == source.descriptor, "bitcoind spells it otherwise: the key would have two names"

    ours = [source.derive(index) for index in range(21)]
    assert [one.address for one in ours] == bitcoind.rpc("deriveaddresses", source.descriptor, [0, 20])
    for index in LARGE:
        ours.append(source.derive(index))
        assert [ours[-1].address] == bitcoind.rpc("deriveaddresses", source.descriptor, [index, index])
    for one in ours:
        assert one.script.hex() == bitcoind.rpc("validateaddress", one.address)["scriptPubKey"]
        assert one.script == script_of(one.address, network="regtest")
    assert len({one.script for one in ours}) == len(ours)


@pytest.mark.parametrize("text", [KEYS["wpkh, multipath"], KEYS["wsh(sortedmulti), multipath"]])
def test_of_several_paths_the_first_is_taken(bitcoind: Bitcoind, tmp_path: Path, text: str) -> None:
    """bitcoind derives all branches of the text as written; ours is its first one."""
    as_written = f"{text}#{bitcoind.rpc('getdescriptorinfo', text)['checksum']}"
    branches = bitcoind.rpc("deriveaddresses", as_written, [0, 3])
    source = address_source(as_written, network="regtest", state_folder=tmp_path)
    assert len(branches) == 2
    assert [source.derive(index).address for index in range(4)] == branches[0]


def scripts() -> Iterator[bytes]:
    """Every kind of script that has an address, witness versions of the future included."""
    draw = random.Random(4)
    yield b"\x76\xa9\x14" + draw.randbytes(20) + b"\x88\xac"
    yield b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
    yield b"\xa9\x14" + draw.randbytes(20) + b"\x87"
    yield b"\x00\x14" + draw.randbytes(20)
    yield b"\x00\x20" + draw.randbytes(32)
    yield b"\x51\x20" + bytes.fromhex(NOBODY)
    yield b"\x51\x02\x4e\x73"  # pay to anchor
    for opcode in range(0x51, 0x61):
        for length in (2, 20, 31, 32, 33, 40):
            yield bytes([opcode, length]) + draw.randbytes(length)


def test_scripts_of_bitcoinds_addresses(bitcoind: Bitcoind) -> None:
    """bitcoind writes an address for a script, and we find the script again; in upper case, too."""
    for script in scripts():
        address = bitcoind.rpc("decodescript", script.hex())["address"]
        assert script_of(address, network="regtest") == script
        if address.startswith("bcrt1"):
            assert script_of(address.upper(), network="regtest") == script
            assert bitcoind.rpc("validateaddress", address.upper())["scriptPubKey"] == script.hex()


def test_we_refuse_what_bitcoind_refuses(bitcoind: Bitcoind) -> None:
    """Addresses with a slip in them: our verdict, and our script, are bitcoind's."""
    draw = random.Random(5)
    originals = [bitcoind.rpc("decodescript", script.hex())["address"] for script in scripts()]
    verdicts = []
    for original in originals * 3:
        at = draw.randrange(len(original))
        letter = draw.choice("qpzry9x8gf2tvdw0s3jn54khce6mua7l1ABCDEFGHJKLMNPQRSTUVWXYZ")
        slips = (original[:at] + letter + original[at + 1 :], original[:at] + original[at + 1 :], original[:at].upper())
        for text in (*slips, original[:at] + original[at:].upper()):
            theirs = bitcoind.rpc("validateaddress", text)
            try:
                ours = script_of(text, network="regtest").hex()
            except ValueError:
                ours = None
            assert ours == theirs.get("scriptPubKey"), text
            verdicts.append(ours is None)
    assert 0 < sum(verdicts) < len(verdicts)


def test_checksums_do_not_stand_in_for_each_other(bitcoind: Bitcoind) -> None:
    """bech32 for version 1, bech32m for version 0: bitcoind refuses both, and so do we."""
    for version, encoding in ((0, Encoding.BECH32M), (1, Encoding.BECH32), (2, Encoding.BECH32)):
        address = bech32_encode(encoding, "bcrt", [version, *convertbits(bytes(32), 8, 5)])
        assert not bitcoind.rpc("validateaddress", address)["isvalid"]
        with pytest.raises(ValueError, match="is no segwit address"):
            script_of(address, network="regtest")


@pytest.mark.parametrize(
    "address", ["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"]
)
def test_an_address_of_another_network_is_refused(bitcoind: Bitcoind, address: str) -> None:
    """As bitcoind refuses it."""
    assert not bitcoind.rpc("validateaddress", address)["isvalid"]
    with pytest.raises(ValueError, match="is no address of regtest"):
        script_of(address, network="regtest")
