"""What the chain's follower tells posting: outputs that pay wallets, and how the chain moved."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.domain.chain import BlockRef, ChainCursor
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId
from daemon.domain.quotes import Deal, Unpriced


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedOutput:
    """An output whose script belongs to a wallet. `inputs` are the outpoints that its tx spends."""

    txid: Txid
    vout: int
    wallet_id: WalletId
    address: str
    amount_sat: int
    is_coinbase: bool
    inputs: tuple[Outpoint, ...]


@dataclass(slots=True, kw_only=True)
class OutputsSeen:
    """Outputs of txs that are in the node's mempool."""

    outputs: tuple[WatchedOutput, ...]
    seen_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedBlock:
    """A block with the outputs that pay wallets."""

    block: BlockRef
    outputs: tuple[WatchedOutput, ...]


@dataclass(slots=True, kw_only=True)
class ChainMoved:
    """The node's best chain goes on from `base`: first `disconnected`, the newest first, then `connected`.

    `base` must be the block of the cursor, None where there is none yet; then `connected` is the block to begin
    with, whose outputs do not count. The last connected block (or the one below the last disconnected, `fork`)
    is the new cursor.
    """

    genesis: BlockHash
    base: BlockRef | None
    fork: BlockRef | None
    disconnected: tuple[BlockRef, ...]
    connected: tuple[ConnectedBlock, ...]
    moved_at_ms: int

    @property
    def target(self) -> ChainCursor:
        """The cursor afterwards."""
        block = self.connected[-1].block if self.connected else self.fork
        if block is None:
            raise ValueError("a move needs a block to end at")
        return ChainCursor(genesis=self.genesis, block=block)


@dataclass(slots=True, kw_only=True)
class OutputsFound:
    """Outputs in blocks that are in the books already, found for scripts that were learnt later.

    Every block is `base` or below it in its chain: it counts only while `base` is the cursor's block.
    """

    base: BlockRef
    blocks: tuple[ConnectedBlock, ...]
    found_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneTx:
    """A tx that is neither in the chain nor in the mempool.

    `reason` is "replaced" (a tx in the mempool spends one of its inputs: `replaced_by`), "double_spent" (the
    chain does), "evicted" (nobody does: it may come back) or "coinbase_lost" (its block was all it had).
    """

    txid: Txid
    reason: str
    replaced_by: Txid | None = None


@dataclass(slots=True, kw_only=True)
class TxsGone:
    """Txs of detected deposits that are gone, as seen while `base` was the node's tip.

    It counts only while `base` is the cursor's block: a later block may hold them.
    """

    base: BlockRef
    txs: tuple[GoneTx, ...]
    gone_at_ms: int


@dataclass(slots=True, kw_only=True)
class DepositDue:
    """A deposit is deep enough at the cursor's block; the decision checks it again.

    `deal` is what the dealer gives for its sats now, or why there is no price; None for a wallet that needs none.
    """

    txid: Txid
    vout: int
    due_at_ms: int
    deal: Deal | Unpriced | None = None
    asked_at_ns: int = field(default=0, compare=False)
    """Monotonic clock when the dealer was asked; 0 if he was not, or it was not measured."""


ChainEvent = OutputsSeen | ChainMoved | OutputsFound | TxsGone | DepositDue
