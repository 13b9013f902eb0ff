"""The API over a real gRPC connection: what callers see, status codes and streams included."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]  # ships no types

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
)
from adapters.grpc_api.server import GrpcServer, start_grpc
from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.entries import Leg
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import HtlcLost, HtlcRef, InvoiceEnded
from tests.samples import MORNING_MS
from tests.unit.serving.bank_in_memory import ALICE_PUBKEY, BOB_PUBKEY, START, Bank, open_bank

CALL_TIMEOUT_S = 20.0
"""Never reached when all is well; a stream that says nothing fails a test instead of hanging it."""

MAX_STREAMS = 3


@dataclass(slots=True)
class Caller:
    """All services over one connection."""

    bank: Bank
    server: GrpcServer
    channel: grpc.Channel
    wallets: wallet_pb2_grpc.WalletServiceStub
    invoices: invoice_pb2_grpc.InvoiceServiceStub
    ledger: ledger_pb2_grpc.LedgerServiceStub
    events: event_pb2_grpc.EventServiceStub
    admin: admin_pb2_grpc.AdminServiceStub

    def invoice(self, wallet_id: str, **fields: Any) -> invoice_pb2.Invoice:
        request: dict[str, Any] = {"wallet_id": wallet_id, "amount_sat": 1000} | fields
        response = self.invoices.CreateInvoice(invoice_pb2.CreateInvoiceRequest(**request), timeout=CALL_TIMEOUT_S)
        return response.invoice

    def subscribe(self, **fields: Any) -> Any:
        return self.events.Subscribe(event_pb2.SubscribeRequest(**fields), timeout=CALL_TIMEOUT_S)

    def state(self, payment_hash: str) -> int:
        request = invoice_pb2.GetInvoiceRequest(payment_hash=payment_hash)
        return self.invoices.GetInvoice(request, timeout=CALL_TIMEOUT_S).invoice.state

    def watch(self, payment_hash: str) -> Any:
        request = invoice_pb2.WatchInvoiceRequest(payment_hash=payment_hash)
        return self.invoices.WatchInvoice(request, timeout=CALL_TIMEOUT_S)


def connected_to(bank: Bank) -> Iterator[Caller]:
    server = start_grpc(
        bank.api,
        address="127.0.0.1:0",
        metrics=bank.metrics,
        on_broken=bank.broken.append,
        max_streams=MAX_STREAMS,
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Caller(
                bank,
                server,
                channel,
                wallet_pb2_grpc.WalletServiceStub(channel),
                invoice_pb2_grpc.InvoiceServiceStub(channel),
                ledger_pb2_grpc.LedgerServiceStub(channel),
                event_pb2_grpc.EventServiceStub(channel),
                admin_pb2_grpc.AdminServiceStub(channel),
            )
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)


@pytest.fixture
def caller() -> Iterator[Caller]:
    yield from connected_to(open_bank())


@pytest.fixture
def standby() -> Iterator[Caller]:
    bank = open_bank(leading=False)
    bank.api.gate.stand_by()
    yield from connected_to(bank)


def ended(payment_hash: str, *, reason: str, returned_msat: int = 0) -> InvoiceEnded:
    """The node's word that an invoice can never be paid any more."""
    return InvoiceEnded(
        pubkey=NodePubkey(ALICE_PUBKEY),
        payment_hash=PaymentHash(payment_hash),
        reason=reason,
        returned_msat=returned_msat,
        ended_at_ms=MORNING_MS,
    )


