"""What `bitcoind.xpub` may be, what it is called in the store, and what is refused without being shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import hypothesis.strategies as st
import pytest
from embit.bip32 import HDKey
from hypothesis import given, settings

from adapters.addresses import address_source
from adapters.addresses.configured import UnusableKey
from daemon.domain.errors import Misconfigured
from daemon.domain.ports import AddressSource
from tests.unit.addresses.keys import MAIN, TEST, fixed_key, private_account, tprv, tpub, wif

BIP84_ACCOUNT = (
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs"
)
BIP86_ACCOUNT = (
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
)
A, B, C = tpub(1), tpub(2), tpub(3)


@pytest.fixture(scope="module")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the daemon may write to."""
    return tmp_path_factory.mktemp("state")


def source(text: str, state_folder: Path, network: str = "regtest") -> AddressSource:
    """What the configured text gives."""
    return address_source(text, network=network, state_folder=state_folder)


def test_bip84_vector(state_folder: Path) -> None:
    """The first two receive addresses of BIP84's own account, from its zpub."""
    account = source(BIP84_ACCOUNT, state_folder, "mainnet")
    assert [account.derive(index).address for index in (0, 1)] == [
        "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
        "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g",
    ]
    assert account.derive(0).script.hex() == "0014c0cebcd6c3d3ca8c75dc5ec62ebe55330ef910e2"


def test_bip86_vector(state_folder: Path) -> None:
    """The first two receive addresses of BIP86's own account, from the descriptor tr()."""
    account = source(f"tr({BIP86_ACCOUNT}/0/*)", state_folder, "mainnet")
    assert [account.derive(index).address for index in (0, 1)] == [
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
        "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
    ]
    assert account.derive(0).script.hex() == "5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c"


@settings(max_examples=40, deadline=None)  # 3 ms each; the libraries have no branch that 40 keys would miss
@given(seed=st.integers(0, 2**64), index=st.integers(0, 2**31 - 1), network=st.sampled_from(["testnet", "regtest"]))
def test_the_libraries_agree(state_folder: Path, seed: int, index: int, network: str) -> None:
    """bitcoinlib's BIP84 is embit's wpkh(), for any key and index."""
    key = tpub(seed)
    by_bitcoinlib = source(key, state_folder, network)
    by_embit = source(f"wpkh({key}/0/*)", state_folder, network)
    assert by_bitcoinlib.derive(index) == by_embit.derive(index)
    assert (by_bitcoinlib.key_id, by_bitcoinlib.descriptor) == (by_embit.key_id, by_embit.descriptor)


def test_one_key_has_one_name_in_every_spelling(state_folder: Path) -> None:
    """Otherwise a new spelling would begin at index 0 and give a wallet's address to another."""
    vpub = private_account(1).to_public().to_base58(TEST["zpub"])
    assert vpub.startswith("vpub")
    plain = source(A, state_folder)
    spellings = (
        vpub,
        f"  {A}\n",
        f"wpkh([d34db33f/84'/1'/0']{A}/0/*)",
        f"wpkh([d34db33f/84h/1h/0h]{A}/<0;1>/*)",
        plain.descriptor,
    )
    for spelling in spellings:
        other = source(spelling, state_folder)
        assert (other.key_id, other.descriptor) == (plain.key_id, plain.descriptor)
        assert other.derive(7) == plain.derive(7)
    different = {source(text, state_folder).key_id for text in (B, f"wpkh({A}/1/*)", f"tr({A}/0/*)")}
    assert len(different | {plain.key_id}) == 4
    assert len(plain.key_id) == 16
    assert int(plain.key_id, 16)


@pytest.mark.parametrize("checksum", ["", "qqqqqqqq", "#"])
def test_a_wrong_checksum_is_refused(state_folder: Path, checksum: str) -> None:
    """An empty one, too: it was lost on the way, and perhaps more with it."""
    with pytest.raises(UnusableKey, match="checksum does not fit"):
        source(f"wpkh({A}/0/*)#{checksum}", state_folder)


@pytest.mark.parametrize("network", ["testnet", "signet", "regtest"])
def test_a_mainnet_key_is_refused_elsewhere(state_folder: Path, network: str) -> None:
    """And the other way round."""
    for text in (BIP84_ACCOUNT, BIP86_ACCOUNT, f"tr({BIP86_ACCOUNT}/0/*)"):
        with pytest.raises(UnusableKey, match=f"another network than {network}"):
            source(text, state_folder, network)
    for text in (A, f"wpkh({A}/0/*)", f"wsh(multi(1,{BIP86_ACCOUNT}/0/*,{A}/0/*))"):
        with pytest.raises(UnusableKey, match="another network than mainnet"):
            source(text, state_folder, "mainnet")


SECRETS = (
    tprv(1),
    private_account(1).to_base58(TEST["zprv"]),
    private_account(1).to_base58(MAIN["xprv"]),
    wif(1),
)


