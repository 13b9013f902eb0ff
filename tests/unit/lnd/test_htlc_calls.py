"""Incoming HTLCs from what ListChannels says."""

from __future__ import annotations

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.htlc_calls import listed_htlcs


def test_what_was_forwarded_pays_somebody_else() -> None:
    """It is pending as any other, and its payment hash is not the node's to look up; nor is an outgoing one's."""
    busy, quiet = pb.Channel(chan_id=7), pb.Channel(chan_id=8)
    busy.pending_htlcs.add(incoming=True, hash_lock=b"\x01" * 32, htlc_index=0)
    busy.pending_htlcs.add(incoming=True, hash_lock=b"\x02" * 32, htlc_index=1, forwarding_channel=8)
    quiet.pending_htlcs.add(incoming=False, hash_lock=b"\x02" * 32, htlc_index=0, forwarding_channel=7)
    quiet.pending_htlcs.add(incoming=False, hash_lock=b"\x03" * 32, htlc_index=1)
    found = listed_htlcs(pb.ListChannelsResponse(channels=[busy, quiet]))
    assert found.open_channels == {7, 8}
    assert found.pending == {(7, 0), (7, 1)}
    assert found.final_hashes == {"01" * 32}