def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status of a call, or of a stream at its first message, that must fail."""

    def first_answer() -> Any:
        response = call()
        return next(response) if hasattr(response, "__next__") else response

    with pytest.raises(grpc.RpcError) as caught:
        first_answer()
    return caught.value.code(), caught.value.details() or ""


# --- wallets ----------------------------------------------------------------------------------------


def test_a_wallet_is_made_once_per_external_id(caller: Caller) -> None:
    """A repeat returns the first wallet, with other arguments it is refused, another name makes another."""
    request = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_BTC, external_id="shop")
    first = caller.wallets.CreateWallet(request).wallet
    assert first.currency == wallet_pb2.CURRENCY_BTC
    assert caller.wallets.CreateWallet(request).wallet == first
    assert caller.wallets.GetWallet(wallet_pb2.GetWalletRequest(wallet_id=first.wallet_id)).wallet == first
    request.account_id = first.account_id
    assert refused(lambda: caller.wallets.CreateWallet(request))[0] == grpc.StatusCode.ALREADY_EXISTS
    request.external_id = ""
    second = caller.wallets.CreateWallet(request).wallet
    assert second.wallet_id != first.wallet_id
    assert second.account_id == first.account_id


def test_wallets_are_listed_page_by_page(caller: Caller) -> None:
    """Every wallet stands on exactly one page, and the last page has no token."""
    there = caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest(page_size=100)).wallets  # the system's own
    made = [wallet.wallet_id for wallet in there]
    made += [caller.bank.wallet(f"w{number}").wallet_id for number in range(6 - len(made))]
    seen, token, pages = [], "", 0
    while True:
        page = caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest(page_size=2, page_token=token))
        seen += [wallet.wallet_id for wallet in page.wallets]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (seen, pages) == (made, 3)


# --- invoices ---------------------------------------------------------------------------------------


def test_an_invoice_is_made_on_the_node_for_what_was_asked(caller: Caller) -> None:
    """Amount, memo, expiry and node are those of the request; the payment hash is the external_id by default."""
    wallet = caller.bank.wallet()
    invoice = caller.invoice(wallet.wallet_id, amount_sat=2500, memo="1 coffee ☕", expiry_s=60, node="bob")
    on_node = caller.bank.nodes[1].lookup_invoice(PaymentHash(invoice.payment_hash))
    assert on_node is not None
    assert (on_node.value_msat, on_node.memo, on_node.expiry_s) == (2_500_000, "1 coffee ☕", 60)
    assert invoice.node == BOB_PUBKEY
    assert (invoice.amount_sat, invoice.memo) == (2500, "1 coffee ☕")
    assert invoice.state == invoice_pb2.INVOICE_STATE_OPEN
    assert invoice.external_id == invoice.payment_hash
    assert (invoice.wallet_id, invoice.account_id) == (wallet.wallet_id, wallet.account_id)
    assert not invoice.HasField("received_sat")
    assert not invoice.HasField("settled_at")
    assert invoice.created_at == Timestamp(seconds=int(START.timestamp()), nanos=123_000_000)
    assert invoice.expires_at == Timestamp(seconds=int(START.timestamp()) + 60)


def test_a_description_hash_stands_in_place_of_a_memo(caller: Caller) -> None:
    """The node gets the hash and no memo."""
    digest = hashlib.sha256(b"a long text").digest()
    invoice = caller.invoice(caller.bank.wallet().wallet_id, description_hash=digest)
    on_node = caller.bank.node.lookup_invoice(PaymentHash(invoice.payment_hash))
    assert on_node is not None
    assert (on_node.description_hash, on_node.memo, invoice.memo) == (digest, "", "")


def test_a_repeat_returns_the_first_invoice(caller: Caller) -> None:
    """Same external_id and arguments: one invoice, here and on the node; without external_id there are more."""
    wallet_id = caller.bank.wallet().wallet_id
    first = caller.invoice(wallet_id, external_id="order-1", memo="x")
    assert caller.invoice(wallet_id, external_id="order-1", memo="x") == first
    assert len(caller.bank.node.list_invoices(after_add_index=0, limit=10).invoices) == 1
    assert caller.invoice(wallet_id) != caller.invoice(wallet_id)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"amount_sat": 1001}, "amount_sat"),
        ({"memo": "y"}, "memo"),
        ({"expiry_s": 61}, "expiry_s"),
        ({"description_hash": b"h" * 32}, "memo and description_hash"),
        ({"node": "bob"}, "node"),
    ],
)
def test_a_repeat_with_other_arguments_is_refused(caller: Caller, changed: dict[str, Any], named: str) -> None:
    """ALREADY_EXISTS names what differs; nothing is made."""
    wallet_id = caller.bank.wallet().wallet_id
    asked: dict[str, Any] = {"external_id": "order-1", "memo": "x", "expiry_s": 60}
    caller.invoice(wallet_id, **asked)
    if "description_hash" in changed:
        del asked["memo"]
    code, text = refused(lambda: caller.invoice(wallet_id, **asked | changed))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert f"used with another {named};" in text
    assert all(not node.list_invoices(after_add_index=1, limit=1).invoices for node in caller.bank.nodes)


def test_an_external_id_belongs_to_one_wallet_of_an_account(caller: Caller) -> None:
    """Another wallet of the same account cannot use it, and does not see the other's invoice by it."""
    first = caller.bank.wallet()
    second = caller.bank.store.wallets.create(
        account_id=first.account_id, currency=first.currency, external_id="second"
    )
    caller.invoice(first.wallet_id, external_id="order-1")
    assert refused(lambda: caller.invoice(second.wallet_id, external_id="order-1"))[0] == (
        grpc.StatusCode.ALREADY_EXISTS
    )
    request = invoice_pb2.GetInvoiceRequest(wallet_id=second.wallet_id, external_id="order-1")
    assert refused(lambda: caller.invoices.GetInvoice(request))[0] == grpc.StatusCode.NOT_FOUND