@pytest.mark.parametrize("secret", SECRETS, ids=("tprv", "vprv", "xprv", "wif"))
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "{}/0/*",
        "wpkh({}/0/*)",
        "wpkh({}/0h/*h)",
        "wpkh({})",
        "tr({})",
        "pkh([d34db33f/84h]{}/<0;1>/*)",
        f"wsh(sortedmulti(1,{A}/0/*,{{}}/0/*))",
        f"wsh(multi(1,{A}/0/*,{{}}))",
        f"tr({A}/0/*,pk({{}}))",
        f"tr({A}/0/*,{{{{pk({B}/0/*),pk({{}}/0/*)}}}})",
        f"wsh(or_d(pk({A}/0/*),and_v(v:pkh({{}}),older(9))))",
        "{}(",
        "nonsense({}",
    ],
)
def test_a_private_key_is_refused_and_never_shown(state_folder: Path, around: str, secret: str) -> None:
    """Whole or mistyped, anywhere: neither the key nor a part of it is in the error or its traceback."""
    for text in (secret, secret[:-1], secret[:20] + "x" + secret[21:]):
        with pytest.raises(UnusableKey) as refusal:
            source(around.format(text), state_folder)
        told = "".join(traceback.format_exception(refusal.value)) + repr(refusal.value)
        assert not any(text[start : start + 6] in told for start in range(len(text) - 5))


@pytest.mark.parametrize(
    "text", [tprv(1), f"wpkh({tprv(1)}/0/*)", f"wsh(multi(1,{A}/0/*,{wif(2)}))", f"tr({A}/0/*,pk({tprv(2)}/0/*))"]
)
def test_a_private_key_is_called_by_its_name(state_folder: Path, text: str) -> None:
    """The operator must know that a secret stands in the file."""
    with pytest.raises(UnusableKey, match=r"^bitcoind\.xpub: a .*private key; give the account's public key"):
        source(text, state_folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"wpkh({A}/0)", "not ranged"),
        (f"wpkh({A})", "not ranged"),
        (f"wpkh({A}/*/0)", "not ranged"),
        (f"wsh(multi(1,{A}/0/*,{B}/0))", "not ranged"),
        (f"wpkh({A}/{{0,1}}/*)", "not ranged"),
        (f"wpkh({A}/0/<2;3>)", "not ranged"),
        (f"wpkh({fixed_key(1)})", "one address only"),
        (f"wpkh({A}/0/*h)", "not a descriptor that can be derived from"),
        (f"wpkh({A}/0'/*)", "not a descriptor that can be derived from"),
        (f"wpkh({A}/*/*)", "not a descriptor that can be derived from"),
        (f"wpkh({A}/0/*", "not a descriptor that can be derived from"),
        (f"wpkh({A}/0/*))", "not a descriptor that can be derived from"),
        (f"addr({A}/0/*)", "not a descriptor that can be derived from"),
        (f"wsh(multi(3,{A}/0/*,{B}/0/*))", "not a descriptor that can be derived from"),
        (f"wsh(pkh({'ab' * 20}))", "hash of a key"),
        (f"wpkh({private_account(1).to_public().to_base58(TEST['zpub'])}/0/*)", "SLIP-132"),
        (private_account(1).to_public().to_base58(TEST["ypub"]), "not of BIP84"),
        (private_account(1).to_public().to_base58(TEST["Zpub"]), "not of BIP84"),
        (f"{A}/0/*", "neither an extended public key nor"),
        (f"[d34db33f/84h/1h/0h]{A}", "neither an extended public key nor"),
        (A[:-1], "neither an extended public key nor"),
        ("abandon abandon abandon about", "neither an extended public key nor"),
        ("", "neither an extended public key nor"),
        ("ключ", "neither an extended public key nor"),
        ("wpkh(ключ)", "not a descriptor that can be derived from"),
    ],
)
def test_what_cannot_be_derived_is_refused(state_folder: Path, text: str, said: str) -> None:
    """In one line that names the key of the configuration and a remedy, and does not show the text."""
    with pytest.raises(UnusableKey, match=said) as refusal:
        source(text, state_folder)
    line = str(refusal.value)
    assert line.startswith("bitcoind.xpub: ")
    assert "; " in line
    assert "\n" not in line
    assert A[:8] not in line
    assert isinstance(refusal.value, Misconfigured)
    assert isinstance(refusal.value, ValueError)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_descriptor_is_refused_or_derives(state_folder: Path, data: st.DataObject) -> None:
    """Whatever a slip of the hand makes of a descriptor, no other error comes of it."""
    kinds = [f"wsh(sortedmulti(2,{A}/0/*,{B}/<0;1>/*,{C}/0/*))", f"tr({A}/0/*,{{pk({B}/0/*),multi_a(1,{C}/0/*)}})"]
    text = data.draw(st.sampled_from(kinds))
    at = data.draw(st.integers(0, len(text)))
    new = data.draw(st.text("()[]{}<>;,/*'#0123h@ :pkmulti", max_size=4))
    try:
        damaged = source(text[:at] + new + text[at + data.draw(st.integers(0, 3)) :], state_folder)
    except UnusableKey:
        return
    assert damaged.derive(0) != damaged.derive(1)


@pytest.mark.parametrize("text", [A, f"tr({A}/0/*)"])
@pytest.mark.parametrize("index", [-1, 2**31, 2**32])
def test_an_index_that_no_key_has_is_refused(state_folder: Path, text: str, index: int) -> None:
    """bitcoinlib would take 2^31; the hardened keys begin there."""
    with pytest.raises(ValueError, match="is not between 0 and 2147483647"):
        source(text, state_folder).derive(index)


def test_an_unknown_network_is_refused(state_folder: Path) -> None:
    """The configuration knows four."""
    with pytest.raises(ValueError, match="no network 'main'"):
        source(A, state_folder, "main")


def test_samples_are_what_they_are_called() -> None:
    """The refusals above would be worthless with keys that nobody can read."""
    assert HDKey.from_base58(tprv(1)).is_private
    assert [secret[:4] for secret in SECRETS[:3]] == ["tprv", "vprv", "xprv"]
