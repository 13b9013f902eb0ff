"""Payments that come more than once, or that nobody asked for, on real nodes: AMP invoices, keysend, bare AMP."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime
from typing import Final

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, suspense_pb2
from adapters.mongo.collections import ACCOUNTS, INVOICES, KEYS, LEGS, OUTBOX, WALLETS
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for

RECORD: Final = 696_969
SETTINGS: Final = f"\n[spontaneous]\nwallet_record = {RECORD}\n"

with_a_record = pytest.mark.parametrize("bank", [SETTINGS], indirect=True)


def waiting(client: Client) -> dict[int, str]:
    """What waits in suspense: reasons by amount in sats, all different here."""
    request = suspense_pb2.ListSuspenseRequest(state=suspense_pb2.SUSPENSE_STATE_WAITING)
    found = client.suspense.ListSuspense(request, timeout=CALL_S).entries
    return {one.amount_sat: one.suspense_reason for one in found}


def credited(bank: Bank, wallet: str) -> list[int]:
    """What the legs of Lightning receives say that the wallet got, in the order of booking."""
    legs = bank.db[LEGS].find({"accounts": f"Liabilities:{wallet}", "type": "invoice"}).sort("_id", 1)
    return [leg["credit"] for leg in legs]


def test_an_amp_invoice_is_credited_each_time_it_is_paid(bank: Bank) -> None:
    """A document of another program: paid with the first set, and every set is the wallet's, also those that settled
    while tellerd was killed; one that came before the document waits, and is assigned by itself."""
    lnd, payer = bank.stack.lnd, bank.stack.payer
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        invoice = lnd.add_amp_invoice(0, "the box at the till")
        sets = [payer.pay_amp(invoice.payment_request, amount_msat=5_000_700)]
        wait_for(lambda: waiting(client) == {5_000: "no_expectation"}, "the first waits: nobody expects it")
        bank.write_invoice_document(invoice.payment_hash, wallet)
        bank.wait_balance(wallet, 5_000)
        assert waiting(client) == {}
        sets.append(payer.pay_amp(invoice.payment_request, amount_msat=7_000_600))
        bank.wait_balance(wallet, 12_000)
        shown = client.invoice(invoice.payment_hash)
        assert (shown.received_sat, shown.payment_hash) == (5_000, invoice.payment_hash)
    bank.tellerd.process.kill()
    sets.append(payer.pay_amp(invoice.payment_request, amount_msat=11_000_000))
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, 23_000)
    sets.append(payer.pay_amp(invoice.payment_request, amount_msat=13_000_000))
    bank.wait_balance(wallet, 36_000)
    assert all(one.succeeded for one in sets)
    assert credited(bank, wallet) == [5_000, 7_000, 11_000, 13_000]
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert (document["paid"], document["processingCompleted"]) == (True, True)
    ours = f"ln:{lnd.pubkey}:"
    keys = {str(one["_id"]) for one in bank.db[KEYS].find({"_id": {"$regex": f"^{ours}[0-9a-f]{{64}}$"}})}
    assert keys == {ours + name for name in (invoice.payment_hash, *(one.payment_hash for one in sets))}
    with bank.tellerd.client() as client:
        full = client.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=120).full_check
        assert (full.repeats, full.losses, full.gaps, list(full.unfinished)) == (0, 0, 0, [])
    bank.wait_balance(wallet, 36_000)
    bank.check_whole()


def test_an_amp_invoice_that_another_program_marked_paid_is_a_gap(bank: Bank) -> None:
    """Nothing is credited by itself: whoever marked it may have done so."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        other = client.create_wallet("other")
        invoice = bank.stack.lnd.add_amp_invoice(4_000_000)
        bank.write_invoice_document(invoice.payment_hash, wallet, paid=True)
        assert bank.stack.payer.pay_amp(invoice.payment_request).succeeded
        bank.pay([client.create_invoice(other, 1_000)])  # behind it in the same stream
        bank.wait_balance(other, 1_000)
        gaps = client.admin.ListGaps(admin_pb2.ListGapsRequest(), timeout=CALL_S).gaps
        assert [(gap.kind, gap.amount_msat) for gap in gaps] == [("paid_without_journal", 4_000_000)]
        assert client.balance_sat(wallet) == 0