def test_an_invoice_that_did_not_reach_the_node_is_completed_by_a_repeat(caller: Caller) -> None:
    """The document is there first, so the repeat goes on with the same preimage; nothing was payable before."""
    wallet = caller.bank.wallet()
    caller.bank.node.go_away()
    code, _ = refused(lambda: caller.invoice(wallet.wallet_id, external_id="order-1"))
    assert code == grpc.StatusCode.UNAVAILABLE
    half_made = caller.bank.store.invoices.get_by_external_id(wallet.account_id, "order-1")
    assert half_made is not None
    assert half_made.payment_request is None
    caller.bank.node.come_back()
    invoice = caller.invoice(wallet.wallet_id, external_id="order-1")
    assert invoice.payment_hash == half_made.payment_hash
    assert hashlib.sha256(bytes.fromhex(half_made.preimage)).hexdigest() == invoice.payment_hash


def test_an_invoice_that_only_the_node_completed_is_found_by_a_repeat(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the database is lost after AddInvoice: the node's invoice is the one, also for other arguments."""
    wallet_id = caller.bank.wallet().wallet_id
    invoices = caller.bank.store.invoices

    def lost(payment_hash: str, payment_request: str) -> None:
        raise Unavailable("connection lost")

    with monkeypatch.context() as patched:
        patched.setattr(invoices, "set_payment_request", lost)
        assert refused(lambda: caller.invoice(wallet_id, external_id="order-1"))[0] == grpc.StatusCode.UNAVAILABLE
    on_node = caller.bank.node.list_invoices(after_add_index=0, limit=10).invoices
    code, _ = refused(lambda: caller.invoice(wallet_id, external_id="order-1", amount_sat=7))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    invoice = caller.invoice(wallet_id, external_id="order-1")
    assert [known.payment_hash for known in on_node] == [invoice.payment_hash]
    assert caller.bank.node.list_invoices(after_add_index=0, limit=10).invoices == on_node


def test_the_same_call_at_once_makes_one_invoice(caller: Caller) -> None:
    """Eight threads, one external_id: all get the same invoice."""
    wallet_id = caller.bank.wallet().wallet_id
    ready, answers = threading.Barrier(8), []

    def call() -> None:
        ready.wait()
        answers.append(caller.invoice(wallet_id, external_id="order-1"))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)


def test_a_node_that_is_not_followed_is_passed_over(caller: Caller) -> None:
    """The first connected node is taken, by name even one that is not connected, if it answers."""
    wallet_id = caller.bank.wallet().wallet_id
    caller.bank.statuses[0].connected = False
    assert caller.invoice(wallet_id).node == BOB_PUBKEY
    assert caller.invoice(wallet_id, node=ALICE_PUBKEY).node == ALICE_PUBKEY
    assert refused(lambda: caller.invoice(wallet_id, node="carol"))[0] == grpc.StatusCode.NOT_FOUND


