"""The feed of one subscriber: everything once, in order, or an error."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Sequence

import pytest

from adapters.memory.ledger import MemoryLedger
from daemon.domain.errors import InvariantViolation
from daemon.domain.ports import StoredEvent
from daemon.posting.board import Board
from daemon.relay.feed import PAGE_ROWS, Feed


def row(sequence: int, *, type_: str = "invoice.settled", wallet_id: str = "w") -> StoredEvent:
    return StoredEvent(
        sequence=sequence, id=f"k{sequence}", type=type_, occurred_at_ms=0, wallet_ids=(wallet_id,), payload={}
    )


class Outbox(MemoryLedger):
    """A ledger whose rows a test writes; `visible` is how many a reader sees."""

    def __init__(self, rows: Sequence[StoredEvent]) -> None:
        self.rows = list(rows)
        self.visible = len(self.rows)
        self.reads: list[int] = []
        self.broken = False

    def events(self, *, after_sequence: int, limit: int) -> Sequence[StoredEvent]:
        self.reads.append(limit)
        if self.broken:
            return self.rows
        return [row for row in self.rows[: self.visible] if row.sequence > after_sequence][:limit]


def follow(
    outbox: Outbox,
    board: Board,
    *,
    wanted: int,
    after: int = 0,
    types: Collection[str] = (),
    wallet_ids: Collection[str] = (),
) -> Iterator[StoredEvent]:
    """The feed of a subscriber who leaves after `wanted` events."""
    seen: list[StoredEvent] = []
    feed = Feed(outbox, board, poll_s=0.01)
    for event in feed.follow(
        after_sequence=after, types=types, wallet_ids=wallet_ids, is_wanted=lambda: len(seen) < wanted
    ):
        seen.append(event)
        yield event


def test_a_long_past_is_read_in_pages() -> None:
    """Nothing is missing or doubled where pages meet, and no read is larger than a page."""
    outbox = Outbox([row(number) for number in range(1, 2 * PAGE_ROWS + 2)])
    seen = [event.sequence for event in follow(outbox, Board(), after=1, wanted=2 * PAGE_ROWS)]
    assert seen == list(range(2, 2 * PAGE_ROWS + 2))
    assert set(outbox.reads) == {PAGE_ROWS}


@pytest.mark.parametrize("rows", [[row(1), row(3)], [row(2)], [row(1), row(1)]], ids=["gap", "first", "twice"])
def test_a_row_out_of_place_is_an_invariant_violation(rows: list[StoredEvent]) -> None:
    """Also where a filter would have hidden it."""
    outbox = Outbox(rows)
    outbox.broken = True  # answers with its rows as they are, whatever it is asked for
    with pytest.raises(InvariantViolation):
        list(follow(outbox, Board(), wanted=5, types={"none"}))


def test_filters_name_types_and_wallets() -> None:
    """Both must fit; a row without wallets passes no wallet filter."""
    rows = [row(1), row(2, wallet_id="v"), row(3, type_="suspense.received"), row(4)]
    outbox = Outbox(rows)
    seen = follow(outbox, Board(), wanted=2, types={"invoice.settled"}, wallet_ids={"w"})
    assert [event.sequence for event in seen] == [1, 4]


def test_rows_of_another_process_arrive_without_a_wake_up() -> None:
    """The poll is the truth: this process has published nothing."""
    outbox = Outbox([row(1), row(2)])
    outbox.visible = 1
    seen = []
    for event in follow(outbox, Board(), wanted=2):
        seen.append(event.sequence)
        outbox.visible = 2
    assert seen == [1, 2]


def test_a_commit_that_is_not_visible_yet_is_waited_for() -> None:
    """The board may be ahead of majority reads: the reader neither spins nor gives up."""
    outbox = Outbox([row(1)])
    outbox.visible = 0
    board = Board()
    board.publish(cursors=(), sequence=1)
    timer = threading.Timer(0.1, lambda: setattr(outbox, "visible", 1))
    timer.start()
    assert [event.sequence for event in follow(outbox, board, wanted=1)] == [1]
    timer.join()
    assert len(outbox.reads) < 50


def test_it_ends_when_nobody_wants_it() -> None:
    """Within a page, too."""
    outbox = Outbox([row(number) for number in range(1, 10)])
    assert len(list(follow(outbox, Board(), wanted=3))) == 3
    assert list(follow(outbox, Board(), wanted=0)) == []


def test_a_subscriber_is_behind_by_what_it_has_not_taken() -> None:
    """An event counts as taken when the next one is asked for; one that a filter leaves out is not waited for."""
    outbox, board = Outbox([row(1), row(2, type_="other"), row(3)]), Board()
    feed = Feed(outbox, board, poll_s=0.01)
    assert feed.lags() == []
    stream = feed.follow(after_sequence=0, types=["invoice.settled"], wallet_ids=(), is_wanted=lambda: True)
    board.publish(sequence=3)
    next(stream)
    assert feed.lags() == [3]
    next(stream)
    assert feed.lags() == [1]
    assert isinstance(stream, Generator)
    stream.close()
    assert feed.lags() == []


def test_a_subscriber_that_is_ahead_of_this_process_is_not_behind() -> None:
    """Rows of another process are read before this one knows of them."""
    feed = Feed(Outbox([row(1), row(2)]), Board(), poll_s=0.01)
    stream = feed.follow(after_sequence=0, types=(), wallet_ids=(), is_wanted=lambda: True)
    next(stream)
    next(stream)
    assert feed.lags() == [0]
    assert isinstance(stream, Generator)
    stream.close()
