"""LND's calls that tell what it holds and what has moved it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.connection import Connection
from adapters.lnd.funds import Answers, first_close_height, needs_txs, node_funds
from adapters.lnd.movements import closed_channel, forward, sent_payment, wallet_tx
from daemon.domain.movements import ClosedChannel, Forward, SentPayment, WalletTx
from daemon.domain.ports import NodeFunds

_NS_PER_S: Final = 1_000_000_000

_MAX_FORWARDS: Final = 10_000
"""In one page: about a megabyte, where LND gives 50,000 at the most."""

_UNCONFIRMED_ONLY: Final = 2**31 - 2
"""A height that no chain reaches: of the blocks from there on nothing is found."""


def funds(connection: Connection, *, timeout_s: float) -> NodeFunds:
    """See `daemon.domain.ports.LightningNode`: six calls, seven while a channel closes."""

    def balance() -> pb.ChannelBalanceResponse:
        return connection.call(
            "ChannelBalance", lambda stub: stub.ChannelBalance, pb.ChannelBalanceRequest(), timeout_s=timeout_s
        )

    def wallet() -> pb.WalletBalanceResponse:
        return connection.call(
            "WalletBalance", lambda stub: stub.WalletBalance, pb.WalletBalanceRequest(), timeout_s=timeout_s
        )

    wallet_before, before = wallet(), balance()
    channels = connection.call(
        "ListChannels", lambda stub: stub.ListChannels, pb.ListChannelsRequest(), timeout_s=timeout_s
    )
    pending = connection.call(
        "PendingChannels", lambda stub: stub.PendingChannels, pb.PendingChannelsRequest(), timeout_s=timeout_s
    )
    txs: Sequence[WalletTx] = ()
    if needs_txs(wallet_before, pending):
        height = first_close_height(pending) or _UNCONFIRMED_ONLY
        txs = wallet_txs(connection, from_height=height, timeout_s=timeout_s)
    return node_funds(
        Answers(
            before=before,
            channels=channels,
            pending=pending,
            after=balance(),
            wallet_before=wallet_before,
            wallet_after=wallet(),
            txs=txs,
        )
    )


def forwards(connection: Connection, *, after_ns: int, limit: int, timeout_s: float) -> Sequence[Forward]:
    """See `daemon.domain.ports.LightningNode`. LND asks for a second, and gives all of it."""
    found: list[Forward] = []
    offset = 0
    while True:
        page = connection.call(
            "ForwardingHistory",
            lambda stub: stub.ForwardingHistory,
            pb.ForwardingHistoryRequest(
                start_time=after_ns // _NS_PER_S, index_offset=offset, num_max_events=min(limit + 1, _MAX_FORWARDS)
            ),
            timeout_s=timeout_s,
        )
        found += [forward(event) for event in page.forwarding_events if event.timestamp_ns > after_ns]
        if not page.forwarding_events or len(found) >= limit:
            return found[:limit]
        offset = page.last_offset_index


def payments(connection: Connection, *, after_index: int, limit: int, timeout_s: float) -> Sequence[SentPayment]:
    """See `daemon.domain.ports.LightningNode`."""
    request = pb.ListPaymentsRequest(
        include_incomplete=True, index_offset=after_index, max_payments=limit, omit_hops=True
    )
    return _payments(connection, request, timeout_s=timeout_s)


def newest_payments(connection: Connection, *, limit: int, timeout_s: float) -> Sequence[SentPayment]:
    """See `daemon.domain.ports.LightningNode`."""
    request = pb.ListPaymentsRequest(include_incomplete=True, reversed=True, max_payments=limit, omit_hops=True)
    return _payments(connection, request, timeout_s=timeout_s)


def _payments(connection: Connection, request: pb.ListPaymentsRequest, *, timeout_s: float) -> Sequence[SentPayment]:
    answer = connection.call("ListPayments", lambda stub: stub.ListPayments, request, timeout_s=timeout_s)
    return [sent_payment(payment) for payment in answer.payments]


def wallet_txs(connection: Connection, *, from_height: int, timeout_s: float) -> Sequence[WalletTx]:
    """See `daemon.domain.ports.LightningNode`."""
    answer = connection.call(
        "GetTransactions",
        lambda stub: stub.GetTransactions,
        pb.GetTransactionsRequest(start_height=from_height, end_height=-1),
        timeout_s=timeout_s,
    )
    return [wallet_tx(tx) for tx in answer.transactions]


def closed_channels(connection: Connection, *, timeout_s: float) -> Sequence[ClosedChannel]:
    """See `daemon.domain.ports.LightningNode`."""
    answer = connection.call(
        "ClosedChannels", lambda stub: stub.ClosedChannels, pb.ClosedChannelsRequest(), timeout_s=timeout_s
    )
    return [closed for one in answer.channels if (closed := closed_channel(one)) is not None]
