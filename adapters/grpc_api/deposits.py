"""DepositService."""

from __future__ import annotations

import grpc

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2, deposit_pb2_grpc
from adapters.grpc_api.values import deposit_state_from_proto, deposit_state_to_proto, timestamp_of_ms
from daemon.serving import deposits
from daemon.serving.api import Api
from daemon.serving.deposits import DepositView


class DepositServicer(deposit_pb2_grpc.DepositServiceServicer):
    """See protos/tellerd/v1/deposit.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def GetAddress(
        self, request: deposit_pb2.GetAddressRequest, context: grpc.ServicerContext
    ) -> deposit_pb2.GetAddressResponse:
        """An address that pays a wallet."""
        given = deposits.get_address(self._api, wallet_id=request.wallet_id, new=request.new)
        return deposit_pb2.GetAddressResponse(
            address=given.address, wallet_id=given.wallet_id, index=given.index, created=given.index is not None
        )

    def ListDeposits(
        self, request: deposit_pb2.ListDepositsRequest, context: grpc.ServicerContext
    ) -> deposit_pb2.ListDepositsResponse:
        """A page of deposits."""
        page, token = deposits.list_deposits(
            self._api,
            wallet_id=request.wallet_id,
            states=[deposit_state_from_proto(state) for state in request.states],
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return deposit_pb2.ListDepositsResponse(
            deposits=[deposit_to_proto(view) for view in page], next_page_token=token
        )

    def GetDeposit(
        self, request: deposit_pb2.GetDepositRequest, context: grpc.ServicerContext
    ) -> deposit_pb2.GetDepositResponse:
        """One deposit."""
        view = deposits.get_deposit(self._api, txid=request.txid, vout=request.vout)
        return deposit_pb2.GetDepositResponse(deposit=deposit_to_proto(view))


def deposit_to_proto(view: DepositView) -> deposit_pb2.Deposit:
    """The deposit's message."""
    deposit = view.deposit
    in_dollars = deposit.booking if deposit.booking is not None and deposit.booking.dealer is not None else None
    return deposit_pb2.Deposit(
        txid=deposit.txid,
        vout=deposit.vout,
        wallet_id=deposit.wallet_id,
        address=deposit.address,
        amount_sat=deposit.amount_sat,
        fee_sat=view.fee_sat,
        state=deposit_state_to_proto(deposit.state),
        confirmations=view.confirmations,
        confirmations_required=deposit.confirmations_required,
        block_height=None if deposit.block is None else deposit.block.height,
        block_hash="" if deposit.block is None else deposit.block.hash,
        policy_version=deposit.policy_version,
        is_dust=view.is_dust,
        held_reason=deposit.held_reason,
        dropped_reason=deposit.dropped_reason,
        replaced_by=deposit.replaced_by or "",
        settlements=deposit.settlements,
        detected_at=timestamp_of_ms(deposit.detected_at_ms),
        updated_at=timestamp_of_ms(deposit.updated_at_ms),
        credited_cents=None if in_dollars is None else in_dollars.cents,
        fee_cents=None if in_dollars is None else in_dollars.fee_cents,
        suspense_reason="" if deposit.booking is None else deposit.booking.suspense_reason,
    )
