"""Held payments whose HTLCs are about to expire while tellerd is away, or while their account is locked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regtest import binaries
from regtest.lnd import Lnd
from regtest.stack import Stack
from tests.e2e.bank import Bank, wait_for
from tests.e2e.holding import (
    AUTO_CANCEL_BLOCKS,
    CANCELED,
    HELD,
    MARGIN_BLOCKS,
    WIDE_MARGIN,
    create,
    deadline_of,
    is_closed,
)
from tests.e2e.receives import blinks_invoice, paying, told, wait_accepted, wait_state

BROADCAST_BLOCKS = 16
"""Settled with so few blocks left, an LND that cannot reach its peer closes the channel (node-interfaces.md A.2)."""


def expiry_height(bank: Bank, payment_hash: str) -> int:
    """Of the HTLC that our LND holds."""
    (htlc,) = bank.stack.lnd.call("GET", f"/v1/invoice/{payment_hash}")["htlcs"]
    return int(htlc["expiry_height"])


def mine_to(bank: Bank, height: int) -> None:
    """Blocks that both LNDs have seen."""
    missing = height - bank.stack.bitcoind.height()
    assert missing > 0
    bank.stack.mine(missing)


@pytest.mark.parametrize("bank", [WIDE_MARGIN], indirect=True)
def test_away_past_the_deadline_what_can_be_taken_is_taken(bank: Bank) -> None:
    """Paid while nobody runs, and nobody runs until the deadline is over: at the start the one that needs nothing more
    is settled, and the one that nobody has released goes back."""
    wallet = bank.write_wallet()
    with bank.tellerd.client() as client:
        manual = create(client, wallet, 3_000)
    automatic = blinks_invoice(bank, wallet)
    bank.tellerd.process.stop()
    with paying(bank, automatic.payment_request) as taken, paying(bank, manual.payment_request) as given_back:
        for invoice in (automatic, manual):
            wait_accepted(bank, invoice.payment_hash)
        last = max(expiry_height(bank, invoice.payment_hash) for invoice in (automatic, manual))
        mine_to(bank, last - AUTO_CANCEL_BLOCKS - MARGIN_BLOCKS + 3)
        for invoice in (automatic, manual):
            wait_accepted(bank, invoice.payment_hash)  # LND itself lets them wait
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert taken.result(120).succeeded
        assert not given_back.result(120).succeeded
    bank.wait_balance(wallet, 5_000)
    with bank.tellerd.client() as client:
        assert wait_state(client, manual.payment_hash, CANCELED).cancel_reason == "not_released"
    assert told(bank, automatic.payment_hash) == ["invoice.held", "invoice.settled"]
    assert told(bank, manual.payment_hash) == ["invoice.held", "invoice.canceled"]
    bank.check_books()


def test_away_until_lnd_gave_it_back_it_is_told_at_the_start(bank: Bank) -> None:
    """LND cancels 18 blocks before the HTLC expires, whoever is away: the payer has its money, nothing is credited, the
    document is closed, and the channel lives."""
    wallet = bank.write_wallet()
    invoice = blinks_invoice(bank, wallet)
    bank.tellerd.process.stop()
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        mine_to(bank, expiry_height(bank, invoice.payment_hash) - AUTO_CANCEL_BLOCKS)
        assert not payment.result(120).succeeded
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        assert wait_state(client, invoice.payment_hash, CANCELED).cancel_reason == "on_node"
        assert client.balance_sat(wallet) == 0
    assert told(bank, invoice.payment_hash) == ["invoice.canceled"]
    assert is_closed(bank, invoice.payment_hash)
    assert all(channel["active"] for channel in bank.stack.lnd.list_channels())
    bank.check_books()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Bank]:
    """A bank whose LND lets payments wait until the last block, as an operator may have set it."""
    stack = Stack()
    command = (*binaries.lnd(), "--invoices.holdexpirydelta=1")
    stack.lnd = Lnd(command, stack.folder / "lnd", stack.bitcoind, name="lnd")
    with stack:
        bank = Bank(stack, tmp_path)
        try:
            bank.open()
            yield bank
        finally:
            bank.close()


def test_what_is_too_late_to_be_taken_goes_back(patient: Bank) -> None:
    """Its LND holds it still, and the preimage is known: but settled so late it could cost the channel."""
    bank = patient
    wallet = bank.write_wallet()
    invoice = blinks_invoice(bank, wallet)
    bank.tellerd.process.stop()
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        mine_to(bank, expiry_height(bank, invoice.payment_hash) - BROADCAST_BLOCKS)
        wait_accepted(bank, invoice.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        with bank.tellerd.client() as client:
            assert wait_state(client, invoice.payment_hash, CANCELED).cancel_reason == "too_late"
            assert client.balance_sat(wallet) == 0
        assert not payment.result(120).succeeded
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.canceled"]
    assert is_closed(bank, invoice.payment_hash)
    assert all(channel["active"] for channel in bank.stack.lnd.list_channels())
    bank.check_books()


@pytest.mark.parametrize("bank", [WIDE_MARGIN], indirect=True)
def test_a_locked_accounts_held_payment_waits_and_goes_back_unless_it_is_unlocked(bank: Bank) -> None:
    """Neither taken nor given back while its account is locked: unlocked it is taken, and near its end it goes back."""
    unlocked, locked = bank.write_wallet(), bank.write_wallet()
    taken, returned = blinks_invoice(bank, unlocked), blinks_invoice(bank, locked, value_msat=6_000_000)
    for wallet in (unlocked, locked):
        bank.write_status(wallet, "locked")
    with (
        bank.tellerd.client() as client,
        paying(bank, taken.payment_request) as payment,
        paying(bank, returned.payment_request) as given_back,
    ):
        wait_state(client, taken.payment_hash, HELD)
        held = wait_state(client, returned.payment_hash, HELD)
        log_file = bank.tellerd.process.log_file
        wait_for(lambda: log_file.read_text().count("account_locked") >= 2, "both are seen to wait for their accounts")
        bank.write_status(unlocked, "active")
        assert payment.result(120).succeeded
        bank.wait_balance(unlocked, 5_000)
        mine_to(bank, deadline_of(held) - 1)
        wait_for(
            lambda: 'tellerd_hold_deadline_blocks{node="lnd1"} 1.0' in bank.tellerd.get("/metrics").text,
            "one block is left",
        )
        assert client.invoice(returned.payment_hash).state == HELD
        bank.stack.mine(1)
        assert wait_state(client, returned.payment_hash, CANCELED).cancel_reason == "account_locked"
        assert not given_back.result(120).succeeded
        assert client.balance_sat(locked) == 0
    bank.check_books()
