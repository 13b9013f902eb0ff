"""Hold invoices on real nodes: released by themselves, by call, by nobody; killed, restarted, expired, and near their
end. Scenarios that Blink's own tests have (blink-contract.md 6) bear their names."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo.collections import INVOICES, LEG_METADATA, LEGS, WALLETS
from regtest.lnd_rest import Payment
from regtest.tellerd import Client
from tests.e2e.bank import Bank, wait_for

HELD = invoice_pb2.INVOICE_STATE_HELD
SETTLED = invoice_pb2.INVOICE_STATE_SETTLED
CANCELED = invoice_pb2.INVOICE_STATE_CANCELED
EXPIRED = invoice_pb2.INVOICE_STATE_EXPIRED
WIDE_MARGIN = "\n[holds]\nmargin_blocks = 40\n"
"""Decided 58 blocks before the HTLC expires: fewer blocks to mine."""

CALL_S = 20.0


def create(client: Client, wallet: str, amount_sat: int = 5_000, **fields: object) -> invoice_pb2.Invoice:
    """A hold invoice."""
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet, amount_sat=amount_sat, hold=True, **fields)  # type: ignore[arg-type]  # handed through
    return client.invoices.CreateInvoice(request, timeout=CALL_S).invoice


def settle(client: Client, payment_hash: str, preimage: bytes = b"") -> invoice_pb2.Invoice:
    """SettleInvoice."""
    request = invoice_pb2.SettleInvoiceRequest(payment_hash=payment_hash, preimage=preimage)
    return client.invoices.SettleInvoice(request, timeout=CALL_S).invoice


def cancel(client: Client, payment_hash: str, *, also_if_held: bool = False) -> invoice_pb2.Invoice:
    """CancelInvoice."""
    request = invoice_pb2.CancelInvoiceRequest(payment_hash=payment_hash, also_if_held=also_if_held)
    return client.invoices.CancelInvoice(request, timeout=CALL_S).invoice


@contextmanager
def paying(bank: Bank, payment_request: str, *, amount_msat: int | None = None) -> Iterator[Future[Payment]]:
    """Somebody pays; the call ends when the payment is settled or given back."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: bank.stack.payer.pay(payment_request, amount_msat=amount_msat))


def wait_state(client: Client, payment_hash: str, state: int) -> invoice_pb2.Invoice:
    """Returns when GetInvoice says so."""
    wait_for(
        lambda: client.invoice(payment_hash).state == state,
        f"{payment_hash} is {invoice_pb2.InvoiceState.Name(state)}",  # type: ignore[arg-type]  # an enum's number
    )
    return client.invoice(payment_hash)


def another_programs(bank: Bank, wallet: str, *, value_msat: int = 5_000_000, secret: bool = True) -> tuple[str, str]:
    """A hold invoice as Blink's core makes it: on LND first, then its document, with the preimage in `secret`."""
    preimage = os.urandom(32)
    payment_hash = hashlib.sha256(preimage).hexdigest()
    added = bank.stack.lnd.add_hold_invoice(payment_hash, value_msat, "another program's")
    bank.write_invoice_document(payment_hash, wallet)
    bank.db[INVOICES].update_one({"_id": payment_hash}, {"$set": {"secret": preimage.hex() if secret else ""}})
    return payment_hash, added.payment_request


def is_closed(bank: Bank, payment_hash: str) -> bool:
    """Whether the document is, without having been paid."""
    document = bank.db[INVOICES].find_one({"_id": payment_hash})
    assert document is not None
    return bool(document["processingCompleted"]) and not document["paid"]


def kinds(bank: Bank, payment_hash: str) -> list[str]:
    """What the feed says of one invoice, in order."""
    rows = bank.db["teller_outbox"].find({"payload.payment_hash": payment_hash}).sort("_id", 1)
    return [row["type"] for row in rows]


