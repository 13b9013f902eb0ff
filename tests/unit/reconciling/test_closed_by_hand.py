"""A gap that a person has closed: it explains nothing any more, and no look opens it again."""

from __future__ import annotations

from daemon.domain.books import GapState
from daemon.domain.reconciliation import ItemKind
from daemon.serving.reconciliation import close_gap
from tests.unit.reconciling.node_bank import HEIGHT, NodeBank


async def test_what_a_person_has_closed_stays_closed() -> None:
    """Coins that somebody booked without their txid: the books have them, and so must the gap not have them, too. The
    tx is looked at for many blocks more."""
    bank = NodeBank()
    async with bank.open():
        bank.move_coins("by hand", 4_000, height=HEIGHT + 1)
        assert await bank.explained() == {ItemKind.RECEIVED: 4_000_000}
        (gap,) = bank.kept("wallet_received")
        await bank.book_elsewhere("no txid at all", -4_000)
        looked = await bank.look()
        assert looked.side is not None
        assert (looked.side.difference_msat, looked.side.unknown_msat) == (0, -4_000_000)
        close_gap(bank.store.gaps, key=gap.key, closed_by="ada", reason="booked by hand")
        for _ in range(2):
            assert (await bank.compared()).difference_msat == 0
    assert bank.kept("wallet_received") == []
    (closed,) = bank.kept("wallet_received", state=GapState.CLOSED)
    assert closed.detail.endswith("; closed by ada: booked by hand")
