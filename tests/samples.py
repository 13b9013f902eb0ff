"""Small, readable values for tests: settlements, invoices, legs, and what happens on the chain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from daemon.domain.chain import BlockRef
from daemon.domain.chain_events import (
    ChainMoved,
    ConnectedBlock,
    DepositDue,
    GoneTx,
    OutputsFound,
    OutputsSeen,
    TxsGone,
    WatchedOutput,
)
from daemon.domain.entries import Leg
from daemon.domain.identifiers import AccountId, BlockHash, NodePubkey, PaymentHash, Txid, WalletId, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled, NodeOpened
from daemon.domain.ports import StoredInvoice

NODE = NodePubkey("02" * 33)
OTHER_NODE = NodePubkey("03" * 33)
MORNING_MS = 1_790_000_000_000
"""A moment in September 2026."""
GENESIS = BlockHash("0f" * 32)


def preimage_of(name: str) -> bytes:
    """32 bytes, the same for the same name."""
    return hashlib.sha256(name.encode()).digest()


def hash_of(name: str) -> PaymentHash:
    """The payment hash of the preimage with this name."""
    return PaymentHash(hashlib.sha256(preimage_of(name)).hexdigest())


def node_opened(
    funds_msat: int = 0, *, pubkey: NodePubkey = NODE, name: str = "lnd1", through_index: int = 0
) -> NodeOpened:
    """The node's first listing is complete: it held this before."""
    return NodeOpened(
        pubkey=pubkey,
        name=name,
        funds_msat=funds_msat,
        through_index=through_index,
        checkpoint_hash=None,
        opened_at_ms=MORNING_MS,
    )


def settled(
    name: str,
    index: int,
    received_msat: int,
    *,
    pubkey: NodePubkey = NODE,
    settled_id: str | None = None,
) -> InvoiceSettled:
    """LND's word that the invoice with this name was paid."""
    payment_hash = hash_of(name)
    return InvoiceSettled(
        pubkey=pubkey,
        payment_hash=payment_hash,
        settled_id=settled_id or payment_hash,
        settle_index=index,
        received_msat=received_msat,
        settled_at_ms=MORNING_MS + index * 1000,
        memo=f"memo of {name}",
    )


def invoice(
    name: str,
    wallet_id: str,
    *,
    account_id: str = "account-1",
    pubkey: NodePubkey = NODE,
    currency: Currency = Currency.BTC,
    created_at_ms: int = MORNING_MS,
    payment_request: str | None = "lnbcrt1sample",
) -> StoredInvoice:
    """An open `invoiceusers` document."""
    return StoredInvoice(
        payment_hash=hash_of(name),
        wallet_id=WalletId(wallet_id),
        account_id=AccountId(account_id),
        external_id=f"ext-{name}",
        pubkey=pubkey,
        currency=currency,
        payment_request=payment_request,
        paid=False,
        completed=False,
        created_at=datetime.fromtimestamp(created_at_ms / 1000, tz=UTC),
        preimage=preimage_of(name).hex(),
    )


def moved(source: str, target: str, amount: int, *, currency: str = "BTC") -> tuple[Leg, Leg]:
    """Debit source, credit target."""
    return (
        Leg(account=source, currency=currency, debit=amount),
        Leg(account=target, currency=currency, credit=amount),
    )


def txid_of(name: str) -> Txid:
    """The txid of the tx with this name."""
    return Txid(hashlib.sha256(f"tx {name}".encode()).hexdigest())


def block_at(height: int, branch: str = "main") -> BlockRef:
    """The block of a branch at this height."""
    return BlockRef(height=height, hash=BlockHash(hashlib.sha256(f"{branch} {height}".encode()).hexdigest()))


def output(
    name: str,
    wallet_id: str = "wallet-1",
    amount_sat: int = 100_000,
    *,
    vout: int = 0,
    is_coinbase: bool = False,
    spends: str = "",
) -> WatchedOutput:
    """An output of the tx with this name; its tx spends the coin with the name `spends`, else one of its own."""
    return WatchedOutput(
        txid=txid_of(name),
        vout=vout,
        wallet_id=WalletId(wallet_id),
        address=f"bcrt1q-{wallet_id}",
        amount_sat=amount_sat,
        is_coinbase=is_coinbase,
        inputs=() if is_coinbase else (outpoint_of(txid_of(spends or f"coin of {name}"), 0),),
    )


def seen(*outputs: WatchedOutput) -> OutputsSeen:
    """These outputs are in the mempool."""
    return OutputsSeen(outputs=outputs, seen_at_ms=MORNING_MS + 1)


def connected(block: BlockRef, *outputs: WatchedOutput) -> ConnectedBlock:
    """A block with these outputs."""
    return ConnectedBlock(block=block, outputs=outputs)


def chain_moved(
    base: BlockRef | None,
    *blocks: ConnectedBlock,
    lost: Sequence[BlockRef] = (),
    fork: BlockRef | None = None,
    genesis: BlockHash = GENESIS,
) -> ChainMoved:
    """The chain goes on from `base`: back over `lost` to `fork`, then over these blocks."""
    return ChainMoved(
        genesis=genesis,
        base=base,
        fork=fork,
        disconnected=tuple(lost),
        connected=blocks,
        moved_at_ms=MORNING_MS + 2,
    )


def outputs_found(base: BlockRef, *blocks: ConnectedBlock) -> OutputsFound:
    """Outputs for a script that was learnt late, in blocks that are in the books."""
    return OutputsFound(base=base, blocks=blocks, found_at_ms=MORNING_MS + 3)


def txs_gone(base: BlockRef, *names: str, reason: str = "evicted", replaced_by: str | None = None) -> TxsGone:
    """The txs with these names are neither in the chain nor in the mempool."""
    other = None if replaced_by is None else txid_of(replaced_by)
    txs = tuple(GoneTx(txid=txid_of(name), reason=reason, replaced_by=other) for name in names)
    return TxsGone(base=base, txs=txs, gone_at_ms=MORNING_MS + 4)


def deposit_due(name: str, vout: int = 0) -> DepositDue:
    """The output is deep enough."""
    return DepositDue(txid=txid_of(name), vout=vout, due_at_ms=MORNING_MS + 5)
