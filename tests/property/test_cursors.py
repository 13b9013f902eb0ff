"""`LndCursor` against a naive model: the plain set of all indexes that are in the books."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

import hypothesis.strategies as st
from hypothesis import given

from daemon.domain import cursors
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import PaymentHash
from tests.samples import NODE

MAX_INDEX = 24  # small, so that ranges meet often


@dataclass
class Naive:
    """What is booked, and the hash of each index as last told."""

    booked: set[int] = field(default_factory=set)
    hashes: dict[int, PaymentHash | None] = field(default_factory=dict)

    @property
    def watermark(self) -> int:
        index = 0
        while index + 1 in self.booked:
            index += 1
        return index


def hash_at(index: int) -> PaymentHash:
    return PaymentHash(f"{index:064x}")


books = st.tuples(st.just("book"), st.integers(0, MAX_INDEX))
passes = st.tuples(st.just("close"), st.integers(0, MAX_INDEX))
steps = st.lists(st.one_of(books, books, books, passes), max_size=60)


def apply(cursor: LndCursor, naive: Naive, kind: str, index: int) -> LndCursor:
    if kind == "book":
        naive.booked |= {index} - {0}
        return cursor.book(index, hash_at(index))
    naive.booked |= set(range(1, index + 1))
    return cursor.close_through(index, hash_at(index))


@given(steps)
def test_the_cursor_equals_the_set_of_booked_indexes(script: list[tuple[str, int]]) -> None:
    """Watermark, ranges, gaps, newest index and membership are those of the set, after any steps."""
    cursor, naive = LndCursor(pubkey=NODE, name="n"), Naive()
    for kind, index in script:
        cursor = apply(cursor, naive, kind, index)
        assert cursor.settle_index == naive.watermark
        assert {i for i in range(1, MAX_INDEX + 2) if cursor.has_booked(i)} == naive.booked
        assert cursor.newest_index() == max(naive.booked, default=0)
        missing = set(range(1, max(naive.booked, default=0))) - naive.booked
        assert {i for first, last in cursor.gaps() for i in range(first, last + 1)} == missing
        well_formed(cursor)


def well_formed(cursor: LndCursor) -> None:
    """Ranges ascend, neither touching nor overlapping, all above the watermark; a checkpoint is the watermark's."""
    low = cursor.settle_index
    for first, last in cursor.booked_above:
        assert low + 1 < first <= last
        low = last
    assert cursor.checkpoint_hash in (None, hash_at(cursor.settle_index))


@given(st.permutations(range(1, 15)))
def test_any_order_ends_at_the_same_place(order: list[int]) -> None:
    """When all are booked, watermark and ranges do not tell in which order."""
    cursor = LndCursor(pubkey=NODE, name="n")
    for index in order:
        cursor = cursor.book(index, hash_at(index))
    assert (cursor.settle_index, cursor.booked_above) == (14, ())


@given(steps, st.integers(0, MAX_INDEX))
def test_steps_are_idempotent(script: list[tuple[str, int]], index: int) -> None:
    """What is booked, or closed, a second time changes nothing."""
    cursor, naive = LndCursor(pubkey=NODE, name="n"), Naive()
    for kind, at in script:
        cursor = apply(cursor, naive, kind, at)
    once = cursor.book(index, hash_at(index))
    assert once.book(index, hash_at(index)) == once
    closed = cursor.close_through(index, hash_at(index))
    assert closed.close_through(index, hash_at(index)) == closed


@given(steps, st.integers(1, 4))
def test_too_many_ranges_are_forgotten_and_never_invented(script: list[tuple[str, int]], bound: int) -> None:
    """With the bound in force the cursor claims a part of what is booked, and the watermark stays exact."""
    cursor, naive = LndCursor(pubkey=NODE, name="n"), Naive()
    with patch.object(cursors, "MAX_RANGES", bound):
        for kind, index in script:
            cursor = apply(cursor, naive, kind, index)
            assert len(cursor.booked_above) <= bound
            assert {i for i in range(1, MAX_INDEX + 2) if cursor.has_booked(i)} <= naive.booked
            well_formed(cursor)
        for index in range(1, MAX_INDEX + 1):  # what a replay from the watermark brings again
            if index in naive.booked:
                cursor = cursor.book(index, hash_at(index))
    assert cursor.settle_index == naive.watermark
