"""tellerd itself as a process, and a client of its gRPC API: for the demo and the tests."""

import http.client
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2_grpc,
    deposit_pb2,
    deposit_pb2_grpc,
    event_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    suspense_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
)
from regtest.process import NodeError, NodeProcess

READY_S: Final = 180.0
"""2 s when idle; a takeover waits for the former leader's lease of 5 s, LND's start takes 4 s."""

CALL_S: Final = 60.0
"""One call of the client: tellerd's own deadlines towards LND and MongoDB are shorter."""

RUN: Final = (sys.executable, "-m", "daemon")


@dataclass(frozen=True)
class Answer:
    """What the HTTP port said."""

    status: int
    text: str


class Tellerd:
    """One tellerd, started with `tellerd run --config FILE`; ports as in the file."""

    def __init__(self, config_file: Path, *, api: str, http_address: str, name: str = "tellerd") -> None:
        """`api` and `http_address` are host:port of the two listeners."""
        self.config_file = config_file
        self.api = api
        self.http_address = http_address
        command = (*RUN, "run", "--config", str(config_file))
        self.process = NodeProcess(name, command, config_file.with_name(f"{name}.log"))

    def start(self) -> None:
        """Start it; it is not ready yet."""
        self.process.start()

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Return when /readyz says that it leads and serves; NodeError if not in time."""
        self.process.wait_until(lambda: self.get("/readyz").status == 200, "ready", timeout_s)

    def get(self, path: str) -> Answer:
        """One GET on the HTTP port; OSError if nobody answers."""
        connection = http.client.HTTPConnection(self.http_address, timeout=CALL_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        except http.client.HTTPException as broken:
            raise NodeError(f"GET {path}: {broken!r}") from broken
        finally:
            connection.close()

    def client(self, *, root_certificate: bytes | None = None, key: str | None = None) -> "Client":
        """A client of the API; close it or use it in a `with`. See `Client` for TLS and a key."""
        return Client(self.api, root_certificate=root_certificate, key=key)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()


class Client:
    """The API's services over one connection, and short forms of the calls that are made most."""

    def __init__(self, api: str, *, root_certificate: bytes | None = None, key: str | None = None) -> None:
        """With `root_certificate` (PEM) over TLS; `key` is an API key, sent over TLS only."""
        self._connection = _connect(api, root_certificate, key)
        self.wallets = wallet_pb2_grpc.WalletServiceStub(self._connection)
        self.invoices = invoice_pb2_grpc.InvoiceServiceStub(self._connection)
        self.deposits = deposit_pb2_grpc.DepositServiceStub(self._connection)
        self.ledger = ledger_pb2_grpc.LedgerServiceStub(self._connection)
        self.events = event_pb2_grpc.EventServiceStub(self._connection)
        self.suspense = suspense_pb2_grpc.SuspenseServiceStub(self._connection)
        self.admin = admin_pb2_grpc.AdminServiceStub(self._connection)

    def create_wallet(self, external_id: str) -> str:
        """A BTC wallet in an account of its own; returns its id."""
        request = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_BTC, external_id=external_id)
        return self.wallets.CreateWallet(request, timeout=CALL_S).wallet.wallet_id

    def create_invoice(
        self, wallet_id: str, amount_sat: int, *, memo: str = "", external_id: str = ""
    ) -> invoice_pb2.Invoice:
        """An invoice over a fixed amount."""
        request = invoice_pb2.CreateInvoiceRequest(
            wallet_id=wallet_id, amount_sat=amount_sat, memo=memo, external_id=external_id
        )
        return self.invoices.CreateInvoice(request, timeout=CALL_S).invoice

    def create_dollar_wallet(self, external_id: str) -> str:
        """A wallet that counts in US cents, in an account of its own; returns its id."""
        request = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_USD, external_id=external_id)
        return self.wallets.CreateWallet(request, timeout=CALL_S).wallet.wallet_id

    def create_dollar_invoice(
        self, wallet_id: str, amount_cents: int, *, memo: str = "", external_id: str = ""
    ) -> invoice_pb2.Invoice:
        """An invoice over a fixed amount of a dollar wallet."""
        request = invoice_pb2.CreateInvoiceRequest(
            wallet_id=wallet_id, amount_cents=amount_cents, memo=memo, external_id=external_id
        )
        return self.invoices.CreateInvoice(request, timeout=CALL_S).invoice

    def create_hold_invoice(
        self, wallet_id: str, amount_sat: int, *, memo: str = "", external_id: str = ""
    ) -> invoice_pb2.Invoice:
        """An invoice whose payment waits for `settle_invoice`."""
        request = invoice_pb2.CreateInvoiceRequest(
            wallet_id=wallet_id, amount_sat=amount_sat, memo=memo, external_id=external_id, hold=True
        )
        return self.invoices.CreateInvoice(request, timeout=CALL_S).invoice

    def settle_invoice(self, payment_hash: str) -> invoice_pb2.Invoice:
        """Takes what a hold invoice holds; its preimage is with tellerd."""
        request = invoice_pb2.SettleInvoiceRequest(payment_hash=payment_hash)
        return self.invoices.SettleInvoice(request, timeout=CALL_S).invoice

    def invoice(self, payment_hash: str) -> invoice_pb2.Invoice:
        """The invoice as tellerd has it now."""
        request = invoice_pb2.GetInvoiceRequest(payment_hash=payment_hash)
        return self.invoices.GetInvoice(request, timeout=CALL_S).invoice

    def address(self, wallet_id: str, *, new: bool = False) -> str:
        """Where a deposit to the wallet is paid to."""
        request = deposit_pb2.GetAddressRequest(wallet_id=wallet_id, new=new)
        return self.deposits.GetAddress(request, timeout=CALL_S).address

    def deposit(self, txid: str, vout: int) -> deposit_pb2.Deposit:
        """The deposit as tellerd has it now."""
        request = deposit_pb2.GetDepositRequest(txid=txid, vout=vout)
        return self.deposits.GetDeposit(request, timeout=CALL_S).deposit

    def list_deposits(self, wallet_id: str) -> Sequence[deposit_pb2.Deposit]:
        """A wallet's deposits, newest first, at most 100."""
        request = deposit_pb2.ListDepositsRequest(wallet_id=wallet_id, page_size=100)
        return self.deposits.ListDeposits(request, timeout=CALL_S).deposits

    def balance_sat(self, wallet_id: str) -> int:
        """A BTC wallet's balance."""
        request = ledger_pb2.GetBalanceRequest(wallet_id=wallet_id)
        return self.ledger.GetBalance(request, timeout=CALL_S).balance_sat

    def balance_cents(self, wallet_id: str) -> int:
        """A dollar wallet's balance."""
        request = ledger_pb2.GetBalanceRequest(wallet_id=wallet_id)
        return self.ledger.GetBalance(request, timeout=CALL_S).balance_cents

    def trial_balance(self) -> tuple[Sequence[ledger_pb2.TrialBalanceRow], dict[str, int]]:
        """All accounts' rows, and the total per currency."""
        rows: list[ledger_pb2.TrialBalanceRow] = []
        token = ""
        while True:
            request = ledger_pb2.TrialBalanceRequest(page_size=1000, page_token=token)
            answer = self.ledger.TrialBalance(request, timeout=CALL_S)
            rows += answer.rows
            token = answer.next_page_token
            if not token:
                totals = {wallet_pb2.Currency.Name(total.currency): total.balance for total in answer.totals}
                return rows, totals

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connect(api: str, root_certificate: bytes | None, key: str | None) -> grpc.Channel:
    if root_certificate is None:
        if key is not None:
            raise ValueError("a key is sent over TLS only: give root_certificate, too")
        return grpc.insecure_channel(api)
    credentials = grpc.ssl_channel_credentials(root_certificate)
    if key is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(key))
    return grpc.secure_channel(api, credentials)