def test_a_paid_invoice_is_settled_and_in_the_books(caller: Caller) -> None:
    """Overpaid, with a fraction of a sat: state, amounts, balance, transaction and trial balance agree."""
    caller.bank.open_books(funds_msat=5_000_000)
    wallet_id = caller.bank.wallet().wallet_id
    first = caller.invoice(wallet_id, external_id="order-1", memo="tea")
    second = caller.invoice(wallet_id, external_id="order-2")
    caller.bank.pay(first.payment_hash, 1_000_999)
    caller.bank.pay(second.payment_hash)

    settled = caller.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(payment_hash=first.payment_hash)).invoice
    assert settled.state == invoice_pb2.INVOICE_STATE_SETTLED
    assert (settled.amount_sat, settled.received_sat) == (1000, 1000)
    assert settled.settled_at.seconds == int(START.timestamp())
    by_name = invoice_pb2.GetInvoiceRequest(wallet_id=wallet_id, external_id="order-1")
    assert caller.invoices.GetInvoice(by_name).invoice == settled

    balance = caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=wallet_id))
    assert (balance.balance_sat, balance.WhichOneof("amount")) == (2000, "balance_sat")
    assert balance.as_of_sequence == caller.bank.store.ledger.head().sequence

    listed = caller.ledger.ListTransactions(ledger_pb2.ListTransactionsRequest(wallet_id=wallet_id, page_size=1))
    newest = listed.transactions[0]
    assert (newest.balance_before_sat, newest.amount_sat, newest.balance_after_sat) == (1000, 1000, 2000)
    older = caller.ledger.ListTransactions(
        ledger_pb2.ListTransactionsRequest(wallet_id=wallet_id, page_token=listed.next_page_token)
    )
    oldest = older.transactions[0]
    assert not older.next_page_token
    assert (oldest.memo, oldest.external_id, oldest.payment_hash) == ("tea", "order-1", first.payment_hash)
    assert (oldest.balance_before_sat, oldest.balance_after_sat, oldest.fee_sat) == (0, 1000, 0)
    assert oldest.settlement_method == ledger_pb2.SETTLEMENT_METHOD_LIGHTNING
    assert oldest.direction == ledger_pb2.DIRECTION_RECEIVE
    assert oldest.reference == f"ln:{ALICE_PUBKEY}:{first.payment_hash}"

    trial = caller.ledger.TrialBalance(ledger_pb2.TrialBalanceRequest())
    assert [(total.currency, total.balance) for total in trial.totals] == [(wallet_pb2.CURRENCY_BTC, 0)]
    balances = {row.account: row.balance for row in trial.rows}
    assert balances[LIGHTNING] == -7000
    assert balances[wallet_account(wallet_id)] == 2000


def test_an_expired_invoice_is_over_once_its_node_has_said_so(caller: Caller) -> None:
    """However long ago its time ran out: a payment may be held. What is paid in the end is credited all the same."""
    wallet_id = caller.bank.wallet().wallet_id
    expired, late = (caller.invoice(wallet_id, expiry_s=60).payment_hash for _ in range(2))
    caller.bank.clock.advance(days=2)
    assert caller.state(expired) == caller.state(late) == invoice_pb2.INVOICE_STATE_OPEN
    for payment_hash in (expired, late):
        caller.bank.post(ended(payment_hash, reason="expired"))
    assert caller.state(expired) == caller.state(late) == invoice_pb2.INVOICE_STATE_EXPIRED
    caller.bank.pay(late)
    assert caller.state(late) == invoice_pb2.INVOICE_STATE_SETTLED
    assert caller.state(expired) == invoice_pb2.INVOICE_STATE_EXPIRED


def test_invoices_of_another_program_are_shown_whatever_their_payment_request(caller: Caller) -> None:
    """A document without a readable payment request still has its hash, state and wallet."""
    wallet = caller.bank.wallet()
    own = caller.bank.store.invoices.get(PaymentHash(caller.invoice(wallet.wallet_id).payment_hash))
    assert own is not None
    for number, payment_request in enumerate((None, "not a payment request")):
        caller.bank.store.another.insert_invoice(
            replace(
                own,
                payment_hash=PaymentHash(f"{number:064x}"),
                external_id=f"theirs-{number}",
                payment_request=payment_request,
                completed=True,
            )
        )
    listed = caller.invoices.ListInvoices(invoice_pb2.ListInvoicesRequest(wallet_id=wallet.wallet_id)).invoices
    theirs = [invoice for invoice in listed if invoice.external_id.startswith("theirs")]
    assert len(theirs) == 2
    assert all(invoice.state == invoice_pb2.INVOICE_STATE_CLOSED for invoice in theirs)
    assert all(not invoice.HasField("expires_at") for invoice in theirs)