def test_the_sets_of_a_dollar_wallets_amp_invoice_wait_for_an_operator(bank: Bank) -> None:
    """The cents of one moment are not the next one's: not even the first set is credited by itself, whatever the
    document says; assigned, the wallet gets what the dealer gives at that moment."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("till")
        invoice = bank.stack.lnd.add_amp_invoice(5_000_000)
        bank.write_invoice_document(invoice.payment_hash, wallet)
        bank.db[INVOICES].update_one({"_id": invoice.payment_hash}, {"$set": {"currency": "USD", "cents": 299}})
        sets = [bank.stack.payer.pay_amp(invoice.payment_request) for _ in range(2)]
        assert all(one.succeeded for one in sets)
        listing = suspense_pb2.ListSuspenseRequest(state=suspense_pb2.SUSPENSE_STATE_WAITING)

        def entries() -> list[suspense_pb2.SuspenseEntry]:
            return list(client.suspense.ListSuspense(listing, timeout=CALL_S).entries)

        wait_for(lambda: len(entries()) == 2, "both sets wait")
        assert {(one.amount_sat, one.suspense_reason) for one in entries()} == {(5_000, "not_priced")}
        assert client.balance_cents(wallet) == 0
        for expected_cents in (300, 600):
            assignment = suspense_pb2.AssignSuspenseRequest(
                entry_key=entries()[0].entry_key, wallet_id=wallet, reason="a set of its invoice", assigned_by="tests"
            )
            client.suspense.AssignSuspense(assignment, timeout=CALL_S)
            assert client.balance_cents(wallet) == expected_cents
        assert entries() == []
    bank.check_whole()


@with_a_record
def test_spontaneous_payments_go_to_the_wallet_that_they_name(bank: Bank) -> None:
    """keysend and AMP, in several parts too; those that name nobody, a dollar wallet, or a locked account wait with
    the reason, and none is lost."""
    payer, to = bank.stack.payer, bank.stack.lnd.pubkey
    with bank.tellerd.client() as client:
        wallet, locked = client.create_wallet("alice"), client.create_wallet("locked")
        dollars = client.create_dollar_wallet("dollars")
        account = (bank.db[WALLETS].find_one({"id": locked}) or {})["accountId"]
        change = {"$push": {"statusHistory": {"status": "locked", "updatedAt": datetime.now(UTC)}}}
        assert bank.db[ACCOUNTS].update_one({"id": account}, change).modified_count == 1
        payments = [
            payer.keysend(to, 3_000_000, records={RECORD: wallet.encode()}),
            payer.spontaneous_amp(to, 5_000_000, records={RECORD: wallet.encode()}),
            payer.spontaneous_amp(to, 9_000_000, records={RECORD: wallet.encode()}, most_msat=3_000_000),
            payer.keysend(to, 11_000_000),
            payer.keysend(to, 13_000_000, records={RECORD: b"nobody"}),
            payer.keysend(to, 17_000_000, records={RECORD: b"\xff\x00" * 300}),
            payer.keysend(to, 19_000_000, records={RECORD: dollars.encode()}),
            payer.keysend(to, 23_000_000, records={RECORD: locked.encode()}),
            payer.keysend(to, 29_000_000, records={RECORD + 1: wallet.encode()}),
            payer.spontaneous_amp(to, 31_000_000),
        ]
        assert all(one.succeeded for one in payments)
        expected = {
            11_000: "no_expectation",
            13_000: "no_wallet",
            17_000: "no_wallet",
            19_000: "currency_differs",
            23_000: "account_locked",
            29_000: "no_expectation",
            31_000: "no_expectation",
        }
        wait_for(lambda: waiting(client) == expected, "the others wait with their reasons")
        bank.wait_balance(wallet, 17_000)
        assert credited(bank, wallet) == [3_000, 5_000, 9_000]
        told = {
            row["payload"]["payment_hash"]: row["payload"]["amount_sat"]
            for row in bank.db[OUTBOX].find({"type": "invoice.settled", "wallet_ids": wallet})
        }
        assert told == {one.payment_hash: one.value_msat // 1000 for one in payments[:3]}
    bank.tellerd.process.kill()
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, 17_000)
    bank.check_whole()


def test_without_a_configured_record_a_keysend_waits(bank: Bank) -> None:
    """Whatever wallet it names."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        records = {RECORD: wallet.encode()}
        assert bank.stack.payer.keysend(bank.stack.lnd.pubkey, 3_000_000, records=records).succeeded
        wait_for(lambda: waiting(client) == {3_000: "no_expectation"}, "it waits")
        assert client.balance_sat(wallet) == 0
    bank.check_whole()


@with_a_record
def test_money_that_comes_again_to_a_keysend_follows_the_first(bank: Bank) -> None:
    """LND tells nobody; a full check finds it, and the wallet of the first gets it whatever the second one names."""
    payer, to, preimage = bank.stack.payer, bank.stack.lnd.pubkey, secrets.token_hex(32)
    with bank.tellerd.client() as client:
        wallet, other = client.create_wallet("alice"), client.create_wallet("bob")
        first = payer.keysend(to, 3_000_400, preimage=preimage, records={RECORD: wallet.encode()})
        bank.wait_balance(wallet, 3_000)
        # LND pays no hash twice: it has to forget that it did.
        name = base64.urlsafe_b64encode(bytes.fromhex(first.payment_hash)).decode()
        payer.call("DELETE", f"/v1/payment?payment_hash={name}")
        assert payer.keysend(to, 4_000_700, preimage=preimage, records={RECORD: other.encode()}).succeeded

        def found() -> bool:
            client.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=120)
            return client.balance_sat(wallet) == 7_001

        wait_for(found, "the full check has found it")
        assert (client.balance_sat(other), waiting(client)) == (0, {})
    bank.check_whole()
