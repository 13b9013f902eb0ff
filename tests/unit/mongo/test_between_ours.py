"""The sweep's intervals leap over tellerd's own journals and over nothing else."""

from __future__ import annotations

from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from adapters.mongo.journals import between_ours

WRITER = b"\x50\x60\x70\x80\x90"
START_S = 1_790_000_000
COUNTERS = st.binary(min_size=3, max_size=3)
WRITERS = st.one_of(st.just(WRITER), st.binary(min_size=5, max_size=5), st.sampled_from([b"\x00" * 5, b"\xff" * 5]))
SECONDS = st.integers(START_S - 2, START_S + 12)


def object_id(second: int, writer: bytes, counter: bytes) -> ObjectId:
    return ObjectId(second.to_bytes(4, "big") + writer + counter)


@given(SECONDS, WRITERS, COUNTERS, SECONDS, WRITERS, COUNTERS)
def test_the_intervals_hold_every_id_but_ours(
    after_s: int, after_writer: bytes, after_counter: bytes, second: int, writer: bytes, counter: bytes
) -> None:
    """An id above the mark is in exactly one interval if it is another program's; ours of these seconds in none."""
    after = object_id(after_s, after_writer, after_counter)
    through_s = START_S + 10
    one = object_id(second, writer, counter)
    holding = [
        interval["_id"]
        for interval in between_ours(WRITER, after, through_s=through_s)
        if interval["_id"]["$gt"] < one and ("$lt" not in interval["_id"] or one < interval["_id"]["$lt"])
    ]
    ours_leapt_over = writer == WRITER and second <= through_s
    assert len(holding) == (one > after and not ours_leapt_over)
