"""A bitcoind, and the addresses that are given out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from daemon.domain.chain import BlockRef
from daemon.domain.identifiers import BlockHash, Outpoint, Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainInfo:
    """The node, now: `network` is "mainnet", "testnet", "signet" or "regtest"; `genesis` the hash of block 0.

    `initial_download` is true while it is still loading the chain: its tip is then far behind the world's.
    `prune_height` is the lowest block that it still has, None if it keeps all.
    """

    network: str
    genesis: BlockHash
    version: str
    tip: BlockRef
    headers: int
    initial_download: bool
    prune_height: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderInfo:
    """A block's header as the node has it; `in_best_chain` is false for a block of a branch that lost."""

    block: BlockRef
    previous: BlockHash | None
    in_best_chain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolSnapshot:
    """All txids in the mempool, and the number that the next change will have in the sequence topic.

    A node that was just started still reads its mempool back from its disk: until it is done, `is_complete` is
    false, and that a tx is missing says nothing.
    """

    txids: frozenset[Txid]
    next_sequence: int
    is_complete: bool = True


class TxAdded(str):
    """A hint: this txid came into the mempool."""

    __slots__ = ()


class TxRemoved(str):
    """A hint: this txid left the mempool, but not into a block."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class RawTx:
    """A hint: a tx was added, connected or disconnected; it may be none of these by now."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class TipChanged:
    """A hint: a block was connected or disconnected."""


@dataclass(frozen=True, slots=True)
class HintsLost:
    """Messages of this topic are missing: the mempool must be looked at whole."""

    topic: str
    missing: int


ChainHint = TxAdded | TxRemoved | RawTx | TipChanged | HintsLost


class ChainNode(Protocol):
    """One bitcoind. Raises Unavailable while it is away, starting, overloaded or refusing the cookie; NodeRefused
    for a refusal; BlockPruned for a block that it has no more.

    Blocking, for worker threads, and safe to call from several.
    """

    def info(self) -> ChainInfo:
        """Who it is and how far it is."""
        ...

    def tip(self) -> BlockRef:
        """The newest block of its best chain: cheap, one call where nothing changed."""
        ...

    def header(self, block_hash: BlockHash) -> HeaderInfo | None:
        """A block's header; None if the node does not know it (after kill -9 it forgets the newest for a while)."""
        ...

    def is_invalid(self, block: BlockRef) -> bool:
        """Whether the node holds this block, or one that it rests on or that rests on it, for invalid: then it
        will not come back to its branch. False for a branch that the node may still take."""
        ...

    def block_hash_at(self, height: int) -> BlockHash | None:
        """The block at this height of the best chain; None above the tip."""
        ...

    def block(self, block_hash: BlockHash) -> bytes:
        """The serialized block, by REST where the node offers it, else by getblock 0. Unavailable if it is unknown
        for now, BlockPruned if it is gone for good."""
        ...

    def mempool(self) -> MempoolSnapshot:
        """The mempool's txids."""
        ...

    def mempool_tx(self, txid: Txid) -> bytes | None:
        """A tx of the mempool, serialized; None if it is not there (any more)."""
        ...

    def is_in_mempool(self, txid: Txid) -> bool:
        """Whether the tx is in the mempool now."""
        ...

    def mempool_spender(self, outpoints: Sequence[Outpoint]) -> Txid | None:
        """A tx of the mempool that spends one of these outputs; None if there is none."""
        ...

    def is_unspent(self, outpoint: Outpoint) -> bool:
        """Whether the output exists and no block spends it (the mempool may)."""
        ...

    def derive(self, descriptor: str, index: int) -> str:
        """The address that the node itself derives from a descriptor (with checksum)."""
        ...

    def hints(self) -> AbstractAsyncContextManager[AsyncIterator[Sequence[ChainHint]]] | None:
        """What the node pushes (ZMQ), in batches as it arrives; None if none is configured.

        Async, for Trio. Hints may be lost, late or needless: RPC is the truth. The iteration never ends by itself,
        and a node that goes away only makes it silent.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedAddress:
    """An address of ours and its scriptPubKey."""

    index: int
    address: str
    script: bytes


class AddressSource(Protocol):
    """Derives receive addresses from the configured xpub or output descriptor: watch-only, pure computation."""

    @property
    def key_id(self) -> str:
        """16 hex digits of the descriptor's SHA-256: whose index it is, in the store."""
        ...

    @property
    def descriptor(self) -> str:
        """With checksum: what bitcoind derives from."""
        ...

    def derive(self, index: int) -> DerivedAddress:
        """The address at an index from 0 to 2^31 - 1."""
        ...


class Scripts(Protocol):
    """The scriptPubKeys that pay wallets (`teller_scripts`)."""

    def owners(self, scripts: Collection[bytes]) -> Sequence[WatchedScript]:
        """Those of these scripts that pay a wallet, every one whose address was given or learnt before the call;
        at the same cost whatever the number of scripts watched."""
        ...

    def unscanned(self, *, limit: int) -> Sequence[WatchedScript]:
        """Scripts that were learnt from another program and not yet looked for in the mempool and in blocks that
        are in the books already."""
        ...

    def mark_scanned(self, scripts: Collection[bytes]) -> None:
        """They were looked for, and what was found is in the books."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedScript:
    """A script and the wallet that it pays."""

    script: bytes
    address: str
    wallet_id: str


class ForeignAddresses(Protocol):
    """Addresses that other programs wrote into `wallets.onchain[]`."""

    def sweep(self, *, after: str | None, limit: int) -> tuple[int, str | None]:
        """Goes over the next `limit` wallets (by `_id`, from the one after `after`) and adds the scripts of their
        addresses that are not known, unscanned. Addresses with a `pubkey` are an LND's coins and left alone; one
        that is no address of this network is logged once and left alone. Returns how many scripts were new and
        where to go on, None after the last wallet."""
        ...

    def take_hinted(self, timeout_s: float) -> int:
        """Blocks until another program has changed wallets or the time is up, adds their new scripts as `sweep`,
        and returns how many were new. Hints may be lost."""
        ...