def test_a_hold_invoice_of_another_program_is_settled_by_itself(bank: Bank) -> None:
    """Its preimage is in the document: the payment is noticed, taken and credited; Blink's metadata are there."""
    wallet = bank.write_wallet()
    payment_hash, payment_request = another_programs(bank, wallet)
    with paying(bank, payment_request) as payment:
        assert payment.result(30).succeeded
    bank.wait_balance(wallet, 5_000)
    assert kinds(bank, payment_hash) == ["invoice.held", "invoice.settled"]
    document = bank.db[INVOICES].find_one({"_id": payment_hash})
    assert document is not None
    assert (document["paid"], document["processingCompleted"]) == (True, True)
    leg = bank.db[LEGS].find_one({"hash": payment_hash, "credit": {"$gt": 0}})
    assert leg is not None
    assert (leg["type"], leg["satsAmount"], leg["pending"]) == ("invoice", 5_000, False)
    metadata = bank.db[LEG_METADATA].find_one({"_id": leg["_id"]})
    assert metadata is not None
    assert metadata["revealedPreImage"] == document["secret"]
    bank.check_books()


def test_a_manual_release(bank: Bank) -> None:
    """Held until SettleInvoice is called; watched meanwhile; again is no error."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet, 7_000)
        with paying(bank, invoice.payment_request) as payment:
            held = wait_state(client, invoice.payment_hash, HELD)
            assert held.held_msat == 7_000_000
            height = bank.stack.bitcoind.height()
            assert 80 <= held.expiry_height - height <= 100
            assert client.balance_sat(wallet) == 0
            time.sleep(6)  # longer than a look: nobody but the caller releases it
            assert client.invoice(invoice.payment_hash).state == HELD
            assert settle(client, invoice.payment_hash).state == SETTLED
            assert payment.result(30).succeeded
        assert client.balance_sat(wallet) == 7_000
        assert settle(client, invoice.payment_hash).state == SETTLED
    page = bank.tellerd.get("/metrics").text
    assert 'tellerd_hold_settle_delay_seconds_count{node="lnd1"} 1.0' in page
    assert 'tellerd_holds_held{node="lnd1"} 0.0' in page
    bank.check_books()


def test_a_preimage_that_only_the_caller_has(bank: Bank) -> None:
    """It makes the invoice with a hash, and shows the preimage when it lets go of the goods."""
    preimage = os.urandom(32)
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet, payment_hash=hashlib.sha256(preimage).hexdigest())
        with paying(bank, invoice.payment_request) as payment:
            wait_state(client, invoice.payment_hash, HELD)
            with pytest.raises(grpc.RpcError) as refused:
                settle(client, invoice.payment_hash)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert settle(client, invoice.payment_hash, preimage).state == SETTLED
            assert payment.result(30).preimage == preimage.hex()
    bank.wait_balance(wallet, 5_000)
    assert preimage.hex() not in bank.tellerd.process.log_file.read_text()
    bank.check_books()


def test_a_manual_cancellation(bank: Bank) -> None:
    """The payer has its money back, the document is closed, and it is told why."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        with paying(bank, invoice.payment_request) as payment:
            wait_state(client, invoice.payment_hash, HELD)
            canceled = cancel(client, invoice.payment_hash, also_if_held=True)
            assert (canceled.state, canceled.cancel_reason) == (CANCELED, "by_call")
            assert not payment.result(30).succeeded
        assert client.balance_sat(wallet) == 0
    assert kinds(bank, invoice.payment_hash) == ["invoice.held", "invoice.canceled"]
    bank.check_books()


def test_killed_while_payments_are_held(bank: Bank) -> None:
    """kill -9 between ACCEPTED and SettleInvoice: what was waited for comes while nobody runs; taken after the start,
    and the one that only a caller may release is still held."""
    with bank.tellerd.client() as client:
        alice = client.create_wallet("alice")
        manual = create(client, alice, 3_000)
        bob = bank.write_wallet()
        theirs, payment_request = another_programs(bank, bob)
        wallet = bank.db[WALLETS].find_one_and_delete({"id": bob})  # gone: nothing can be credited to it
        assert wallet is not None
        with paying(bank, payment_request) as automatic, paying(bank, manual.payment_request) as by_call:
            wait_state(client, theirs, HELD)
            wait_state(client, manual.payment_hash, HELD)
            bank.tellerd.process.kill()
            bank.db[WALLETS].insert_one(wallet)
            assert bank.stack.lnd.lookup_invoice(theirs).state == "ACCEPTED"
            bank.tellerd.start()
            bank.tellerd.wait_ready()
            assert automatic.result(30).succeeded
            assert bank.stack.lnd.lookup_invoice(manual.payment_hash).state == "ACCEPTED"
            with bank.tellerd.client() as again:
                assert settle(again, manual.payment_hash).state == SETTLED
            assert by_call.result(30).succeeded
    bank.wait_balance(bob, 5_000)
    bank.wait_balance(alice, 3_000)
    bank.check_books()


