"""`ChainNode` for a real bitcoind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from adapters.bitcoind.credentials import Credentials
from adapters.bitcoind.errors import RpcRefused
from adapters.bitcoind.rest import RestBlocks
from adapters.bitcoind.rpc import Rpc
from adapters.bitcoind.zmq import hint_stream
from daemon.domain.blocks import HEADER_BYTES, MAX_BYTES, hash_of
from daemon.domain.chain import BlockRef
from daemon.domain.errors import BlockPruned, Misconfigured, Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid
from daemon.domain.ports import ChainHint, ChainInfo, HeaderInfo, MempoolSnapshot

CALL_S: Final = 30.0
"""The slowest call here is getrawmempool on a full mempool, some seconds; getblock of the largest block takes 0.1 s."""

_NETWORKS: Final = {
    "main": "mainnet",
    "test": "testnet",
    "testnet4": "testnet",
    "signet": "signet",
    "regtest": "regtest",
}
"""bitcoind's names of chains (`getblockchaininfo`) as the configuration's; the genesis tells both testnets apart."""

# bitcoind's codes (src/rpc/protocol.h)
_MISC: Final = -1
_NOT_FOUND: Final = -5
_BAD_PARAMETER: Final = -8

_PRUNED: Final = "pruned data"
"""In the text of a refusal with code -1 (src/rpc/blockchain.cpp, CheckBlockDataAvailability)."""

_MAX_BRANCH: Final = 10_000
"""Blocks of an invalid branch that are walked back, each a call: the deepest reorg that can be configured."""

_T = TypeVar("_T")


class BitcoindNode:
    """See `daemon.domain.ports.ChainNode`. Thread-safe; connects with the first call."""

    def __init__(
        self,
        *,
        name: str,
        rpc_url: str,
        rpc_cookie_file: Path | None = None,
        rpc_user: str | None = None,
        rpc_password_file: Path | None = None,
        zmq: Sequence[str] = (),
        timeout_s: float = CALL_S,
    ) -> None:
        """Raises Misconfigured for a URL or credentials that cannot be right; reads no file yet."""
        url = _checked_url(rpc_url)
        credentials = Credentials(
            node=name, cookie_file=rpc_cookie_file, user=rpc_user, password_file=rpc_password_file
        )
        self._name = name
        self._rpc = Rpc(node=name, url=url, credentials=credentials, timeout_s=timeout_s)
        self._rest = RestBlocks(node=name, url=url, timeout_s=timeout_s)
        self._zmq = tuple(zmq)
        self._tip: BlockRef | None = None

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Closes idle connections; a later call connects again."""
        self._rpc.close()
        self._rest.close()

    def info(self) -> ChainInfo:
        version = self._ask(_version, "getnetworkinfo")
        genesis = self._ask(_hash, "getblockhash", 0)
        return self._ask(lambda chain: _info(chain, genesis=genesis, version=version), "getblockchaininfo")

    def tip(self) -> BlockRef:
        newest = self._ask(_hash, "getbestblockhash")
        known = self._tip
        if known is not None and known.hash == newest:
            return known
        found = self.header(newest)
        if found is None:
            raise Unavailable(f"{self._name} does not know the header of its newest block {newest}")
        self._tip = found.block
        return found.block

    def header(self, block_hash: BlockHash) -> HeaderInfo | None:
        return self._ask_or_none(_NOT_FOUND, _header, "getblockheader", block_hash)

    def is_invalid(self, block: BlockRef) -> bool:
        return any(
            self._rests_on(_hash(tip["hash"]), block)
            for tip in self._ask(_invalid_tips, "getchaintips")
            if block.height <= int(tip["height"]) <= block.height + _MAX_BRANCH
        )

    def _rests_on(self, tip: BlockHash, block: BlockRef) -> bool:
        """Whether `block` is this tip or below it in its branch."""
        header = self.header(tip)
        while header is not None and header.previous is not None and header.block.height > block.height:
            header = self.header(header.previous)
        return header is not None and header.block == block

    def block_hash_at(self, height: int) -> BlockHash | None:
        return self._ask_or_none(_BAD_PARAMETER, _hash, "getblockhash", height)

    def block(self, block_hash: BlockHash) -> bytes:
        raw = self._rest.fetch(block_hash, outages_seen=self._rpc.failures)
        if raw is None:
            raw = self._block_by_rpc(block_hash)
        if not HEADER_BYTES < len(raw) <= MAX_BYTES or hash_of(raw[:HEADER_BYTES]) != block_hash:
            raise Unavailable(f"{self._name} gives {len(raw)} bytes for block {block_hash} that are not this block")
        return raw

    def mempool(self) -> MempoolSnapshot:
        is_complete = self._ask(_is_loaded, "getmempoolinfo")  # before: what it says must hold for what is read
        return self._ask(lambda txs: _mempool(txs, is_complete=is_complete), "getrawmempool", False, True)

    def mempool_tx(self, txid: Txid) -> bytes | None:
        # Decoded, for only then it is told whether a block has it: with txindex mined txs are found, too.
        return self._ask_or_none(_NOT_FOUND, _unmined, "getrawtransaction", txid, 1)

    def is_in_mempool(self, txid: Txid) -> bool:
        return self._ask_or_none(_NOT_FOUND, bool, "getmempoolentry", txid) is not None

    def mempool_spender(self, outpoints: Sequence[Outpoint]) -> Txid | None:
        if not outpoints:
            return None  # bitcoind refuses to look for nothing
        asked = [{"txid": txid, "vout": vout} for txid, vout in map(_parts, outpoints)]
        return self._ask(_first_spender, "gettxspendingprevout", asked)

    def is_unspent(self, outpoint: Outpoint) -> bool:
        return self._rpc.call("gettxout", *_parts(outpoint), False) is not None

    def derive(self, descriptor: str, index: int) -> str:
        return self._ask(_only, "deriveaddresses", descriptor, [index, index])

    def hints(self) -> AbstractAsyncContextManager[AsyncIterator[Sequence[ChainHint]]] | None:
        return hint_stream(self._zmq, node=self._name) if self._zmq else None

    def _block_by_rpc(self, block_hash: BlockHash) -> bytes:
        try:
            return self._ask(bytes.fromhex, "getblock", block_hash, 0)
        except RpcRefused as refusal:
            if refusal.code == _MISC and _PRUNED in refusal.text:
                raise BlockPruned(f"{self._name} has pruned block {block_hash}: it is gone there") from refusal
            if refusal.code in (_MISC, _NOT_FOUND):
                raise Unavailable(f"{self._name} has not block {block_hash} now: {refusal.text}") from refusal
            raise

    def _ask(self, read: Callable[[Any], _T], method: str, *params: object) -> _T:
        """One call, its result read; Unavailable also for a result of another form than bitcoind's."""
        result = self._rpc.call(method, *params)
        try:
            return read(result)
        except (LookupError, TypeError, ValueError) as problem:
            raise Unavailable(f"{self._name} answers {method} as bitcoind does not: is rpc_url right?") from problem

    def _ask_or_none(self, none_code: int, read: Callable[[Any], _T], method: str, *params: object) -> _T | None:
        """The same; None where the node refuses with this code."""
        try:
            return self._ask(read, method, *params)
        except RpcRefused as refusal:
            if refusal.code == none_code:
                return None
            raise


