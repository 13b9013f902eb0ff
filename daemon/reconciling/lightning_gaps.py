"""Gaps that are part of the Lightning account's difference: kept, compared with the journals, and shown as items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.domain.books import Gap, GapState
from daemon.domain.ports import Gaps, LightningBooks
from daemon.domain.reconciliation import Item, ItemKind
from daemon.matching.elsewhere import CHANNEL_PUSH, SENT_ELSEWHERE, WALLET_RECEIVED, WALLET_SENT, recheck
from daemon.matching.movements import CHANNEL_FEE, CHANNEL_LOSS, ROUTING_INCOME

RECHECKED: Final = 1_000
"""Of these so many of each kind at a look, the newest; of the older ones as many in a full check."""

SHOWN: Final = 50
"""Gaps of a kind that are an item each; the others are one sum."""

KINDS: Final = {
    SENT_ELSEWHERE: ItemKind.SENT,
    WALLET_SENT: ItemKind.SENT,
    WALLET_RECEIVED: ItemKind.RECEIVED,
    CHANNEL_PUSH: ItemKind.SENT,
    CHANNEL_FEE: ItemKind.SENT,
    ROUTING_INCOME: ItemKind.RECEIVED,
    CHANNEL_LOSS: ItemKind.GAP,
    "paid_without_journal": ItemKind.GAP,
    "paid_again_elsewhere": ItemKind.GAP,
}
"""Gaps whose amounts are part of this side's difference, and what they explain it as."""

RECHECKED_KINDS: Final = (SENT_ELSEWHERE, WALLET_SENT, WALLET_RECEIVED, "paid_without_journal")

_WAITING: Final = (GapState.OPEN, GapState.EXPLAINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningGaps:
    """What the store knows of them. All of it blocks, and raises Unavailable."""

    gaps: Gaps
    books: LightningBooks

    def keep(self, found: Sequence[Gap]) -> bool:
        """Writes what is new; True if something was. What balances out is written only where it was kept before."""
        known = self.gaps.get([gap.key for gap in found])
        new = [gap for gap in found if _differs(gap, known.get(gap.key))]
        if new:
            self.gaps.put(new)
        return bool(new)

    def recheck(self, *, since_ms: int = 0) -> None:
        """Compares those that were seen since then with what journals say by now."""
        for kind in RECHECKED_KINDS:
            gaps = [
                gap
                for gap in self.gaps.by_kind(kind, states=_WAITING, limit=RECHECKED)
                if gap.moved_msat and gap.seen_at_ms >= since_ms
            ]
            taken = self.books.taken_by_others([gap.reference for gap in gaps])
            changed = [new for gap in gaps if (new := recheck(gap, taken)) is not None]
            if changed:
                self.gaps.put(changed)

    def items(self) -> Iterator[Item]:
        """The newest of each kind one by one, the others as a sum."""
        for (kind, state), (count, amount_msat) in self.gaps.totals().items():
            if kind not in KINDS or not amount_msat:
                continue
            shown = self.gaps.by_kind(kind, states=[state], limit=SHOWN)
            for gap in shown:
                if gap.amount_msat:
                    yield Item(
                        kind=_item_kind(kind, gap.amount_msat),
                        reference=gap.reference or gap.key,
                        amount_msat=gap.amount_msat,
                    )
            rest_msat = amount_msat - sum(gap.amount_msat for gap in shown)
            if rest_msat:
                reference = f"{count - len(shown)} older: {kind}"
                yield Item(kind=_item_kind(kind, rest_msat), reference=reference, amount_msat=rest_msat)


def _item_kind(kind: str, amount_msat: int) -> ItemKind:
    found = KINDS[kind]
    return ItemKind.RECEIVED if found is ItemKind.SENT and amount_msat > 0 else found


def _differs(gap: Gap, known: Gap | None) -> bool:
    if known is None:
        return gap.state is not GapState.CLOSED
    if known.state is GapState.CLOSED and known.amount_msat:
        return False  # a person has closed it: what accounts for it names neither hash nor txid
    return (gap.amount_msat, gap.state, gap.moved_msat) != (known.amount_msat, known.state, known.moved_msat)
