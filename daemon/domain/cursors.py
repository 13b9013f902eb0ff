"""Where tellerd stands in a Lightning node's settlements: a contiguous low-watermark.

LND numbers settlements with `settle_index`, but its stream duplicates, reorders and leaves gaps
(node-interfaces.md A.0, A.1). The watermark rises only over indexes that are in the books; what is
booked above it is kept as ranges, and what lies between is an open gap, closed by a complete
ListInvoices pass begun after it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.movements import MovementMarks

MAX_RANGES = 10_000
"""More scattered ranges than this are forgotten, the highest first: the gap pass brings them again. A
cursor document of this size is about 200 kB, far below MongoDB's 16 MB."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LndCursor:
    """Position in one node's settlements, with the sums that tie the books to the node.

    `settle_index`: everything up to it is booked. `booked_above`: closed ranges above it that are
    booked, ascending, neither touching nor overlapping. `checkpoint_hash`: payment hash of the invoice
    that has index `settle_index`, where known. `opening_index`: settlements up to it belong to the
    opening balance unless a document waits for them; None until the node has been opened.
    `booked_msat`: what the books hold for this node, to the msat: whole sats on its asset account, and
    the remainder. `remainder_msat`: what is left of a sat (0 to 999) after whole sats. `rounding_sats`:
    full sats that the remainders have added up to and that were booked. `absorbed_sat`: what other programs
    had booked on the Lightning account before the first node was opened; the opening took it into account.
    `htlc_checked_through`: of every settlement up to it the money is known to have stayed, or a loss or a gap is
    booked. It may be above `settle_index` only after a new epoch, which takes what the node has as it is.
    `opened_at_ms`: when the opening balance was read; None of releases before reconciliation.
    `movements`: from where forwards, payments and txs count; None until the opening, and in cursors of releases before
    reconciliation until its first look.
    """

    pubkey: NodePubkey
    name: str
    settle_index: int = 0
    checkpoint_hash: PaymentHash | None = None
    booked_above: tuple[Range, ...] = ()
    opening_index: int | None = None
    epoch: int = 0
    booked_msat: int = 0
    remainder_msat: int = 0
    rounding_sats: int = 0
    absorbed_sat: int = 0
    htlc_checked_through: int = 0
    opened_at_ms: int | None = None
    movements: MovementMarks | None = None

    @property
    def resume_index(self) -> int:
        """Where the node's stream has to begin: what is booked, but not proven, must come again with its HTLCs."""
        return min(self.settle_index, self.htlc_checked_through)

    @property
    def opened(self) -> bool:
        """Whether the opening balance is booked and the cursor may be resumed from."""
        return self.opening_index is not None

    def gaps(self) -> tuple[Range, ...]:
        """Closed ranges of indexes not booked yet although a higher one is."""
        gaps = []
        low = self.settle_index
        for first, last in self.booked_above:
            gaps.append((low + 1, first - 1))
            low = last
        return tuple(gaps)

    def newest_index(self) -> int:
        """The largest index known to be booked."""
        return self.booked_above[-1][1] if self.booked_above else self.settle_index

    def has_booked(self, index: int) -> bool:
        """Whether this index is known to be in the books."""
        return index <= self.settle_index or any(first <= index <= last for first, last in self.booked_above)

    def book(self, index: int, checkpoint_hash: PaymentHash | None) -> LndCursor:
        """The cursor after the settlement with this index was booked; index 0 (LND gave none) changes nothing.

        `checkpoint_hash` is its payment hash, None for a set of an AMP invoice.
        """
        if index == self.settle_index + 1 and not self.booked_above:
            return replace(self, settle_index=index, checkpoint_hash=checkpoint_hash)
        if index == 0 or self.has_booked(index):
            return self
        ranges = _with_index(self.booked_above, index)[:MAX_RANGES]
        return _absorb(self, self.settle_index, self.checkpoint_hash, ranges, (index, checkpoint_hash))

    def close_through(self, index: int, checkpoint_hash: PaymentHash | None) -> LndCursor:
        """The cursor after a complete pass that covers everything up to `index`."""
        if index == self.settle_index and self.checkpoint_hash is None:
            return replace(self, checkpoint_hash=checkpoint_hash)
        if index <= self.settle_index:
            return self
        ranges = tuple((max(first, index + 1), last) for first, last in self.booked_above if last > index)
        return _absorb(self, index, checkpoint_hash, ranges, None)

    def check_through(self, index: int) -> LndCursor:
        """The cursor after the HTLCs up to `index` were proven; what is not booked yet is not proven either."""
        through = min(index, self.settle_index)
        return self if through <= self.htlc_checked_through else replace(self, htlc_checked_through=through)

    def new_epoch(self, newest_index: int) -> LndCursor:
        """The cursor of a node that lost settlements: start over, keep the sums and what the opening covers.

        A node that was restored has forgotten how its HTLCs ended: those that it had before are not asked for.
        """
        opening = None if self.opening_index is None else min(self.opening_index, newest_index)
        return replace(
            self,
            settle_index=0,
            checkpoint_hash=None,
            booked_above=(),
            epoch=self.epoch + 1,
            opening_index=opening,
            htlc_checked_through=newest_index,
        )


def _with_index(ranges: tuple[Range, ...], index: int) -> tuple[Range, ...]:
    merged: list[Range] = []
    new = (index, index)
    for first, last in ranges:
        if last + 1 < new[0]:
            merged.append((first, last))
        elif first - 1 > new[1]:
            merged.append(new)
            new = (first, last)
        else:
            new = (min(first, new[0]), max(last, new[1]))
    return (*merged, new)


def _absorb(
    cursor: LndCursor,
    low: int,
    checkpoint: PaymentHash | None,
    ranges: tuple[Range, ...],
    booked: tuple[int, PaymentHash | None] | None,
) -> LndCursor:
    while ranges and ranges[0][0] <= low + 1:
        low, checkpoint = max(low, ranges[0][1]), None
        ranges = ranges[1:]
    if booked is not None and booked[0] == low:
        checkpoint = booked[1]
    return replace(cursor, settle_index=low, checkpoint_hash=checkpoint, booked_above=ranges)