def test_a_watcher_sees_the_invoice_now_and_when_it_is_settled(caller: Caller) -> None:
    """Two messages, then the stream ends with OK."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id).payment_hash
    stream = caller.watch(payment_hash)
    assert next(stream).invoice.state == invoice_pb2.INVOICE_STATE_OPEN
    caller.bank.pay(payment_hash)
    settled = next(stream).invoice
    assert (settled.state, settled.received_sat) == (invoice_pb2.INVOICE_STATE_SETTLED, 1000)
    assert list(stream) == []
    assert stream.code() == grpc.StatusCode.OK


def test_a_watcher_of_a_closed_invoice_gets_it_once(caller: Caller) -> None:
    """One message, then the end; an unknown invoice is NOT_FOUND."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, expiry_s=60).payment_hash
    caller.bank.post(ended(payment_hash, reason="expired"))
    states = [response.invoice.state for response in caller.watch(payment_hash)]
    assert states == [invoice_pb2.INVOICE_STATE_EXPIRED]
    assert refused(lambda: caller.watch("00" * 32))[0] == grpc.StatusCode.NOT_FOUND


# --- bad input --------------------------------------------------------------------------------------

HASH = "ab" * 32


@pytest.mark.parametrize(
    ("fields", "field", "remedy"),
    [
        ({"amount_sat": 0}, "amount_sat: 0", "give 1 to 2100000000000000"),
        ({"amount_sat": -1}, "amount_sat: -1", "give 1 to"),
        ({"amount_sat": 2_100_000_000_000_001}, "amount_sat: 2100000000000001", "give 1 to"),
        ({"memo": "ü" * 320}, "memo: 'üüü", "640 bytes of UTF-8: give at most 639"),
        ({"description_hash": b"short"}, "description_hash: '73686f7274'", "32 bytes"),
        ({"description_hash": b""}, "description_hash: ''", "32 bytes"),
        ({"expiry_s": 59}, "expiry_s: 59", "give 60 to 86400, or 0 for 14400"),
        ({"expiry_s": 86_401}, "expiry_s: 86401", "give 60 to 86400"),
        ({"expiry_s": -5}, "expiry_s: -5", "give 60 to 86400"),
        ({"external_id": "Order 1"}, "external_id: 'Order 1'", "1 to 100 characters"),
        ({"external_id": "x" * 101}, "external_id: 'xxx", "1 to 100 characters"),
        ({"wallet_id": ""}, "wallet_id: ''", "give the wallet's UUID"),
        ({"wallet_id": "$ne"}, "wallet_id: '$ne'", "give the wallet's UUID"),
    ],
)
def test_a_bad_invoice_request_names_field_value_and_remedy(
    caller: Caller, fields: dict[str, Any], field: str, remedy: str
) -> None:
    """INVALID_ARGUMENT, and nothing reaches database or node."""
    wallet = caller.bank.wallet()
    request = {"wallet_id": wallet.wallet_id} | fields
    code, text = refused(lambda: caller.invoice(**request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith(field)
    assert remedy in text
    assert caller.bank.store.invoices.page(wallet_id=wallet.wallet_id, after=None, limit=1) == ([], None)
    assert not caller.bank.node.list_invoices(after_add_index=0, limit=1).invoices


def test_other_bad_input_names_field_value_and_remedy(caller: Caller) -> None:
    """One case per kind of field."""
    cases = [
        (lambda: caller.wallets.CreateWallet(wallet_pb2.CreateWalletRequest()), "currency: 'unspecified'"),
        (lambda: caller.wallets.GetWallet(wallet_pb2.GetWalletRequest(wallet_id="x")), "wallet_id: 'x'"),
        (lambda: caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest(page_size=1001)), "page_size: 1001"),
        (lambda: caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest(page_token="?")), "page_token: '?'"),
        (lambda: caller.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest()), "payment_hash: ''"),
        (
            lambda: caller.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(payment_hash=HASH, external_id="both")),
            f"payment_hash: '{HASH}'",
        ),
        (lambda: caller.watch("zz"), "payment_hash: 'zz'"),
        (lambda: caller.subscribe(after_sequence=-1), "after_sequence: -1"),
        (lambda: caller.subscribe(types=["invoice.paid"]), "types: 'invoice.paid'"),
        (lambda: caller.subscribe(wallet_ids=["w"]), "wallet_id: 'w'"),
    ]
    for call, field in cases:
        code, text = refused(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, text
        assert text.startswith(field)
        assert "; give " in text


def test_unknown_wallets_are_not_found_everywhere(caller: Caller) -> None:
    """A well-formed id that names nothing."""
    nobody = "00000000-0000-4000-8000-000000000000"
    for call in (
        lambda: caller.invoice(nobody),
        lambda: caller.wallets.GetWallet(wallet_pb2.GetWalletRequest(wallet_id=nobody)),
        lambda: caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=nobody)),
        lambda: caller.ledger.ListTransactions(ledger_pb2.ListTransactionsRequest(wallet_id=nobody)),
        lambda: caller.invoices.ListInvoices(invoice_pb2.ListInvoicesRequest(wallet_id=nobody)),
        lambda: caller.invoices.GetInvoice(invoice_pb2.GetInvoiceRequest(payment_hash=HASH)),
    ):
        assert refused(call)[0] == grpc.StatusCode.NOT_FOUND


