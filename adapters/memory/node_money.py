"""What a memory node holds beside its open channels, and what moved its money; a test writes it as it likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.domain.movements import ClosedChannel, ClosingChannel, Forward, OwnChannel, SentPayment, WalletTx


@dataclass(slots=True)
class MemoryMoney:
    """Plain lists, ascending as the node gives them. `moves` is raised by whoever changes what the node holds."""

    wallet_sat: int = 0
    channels: list[OwnChannel] = field(default_factory=list)
    closing: list[ClosingChannel] = field(default_factory=list)
    closed: list[ClosedChannel] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    payments: list[SentPayment] = field(default_factory=list)
    txs: list[WalletTx] = field(default_factory=list)
    moves: int = 0

    @property
    def closing_sat(self) -> int:
        """What closing channels have not brought yet."""
        return sum(one.to_come_sat for one in self.closing)

    def forwards_after(self, after_ns: int, limit: int) -> Sequence[Forward]:
        """See the port."""
        return [one for one in self.forwards if one.at_ns > after_ns][:limit]

    def payments_after(self, after_index: int, limit: int) -> Sequence[SentPayment]:
        """See the port."""
        return [one for one in self.payments if one.index > after_index][:limit]

    def txs_from(self, height: int) -> Sequence[WalletTx]:
        """See the port."""
        return [one for one in self.txs if not 0 < one.height < height]
