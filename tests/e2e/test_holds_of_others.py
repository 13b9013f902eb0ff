"""Hold invoices of other programs on real nodes: without a preimage, and where the configuration leaves the release to
callers."""

from __future__ import annotations

import time
from typing import Final

import grpc
import pytest

from adapters.mongo.collections import INVOICES
from tests.e2e.bank import Bank
from tests.e2e.holding import CANCELED, HELD, SETTLED, WIDE_MARGIN, deadline_of, is_closed, settle
from tests.e2e.receives import BlinksInvoice, blinks_invoice, make_hold, paying, told, wait_state

LONGER_THAN_A_LOOK_S: Final = 6.0
"""What is held is looked at every 5 s (`daemon.ingest.pace`): whatever tellerd would do by itself, it has done."""


def without_preimage(bank: Bank, wallet: str, secret: str | None) -> BlinksInvoice:
    """The program keeps the preimage to itself; None for a document that has no such field."""
    invoice = make_hold(bank, 5_000_000)
    bank.write_invoice_document(invoice.payment_hash, wallet)
    change = {"$unset": {"secret": ""}} if secret is None else {"$set": {"secret": secret}}
    bank.db[INVOICES].update_one({"_id": invoice.payment_hash}, change)
    return invoice


@pytest.mark.parametrize("bank", [WIDE_MARGIN], indirect=True)
def test_without_a_preimage_a_payment_waits_for_whoever_has_it(bank: Bank) -> None:
    """A caller shows it, or its program takes the payment on the node: credited either way. Where nobody does, it goes
    back before its HTLC expires."""
    wallet = bank.write_wallet()
    called, by_program, nobodys = (without_preimage(bank, wallet, secret) for secret in ("", None, "00" * 32))
    with (
        bank.tellerd.client() as client,
        paying(bank, called.payment_request) as paid_called,
        paying(bank, by_program.payment_request) as paid_program,
        paying(bank, nobodys.payment_request) as given_back,
    ):
        for invoice in (called, by_program):
            wait_state(client, invoice.payment_hash, HELD)
        held = wait_state(client, nobodys.payment_hash, HELD)
        with pytest.raises(grpc.RpcError) as refused:
            settle(client, called.payment_hash)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert settle(client, called.payment_hash, bytes.fromhex(called.preimage)).state == SETTLED
        assert paid_called.result(120).succeeded
        bank.stack.lnd.settle_hold(by_program.preimage)
        assert paid_program.result(120).succeeded
        wait_state(client, by_program.payment_hash, SETTLED)
        bank.wait_balance(wallet, 10_000)
        assert client.invoice(nobodys.payment_hash).state == HELD
        bank.stack.mine(deadline_of(held) - bank.stack.bitcoind.height())
        assert wait_state(client, nobodys.payment_hash, CANCELED).cancel_reason == "no_preimage"
        assert not given_back.result(120).succeeded
        assert client.balance_sat(wallet) == 10_000
    assert is_closed(bank, nobodys.payment_hash)
    bank.check_books()


@pytest.mark.parametrize("bank", [WIDE_MARGIN + 'release = "manual"\n'], indirect=True)
def test_where_the_configuration_says_manual_only_a_call_releases(bank: Bank) -> None:
    """Blink's document has the preimage, and says nothing of a release: held until SettleInvoice; what nobody released
    goes back before its HTLC expires."""
    wallet = bank.write_wallet()
    released, forgotten = blinks_invoice(bank, wallet), blinks_invoice(bank, wallet)
    with (
        bank.tellerd.client() as client,
        paying(bank, released.payment_request) as taken,
        paying(bank, forgotten.payment_request) as given_back,
    ):
        wait_state(client, released.payment_hash, HELD)
        held = wait_state(client, forgotten.payment_hash, HELD)
        time.sleep(LONGER_THAN_A_LOOK_S)
        for invoice in (released, forgotten):
            assert client.invoice(invoice.payment_hash).state == HELD
        assert settle(client, released.payment_hash).state == SETTLED
        assert taken.result(120).succeeded
        bank.wait_balance(wallet, 5_000)
        bank.stack.mine(deadline_of(held) - bank.stack.bitcoind.height())
        assert wait_state(client, forgotten.payment_hash, CANCELED).cancel_reason == "not_released"
        assert not given_back.result(120).succeeded
        assert client.balance_sat(wallet) == 5_000
    assert told(bank, released.payment_hash) == ["invoice.held", "invoice.settled"]
    assert told(bank, forgotten.payment_hash) == ["invoice.held", "invoice.canceled"]
    bank.check_books()
