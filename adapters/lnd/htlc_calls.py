"""What an LND says of its incoming HTLCs: those that are not resolved, and how one ended."""

from __future__ import annotations

from typing import Final

import grpc

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import HtlcResolution, IncomingHtlcs

_NOT_KEPT: Final = "cannot lookup with flag"
"""What LND without --store-final-htlc-resolutions answers; the code is UNAVAILABLE, as if it would pass."""


def incoming_htlcs(connection: Connection, *, timeout_s: float) -> IncomingHtlcs:
    """See `LightningNode.incoming_htlcs`. LND takes an HTLC from the list and keeps its outcome in one step: when its
    own commitment without it is signed."""
    answer = connection.call(
        "ListChannels", lambda stub: stub.ListChannels, pb.ListChannelsRequest(), timeout_s=timeout_s
    )
    return listed_htlcs(answer)


def listed_htlcs(answer: pb.ListChannelsResponse) -> IncomingHtlcs:
    """What ListChannels says; one that was forwarded names the channel that it went out by."""
    return IncomingHtlcs(
        open_channels=frozenset(channel.chan_id for channel in answer.channels),
        pending=frozenset(
            (channel.chan_id, htlc.htlc_index)
            for channel in answer.channels
            for htlc in channel.pending_htlcs
            if htlc.incoming
        ),
        final_hashes=frozenset(
            PaymentHash(htlc.hash_lock.hex())
            for channel in answer.channels
            for htlc in channel.pending_htlcs
            if htlc.incoming and not htlc.forwarding_channel
        ),
    )


def htlc_resolution(
    connection: Connection, chan_id: int, htlc_index: int, *, timeout_s: float
) -> HtlcResolution | None:
    """See `LightningNode.htlc_resolution`. The code for an HTLC without an outcome is NOT_FOUND."""
    answer = connection.call_or_none(
        "LookupHtlcResolution",
        lambda stub: stub.LookupHtlcResolution,
        pb.LookupHtlcResolutionRequest(chan_id=chan_id, htlc_index=htlc_index),
        timeout_s=timeout_s,
        none_if=lambda code, text: code is grpc.StatusCode.NOT_FOUND or _NOT_KEPT in text,
    )
    if answer is None:
        return None
    return HtlcResolution.SETTLED if answer.settled else HtlcResolution.FAILED
