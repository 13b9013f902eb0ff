"""Verified fakes of every port: they pass the same contract suite as MongoDB and LND (tests/contract)."""

from adapters.memory.faults import CommitFault
from adapters.memory.lightning_node import MemoryLightningNode
from adapters.memory.store import MemoryStore

__all__ = ["CommitFault", "MemoryLightningNode", "MemoryStore"]