def _checked_url(rpc_url: str) -> SplitResult:
    """The parts of the URL; whoever writes a password into it must not find it in an error."""
    try:
        url = urlsplit(rpc_url)
        well_formed = url.scheme == "http" and bool(url.hostname) and url.port is not None
    except ValueError:
        raise Misconfigured("rpc_url is no URL; write http://host:port") from None
    if url.username is not None or url.password is not None:
        raise Misconfigured("rpc_url has credentials in it; use rpc_cookie_file, or rpc_user and rpc_password_file")
    if not well_formed:
        raise Misconfigured(f"rpc_url {rpc_url!r} cannot be used; write http://host:port (bitcoind speaks no TLS)")
    return url


def _info(chain: Any, *, genesis: BlockHash, version: str) -> ChainInfo:
    return ChainInfo(
        network=_NETWORKS.get(chain["chain"], str(chain["chain"])),
        genesis=genesis,
        version=version,
        tip=BlockRef(height=int(chain["blocks"]), hash=_hash(chain["bestblockhash"])),
        headers=int(chain["headers"]),
        initial_download=bool(chain["initialblockdownload"]),
        prune_height=int(chain["pruneheight"]) if chain["pruned"] else None,
    )


def _version(network: Any) -> str:
    return str(network["subversion"]).strip("/")


def _header(header: Any) -> HeaderInfo:
    previous = header.get("previousblockhash")
    return HeaderInfo(
        block=BlockRef(height=int(header["height"]), hash=_hash(header["hash"])),
        previous=None if previous is None else _hash(previous),
        in_best_chain=int(header["confirmations"]) > 0,  # -1 on a branch that lost
    )


def _is_loaded(mempool: Any) -> bool:
    return bool(mempool["loaded"])


def _mempool(answer: Any, *, is_complete: bool) -> MempoolSnapshot:
    return MempoolSnapshot(
        txids=frozenset(answer["txids"]), next_sequence=int(answer["mempool_sequence"]), is_complete=is_complete
    )


def _unmined(tx: Any) -> bytes | None:
    return None if "blockhash" in tx else bytes.fromhex(tx["hex"])


def _first_spender(answers: Any) -> Txid | None:
    """From v31 on, with txospenderindex, spenders in blocks are told, too: with their block's hash."""
    spenders = (one["spendingtxid"] for one in answers if "spendingtxid" in one and "blockhash" not in one)
    return next(map(Txid, spenders), None)


def _invalid_tips(tips: Any) -> list[dict[str, Any]]:
    return [tip for tip in tips if tip["status"] == "invalid"]


def _hash(answer: Any) -> BlockHash:
    if len(bytes.fromhex(answer)) != 32:
        raise ValueError("not a block's hash")
    return BlockHash(answer)


def _only(addresses: Any) -> str:
    (address,) = addresses
    return str(address)


def _parts(outpoint: Outpoint) -> tuple[str, int]:
    txid, _, vout = outpoint.partition(":")
    return txid, int(vout)
