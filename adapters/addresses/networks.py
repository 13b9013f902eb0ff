"""What differs between the networks: prefixes of addresses and of extended keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from embit.networks import NETWORKS


@dataclass(frozen=True, slots=True)
class Network:
    """A network as embit and bitcoinlib know it.

    `prefixes` are embit's. bitcoinlib's own "regtest" has mainnet's base58 prefixes (node-interfaces.md C), so there
    it is told "testnet", whose keys look the same.
    """

    name: str
    prefixes: dict[str, Any]
    bitcoinlib_name: str

    @property
    def bech32_prefix(self) -> str:
        """The human-readable part of a segwit address."""
        return str(self.prefixes["bech32"])


_ALL: Final = {
    "mainnet": Network("mainnet", NETWORKS["main"], "bitcoin"),
    "testnet": Network("testnet", NETWORKS["test"], "testnet"),
    "signet": Network("signet", NETWORKS["signet"], "testnet"),
    "regtest": Network("regtest", NETWORKS["regtest"], "testnet"),
}


def network_named(name: str) -> Network:
    """The network with this name in the configuration; ValueError for any other."""
    try:
        return _ALL[name]
    except KeyError:
        raise ValueError(f"no network {name!r}; there are {', '.join(_ALL)}") from None
