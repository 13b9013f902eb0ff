"""WalletService."""

from __future__ import annotations

import grpc

from adapters.grpc_api._pb.tellerd.v1 import wallet_pb2, wallet_pb2_grpc
from adapters.grpc_api.values import currency_from_proto, currency_to_proto
from daemon.domain.ports import Wallet
from daemon.serving import wallets
from daemon.serving.api import Api


class WalletServicer(wallet_pb2_grpc.WalletServiceServicer):
    """See protos/tellerd/v1/wallet.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def CreateWallet(
        self, request: wallet_pb2.CreateWalletRequest, context: grpc.ServicerContext
    ) -> wallet_pb2.CreateWalletResponse:
        """A wallet, once per external_id."""
        wallet = wallets.create_wallet(
            self._api,
            account_id=request.account_id,
            currency=currency_from_proto(request.currency),
            external_id=request.external_id,
        )
        return wallet_pb2.CreateWalletResponse(wallet=wallet_to_proto(wallet))

    def GetWallet(
        self, request: wallet_pb2.GetWalletRequest, context: grpc.ServicerContext
    ) -> wallet_pb2.GetWalletResponse:
        """One wallet."""
        return wallet_pb2.GetWalletResponse(wallet=wallet_to_proto(wallets.get_wallet(self._api, request.wallet_id)))

    def ListWallets(
        self, request: wallet_pb2.ListWalletsRequest, context: grpc.ServicerContext
    ) -> wallet_pb2.ListWalletsResponse:
        """A page of wallets."""
        page, token = wallets.list_wallets(self._api, page_size=request.page_size, page_token=request.page_token)
        return wallet_pb2.ListWalletsResponse(
            wallets=[wallet_to_proto(wallet) for wallet in page], next_page_token=token
        )


def wallet_to_proto(wallet: Wallet) -> wallet_pb2.Wallet:
    """The wallet's message."""
    return wallet_pb2.Wallet(
        wallet_id=wallet.wallet_id,
        account_id=wallet.account_id,
        currency=currency_to_proto(wallet.currency.value),
    )
