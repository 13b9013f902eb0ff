"""Hold invoices over a real gRPC connection: made, released and canceled by call, and every refusal."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import event_pb2, invoice_pb2
from adapters.prices.fixed import FixedPrice
from daemon.domain.holds import Release
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceHeld
from daemon.domain.ports import InvoiceState, NewHoldInvoice, NodeAnswer, StoredInvoice
from daemon.posting.pricing import Pricing
from tests.contract.test_grpc_api import CALL_TIMEOUT_S, Caller, connected_to, ended, refused
from tests.samples import MORNING_MS
from tests.unit.serving.bank_in_memory import ALICE_PUBKEY, open_bank

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def caller() -> Iterator[Caller]:
    """A bank whose books are open, and that has a price of dollars."""
    bank = open_bank()
    pricing = Pricing(
        dealer=FixedPrice(Decimal(60_000)),
        quotes=bank.store.quotes,
        now_ms=lambda: int(bank.clock.unix_s() * 1000),
    )
    bank.api = replace(bank.api, pricing=pricing)
    bank.open_books()
    yield from connected_to(bank)


def settle(caller: Caller, payment_hash: str, preimage: bytes = b"") -> invoice_pb2.Invoice:
    """SettleInvoice."""
    request = invoice_pb2.SettleInvoiceRequest(payment_hash=payment_hash, preimage=preimage)
    return caller.invoices.SettleInvoice(request, timeout=CALL_TIMEOUT_S).invoice


def cancel(caller: Caller, payment_hash: str, *, also_if_held: bool = False) -> invoice_pb2.Invoice:
    """CancelInvoice."""
    request = invoice_pb2.CancelInvoiceRequest(payment_hash=payment_hash, also_if_held=also_if_held)
    return caller.invoices.CancelInvoice(request, timeout=CALL_TIMEOUT_S).invoice


def hold(caller: Caller, payment_hash: str, received_msat: int = 1_000_000) -> None:
    """A payment arrives and is held, and the books know it."""
    caller.bank.node.hold(PaymentHash(payment_hash), received_msat)
    caller.bank.post(
        InvoiceHeld(
            pubkey=NodePubkey(ALICE_PUBKEY),
            payment_hash=PaymentHash(payment_hash),
            received_msat=received_msat,
            expiry_height=230,
            held_at_ms=MORNING_MS,
        )
    )


def stored(caller: Caller, payment_hash: str) -> StoredInvoice:
    """The document."""
    found = caller.bank.store.invoices.get(PaymentHash(payment_hash))
    assert found is not None
    return found


def a_hash() -> tuple[bytes, str]:
    """A preimage that only the caller knows, and its hash."""
    preimage = os.urandom(32)
    return preimage, hashlib.sha256(preimage).hexdigest()


def test_a_hold_invoice_is_made_with_a_preimage_that_the_node_does_not_know(caller: Caller) -> None:
    """Its document says who releases it; a repeat returns it, one that is no hold invoice is refused."""
    wallet_id = caller.bank.wallet().wallet_id
    made = caller.invoice(wallet_id, hold=True, external_id="order-1")
    assert (made.hold, made.state) == (True, invoice_pb2.INVOICE_STATE_OPEN)
    on_node = caller.bank.node.lookup_invoice(PaymentHash(made.payment_hash))
    assert on_node is not None
    assert on_node.hold is not None
    document = stored(caller, made.payment_hash)
    assert document.release is Release.MANUAL
    assert hashlib.sha256(bytes.fromhex(document.preimage)).hexdigest() == made.payment_hash
    assert caller.invoice(wallet_id, hold=True, external_id="order-1") == made
    code, text = refused(lambda: caller.invoice(wallet_id, external_id="order-1"))
    assert (code, "another hold" in text) == (grpc.StatusCode.ALREADY_EXISTS, True)
    ordinary = caller.invoice(wallet_id)
    assert not ordinary.hold
    assert stored(caller, ordinary.payment_hash).release is None


def test_a_caller_may_keep_the_preimage(caller: Caller) -> None:
    """The hash is the invoice's name, so that a repeat is safe without an external_id."""
    wallet_id = caller.bank.wallet().wallet_id
    _, payment_hash = a_hash()
    made = caller.invoice(wallet_id, hold=True, payment_hash=payment_hash.upper())
    assert (made.payment_hash, made.external_id) == (payment_hash, payment_hash)
    assert stored(caller, payment_hash).preimage == ""
    assert caller.invoice(wallet_id, hold=True, payment_hash=payment_hash) == made
    code, _ = refused(lambda: caller.invoice(wallet_id, hold=True, payment_hash=payment_hash, amount_sat=2))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    other = caller.bank.wallet("other").wallet_id
    code, _ = refused(lambda: caller.invoice(other, hold=True, payment_hash=payment_hash))
    assert code == grpc.StatusCode.ALREADY_EXISTS


