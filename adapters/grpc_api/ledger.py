"""LedgerService."""

from __future__ import annotations

import grpc

from adapters.grpc_api._pb.tellerd.v1 import ledger_pb2, ledger_pb2_grpc
from adapters.grpc_api.values import currency_to_proto, timestamp_of_ms
from daemon.domain.money import Currency
from daemon.serving import ledger
from daemon.serving.api import Api
from daemon.serving.ledger import SettlementMethod, WalletBalance, WalletEntry

_METHODS = {
    SettlementMethod.UNKNOWN: ledger_pb2.SETTLEMENT_METHOD_UNSPECIFIED,
    SettlementMethod.LIGHTNING: ledger_pb2.SETTLEMENT_METHOD_LIGHTNING,
    SettlementMethod.ON_CHAIN: ledger_pb2.SETTLEMENT_METHOD_ON_CHAIN,
    SettlementMethod.INTRA_LEDGER: ledger_pb2.SETTLEMENT_METHOD_INTRA_LEDGER,
    SettlementMethod.INTERNAL: ledger_pb2.SETTLEMENT_METHOD_INTERNAL,
}


class LedgerServicer(ledger_pb2_grpc.LedgerServiceServicer):
    """See protos/tellerd/v1/ledger.proto."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def GetBalance(
        self, request: ledger_pb2.GetBalanceRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.GetBalanceResponse:
        """What a wallet holds."""
        return balance_to_proto(ledger.get_balance(self._api, request.wallet_id))

    def ListTransactions(
        self, request: ledger_pb2.ListTransactionsRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.ListTransactionsResponse:
        """A page of what has moved a wallet's balance."""
        page, token = ledger.list_wallet_entries(
            self._api,
            wallet_id=request.wallet_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return ledger_pb2.ListTransactionsResponse(
            transactions=[wallet_entry_to_proto(entry) for entry in page], next_page_token=token
        )

    def TrialBalance(
        self, request: ledger_pb2.TrialBalanceRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.TrialBalanceResponse:
        """A page of all accounts, and the totals over all."""
        page, token = ledger.trial_balance(self._api, page_size=request.page_size, page_token=request.page_token)
        return ledger_pb2.TrialBalanceResponse(
            rows=[
                ledger_pb2.TrialBalanceRow(
                    account=row.account, currency=currency_to_proto(row.currency), balance=row.balance
                )
                for row in page.rows
            ],
            totals=[
                ledger_pb2.TrialBalanceTotal(currency=currency_to_proto(currency), balance=balance)
                for currency, balance in sorted(page.totals.items())
            ],
            as_of_sequence=page.sequence,
            next_page_token=token,
        )


def balance_to_proto(found: WalletBalance) -> ledger_pb2.GetBalanceResponse:
    """The balance in the field of the wallet's unit."""
    response = ledger_pb2.GetBalanceResponse(
        wallet_id=found.wallet.wallet_id,
        currency=currency_to_proto(found.wallet.currency.value),
        as_of_sequence=found.sequence,
    )
    if found.wallet.currency is Currency.BTC:
        response.balance_sat = found.balance
    else:
        response.balance_cents = found.balance
    return response


def wallet_entry_to_proto(view: WalletEntry) -> ledger_pb2.Transaction:
    """The journal as the wallet sees it, amounts in the fields of its unit."""
    entry = view.entry
    received = entry.delta >= 0
    message = ledger_pb2.Transaction(
        id=entry.journal_id,
        reference=entry.key,
        direction=ledger_pb2.DIRECTION_RECEIVE if received else ledger_pb2.DIRECTION_SEND,
        settlement_method=_METHODS[view.method],
        memo=entry.memo,
        external_id=view.external_id,
        created_at=timestamp_of_ms(entry.booked_at_ms),
    )
    before = entry.balance_after - entry.delta
    if entry.currency == Currency.BTC:
        message.amount_sat, message.fee_sat = abs(entry.delta), view.fee
        message.balance_before_sat, message.balance_after_sat = before, entry.balance_after
    else:
        message.amount_cents, message.fee_cents = abs(entry.delta), view.fee
        message.balance_before_cents, message.balance_after_cents = before, entry.balance_after
    if view.payment_hash is not None:
        message.payment_hash = view.payment_hash
    elif view.txid is not None and view.vout is not None:
        message.outpoint.txid, message.outpoint.vout = view.txid, view.vout
    return message
