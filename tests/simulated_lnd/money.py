"""What a simulated LND has beside its channel: a wallet on the chain, payments, forwards, closed channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from adapters.lnd._pb import lightning_pb2 as pb

Unary = tuple[type[Message], Callable[[Any, grpc.ServicerContext], Message]]


@dataclass(slots=True)
class SimulatedMoney:
    """Messages as LND would give them, ascending; a test adds to them."""

    wallet: pb.WalletBalanceResponse = field(default_factory=pb.WalletBalanceResponse)
    pending: pb.PendingChannelsResponse = field(default_factory=pb.PendingChannelsResponse)
    closed: list[pb.ChannelCloseSummary] = field(default_factory=list)
    txs: list[pb.Transaction] = field(default_factory=list)
    payments: list[pb.Payment] = field(default_factory=list)
    forwards: list[pb.ForwardingEvent] = field(default_factory=list)

    def methods(self) -> dict[str, Unary]:
        """By name, as the service needs them."""
        return {
            "WalletBalance": (pb.WalletBalanceRequest, lambda _request, _context: self.wallet),
            "PendingChannels": (pb.PendingChannelsRequest, lambda _request, _context: self.pending),
            "ClosedChannels": (
                pb.ClosedChannelsRequest,
                lambda _request, _context: pb.ClosedChannelsResponse(channels=self.closed),
            ),
            "GetTransactions": (pb.GetTransactionsRequest, lambda request, _context: self._transactions(request)),
            "ListPayments": (pb.ListPaymentsRequest, lambda request, _context: self._payments(request)),
            "ForwardingHistory": (pb.ForwardingHistoryRequest, lambda request, _context: self._forwards(request)),
        }

    def _transactions(self, request: pb.GetTransactionsRequest) -> pb.TransactionDetails:
        """end_height -1 only: to the tip, and what is unconfirmed."""
        found = [tx for tx in self.txs if not tx.block_height or tx.block_height >= request.start_height]
        return pb.TransactionDetails(transactions=found)

    def _payments(self, request: pb.ListPaymentsRequest) -> pb.ListPaymentsResponse:
        found = [one for one in self.payments if request.include_incomplete or one.status == pb.Payment.SUCCEEDED]
        if request.reversed:
            page = found[-request.max_payments :]
        else:
            page = [one for one in found if one.payment_index > request.index_offset][: request.max_payments]
        return pb.ListPaymentsResponse(payments=page, last_index_offset=page[-1].payment_index if page else 0)

    def _forwards(self, request: pb.ForwardingHistoryRequest) -> pb.ForwardingHistoryResponse:
        since = [one for one in self.forwards if one.timestamp_ns >= request.start_time * 1_000_000_000]
        page = since[request.index_offset : request.index_offset + request.num_max_events]
        return pb.ForwardingHistoryResponse(forwarding_events=page, last_offset_index=request.index_offset + len(page))