def test_a_hash_that_is_somebody_elses_on_the_node_is_refused(caller: Caller) -> None:
    """Else their payment would be this wallet's."""
    _, payment_hash = a_hash()
    caller.bank.node.add_hold_invoice(
        NewHoldInvoice(
            payment_hash=PaymentHash(payment_hash), value_msat=1_000_000, memo="", description_hash=b"", expiry_s=600
        )
    )
    wallet_id = caller.bank.wallet().wallet_id
    code, text = refused(lambda: caller.invoice(wallet_id, hold=True, payment_hash=payment_hash))
    assert (code, "has an invoice" in text) == (grpc.StatusCode.ALREADY_EXISTS, True)
    assert caller.bank.store.invoices.get(PaymentHash(payment_hash)) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"payment_hash": "ab" * 32}, "payment_hash"), ({"payment_hash": "zz", "hold": True}, "payment_hash")],
)
def test_a_hash_needs_hold_and_32_bytes(caller: Caller, fields: dict[str, object], field: str) -> None:
    """INVALID_ARGUMENT, and nothing is made."""
    wallet_id = caller.bank.wallet().wallet_id
    code, text = refused(lambda: caller.invoice(wallet_id, **fields))
    assert (code, text.startswith(field)) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert caller.bank.store.invoices.page(wallet_id=wallet_id, after=None, limit=1) == ([], None)


def test_a_held_invoice_is_shown_with_what_it_holds(caller: Caller) -> None:
    """By every read, and to who watches it; then settled."""
    wallet_id = caller.bank.wallet().wallet_id
    payment_hash = caller.invoice(wallet_id, hold=True).payment_hash
    watch = caller.watch(payment_hash)
    assert next(watch).invoice.state == invoice_pb2.INVOICE_STATE_OPEN
    hold(caller, payment_hash)
    held = next(watch).invoice
    assert (held.state, held.held_msat, held.expiry_height) == (invoice_pb2.INVOICE_STATE_HELD, 1_000_000, 230)
    listed = caller.invoices.ListInvoices(invoice_pb2.ListInvoicesRequest(wallet_id=wallet_id)).invoices
    assert list(listed) == [held]
    caller.bank.node.settle_invoice(bytes.fromhex(stored(caller, payment_hash).preimage))
    (event,) = caller.bank.node.settled_after(0)
    caller.bank.post(event)
    settled = next(watch).invoice
    assert (settled.state, settled.received_sat) == (invoice_pb2.INVOICE_STATE_SETTLED, 1000)
    assert not settled.HasField("held_msat")
    assert settle(caller, payment_hash) == settled  # again is no error
    assert list(watch) == []


