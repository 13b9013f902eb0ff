"""Hold invoices on real nodes: released by themselves, by call, by nobody; killed, restarted, expired, and near their
end. Scenarios that Blink's own tests have (blink-contract.md 6) bear their names."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2
from adapters.mongo.collections import INVOICES, LEG_METADATA, LEGS, WALLETS
from regtest.stack import Stack
from tests.e2e.bank import Bank, wait_for
from tests.e2e.holding import (
    CALL_S,
    CANCELED,
    EXPIRED,
    HELD,
    SETTLED,
    WIDE_MARGIN,
    cancel,
    create,
    deadline_of,
    is_closed,
    settle,
)
from tests.e2e.receives import BlinksInvoice, blinks_invoice, make_hold, paying, told, wait_accepted, wait_state


def test_a_hold_invoice_of_another_program_is_settled_by_itself(bank: Bank) -> None:
    """Its preimage is in the document: the payment is noticed, taken and credited; Blink's metadata are there."""
    wallet = bank.write_wallet()
    invoice = blinks_invoice(bank, wallet)
    with paying(bank, invoice.payment_request) as payment:
        assert payment.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.settled"]
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert (document["paid"], document["processingCompleted"]) == (True, True)
    leg = bank.db[LEGS].find_one({"hash": invoice.payment_hash, "credit": {"$gt": 0}})
    assert leg is not None
    assert (leg["type"], leg["satsAmount"], leg["pending"]) == ("invoice", 5_000, False)
    metadata = bank.db[LEG_METADATA].find_one({"_id": leg["_id"]})
    assert metadata is not None
    assert metadata["revealedPreImage"] == invoice.preimage
    counted = 'tellerd_hold_settle_delay_seconds_count{node="lnd1"} 1.0'
    wait_for(lambda: counted in bank.tellerd.get("/metrics").text, "it is counted")
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
            assert payment.result(120).succeeded
        assert client.balance_sat(wallet) == 7_000
        assert settle(client, invoice.payment_hash).state == SETTLED
    nothing_held = 'tellerd_holds_held{node="lnd1"} 0.0'
    wait_for(lambda: nothing_held in bank.tellerd.get("/metrics").text, "nothing is held any more")
    # It waited for a person.
    assert 'tellerd_hold_settle_delay_seconds_count{node="lnd1"} 0.0' in bank.tellerd.get("/metrics").text
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
            assert payment.result(120).preimage == preimage.hex()
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
            assert not payment.result(120).succeeded
        assert client.balance_sat(wallet) == 0
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.canceled"]
    counted = 'tellerd_holds_canceled_total{node="lnd1",reason="by_call"} 1.0'
    wait_for(lambda: counted in bank.tellerd.get("/metrics").text, "it is counted")

    def logged() -> list[str]:
        return [line for line in bank.tellerd.process.log_file.read_text().splitlines() if "hold.canceled" in line]

    wait_for(lambda: bool(logged()), "it is logged")
    assert len(logged()) == 1
    assert invoice.payment_hash in logged()[0]
    bank.check_books()