# --- events -----------------------------------------------------------------------------------------


def test_a_subscriber_gets_what_has_happened_and_what_happens(caller: Caller) -> None:
    """In order, without gaps, each with its typed payload; a second subscription resumes after a sequence."""
    caller.bank.open_books()
    wallet_id = caller.bank.wallet().wallet_id
    first, second = caller.invoice(wallet_id, external_id="a"), caller.invoice(wallet_id)
    caller.bank.pay(first.payment_hash)
    stream = caller.subscribe()
    opened, settled = next(stream).event, next(stream).event
    assert (opened.sequence, opened.type, opened.books_opened.node_name) == (1, "books.opened", "alice")
    assert (settled.sequence, settled.type, settled.wallet_id) == (2, "invoice.settled", wallet_id)
    assert settled.id == f"ln:{ALICE_PUBKEY}:{first.payment_hash}#invoice.settled"
    assert settled.invoice_settled.external_id == "a"
    assert settled.invoice_settled.amount_sat == 1000
    assert len(settled.invoice_settled.journal_id) == 24
    caller.bank.pay(second.payment_hash)
    assert next(stream).event.sequence == 3
    stream.cancel()
    assert next(caller.subscribe(after_sequence=2)).event.sequence == 3


def test_every_type_of_event_has_its_payload(caller: Caller) -> None:
    """Suspense, rounding, another program's journal: nothing arrives as an empty shell."""
    caller.bank.open_books()
    wallet = caller.bank.wallet()
    caller.bank.post(caller.bank.node.keysend(1_999))
    caller.bank.post(caller.bank.node.keysend(1_001))
    legs = (
        Leg(account=LIGHTNING, currency="BTC", debit=5),
        Leg(account=wallet_account(wallet.wallet_id), currency="BTC", credit=5),
    )
    journal_id = caller.bank.store.another.write_journal(legs, memo="theirs")
    caller.bank.post(*caller.bank.store.journals.foreign_journals(after=None, limit=10))
    stream = caller.subscribe(after_sequence=1)
    told = {event.type: event for event in (next(stream).event for _ in range(4))}
    assert told["suspense.received"].suspense_received.reason == "no_expectation"
    assert told["rounding.booked"].rounding_booked.amount_sat == 1
    adopted = told["journal.adopted"]
    assert adopted.journal_adopted.journal_id == journal_id
    assert [(leg.debit, leg.credit) for leg in adopted.journal_adopted.legs] == [(5, 0), (0, 5)]
    assert adopted.wallet_id == wallet.wallet_id