def test_a_release_stands_in_the_document(caller: Caller) -> None:
    """Whoever keeps the node's hold invoices does the rest, also after a kill; here nobody does."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, hold=True).payment_hash
    hold(caller, payment_hash)
    assert settle(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_HELD
    assert stored(caller, payment_hash).release is Release.AUTOMATIC
    assert settle(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_HELD


def test_a_release_brings_the_callers_preimage(caller: Caller) -> None:
    """Checked before it is kept, and in no error text."""
    preimage, payment_hash = a_hash()
    caller.invoice(caller.bank.wallet().wallet_id, hold=True, payment_hash=payment_hash)
    hold(caller, payment_hash)
    for wrong in (b"", os.urandom(32), preimage[:31]):
        code, text = refused(lambda wrong=wrong: settle(caller, payment_hash, wrong))
        assert (code, text.startswith("preimage")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert ("''" in text, "does not fit the payment_hash" in text) == (not wrong, bool(wrong))
        assert not wrong or wrong.hex() not in text
    assert stored(caller, payment_hash).release is Release.MANUAL
    settle(caller, payment_hash, preimage)
    document = stored(caller, payment_hash)
    assert (document.release, document.preimage) == (Release.AUTOMATIC, preimage.hex())


def test_a_preimage_has_32_bytes(caller: Caller) -> None:
    """No node takes another (BOLT 2): a release with it would be tried until the payment goes back."""
    short = os.urandom(31)
    payment_hash = hashlib.sha256(short).hexdigest()
    caller.invoice(caller.bank.wallet().wallet_id, hold=True, payment_hash=payment_hash)
    hold(caller, payment_hash)
    code, text = refused(lambda: settle(caller, payment_hash, short))
    assert (code, text.startswith("preimage")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert stored(caller, payment_hash).release is Release.MANUAL


def test_commits_of_others_do_not_make_a_call_longer(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wake whoever waits, again and again; his time is up all the same, and his thread is free."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, hold=True).payment_hash
    hold(caller, payment_hash)
    wakes = iter(range(1000))  # without a pause that is a moment, with one it is far more than the call's time

    def woken_at_once(_sequence: int, *, timeout_s: float) -> bool:
        assert next(wakes, None) is not None, "waits for as long as others are busy"
        return True

    monkeypatch.setattr(caller.bank.board, "wait_beyond", woken_at_once)
    assert settle(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_HELD


def test_what_cannot_be_settled_says_why(caller: Caller) -> None:
    """FAILED_PRECONDITION with what to do instead; nothing is released."""
    wallet_id = caller.bank.wallet().wallet_id
    open_, ordinary, canceled, over = (caller.invoice(wallet_id, hold=number != 1).payment_hash for number in range(4))
    caller.bank.node.cancel(PaymentHash(canceled))
    cancel(caller, over)
    for payment_hash, said in (
        (open_, "holds nothing yet"),
        (ordinary, "is no hold invoice"),
        (canceled, "was canceled on its node"),
        (over, "is over without a payment"),
    ):
        code, text = refused(lambda payment_hash=payment_hash: settle(caller, payment_hash))
        assert (code, said in text) == (PRECONDITION, True), text
    assert stored(caller, open_).release is Release.MANUAL
    assert refused(lambda: settle(caller, "00" * 32))[0] == grpc.StatusCode.NOT_FOUND
    assert refused(lambda: settle(caller, ""))[0] == grpc.StatusCode.INVALID_ARGUMENT


def in_dollars(caller: Caller) -> str:
    """The payment hash of a dollar invoice over 60 cents that waits for a release, quoted for 300 s."""
    wallet = caller.bank.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet.wallet_id, amount_cents=60, hold=True)
    return caller.invoices.CreateInvoice(request, timeout=CALL_TIMEOUT_S).invoice.payment_hash


@pytest.mark.parametrize(("held_at_s", "until_s"), [(0, 300), (239, 300), (240, 300), (299, 359)])
def test_a_price_can_be_released_until_it_expires_or_a_minute_after_the_payment_came(
    caller: Caller, held_at_s: int, until_s: int
) -> None:
    """Whichever is later; then FAILED_PRECONDITION, and nothing is released. A release that was in time stands: again
    is no error."""
    payment_hash = in_dollars(caller)
    caller.bank.clock.advance(seconds=held_at_s)
    hold(caller, payment_hash)
    caller.bank.clock.advance(seconds=until_s - held_at_s)
    code, text = refused(lambda: settle(caller, payment_hash))
    assert (code, "price" in text, "goes back" in text) == (PRECONDITION, True, True), text
    assert stored(caller, payment_hash).release is Release.MANUAL
    caller.bank.clock.advance(seconds=-1)
    assert settle(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_HELD
    assert stored(caller, payment_hash).release is Release.AUTOMATIC
    caller.bank.clock.advance(seconds=10_000)
    assert settle(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_HELD


def test_an_open_invoice_is_canceled(caller: Caller) -> None:
    """Ordinary or not; told, closed, and shown so; again is no error."""
    wallet_id = caller.bank.wallet().wallet_id
    for is_hold in (False, True):
        payment_hash = caller.invoice(wallet_id, hold=is_hold).payment_hash
        canceled = cancel(caller, payment_hash)
        assert (canceled.state, canceled.cancel_reason) == (invoice_pb2.INVOICE_STATE_CANCELED, "by_call")
        assert stored(caller, payment_hash).completed
        on_node = caller.bank.node.lookup_invoice(PaymentHash(payment_hash))
        assert on_node is not None
        assert on_node.state is InvoiceState.CANCELED
        assert cancel(caller, payment_hash) == canceled
        assert [response.invoice for response in caller.watch(payment_hash)] == [canceled]


def test_a_held_invoice_is_canceled_only_if_the_caller_says_so(caller: Caller) -> None:
    """Else FAILED_PRECONDITION; the event tells what went back."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, hold=True).payment_hash
    hold(caller, payment_hash, 7_001)
    code, text = refused(lambda: cancel(caller, payment_hash))
    assert (code, "also_if_held" in text) == (PRECONDITION, True)
    assert caller.state(payment_hash) == invoice_pb2.INVOICE_STATE_HELD
    assert cancel(caller, payment_hash, also_if_held=True).state == invoice_pb2.INVOICE_STATE_CANCELED
    feed = caller.subscribe(types=["invoice.held", "invoice.canceled"])
    held, canceled = (next(feed).event for _ in range(2))
    feed.cancel()
    assert held.invoice_held == event_pb2.InvoiceHeld(
        payment_hash=payment_hash,
        external_id=payment_hash,
        node=ALICE_PUBKEY,
        received_msat=7_001,
        expiry_height=230,
        held_at=held.occurred_at,
    )
    assert (canceled.invoice_canceled.reason, canceled.invoice_canceled.returned_msat) == ("by_call", 7_001)
    assert canceled.id == f"ln:{ALICE_PUBKEY}:{payment_hash}:canceled#invoice.canceled"