def test_killed_while_payments_are_held(bank: Bank) -> None:
    """kill -9 between ACCEPTED and SettleInvoice: what was waited for comes while nobody runs; taken after the start,
    and the one that only a caller may release is still held."""
    with bank.tellerd.client() as client:
        alice = client.create_wallet("alice")
        manual = create(client, alice, 3_000)
        bob = bank.write_wallet()
        theirs = blinks_invoice(bank, bob)
        wallet = bank.db[WALLETS].find_one_and_delete({"id": bob})  # gone: nothing can be credited to it
        assert wallet is not None
        with paying(bank, theirs.payment_request) as automatic, paying(bank, manual.payment_request) as by_call:
            wait_state(client, theirs.payment_hash, HELD)
            wait_state(client, manual.payment_hash, HELD)
            bank.tellerd.process.kill()
            bank.db[WALLETS].insert_one(wallet)
            assert bank.stack.lnd.lookup_invoice(theirs.payment_hash).state == "ACCEPTED"
            bank.tellerd.start()
            bank.tellerd.wait_ready()
            assert automatic.result(120).succeeded
            assert bank.stack.lnd.lookup_invoice(manual.payment_hash).state == "ACCEPTED"
            with bank.tellerd.client() as again:
                assert settle(again, manual.payment_hash).state == SETTLED
            assert by_call.result(120).succeeded
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
            assert payment.result(120).succeeded
        with paying(bank, open_.payment_request) as payment:
            wait_state(client, open_.payment_hash, HELD)
            assert settle(client, open_.payment_hash).state == SETTLED
            assert payment.result(120).succeeded
    bank.wait_balance(wallet, 7_000)
    counted = r'^tellerd_holds_reattached_total\{node="lnd1"\} (\S+)$'
    found = re.search(counted, bank.tellerd.get("/metrics").text, re.MULTILINE)
    assert found is not None
    assert float(found[1]) >= 2  # again, if LND breaks the first connection off that it takes while it starts
    bank.check_books()


@pytest.mark.parametrize("bank", [WIDE_MARGIN], indirect=True)
def test_what_nobody_has_released_goes_back_before_its_htlc_expires(bank: Bank) -> None:
    """Mined up to the deadline; what can be taken by then was taken at once. The channel lives on."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        with paying(bank, invoice.payment_request) as payment:
            held = wait_state(client, invoice.payment_hash, HELD)
            bank.stack.mine(deadline_of(held) - 1 - bank.stack.bitcoind.height())
            wait_for(
                lambda: 'tellerd_hold_deadline_blocks{node="lnd1"} 1.0' in bank.tellerd.get("/metrics").text,
                "one block is left",
            )
            assert client.invoice(invoice.payment_hash).state == HELD
            bank.stack.mine(1)
            canceled = wait_state(client, invoice.payment_hash, CANCELED)
            assert canceled.cancel_reason == "not_released"
            assert not payment.result(120).succeeded
        counted = 'tellerd_holds_canceled_total{node="lnd1",reason="not_released"} 1.0'
        wait_for(lambda: counted in bank.tellerd.get("/metrics").text, "it is counted")
        wait_for(
            lambda: "tellerd_hold_deadline_blocks{" not in bank.tellerd.get("/metrics").text, "no deadline is left"
        )
    assert is_closed(bank, invoice.payment_hash)
    assert all(channel["active"] for channel in bank.stack.lnd.list_channels())
    bank.check_books()


def test_an_expired_invoice_is_closed_after_its_node_was_asked(bank: Bank) -> None:
    """LND has canceled it: told as expired, its document closed. Before that it is open, whatever the clock says."""
    wallet = bank.write_wallet()
    payment_hash = make_hold(bank, 5_000_000, expiry_s=2).payment_hash
    bank.write_invoice_document(payment_hash, wallet)
    with bank.tellerd.client() as client:
        wait_state(client, payment_hash, EXPIRED)
    assert bank.stack.lnd.lookup_invoice(payment_hash).state == "CANCELED"
    assert told(bank, payment_hash) == ["invoice.expired"]
    assert is_closed(bank, payment_hash)
    bank.check_books()


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
    bank.check_books()


# --- Blink's scenarios (blink-contract.md 6, bats ln-receive; integration update-pending-invoices) -----------------


@pytest.fixture
def _fractions(stack: Stack) -> Iterator[None]:
    """The payer sends less than a sat: a channel's minimum is 1,000 msat, unless its policy says 1."""
    _set_minimum(stack, 1)
    yield
    _set_minimum(stack, 1_000)


def _set_minimum(stack: Stack, minimum_msat: int) -> None:
    policy = {
        "global": True,
        "base_fee_msat": "1000",
        "fee_rate_ppm": 1,
        "time_lock_delta": 80,
        "min_htlc_msat": str(minimum_msat),
        "min_htlc_msat_specified": True,
    }
    stack.payer.call("POST", "/v1/chanpolicy", policy)


