"""From `bitcoind.xpub` of the configuration to a source of addresses.

The text may be anything that a person pastes, a private key or the words of a seed included: no error ever shows it,
nor what a library says about it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from embit.base import EmbitError
from embit.bip32 import HDKey
from embit.descriptor import Descriptor
from embit.descriptor.arguments import Key
from embit.descriptor.checksum import checksum
from embit.ec import PublicKey
from embit.networks import NETWORKS

from adapters.addresses.bip84 import Bip84Addresses
from adapters.addresses.descriptors import DescriptorAddresses
from adapters.addresses.networks import Network, network_named
from daemon.domain.errors import Misconfigured
from daemon.domain.ports import AddressSource

_MULTIPATH: Final = re.compile(r"/<([0-9]+)(?:;[0-9]+)+>/")
"""`/<0;1>/` (BIP389): the first branch is the one for receiving."""

_UNREADABLE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EmbitError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What embit's parsers raise for texts that they cannot read: they check little on purpose."""

_GIVE_PUBLIC: Final = "give the account's public key (xpub, tpub) and keep the private one off this host"


class UnusableKey(Misconfigured, ValueError):
    """`bitcoind.xpub` cannot be derived from; says why and what to give, and never shows the text."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"bitcoind.xpub: {what}; {remedy}")


def address_source(text: str, *, network: str, state_folder: Path) -> AddressSource:
    """The source of the addresses that are given out; UnusableKey for a text that is none.

    An extended key (xpub, tpub; zpub, vpub by SLIP-132) is a BIP84 account; everything else is a descriptor with at
    least one key that ends in `/*`. `state_folder` is a folder that tellerd may write to.
    """
    there, text = network_named(network), text.strip()
    if "(" in text:
        return DescriptorAddresses(_descriptor(text, there), network=there)
    return Bip84Addresses(_account_key(text, there), network=there, state_folder=state_folder)


def _account_key(text: str, network: Network) -> str:
    """The BIP84 account key in its plain spelling, xpub or tpub."""
    try:
        key = HDKey.from_base58(text)
    except _UNREADABLE:
        raise UnusableKey(
            "neither an extended public key nor an output descriptor, or a letter of it is wrong",
            "give an xpub (tpub outside mainnet) as it is, or a descriptor such as wpkh(xpub/0/*)",
        ) from None
    if key.is_private:
        raise UnusableKey("a private key", _GIVE_PUBLIC)
    plain = network.prefixes["xpub"]
    if key.version not in (plain, network.prefixes["zpub"]):
        _refuse_other_network(key.version, network, kinds=("xpub", "zpub"))
        raise UnusableKey(
            "an extended key that is not of BIP84",
            "give its plain spelling (xpub, tpub) in a descriptor, for example sh(wpkh(xpub/0/*))",
        )
    return str(key.to_base58(plain))


def _descriptor(text: str, network: Network) -> Descriptor:
    """The descriptor, checked, on its first path, without the keys' origins."""
    body, hash_sign, given = text.partition("#")
    try:
        right = checksum(body)
        parsed = Descriptor.from_string(_MULTIPATH.sub(r"/\1/", body))
        keys: list[Key] = parsed.keys
        parsed.derive(0).script_pubkey()
    except _UNREADABLE:
        raise UnusableKey(
            "not a descriptor that can be derived from",
            "give wpkh, tr, pkh, sh(wpkh), or multi or sortedmulti inside sh or wsh, with public keys that end in /* "
            "and nothing hardened after a key",
        ) from None
    if any(key.is_private for key in keys):
        raise UnusableKey("a descriptor with a private key", _GIVE_PUBLIC)
    if hash_sign and given != right:
        raise UnusableKey("the descriptor's checksum does not fit it", "copy it again, or leave the # and it out")
    for key in keys:
        _check_key(key, network)
        key.origin = None
    if not any(key.is_extended for key in keys):
        raise UnusableKey("a descriptor with one address only", "end a key in /*, as in wpkh(xpub/0/*)")
    return parsed


def _check_key(key: Key, network: Network) -> None:
    """A fixed public key may stand beside others (tr's internal key); an extended one must make all addresses."""
    if not key.is_extended:
        if not isinstance(key.key, PublicKey):
            raise UnusableKey("a descriptor with the hash of a key", "give the public key itself")
        return
    if key.key.version != network.prefixes["xpub"]:
        _refuse_other_network(key.key.version, network, kinds=("xpub",))
        raise UnusableKey("a descriptor with a key in SLIP-132 spelling", "give it as xpub (tpub outside mainnet)")
    steps = key.allowed_derivation.indexes if key.allowed_derivation else []
    if key.branches is not None or not steps or steps[-1] is not None:
        raise UnusableKey("a descriptor with an extended key that is not ranged", "end it in /*, as in wpkh(xpub/0/*)")


def _refuse_other_network(version: bytes, network: Network, *, kinds: tuple[str, ...]) -> None:
    if any(version == other[kind] for other in NETWORKS.values() for kind in kinds):
        raise UnusableKey(
            f"a key of another network than {network.name}", "give one of this network (xpub, zpub are mainnet's)"
        )
