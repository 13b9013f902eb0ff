"""Names of things, one type each, so that a checker notices when two are mixed up."""

from __future__ import annotations

from typing import NewType

PaymentHash = NewType("PaymentHash", str)
"""SHA-256 of the preimage, 64 lower-case hex digits."""

NodePubkey = NewType("NodePubkey", str)
"""A Lightning node's identity key, compressed, 66 lower-case hex digits."""

WalletId = NewType("WalletId", str)
"""UUID, as Blink's `wallets.id`."""

AccountId = NewType("AccountId", str)
"""UUID, as Blink's `accounts.id`: the owner of wallets, not a ledger account."""

JournalId = NewType("JournalId", str)
"""ObjectId of a document in `medici_journals`, 24 hex digits."""

BlockHash = NewType("BlockHash", str)
"""64 lower-case hex digits in the order of bitcoind's RPC (reversed bytes)."""

Txid = NewType("Txid", str)
"""64 lower-case hex digits in the order of bitcoind's RPC; without the witness."""

Outpoint = NewType("Outpoint", str)
"""An output of a tx: `<txid>:<vout>`."""


def outpoint_of(txid: Txid, vout: int) -> Outpoint:
    """The name of an output."""
    return Outpoint(f"{txid}:{vout}")


def txid_of(outpoint: Outpoint) -> Txid:
    """The tx that an output belongs to."""
    return Txid(outpoint.partition(":")[0])


def lightning_key(pubkey: NodePubkey, settled_id: str) -> str:
    """Idempotency key of one settled invoice (its payment hash) or AMP set (its set id)."""
    return f"ln:{pubkey}:{settled_id}"


def settled_by(key: str) -> tuple[NodePubkey, str] | None:
    """The reverse of `lightning_key`; None for a key of anything else."""
    parts = key.split(":")
    return (NodePubkey(parts[1]), parts[2]) if len(parts) == 3 and parts[0] == "ln" else None


def repeat_key(settlement: str, cumulative_msat: int) -> str:
    """Idempotency key of money that came again to a settled invoice, by what has arrived there in all."""
    return f"{settlement}:+{cumulative_msat}"


def loss_key(pubkey: NodePubkey, chan_id: int, htlc_index: int) -> str:
    """Idempotency key of the journal that takes a lost HTLC's amount to the gap account."""
    return f"ln:{pubkey}:{chan_id}:{htlc_index}:lost"


def held_key(pubkey: NodePubkey, payment_hash: PaymentHash) -> str:
    """Idempotency key of the news that an invoice's payment is held."""
    return f"ln:{pubkey}:{payment_hash}:held"


def canceled_key(pubkey: NodePubkey, payment_hash: PaymentHash) -> str:
    """Idempotency key of an invoice's end by cancellation."""
    return f"ln:{pubkey}:{payment_hash}:canceled"


def expired_key(pubkey: NodePubkey, payment_hash: PaymentHash) -> str:
    """Idempotency key of an invoice's end by expiry."""
    return f"ln:{pubkey}:{payment_hash}:expired"


def assignment_key(suspense_key: str) -> str:
    """Idempotency key of the journal that takes money out of suspense."""
    return f"{suspense_key}:assigned"


def rounding_key(pubkey: NodePubkey, full_sats: int) -> str:
    """Idempotency key of the n-th full sat that a node's msat remainders have added up to."""
    return f"ln:{pubkey}:rounding:{full_sats}"


def opening_key(pubkey: NodePubkey) -> str:
    """Idempotency key of the journal that books what a node held before tellerd's first start."""
    return f"ln:{pubkey}:opening"


def routing_key(pubkey: NodePubkey, through_ns: int) -> str:
    """Idempotency key of what a node's forwards have earned, up to the one of this moment."""
    return f"ln:{pubkey}:routing:{through_ns}"


def channel_cost_key(pubkey: NodePubkey, channel_point: Outpoint, change: str) -> str:
    """Idempotency key of what it cost to open or to close a channel."""
    return f"ln:{pubkey}:channel:{channel_point}:{change}"


def wallet_opening_key(pubkey: NodePubkey) -> str:
    """Idempotency key of the journal that books what an LND's wallet held, where the opening had left it out."""
    return f"ln:{pubkey}:opening:wallet"


def foreign_key(journal_id: JournalId) -> str:
    """Idempotency key of a journal that another program wrote into the book."""
    return f"foreign:{journal_id}"


def deposit_key(outpoint: Outpoint, settlement: int) -> str:
    """Idempotency key of the n-th time that a deposit is credited, counted from 1."""
    return f"chain:{outpoint}:{settlement}"


def reversal_key(deposit: str) -> str:
    """Idempotency key of the journal that takes a credited deposit back after a reorg."""
    return f"{deposit}:reorg"


def revision_key(outpoint: Outpoint, revision: int) -> str:
    """Idempotency key of a deposit's n-th change that books nothing."""
    return f"chain:{outpoint}/{revision}"