@pytest.mark.usefixtures("_fractions")
def test_ln_receive_less_than_1_sat(bank: Bank) -> None:
    """995 msat that arrive: whoever asked, the payment is held, declined by tellerd, and the invoice is gone."""
    with bank.tellerd.client() as client:
        wallet, dollars = client.create_wallet("sats"), client.create_dollar_wallet("dollars")
        amountless = invoice_pb2.CreateInvoiceRequest(wallet_id=dollars)
        invoices: list[BlinksInvoice | invoice_pb2.Invoice] = [
            blinks_invoice(bank, wallet, value_msat=0),
            create(client, wallet, None),
            client.invoices.CreateInvoice(amountless, timeout=CALL_S).invoice,
        ]
        for invoice in invoices:
            payment = bank.stack.payer.pay(invoice.payment_request, amount_msat=995)
            # Not NO_ROUTE: the payee had it, and gave it back.
            assert payment.failure_reason == "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS"
            canceled = wait_state(client, invoice.payment_hash, CANCELED)
            assert canceled.cancel_reason == "under_one_sat"
            assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.canceled"]
            assert bank.stack.lnd.lookup_invoice(invoice.payment_hash).state == "CANCELED"
            assert is_closed(bank, invoice.payment_hash)
        assert (client.balance_sat(wallet), client.balance_cents(dollars)) == (0, 0)
    bank.check_books()


@pytest.mark.usefixtures("_fractions")
def test_less_than_1_sat_that_is_not_held_goes_to_the_remainder(bank: Bank) -> None:
    """An ordinary invoice settles by itself: no sat for the wallet, and of what adds up each full one is rounding's.
    Books equal the node to the msat throughout."""
    before_msat = bank.cursor(bank.stack.lnd.pubkey)["remainder_msat"]
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("tips")
        for _ in range(2):
            request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet)
            invoice = client.invoices.CreateInvoice(request, timeout=CALL_S).invoice
            assert bank.stack.payer.pay(invoice.payment_request, amount_msat=995).succeeded
            assert wait_state(client, invoice.payment_hash, SETTLED).received_sat == 0
            bank.check_books()
        assert client.balance_sat(wallet) == 0
        held = {row.account: row.balance for row in client.trial_balance()[0]}
    full_sat, rest_msat = divmod(before_msat + 2 * 995, 1_000)
    assert held["Liabilities:Teller:Rounding"] == full_sat
    assert bank.cursor(bank.stack.lnd.pubkey)["remainder_msat"] == rest_msat


def test_ln_receive_created_while_trigger_down(bank: Bank) -> None:
    """Another program makes an invoice while tellerd is away; it is paid afterwards."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with paying(bank, invoice.payment_request) as payment:
        assert payment.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_ln_receive_created_and_paid_while_trigger_down(bank: Bank) -> None:
    """Made and paid while tellerd is away: held until it is back."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert payment.result(120).succeeded
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
    bank.check_books()


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
            assert payment.result(120).succeeded
    bank.check_books()


def test_update_pending_invoices_idempotent_three_times_in_parallel(bank: Bank) -> None:
    """Three callers release one payment at once, and the keeper does: credited once."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoice = create(client, wallet)
        with paying(bank, invoice.payment_request) as payment, ThreadPoolExecutor(3) as callers:
            wait_state(client, invoice.payment_hash, HELD)
            answers = list(callers.map(lambda _: settle(client, invoice.payment_hash).state, range(3)))
            assert answers == [SETTLED] * 3
            assert payment.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_update_pending_invoices_btc_is_taken_however_old_its_document(bank: Bank) -> None:
    """Blink declines what a dollar invoice is paid after five minutes, and takes bitcoin: the time is LND's."""
    wallet = bank.write_wallet()
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet, age_s=7_200)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with paying(bank, invoice.payment_request) as payment:
        assert payment.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    bank.check_books()
