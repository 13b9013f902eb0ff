"""A deposit's depth, and where a move of the chain ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.chain import MAX_RECENT, BlockRef, ChainCursor, Deposit, DepositState
from daemon.domain.identifiers import BlockHash, WalletId, deposit_key, reversal_key, revision_key
from tests.samples import GENESIS, MORNING_MS, block_at, chain_moved, connected, txid_of

DEPOSIT = Deposit(
    txid=txid_of("a"),
    vout=3,
    wallet_id=WalletId("wallet-1"),
    address="bcrt1q",
    amount_sat=100_000,
    is_coinbase=False,
    inputs=(),
    state=DepositState.CONFIRMED,
    policy_version=0,
    confirmations_required=3,
    detected_at_ms=MORNING_MS,
    updated_at_ms=MORNING_MS,
    block=block_at(100),
)


@pytest.mark.parametrize(("tip", "confirmations"), [(98, 0), (99, 0), (100, 1), (102, 3), (1_099, 1_000)])
def test_its_own_block_is_the_first_confirmation(tip: int, confirmations: int) -> None:
    """Counted to the tip; a tip below it does not count backwards."""
    assert DEPOSIT.confirmations(tip) == confirmations


def test_it_settles_at_the_height_where_it_has_what_it_needs() -> None:
    """`settles_at_height`, which stores look for, and `confirmations` say the same."""
    height = DEPOSIT.settles_at_height
    assert height == 102
    assert DEPOSIT.confirmations(height) == 3
    assert DEPOSIT.confirmations(height - 1) == 2


def test_outside_of_a_block_it_has_no_depth() -> None:
    """In the mempool it has no confirmations and settles nowhere."""
    waiting = replace(DEPOSIT, state=DepositState.DETECTED, block=None)
    assert (waiting.confirmations(500), waiting.settles_at_height) == (0, None)


def test_keys_of_a_deposit_never_meet() -> None:
    """The n-th credit, its reversal and the n-th change have names of their own (design.md section 3)."""
    credit = deposit_key(DEPOSIT.outpoint, 1)
    assert credit == f"chain:{txid_of('a')}:3:1"
    assert reversal_key(credit) == f"chain:{txid_of('a')}:3:1:reorg"
    assert revision_key(DEPOSIT.outpoint, 1) not in (credit, reversal_key(credit))


@pytest.mark.parametrize(
    ("heights", "fork", "ends_at"),
    [((101,), None, block_at(101)), ((101, 102), block_at(100), block_at(102)), ((), block_at(99), block_at(99))],
)
def test_a_move_ends_at_its_last_block_or_at_the_fork(
    heights: tuple[int, ...], fork: BlockRef | None, ends_at: BlockRef
) -> None:
    """What is connected counts; where nothing is, the block below those that were lost."""
    move = chain_moved(block_at(100), *(connected(block_at(height)) for height in heights), fork=fork)
    assert move.target == ChainCursor(genesis=GENESIS, block=ends_at)


def test_a_move_to_nowhere_is_refused() -> None:
    """Neither a block nor a fork: nobody could say where the chain stands."""
    with pytest.raises(ValueError, match="end at"):
        _ = chain_moved(block_at(100)).target


def test_a_cursor_keeps_the_hashes_below_it() -> None:
    """Nearest first, a bounded number, through moves back and on."""
    blocks = [BlockRef(height=height, hash=BlockHash(f"{height:064x}")) for height in range(1, 150)]
    cursor = ChainCursor(genesis=BlockHash("0" * 64), block=blocks[0])
    cursor = cursor.moved(blocks[3], disconnected=0, connected=blocks[1:4])
    assert [int(one, 16) for one in cursor.recent] == [3, 2, 1]
    branch = [BlockRef(height=height, hash=BlockHash(f"{1000 + height:064x}")) for height in (3, 4, 5)]
    cursor = cursor.moved(blocks[1], disconnected=2, connected=())
    assert (cursor.block, [int(one, 16) for one in cursor.recent]) == (blocks[1], [1])
    cursor = cursor.moved(branch[-1], disconnected=0, connected=branch)
    assert [int(one, 16) for one in cursor.recent] == [1004, 1003, 2, 1]
    cursor = cursor.moved(blocks[-1], disconnected=0, connected=blocks)
    assert len(cursor.recent) == MAX_RECENT
    assert cursor.recent[0] == blocks[-2].hash
