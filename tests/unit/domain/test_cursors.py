"""`LndCursor`: examples; its algebra stands in tests/property."""

from __future__ import annotations

from daemon.domain.cursors import LndCursor
from tests.samples import NODE, hash_of


def cursor(settle_index: int = 0, *ranges: tuple[int, int]) -> LndCursor:
    return LndCursor(pubkey=NODE, name="lnd1", settle_index=settle_index, booked_above=ranges)


def test_indexes_in_order_raise_the_watermark() -> None:
    """Each next index moves it by one and becomes the checkpoint."""
    moved = cursor().book(1, hash_of("a")).book(2, hash_of("b"))
    assert (moved.settle_index, moved.checkpoint_hash, moved.booked_above) == (2, hash_of("b"), ())


def test_an_index_ahead_waits_behind_its_gap() -> None:
    """The watermark stays below what is missing."""
    moved = cursor(4).book(7, hash_of("a"))
    assert (moved.settle_index, moved.booked_above, moved.gaps()) == (4, ((7, 7),), ((5, 6),))


def test_the_missing_index_closes_the_gap_but_is_no_checkpoint_for_what_lies_above() -> None:
    """A checkpoint is the hash of exactly the watermark's invoice, or unknown."""
    moved = cursor(4, (6, 7)).book(5, hash_of("a"))
    assert (moved.settle_index, moved.checkpoint_hash, moved.booked_above) == (7, None, ())


def test_a_set_of_an_amp_invoice_is_no_checkpoint() -> None:
    """It has no payment hash by which the node could be asked for the index."""
    assert cursor(4).book(5, None).checkpoint_hash is None


def test_a_pass_closes_gaps_and_names_the_checkpoint() -> None:
    """Everything up to its index is taken as booked; ranges that reach beyond are kept."""
    moved = cursor(1, (3, 3), (6, 9), (12, 12)).close_through(7, hash_of("a"))
    assert (moved.settle_index, moved.booked_above, moved.checkpoint_hash) == (9, ((12, 12),), None)
    assert cursor(1, (3, 3)).close_through(5, hash_of("a")).checkpoint_hash == hash_of("a")


def test_a_pass_that_reaches_just_the_watermark_names_its_unknown_checkpoint() -> None:
    """Else a watermark that grew over a gap would never be verifiable."""
    unknown = cursor(1, (3, 3)).book(2, hash_of("b"))
    assert unknown.checkpoint_hash is None
    assert unknown.close_through(3, hash_of("c")).checkpoint_hash == hash_of("c")
    assert cursor(2).book(3, hash_of("c")).close_through(3, hash_of("x")).checkpoint_hash == hash_of("c")


def test_a_new_epoch_starts_over_and_keeps_the_sums() -> None:
    """The opening covers no index that the restored node has not reached."""
    old = LndCursor(
        pubkey=NODE,
        name="lnd1",
        settle_index=9,
        checkpoint_hash=hash_of("a"),
        booked_above=((11, 12),),
        opening_index=5,
        epoch=1,
        booked_msat=7_001,
        remainder_msat=1,
        rounding_sats=3,
    )
    assert old.new_epoch(3) == LndCursor(
        pubkey=NODE,
        name="lnd1",
        opening_index=3,
        epoch=2,
        booked_msat=7_001,
        remainder_msat=1,
        rounding_sats=3,
        htlc_checked_through=3,
    )
    assert old.new_epoch(8).opening_index == 5