def test_lnd_restarted_while_a_payment_is_held(bank: Bank) -> None:
    """The watch is attached again, with what is held; then it is released."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        open_ = create(client, wallet, 2_000)
        with paying(bank, invoice.payment_request) as payment:
            wait_state(client, invoice.payment_hash, HELD)
            bank.stack.lnd.restart()
            bank.stack.wait_payable()
            wait_for(
                lambda: 'tellerd_holds_held{node="lnd1"} 1.0' in bank.tellerd.get("/metrics").text,
                "what is held is known again",
            )
            assert settle(client, invoice.payment_hash).state == SETTLED
            assert payment.result(60).succeeded
        with paying(bank, open_.payment_request) as payment:
            wait_state(client, open_.payment_hash, HELD)
            assert settle(client, open_.payment_hash).state == SETTLED
            assert payment.result(30).succeeded
    bank.wait_balance(wallet, 7_000)
    assert 'tellerd_holds_reattached_total{node="lnd1"} 2.0' in bank.tellerd.get("/metrics").text
    bank.check_books()


@pytest.mark.parametrize("bank", [WIDE_MARGIN], indirect=True)
def test_what_nobody_has_released_goes_back_before_its_htlc_expires(bank: Bank) -> None:
    """Mined up to the deadline; what can be taken by then was taken at once. The channel lives on."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        with paying(bank, invoice.payment_request) as payment:
            held = wait_state(client, invoice.payment_hash, HELD)
            deadline = held.expiry_height - 18 - 40
            bank.stack.mine(deadline - 1 - bank.stack.bitcoind.height())
            wait_for(
                lambda: 'tellerd_hold_deadline_blocks{node="lnd1"} 1.0' in bank.tellerd.get("/metrics").text,
                "one block is left",
            )
            assert client.invoice(invoice.payment_hash).state == HELD
            bank.stack.mine(1)
            canceled = wait_state(client, invoice.payment_hash, CANCELED)
            assert canceled.cancel_reason == "not_released"
            assert not payment.result(30).succeeded
        page = bank.tellerd.get("/metrics").text
        assert 'tellerd_holds_canceled_total{node="lnd1",reason="not_released"} 1.0' in page
        assert "tellerd_hold_deadline_blocks{" not in page
    assert is_closed(bank, invoice.payment_hash)
    assert all(channel["active"] for channel in bank.stack.lnd.list_channels())
    bank.check_books()


def test_an_expired_invoice_is_closed_after_its_node_was_asked(bank: Bank) -> None:
    """LND has canceled it: told as expired, its document closed. Before that it is open, whatever the clock says."""
    preimage = os.urandom(32)
    payment_hash = hashlib.sha256(preimage).hexdigest()
    wallet = bank.write_wallet()
    bank.stack.lnd.add_hold_invoice(payment_hash, 5_000_000, expiry_s=2)
    bank.write_invoice_document(payment_hash, wallet)
    with bank.tellerd.client() as client:
        wait_state(client, payment_hash, EXPIRED)
    assert bank.stack.lnd.lookup_invoice(payment_hash).state == "CANCELED"
    assert kinds(bank, payment_hash) == ["invoice.expired"]
    assert is_closed(bank, payment_hash)


