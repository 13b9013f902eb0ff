"""What each method needs: one table, in which every method of the API must stand (a test walks them all)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daemon.domain.api_keys import Scope

SCOPES: Final[Mapping[str, Scope]] = {
    "tellerd.v1.WalletService/CreateWallet": Scope.RECEIVE,
    "tellerd.v1.WalletService/GetWallet": Scope.READ,
    "tellerd.v1.WalletService/ListWallets": Scope.READ,
    "tellerd.v1.InvoiceService/CreateInvoice": Scope.RECEIVE,
    "tellerd.v1.InvoiceService/GetInvoice": Scope.READ,
    "tellerd.v1.InvoiceService/ListInvoices": Scope.READ,
    "tellerd.v1.InvoiceService/SettleInvoice": Scope.WRITE,
    "tellerd.v1.InvoiceService/CancelInvoice": Scope.WRITE,
    "tellerd.v1.InvoiceService/WatchInvoice": Scope.READ,
    "tellerd.v1.DepositService/GetAddress": Scope.RECEIVE,
    "tellerd.v1.DepositService/ListDeposits": Scope.READ,
    "tellerd.v1.DepositService/GetDeposit": Scope.READ,
    "tellerd.v1.LedgerService/GetBalance": Scope.READ,
    "tellerd.v1.LedgerService/ListTransactions": Scope.READ,
    "tellerd.v1.LedgerService/TrialBalance": Scope.READ,
    "tellerd.v1.EventService/Subscribe": Scope.READ,
    "tellerd.v1.SuspenseService/ListSuspense": Scope.READ,
    "tellerd.v1.SuspenseService/AssignSuspense": Scope.WRITE,
    "tellerd.v1.AdminService/GetStatus": Scope.READ,
    "tellerd.v1.AdminService/GetConfirmationPolicy": Scope.READ,
    "tellerd.v1.AdminService/SetConfirmationPolicy": Scope.ADMIN,
    "tellerd.v1.AdminService/CreateApiKey": Scope.ADMIN,
    "tellerd.v1.AdminService/ListApiKeys": Scope.ADMIN,
    "tellerd.v1.AdminService/RevokeApiKey": Scope.ADMIN,
    "tellerd.v1.AdminService/Reconcile": Scope.ADMIN,
    "tellerd.v1.AdminService/ListGaps": Scope.READ,
    "tellerd.v1.AdminService/CloseGap": Scope.ADMIN,
    "tellerd.v1.AdminService/ListAuditLog": Scope.ADMIN,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Scope.READ,
}
"""`package.Service/Method`. grpc.health.v1 is not here: whoever watches over the process has no key.

WRITE is for methods that change customers' money or settings."""


def scope_of(method: str) -> Scope | None:
    """The scope that a method needs; None for one without a rule, which nobody may call."""
    return SCOPES.get(method)