def test_what_came_at_the_last_moment_is_told_as_returned(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """LND cannot be asked to cancel only what is open: a payment may come between the look and the cancellation."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, hold=True).payment_hash
    cancel_invoice = caller.bank.node.cancel_invoice

    def paid_just_before(canceled: PaymentHash) -> NodeAnswer:
        caller.bank.node.hold(canceled, 7_001)
        return cancel_invoice(canceled)

    monkeypatch.setattr(caller.bank.node, "cancel_invoice", paid_just_before)
    assert cancel(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_CANCELED
    feed = caller.subscribe(types=["invoice.canceled"])
    assert next(feed).event.invoice_canceled.returned_msat == 7_001
    feed.cancel()


def test_what_cannot_be_canceled_says_why(caller: Caller) -> None:
    """Settled, in the books or only on the node; and one that the node does not have."""
    wallet_id = caller.bank.wallet().wallet_id
    settled, on_node_only = (caller.invoice(wallet_id).payment_hash for _ in range(2))
    caller.bank.pay(settled)
    caller.bank.node.settle(PaymentHash(on_node_only))
    for payment_hash in (settled, on_node_only):
        code, text = refused(lambda payment_hash=payment_hash: cancel(caller, payment_hash))
        assert (code, "is settled" in text) == (PRECONDITION, True)
    lost = caller.invoice(wallet_id).payment_hash
    caller.bank.node.restore_empty()
    code, text = refused(lambda: cancel(caller, lost))
    assert (code, "does not have" in text) == (PRECONDITION, True)
    assert refused(lambda: cancel(caller, "00" * 32))[0] == grpc.StatusCode.NOT_FOUND


def test_a_node_that_is_away_releases_and_cancels_nothing(caller: Caller) -> None:
    """UNAVAILABLE: the call is repeated."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id, hold=True).payment_hash
    hold(caller, payment_hash)
    caller.bank.node.go_away()
    for call in (settle, lambda c, h: cancel(c, h, also_if_held=True)):
        code, _ = refused(lambda call=call: call(caller, payment_hash))
        assert code == grpc.StatusCode.UNAVAILABLE
    assert stored(caller, payment_hash).release is Release.MANUAL


def test_an_expired_invoice_is_told(caller: Caller) -> None:
    """As an event of its own."""
    payment_hash = caller.invoice(caller.bank.wallet().wallet_id).payment_hash
    caller.bank.post(ended(payment_hash, reason="expired"))
    feed = caller.subscribe(types=["invoice.expired"])
    event = next(feed).event
    feed.cancel()
    assert event.invoice_expired.payment_hash == payment_hash
    assert cancel(caller, payment_hash).state == invoice_pb2.INVOICE_STATE_EXPIRED