def test_an_invoice_canceled_by_hand_is_found_out(bank: Bank) -> None:
    """An ordinary one, which no stream tells: the look-ups do; while tellerd is away, too."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = client.create_invoice(wallet, 1_000)
    bank.tellerd.process.stop()
    bank.stack.lnd.cancel_invoice(invoice.payment_hash)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        canceled = wait_state(client, invoice.payment_hash, CANCELED)
    assert canceled.cancel_reason == "on_node"


# --- Blink's scenarios (blink-contract.md 6, bats ln-receive; integration update-pending-invoices) -----------------


def test_ln_receive_less_than_1_sat(bank: Bank) -> None:
    """995 msat: the payment fails, nothing is credited, and the invoice can be canceled and is gone."""
    wallet = bank.write_wallet()
    payment_hash, payment_request = another_programs(bank, wallet, value_msat=995)
    with paying(bank, payment_request) as payment:
        assert not payment.result(60).succeeded
    with bank.tellerd.client() as client:
        assert client.balance_sat(wallet) == 0
        if client.invoice(payment_hash).state != CANCELED:  # the channel's own minimum may have refused it first
            assert cancel(client, payment_hash).state == CANCELED
    assert bank.stack.lnd.lookup_invoice(payment_hash).state == "CANCELED"
    bank.check_books()


def test_ln_receive_created_while_trigger_down(bank: Bank) -> None:
    """Another program makes an invoice while tellerd is away; it is paid afterwards."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    _, payment_request = another_programs(bank, wallet)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with paying(bank, payment_request) as payment:
        assert payment.result(30).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_ln_receive_created_and_paid_while_trigger_down(bank: Bank) -> None:
    """Made and paid while tellerd is away: held until it is back."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    payment_hash, payment_request = another_programs(bank, wallet)
    with paying(bank, payment_request) as payment:
        wait_for(lambda: bank.stack.lnd.lookup_invoice(payment_hash).state == "ACCEPTED", "held")
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert payment.result(30).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_ln_receive_cancel(bank: Bank) -> None:
    """An open invoice is canceled, and cannot be paid any more."""
    with bank.tellerd.client() as client:
        invoice = client.create_invoice(client.create_wallet("alice"), 1_000)
        assert cancel(client, invoice.payment_hash).state == CANCELED
        assert cancel(client, invoice.payment_hash).state == CANCELED
    assert not bank.stack.payer.pay(invoice.payment_request, timeout_s=5).succeeded
    assert is_closed(bank, invoice.payment_hash)


def test_ln_receive_error_on_cancel_settled(bank: Bank) -> None:
    """FAILED_PRECONDITION: the money stays."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = client.create_invoice(wallet, 1_000)
        bank.pay([invoice])
        bank.wait_balance(wallet, 1_000)
        with pytest.raises(grpc.RpcError) as refused:
            cancel(client, invoice.payment_hash, also_if_held=True)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "is settled" in (refused.value.details() or "")
    bank.check_books()


def test_ln_receive_error_on_cancel_held(bank: Bank) -> None:
    """FAILED_PRECONDITION unless the caller says that held money may go back."""
    with bank.tellerd.client() as client:
        invoice = create(client, client.create_wallet("alice"))
        with paying(bank, invoice.payment_request) as payment:
            wait_state(client, invoice.payment_hash, HELD)
            with pytest.raises(grpc.RpcError) as refused:
                cancel(client, invoice.payment_hash)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "also_if_held" in (refused.value.details() or "")
            assert settle(client, invoice.payment_hash).state == SETTLED
            assert payment.result(30).succeeded


def test_update_pending_invoices_idempotent_three_times_in_parallel(bank: Bank) -> None:
    """Three callers release one payment at once, and the keeper does: credited once."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        with paying(bank, invoice.payment_request) as payment, ThreadPoolExecutor(3) as callers:
            wait_state(client, invoice.payment_hash, HELD)
            answers = list(callers.map(lambda _: settle(client, invoice.payment_hash).state, range(3)))
            assert answers == [SETTLED] * 3
            assert payment.result(30).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_update_pending_invoices_btc_is_taken_however_old_its_document(bank: Bank) -> None:
    """Blink declines what a dollar invoice is paid after five minutes, and takes bitcoin: the time is LND's."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    payment_hash, payment_request = another_programs(bank, wallet)
    long_ago = datetime.fromtimestamp(time.time() - 7_200, tz=UTC)
    bank.db[INVOICES].update_one({"_id": payment_hash}, {"$set": {"timestamp": long_ago}})
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with paying(bank, payment_request) as payment:
        assert payment.result(30).succeeded
    bank.wait_balance(wallet, 5_000)