def test_losses_and_money_that_came_again_are_told_whole(caller: Caller) -> None:
    """With the journal that booked them; the id of a channel's alias is larger than 63 bits hold."""
    caller.bank.open_books()
    wallet = caller.bank.wallet()
    invoice = caller.invoice(wallet.wallet_id)
    paid = caller.bank.node.settle(PaymentHash(invoice.payment_hash))
    caller.bank.post(paid)
    caller.bank.post(caller.bank.node.pay_again(paid.payment_hash, 2_500, renumber=False))
    htlc = HtlcRef(16_000_000 << 40, 3, 1_999)
    caller.bank.post(
        HtlcLost(
            pubkey=paid.pubkey,
            payment_hash=paid.payment_hash,
            settled_id=paid.settled_id,
            settle_index=paid.settle_index,
            htlc=htlc,
            seen_at_ms=MORNING_MS,
        )
    )
    stream = caller.subscribe(types=["invoice.paid_again", "htlc.lost"])
    again, lost = next(stream).event, next(stream).event
    assert again.wallet_id == wallet.wallet_id
    told = again.invoice_paid_again
    assert (told.amount_sat, told.received_msat) == (2, 2_500)
    assert (told.total_received_msat, told.external_id) == (paid.received_msat + 2_500, invoice.external_id)
    assert len(told.journal_id) == 24
    assert (lost.htlc_lost.chan_id, lost.htlc_lost.htlc_index) == (htlc.chan_id, 3)
    assert (lost.htlc_lost.amount_msat, lost.htlc_lost.payment_hash) == (1_999, paid.payment_hash)
    assert len(lost.htlc_lost.journal_id) == 24


def test_filters_let_through_what_they_name(caller: Caller) -> None:
    """By type, by wallet: the sequence numbers stay those of the whole feed."""
    caller.bank.open_books()
    one, two = caller.bank.wallet("one").wallet_id, caller.bank.wallet("two").wallet_id
    for wallet_id in (one, two, one):
        caller.bank.pay(caller.invoice(wallet_id).payment_hash)
    by_wallet = caller.subscribe(wallet_ids=[one])
    assert [next(by_wallet).event.sequence for _ in range(2)] == [2, 4]
    by_type = caller.subscribe(types=["books.opened", "suspense.received"])
    assert next(by_type).event.sequence == 1
    caller.bank.post(caller.bank.node.keysend(1_000))
    assert next(by_type).event.type == "suspense.received"


def test_a_sequence_beyond_the_feed_is_out_of_range(caller: Caller) -> None:
    """It belongs to another database: waiting for it would lose events without an error."""
    code, text = refused(lambda: caller.subscribe(after_sequence=1))
    assert code == grpc.StatusCode.OUT_OF_RANGE
    assert "the newest event is 0" in text


def test_a_gap_in_the_outbox_ends_the_process(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The subscriber gets no wrong sequence and no detail; the process is told of the broken invariant."""
    caller.bank.open_books()
    ledger = caller.bank.store.ledger
    rows = ledger.events(after_sequence=0, limit=10)
    monkeypatch.setattr(ledger, "events", lambda **_: [replace(rows[0], sequence=2)])
    code, text = refused(caller.subscribe)
    assert (code, text) == (grpc.StatusCode.INTERNAL, "internal error: the daemon's log has it")
    assert [type(problem) for problem in caller.bank.broken] == [InvariantViolation]


# --- bounds, roles, the end -------------------------------------------------------------------------


def test_streams_are_bounded_and_do_not_starve_calls(caller: Caller) -> None:
    """One more than the bound is turned away; calls are answered meanwhile; a place given back can be had."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id).payment_hash
    streams = [caller.watch(payment_hash) for _ in range(MAX_STREAMS)]
    for stream in streams:
        next(stream)
    assert refused(caller.subscribe)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest(), timeout=CALL_TIMEOUT_S)
    streams[0].cancel()
    for _ in range(200):  # the server notices within a second
        stream = caller.watch(payment_hash)
        try:
            next(stream)
            return
        except grpc.RpcError:
            threading.Event().wait(0.05)
    pytest.fail(f"the place of a cancelled stream was not given back: {stream.code()}")


def test_a_standby_answers_health_reflection_and_status_only(standby: Caller) -> None:
    """Everything else is UNAVAILABLE with the reason."""
    code, text = refused(lambda: standby.wallets.ListWallets(wallet_pb2.ListWalletsRequest()))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert text.startswith("standby: ")
    assert refused(standby.subscribe)[0] == grpc.StatusCode.UNAVAILABLE
    status = standby.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert status.role == admin_pb2.ROLE_STANDBY
    assert _health(standby) == health_pb2.HealthCheckResponse.NOT_SERVING
    assert "tellerd.v1.InvoiceService" in _reflected(standby)
    standby.bank.api.gate.lead()
    assert _health(standby) == health_pb2.HealthCheckResponse.SERVING
    standby.wallets.ListWallets(wallet_pb2.ListWalletsRequest())


