"""A bank in memory that takes deposits: a key, a bitcoind that derives by itself, and blocks that tests make up."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embit.descriptor import Descriptor
from embit.networks import NETWORKS

from adapters.addresses import address_source
from adapters.memory.chain_node import MemoryChain
from daemon.domain.chain import BlockRef
from daemon.domain.chain_events import (
    ChainMoved,
    ConnectedBlock,
    DepositDue,
    GoneTx,
    OutputsSeen,
    TxsGone,
    WatchedOutput,
)
from daemon.domain.identifiers import BlockHash, Outpoint, Txid
from daemon.domain.ports import Wallet
from daemon.domain.status import ChainStatus
from daemon.matching.deposits import BLINKS_RULES
from daemon.serving.api import OnChain
from tests.unit.addresses.keys import tpub
from tests.unit.serving.bank_in_memory import Bank, open_bank

GENESIS = BlockRef(height=0, hash=BlockHash("00" * 32))
FIRST_SEEN_MS = 1_790_000_000_000


def derived_with_embit(descriptor: str, index: int) -> str:
    """The node's own derivation: tellerd derives from the same key with bitcoinlib."""
    return str(Descriptor.from_string(descriptor.partition("#")[0]).derive(index).address(NETWORKS["regtest"]))


@dataclass(slots=True)
class ChainBank:
    """`bank` with its API on a chain. The books follow blocks that are named here, not those of `node`."""

    bank: Bank
    node: MemoryChain
    status: ChainStatus
    blocks: list[BlockRef] = field(default_factory=lambda: [GENESIS])
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def tip(self) -> BlockRef:
        return self.blocks[-1]

    def output(self, wallet: Wallet, amount_sat: int, *, address: str = "bcrt1qsomewhere") -> WatchedOutput:
        """An output of a tx of its own."""
        number = next(self.numbers)
        return WatchedOutput(
            txid=Txid(f"{number:064x}"),
            vout=1,
            wallet_id=wallet.wallet_id,
            address=address,
            amount_sat=amount_sat,
            is_coinbase=False,
            inputs=(Outpoint(f"{number + 2**32:064x}:0"),),
        )

    def see(self, *outputs: WatchedOutput) -> None:
        """They are in the mempool."""
        self.bank.post(OutputsSeen(outputs=outputs, seen_at_ms=self._now_ms()))

    def mine(self, *outputs: WatchedOutput, instead_of: int = 0) -> BlockRef:
        """A block with them, on top of the tip, or on a branch that undoes the last blocks."""
        base, lost = self.tip, tuple(reversed(self.blocks[len(self.blocks) - instead_of :]))
        del self.blocks[len(self.blocks) - instead_of :]
        fork = self.tip
        block = BlockRef(height=fork.height + 1, hash=BlockHash(f"{next(self.numbers) + 2**64:064x}"))
        self.blocks.append(block)
        self._move(base, fork, lost, ConnectedBlock(block=block, outputs=outputs))
        return block

    def settle(self, output: WatchedOutput) -> None:
        """It is deep enough."""
        self.bank.post(DepositDue(txid=output.txid, vout=output.vout, due_at_ms=self._now_ms()))

    def lose(self, output: WatchedOutput, reason: str, replaced_by: Txid | None = None) -> None:
        """Its tx is nowhere any more."""
        gone = GoneTx(txid=output.txid, reason=reason, replaced_by=replaced_by)
        self.bank.post(TxsGone(base=self.tip, txs=(gone,), gone_at_ms=self._now_ms()))

    def begin(self) -> None:
        """The first cursor: what is below it does not count."""
        self._move(None, None, (), ConnectedBlock(block=GENESIS, outputs=()))

    def _move(
        self, base: BlockRef | None, fork: BlockRef | None, lost: Sequence[BlockRef], connected: ConnectedBlock
    ) -> None:
        self.bank.post(
            ChainMoved(
                genesis=GENESIS.hash,
                base=base,
                fork=fork,
                disconnected=tuple(lost),
                connected=(connected,),
                moved_at_ms=self._now_ms(),
            )
        )

    def _now_ms(self) -> int:
        return FIRST_SEEN_MS + next(self.numbers) * 1000


def open_chain_bank(*, leading: bool = True, key: str | None = None, with_key: bool = True) -> ChainBank:
    """A bank whose books begin at the first block, and give out addresses of `key` unless there is to be none."""
    bank, status = open_bank(leading=leading), ChainStatus()
    node = MemoryChain(derive=derived_with_embit)
    state_folder = Path(tempfile.gettempdir())
    source = address_source(key or tpub(11), network="regtest", state_folder=state_folder) if with_key else None
    on_chain = OnChain(
        node=node,
        source=source,
        addresses=bank.store.addresses,
        deposits=bank.store.deposits,
        policies=bank.store.policies,
        terms=BLINKS_RULES.terms,
        default_policy=BLINKS_RULES.default_policy,
        status=status,
    )
    bank.api = replace(bank.api, on_chain=on_chain)
    opened = ChainBank(bank, node, status)
    opened.begin()
    return opened
