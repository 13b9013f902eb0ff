"""An account's extended public key: BIP84 addresses at /0/index, derived with bitcoinlib."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from adapters.addresses.canonical import CanonicalDescriptor, check_index
from adapters.addresses.networks import Network
from adapters.addresses.scripts import script_of
from daemon.domain.errors import Misconfigured
from daemon.domain.ports import DerivedAddress

_RECEIVE: Final = 0
"""BIP44's external chain: addresses that are given out."""


class Bip84Addresses:
    """Implements `AddressSource` for an account key; about 2 ms an address."""

    def __init__(self, account_key: str, *, network: Network, state_folder: Path) -> None:
        """`account_key` is an xpub or tpub of this network, already checked."""
        hd_key = _hd_key_class(state_folder)
        account = hd_key(account_key, network=network.bitcoinlib_name, witness_type="segwit")
        self._branch = account.child_public(_RECEIVE)
        self._network = network
        self._descriptor = CanonicalDescriptor(f"wpkh({account_key}/{_RECEIVE}/*)")

    @property
    def key_id(self) -> str:
        """The same as that of the descriptor wpkh(account_key/0/*): one key, one counter."""
        return self._descriptor.key_id

    @property
    def descriptor(self) -> str:
        """With checksum."""
        return self._descriptor.with_checksum

    def derive(self, index: int) -> DerivedAddress:
        """P2WPKH of the index-th key; ValueError for an index out of range."""
        check_index(index)
        key = self._branch.child_public(index)
        address = str(key.address(encoding="bech32", script_type="p2wpkh", prefix=self._network.bech32_prefix))
        script = script_of(address, network=self._network.name)
        return DerivedAddress(index=index, address=address, script=script)


def _hd_key_class(state_folder: Path) -> Any:
    """bitcoinlib's HDKey; Misconfigured if the library cannot be loaded for want of a folder to write to."""
    if "bitcoinlib.keys" not in sys.modules:
        try:
            with _folder_for_the_import(state_folder), _known_warnings_silenced():
                importlib.import_module("bitcoinlib.keys")
        except OSError as problem:
            reason = " ".join(str(problem).split())
            raise Misconfigured(
                f"bitcoinlib writes files when it is loaded, and cannot: {reason}; let tellerd write to {state_folder}"
            ) from None
        _close_its_log()
    from bitcoinlib.keys import HDKey

    return HDKey


@contextmanager
def _folder_for_the_import(state_folder: Path) -> Iterator[None]:
    """bitcoinlib copies its settings into its data folder once, reads them there, and keeps a log file.

    It gets a new folder each time: the copy of a start that was killed half-way, or of an older version, would be
    read for ever, and two daemons may start at once. Nothing of what we use needs the folder after the import.
    """
    state_folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("BCL_DATA_DIR")
    with tempfile.TemporaryDirectory(prefix="bitcoinlib-", dir=state_folder) as folder:
        os.environ["BCL_DATA_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["BCL_DATA_DIR"]
            else:
                os.environ["BCL_DATA_DIR"] = before


@contextmanager
def _known_warnings_silenced() -> Iterator[None]:
    """Two faults of the library that do no harm: a file left to the collector, and an old spelling of SQLAlchemy's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"unclosed file .*VERSION", category=ResourceWarning)
        warnings.filterwarnings("ignore", message=r"The ``declarative_base\(\)`` function is now available")
        yield


def _close_its_log() -> None:
    """Its messages go where all others go, not to a file of its own."""
    library = logging.getLogger("bitcoinlib")
    for handler in tuple(library.handlers):
        library.removeHandler(handler)
        handler.close()