def test_draining_refuses_calls_and_ends_streams(caller: Caller) -> None:
    """Health says so first; streams end UNAVAILABLE, so that their readers go to another daemon."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id).payment_hash
    feed, watch = caller.subscribe(), caller.watch(payment_hash)
    next(watch)
    caller.bank.api.gate.drain()
    assert _health(caller) == health_pb2.HealthCheckResponse.NOT_SERVING
    code, text = refused(lambda: caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest()))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert text.startswith("shutting down")
    for stream in (feed, watch):
        assert refused(lambda stream=stream: stream)[0] == grpc.StatusCode.UNAVAILABLE
    caller.bank.api.gate.lead()
    assert refused(lambda: caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest()))[1].startswith("shutting")


def test_status_shows_database_lease_feed_and_nodes(caller: Caller) -> None:
    """What operators see first."""
    caller.bank.open_books()
    caller.bank.pay(caller.invoice(caller.bank.wallet().wallet_id).payment_hash, 1_000_123)
    status = caller.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.role, status.network, status.version) == (admin_pb2.ROLE_LEADER, "regtest", "0.1.0")
    assert (status.sequence, status.chain_length) == (2, caller.bank.store.ledger.head().chain_length)
    assert status.head_hash == caller.bank.store.ledger.head().chain_hash
    assert (status.mongo.connected, status.mongo.database, status.mongo.replica_set) == (True, "tellerd", "rs0")
    assert (status.lease.holder, status.lease.token) == ("host:1", 1)
    alice, bob = status.lnd
    assert (alice.name, alice.connected, alice.settle_index, alice.remainder_msat) == ("alice", True, 1, 123)
    assert (bob.name, bob.settle_index) == ("bob", 0)


def test_status_is_answered_without_the_database(caller: Caller) -> None:
    """What cannot be known is left out, the error is named."""
    caller.bank.probe.away = "no primary"
    status = caller.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert (status.mongo.connected, status.mongo.last_error) == (False, "no primary")
    assert not status.HasField("lease")
    assert [node.name for node in status.lnd] == ["alice", "bob"]


def test_an_unexpected_error_is_told_without_detail(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says stays in the log; the next call is answered."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("preimage 00ff")

    with monkeypatch.context() as patched:
        patched.setattr(caller.bank.store.wallets, "page", fail)
        code, text = refused(lambda: caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest()))
    assert (code, text) == (grpc.StatusCode.INTERNAL, "internal error: the daemon's log has it")
    assert caller.bank.broken == []
    caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest())


def test_calls_and_streams_are_counted_by_method_and_code(caller: Caller) -> None:
    """As Prometheus will read it."""
    caller.wallets.ListWallets(wallet_pb2.ListWalletsRequest())
    refused(lambda: caller.wallets.GetWallet(wallet_pb2.GetWalletRequest(wallet_id="x")))
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id).payment_hash
    stream = caller.watch(payment_hash)
    next(stream)
    page = caller.bank.metrics.page().decode()
    assert 'tellerd_api_calls_total{code="OK",method="tellerd.v1.WalletService/ListWallets"} 1.0' in page
    assert 'tellerd_api_calls_total{code="INVALID_ARGUMENT",method="tellerd.v1.WalletService/GetWallet"} 1.0' in page
    assert 'tellerd_api_streams{method="tellerd.v1.InvoiceService/WatchInvoice"} 1.0' in page


def test_a_taken_port_is_refused(caller: Caller) -> None:
    """A second daemon at the same address must not share the port."""
    bank = open_bank()
    with pytest.raises(OSError, match="cannot listen at"):
        start_grpc(
            bank.api,
            address=f"127.0.0.1:{caller.server.port}",
            metrics=bank.metrics,
            on_broken=bank.broken.append,
        )


def _health(caller: Caller) -> int:
    stub = health_pb2_grpc.HealthStub(caller.channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S).status
    return status


def _reflected(caller: Caller) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = stub.ServerReflectionInfo(iter([request]), timeout=CALL_TIMEOUT_S)
    return [service.name for answer in answers for service in answer.list_services_response.service]
