"""Deposits, blocks and commits of them, made by hand: what the stores keep, without what decides on it."""

from __future__ import annotations

import hashlib
from typing import Any

from daemon.domain.books import Changes, Wanted
from daemon.domain.chain import BlockRef, ChainCursor, Deposit, DepositState, PendingReceive
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId, outpoint_of
from daemon.domain.ports import DerivedAddress
from tests.contract.conftest import Database
from tests.samples import MORNING_MS

GENESIS = BlockHash("0f" * 32)
KEY = "0123456789abcdef"
WALLET = WalletId("wallet-1")


def txid_of(name: str) -> Txid:
    """The same for the same name."""
    return Txid(hashlib.sha256(f"tx {name}".encode()).hexdigest())


def block(height: int, branch: str = "main") -> BlockRef:
    """The block at this height of a branch."""
    return BlockRef(height=height, hash=BlockHash(hashlib.sha256(f"{branch} {height}".encode()).hexdigest()))


def cursor_at(height: int, branch: str = "main") -> ChainCursor:
    """The chain's position at this block."""
    return ChainCursor(genesis=GENESIS, block=block(height, branch))


def script_of(address: str) -> bytes:
    """A script for addresses that begin with bcrt1, in either case; all others are none."""
    if not address.lower().startswith("bcrt1"):
        raise ValueError(f"{address!r} is no address")
    return b"\x00\x14" + hashlib.sha256(address.lower().encode()).digest()[:20]


def derived(index: int) -> DerivedAddress:
    """The address at this index."""
    address = f"bcrt1derived{index}"
    return DerivedAddress(index=index, address=address, script=script_of(address))


def deposit(name: str, vout: int = 0, **fields: Any) -> Deposit:
    """One in the mempool, of 20,000 sats to WALLET, unless the fields say otherwise."""
    defaults: dict[str, Any] = {
        "wallet_id": WALLET,
        "address": f"bcrt1{name}",
        "amount_sat": 20_000,
        "is_coinbase": False,
        "inputs": (outpoint_of(txid_of(f"before {name}"), 1),),
        "state": DepositState.DETECTED,
        "policy_version": 0,
        "confirmations_required": 2,
        "detected_at_ms": MORNING_MS,
        "updated_at_ms": MORNING_MS,
    }
    return Deposit(txid=txid_of(name), vout=vout, **{**defaults, **fields})


def confirmed(name: str, height: int, vout: int = 0, *, branch: str = "main", **fields: Any) -> Deposit:
    """One in a block."""
    return deposit(name, vout, **{"state": DepositState.CONFIRMED, "block": block(height, branch), **fields})


def pending(of: Deposit, **fields: Any) -> PendingReceive:
    """What Blink's readers see of a deposit: 17,000 sats and a fee of 3,000, at 60,000 dollars a bitcoin."""
    defaults: dict[str, Any] = {
        "outpoint": of.outpoint,
        "txid": of.txid,
        "vout": of.vout,
        "wallet_id": of.wallet_id,
        "address": of.address,
        "amount_sat": 17_000,
        "fee_sat": 3_000,
        "cents": 1_020,
        "fee_cents": 180,
        "price_base": 60_000_000_000,
        "created_at_ms": of.detected_at_ms,
    }
    return PendingReceive(**{**defaults, **fields})


def changes(store: Database, **fields: Any) -> Changes:
    """A commit of these fields and of nothing else."""
    head = store.books.read_facts(Wanted()).head
    nothing: dict[str, Any] = dict.fromkeys(
        ("keys", "paid", "outbox", "entries", "suspense_new", "suspense_assigned", "gaps", "cursors"), ()
    )
    return Changes(**{"before": head, "after": head, "committed_at_ms": MORNING_MS, "deltas": {}, **nothing, **fields})


def put(store: Database, *deposits: Deposit) -> None:
    """Writes deposits."""
    store.books.commit(changes(store, deposits=deposits))


def outpoints(*deposits: Deposit) -> list[Outpoint]:
    """Their names."""
    return [one.outpoint for one in deposits]
