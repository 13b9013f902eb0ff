"""The scenarios that Blink's own tests have (blink-contract.md 6): which test here proves each, and the ones that no
other file has.

A scenario that another file proves is named in the table alone. One thing is not as in Blink, because design.md
section 8 says otherwise: a repeated external_id returns the first invoice.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2, ledger_pb2, wallet_pb2
from adapters.mongo.collections import DEPOSITS, INVOICES, LEG_METADATA, LEGS, PENDING_RECEIVES
from regtest.tellerd import CALL_S, READY_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.coins import make_coin, spend
from tests.e2e.fail_points import SHORT_LEASE, Point, held
from tests.e2e.receives import blinks_invoice, dealers, paying, told, wait_accepted, wait_cents

TESTS: Final = Path(__file__).parents[1]

PROVED: Final[Mapping[str, tuple[str, ...]]] = {
    # bats/ln-receive
    "ln-receive: BTC with amount (callback, preimage, externalId)": ("test_ln_receive_btc_with_amount",),
    "ln-receive: USD with amount": ("e2e/test_dollars.py::test_ln_receive_usd_with_amount",),
    "ln-receive: BTC amountless": ("e2e/test_dollars.py::test_ln_receive_btc_amountless",),
    "ln-receive: less than 1 sat": ("e2e/test_holds.py::test_ln_receive_less_than_1_sat",),
    "ln-receive: USD amountless": ("e2e/test_dollars.py::test_ln_receive_usd_amountless",),
    "ln-receive: BTC created while trigger down": ("e2e/test_holds.py::test_ln_receive_created_while_trigger_down",),
    "ln-receive: USD created while trigger down": ("test_ln_receive_usd_created_while_trigger_down",),
    "ln-receive: BTC created and paid while trigger down": (
        "e2e/test_holds.py::test_ln_receive_created_and_paid_while_trigger_down",
    ),
    "ln-receive: USD created and paid while trigger down": ("test_ln_receive_usd_created_and_paid_while_trigger_down",),
    "ln-receive: cancel": ("e2e/test_holds.py::test_ln_receive_cancel",),
    "ln-receive: error on cancel settled": ("e2e/test_holds.py::test_ln_receive_error_on_cancel_settled",),
    "ln-receive: error on cancel held": ("e2e/test_holds.py::test_ln_receive_error_on_cancel_held",),
    # bats/public-ln-receive: without a login, for somebody else's wallet; to tellerd every caller is that
    "public-ln-receive: btc by request subscription": ("test_public_ln_receive_btc_by_request_subscription",),
    "public-ln-receive: btc by hash subscription": ("test_public_ln_receive_btc_by_hash_subscription",),
    "public-ln-receive: usd": ("test_public_ln_receive_usd",),
    "public-ln-receive: usd sats-denominated": ("test_public_ln_receive_usd_sats_denominated",),
    "public-ln-receive: btc amountless": ("e2e/test_dollars.py::test_ln_receive_btc_amountless",),
    "public-ln-receive: usd amountless": ("e2e/test_dollars.py::test_ln_receive_usd_amountless",),
    "public-ln-receive: invalid wallet": ("test_public_ln_receive_invalid_wallet",),
    "public-ln-receive: nonexistent wallet": ("test_public_ln_receive_nonexistent_wallet",),
    "public-ln-receive: negative amount": ("test_public_ln_receive_negative_amount",),
    "public-ln-receive: zero amount": ("test_public_ln_receive_zero_amount",),
    "invoices: duplicate externalId fails": ("test_invoices_duplicate_external_id",),
    # bats/onchain-receive, bats/trigger
    "onchain-receive: BTC by address": ("e2e/test_deposits.py::test_a_deposit_goes_from_the_mempool_to_the_wallet",),
    "onchain-receive: USD": ("e2e/test_dollars.py::test_onchain_receive_usd",),
    "onchain-receive: batch (3 outputs, 2 users)": (
        "e2e/test_deposits.py::test_one_tx_pays_an_address_twice_and_another_wallet",
    ),
    "onchain-receive: new address when current unused": (
        "e2e/test_addresses.py::test_the_same_address_is_given_until_it_is_paid",
        "e2e/test_addresses.py::test_calls_at_the_same_time_are_given_different_addresses",
    ),
    "trigger: lnds health check": ("e2e/test_outages.py::test_lnd_hung_is_noticed_within_thirty_seconds",),
    # integration/handle-bria-event, bria: bitcoind and ZMQ stand in Bria's place
    "handle-bria-event: persists pending": (
        "e2e/test_deposits.py::test_what_is_under_way_is_shown_to_blinks_readers_until_it_is_settled",
    ),
    "handle-bria-event: persists settled": ("e2e/test_legs.py::test_onchain_receive_to_btc",),
    "handle-bria-event: replay (parallel x2)": (
        "test_handle_bria_event_replay_in_parallel",
        "e2e/test_chain_kills.py::test_killed_at_a_point_of_a_chain_commit",
    ),
    "handle-bria-event: multiple utxos same txid": (
        "e2e/test_deposits.py::test_one_tx_pays_an_address_twice_and_another_wallet",
    ),
    "handle-bria-event: dust": ("e2e/test_deposits.py::test_fee_and_dust_are_booked_so_that_nothing_is_lost",),
    "handle-bria-event: remove existing": ("test_handle_bria_event_remove_existing",),
    "handle-bria-event: remove unknown": ("test_handle_bria_event_remove_unknown",),
    "bria: receives utxo events": (
        "e2e/test_deposits.py::test_the_feed_tells_each_step_with_its_own_payload_and_without_gaps",
    ),
    "bria: re-subscribes": ("e2e/test_chain_outages.py::test_bitcoind_stopped_and_back_with_a_new_cookie",),
    # integration/update-pending-invoices and its neighbours
    "update-pending-invoices: declines expired USD": (
        "e2e/test_dollars.py::test_update_pending_invoices_an_expired_dollar_invoice_is_declined_by_the_node",
    ),
    "update-pending-invoices: not expired BTC": (
        "e2e/test_holds.py::test_update_pending_invoices_btc_is_taken_however_old_its_document",
    ),
    "update-pending-invoices: idempotent three times in parallel": (
        "e2e/test_holds.py::test_update_pending_invoices_idempotent_three_times_in_parallel",
    ),
    "update-pending-invoices: ln-receive metadata": (
        "e2e/test_legs.py::test_ln_receive_to_btc",
        "e2e/test_legs.py::test_ln_receive_to_usd",
    ),
    "lnd-service: cancels invoice": ("e2e/test_holds.py::test_ln_receive_cancel",),
    "lnd-service: handles expired": ("e2e/test_holds.py::test_an_expired_invoice_is_closed_after_its_node_was_asked",),
    "lock-service": (
        "e2e/test_beside_blink_on_chain.py::test_lock_service_nobody_else_gets_the_lock_while_tellerd_settles_a_deposit",
        "e2e/test_beside_blink_on_chain.py::test_a_lock_that_blink_holds_delays_exactly_that_deposit",
        "e2e/test_beside_blink.py::test_a_lock_that_blink_holds_delays_exactly_that_settlement",
        "contract/test_beside.py::test_blinks_locks_and_ours_exclude_each_other",
    ),
    "ledger-facade: receives": (
        "e2e/test_legs.py::test_ln_receive_to_btc",
        "e2e/test_legs.py::test_ln_receive_to_usd",
        "e2e/test_legs.py::test_onchain_receive_to_btc",
        "e2e/test_legs.py::test_onchain_receive_to_usd",
    ),
    "wallet-onchain-pending-receive": (
        "e2e/test_deposits.py::test_what_is_under_way_is_shown_to_blinks_readers_until_it_is_settled",
    ),
    # unit
    "unit: wallet-invoice-checker": (
        "unit/matching/test_holds.py::test_what_lacks_something_waits_and_goes_back_near_its_end",
    ),
    "unit: wallet-invoice-receiver": (
        "unit/matching/test_dollars.py::test_a_document_of_another_program_needs_no_quote_and_no_price",
        "unit/matching/test_dollars.py::test_less_than_a_cent_goes_to_the_accounts_btc_wallet",
    ),
    "unit: wallet-invoice-builder": (
        "contract/test_dollar_invoices.py::test_a_quote_is_kept_before_the_node_has_the_invoice",
    ),
    "unit: wallet-address-receiver (less than the fee)": (
        "unit/domain/test_deposit_terms.py::test_what_is_not_more_than_its_fee_is_dust",
    ),
    "unit: deposit-fee-calculator": (
        "unit/domain/test_deposit_terms.py::test_the_fee_is_flat_below_the_threshold_and_basis_points_from_it_on",
    ),
    "unit: entry-builder (incl. zero-USD)": (
        "unit/matching/test_dollars.py::test_ln_receive_to_usd_is_booked_leg_by_leg_as_blink_does",
        "unit/matching/test_dollars.py::test_less_than_a_cent_goes_to_the_accounts_btc_wallet",
    ),
    "unit: fee-only-entry-builder": (
        "unit/matching/test_deposits.py::test_the_fee_leg_comes_first_as_blink_writes_it",
        "unit/matching/test_deposits.py::test_without_a_fee_there_is_no_fee_leg",
    ),
    "unit: grpc stream/backoff": ("unit/test_supervision.py::test_pauses_double_up_to_the_cap",),
}
"""Scenario -> its tests: `folder/file::test`, a bare name in this file."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "onchain-receive: batch via legacy LND": "addresses with a pubkey are an LND's coins and left to it (design.md 5)",
    "onchain-send: settle, cancel external, cancel internal": "a send: tellerd only receives",
    "handle-bria-event: broadcast exact, under, over fee": "a send",
    "handle-bria-event: failed reconciliation then retry": "a payout's fee: a send",
    "unit: ln-payment-state": "a send",
    "ledger-facade: sends, intraledger, fee reimbursement": "not tellerd's to write; adopted when another program does",
    "callback": "webhooks come with an issue of their own; what they tell is in the feed (BTC with amount)",
    "cron": "rebalancing, escrow and clean-up are the core's; what its receive jobs do happens by itself in tellerd",
}
"""Scenario -> why no test here mirrors it."""


def test_every_scenario_has_its_test() -> None:
    """Each name in the table is a test function of its file, and nothing is both proved and left out."""
    missing = [name for names in PROVED.values() for name in names if not _exists(name)]
    assert missing == []
    assert all(PROVED.values())
    assert not set(PROVED) & set(LEFT_OUT)


def _exists(name: str) -> bool:
    file, _, test = name.rpartition("::")
    path = TESTS / file if file else Path(__file__)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return path.is_file() and any(
        isinstance(node, functions) and node.name == test for node in ast.parse(path.read_text()).body
    )


# --- bats/ln-receive ---------------------------------------------------------------------------------------


def test_ln_receive_btc_with_amount(bank: Bank) -> None:
    """The payer has the preimage of the document, it stands beside the legs, and the feed and the wallet's transactions
    carry the external_id."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        invoice = client.create_invoice(wallet, 1_000, memo="a coffee", external_id="order-7")
        payment = bank.stack.payer.pay(invoice.payment_request)
        assert payment.succeeded
        bank.wait_balance(wallet, 1_000)
        listed = client.ledger.ListTransactions(ledger_pb2.ListTransactionsRequest(wallet_id=wallet), timeout=CALL_S)
        (transaction,) = listed.transactions
        assert (transaction.amount_sat, transaction.external_id) == (1_000, "order-7")
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert (document["secret"], document["externalId"], document["paid"]) == (payment.preimage, "order-7", True)
    for leg in bank.db[LEGS].find({"hash": invoice.payment_hash}):
        assert leg["external_id"] == "order-7"
        proof = bank.db[LEG_METADATA].find_one({"_id": leg["_id"]})
        assert proof is not None
        assert proof["revealedPreImage"] == payment.preimage
    event = bank.feed(after_sequence=0, count=1, types=["invoice.settled"])[0]
    assert (event.wallet_id, event.invoice_settled.external_id) == (wallet, "order-7")
    bank.check_books()


def test_ln_receive_usd_created_while_trigger_down(bank: Bank) -> None:
    """Blink's core makes a dollar invoice while tellerd is away; it is paid afterwards, and credited with its cents."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("down")
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet, cents=299)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        with paying(bank, invoice.payment_request) as payment:
            assert payment.result(120).succeeded
        wait_cents(client, wallet, 299)
    bank.check_books()


def test_ln_receive_usd_created_and_paid_while_trigger_down(bank: Bank) -> None:
    """Made and paid while tellerd is away: held until it is back, then credited with its cents."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("down")
    bank.tellerd.process.stop()
    invoice = blinks_invoice(bank, wallet, cents=299)
    with paying(bank, invoice.payment_request) as payment:
        wait_accepted(bank, invoice.payment_hash)
        bank.tellerd.start()
        bank.tellerd.wait_ready()
        assert payment.result(120).succeeded
    with bank.tellerd.client() as client:
        wait_cents(client, wallet, 299)
    assert told(bank, invoice.payment_hash) == ["invoice.held", "invoice.settled"]
    bank.check_books()


# --- bats/public-ln-receive, bats/invoices -----------------------------------------------------------------


def test_public_ln_receive_btc_by_request_subscription(bank: Bank) -> None:
    """Who has only the payment request finds the hash in it, and watches that."""
    with bank.tellerd.client() as client:
        invoice = client.create_invoice(bank.write_wallet(), 1_000)
        decoded = bank.stack.payer.call("GET", f"/v1/payreq/{invoice.payment_request}")
        assert (decoded["payment_hash"], decoded["num_satoshis"]) == (invoice.payment_hash, "1000")
        _watch_paid(bank, client, invoice, payment_hash=decoded["payment_hash"])
    bank.check_books()


def test_public_ln_receive_btc_by_hash_subscription(bank: Bank) -> None:
    """WatchInvoice shows it open, then settled, and ends."""
    with bank.tellerd.client() as client:
        wallet = bank.write_wallet()
        invoice = client.create_invoice(wallet, 1_000)
        _watch_paid(bank, client, invoice, payment_hash=invoice.payment_hash)
        assert client.balance_sat(wallet) == 1_000
    bank.check_books()


def test_public_ln_receive_usd(bank: Bank) -> None:
    """The same for a dollar wallet: watched until its cents are in."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("public")
        invoice = client.create_dollar_invoice(wallet, 250)
        _watch_paid(bank, client, invoice, payment_hash=invoice.payment_hash)
        assert client.balance_cents(wallet) == 250
    bank.check_books()


def test_public_ln_receive_usd_sats_denominated(bank: Bank) -> None:
    """Exactly these sats are asked for, and their cents fixed when the invoice is made: 1,000 at 60,000 dollars. They
    are what the wallet gets, leg by leg as Blink books it; less than a cent is refused."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("in-sats")
        invoice = client.create_invoice(wallet, 1_000, external_id="order-1")
        assert (invoice.amount_sat, invoice.amount_cents) == (1_000, 60)
        assert client.create_invoice(wallet, 1_000, external_id="order-1") == invoice
        decoded = bank.stack.payer.call("GET", f"/v1/payreq/{invoice.payment_request}")
        assert (decoded["num_satoshis"], decoded["expiry"]) == ("1000", "300")
        _watch_paid(bank, client, invoice, payment_hash=invoice.payment_hash)
        assert client.balance_cents(wallet) == 60
        paid = client.invoice(invoice.payment_hash)
        assert (paid.received_sat, paid.received_cents) == (1_000, 60)
        code, text = _refused(client, wallet_id=wallet, amount_sat=16)
        assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "amount_sat")
        assert "less than a cent" in text
    dealer_btc, dealer_usd = dealers(bank)
    legs = list(bank.db[LEGS].find({"hash": invoice.payment_hash}).sort("_id", 1))
    assert [(leg["accounts"], leg["currency"], leg["debit"], leg["credit"]) for leg in legs] == [
        ("Assets:Reserve:Lightning", "BTC", 1_000, 0),
        (dealer_usd, "USD", 60, 0),
        (dealer_btc, "BTC", 0, 1_000),
        (f"Liabilities:{wallet}", "USD", 0, 60),
    ]
    assert {(leg["type"], leg["satsAmount"], leg["centsAmount"]) for leg in legs} == {("invoice", 1_000, 60)}
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    assert (document["cents"], document["currency"], document["paid"]) == (60, "USD", True)
    bank.check_books()


def _watch_paid(bank: Bank, client: Client, invoice: invoice_pb2.Invoice, *, payment_hash: str) -> None:
    """Pays while somebody watches, who sees the invoice open first, and settled last."""
    request = invoice_pb2.WatchInvoiceRequest(payment_hash=payment_hash)
    watch = client.invoices.WatchInvoice(request, timeout=120)
    assert next(watch).invoice.state == invoice_pb2.INVOICE_STATE_OPEN
    bank.pay([invoice])
    *_, last = watch
    assert last.invoice.state == invoice_pb2.INVOICE_STATE_SETTLED


def _refused(client: Client, **fields: object) -> tuple[grpc.StatusCode, str]:
    """How CreateInvoice refuses these."""
    with pytest.raises(grpc.RpcError) as refused:
        client.invoices.CreateInvoice(invoice_pb2.CreateInvoiceRequest(**fields), timeout=CALL_S)  # type: ignore[arg-type]  # handed through
    return refused.value.code(), refused.value.details() or ""


def test_public_ln_receive_invalid_wallet(bank: Bank) -> None:
    """INVALID_ARGUMENT: what is no UUID is no wallet's id."""
    with bank.tellerd.client() as client:
        for wallet in ("", "invalid", "00000000-0000-0000-0000-00000000000G"):
            code, text = _refused(client, wallet_id=wallet, amount_sat=1_000)
            assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "wallet_id"), text
    assert bank.db[INVOICES].count_documents({}) == 0


def test_public_ln_receive_nonexistent_wallet(bank: Bank) -> None:
    """NOT_FOUND, with an amount and without."""
    nobodys = "3c1ad4a5-8a44-4bf4-b5b0-6f4c7a5ae301"
    with bank.tellerd.client() as client:
        assert _refused(client, wallet_id=nobodys, amount_sat=1_000)[0] == grpc.StatusCode.NOT_FOUND
        assert _refused(client, wallet_id=nobodys)[0] == grpc.StatusCode.NOT_FOUND
    assert bank.db[INVOICES].count_documents({}) == 0


@pytest.fixture
def wallets(bank: Bank) -> dict[str, str]:
    """A wallet of each kind, by the name of its amount."""
    with bank.tellerd.client() as client:
        return {"amount_sat": client.create_wallet("sats"), "amount_cents": client.create_dollar_wallet("dollars")}


def test_public_ln_receive_negative_amount(bank: Bank, wallets: Mapping[str, str]) -> None:
    """INVALID_ARGUMENT that names the field, in sats and in cents."""
    _check_amount_refused(bank, wallets, -1)


def test_public_ln_receive_zero_amount(bank: Bank, wallets: Mapping[str, str]) -> None:
    """The same: an invoice without an amount is asked for by giving none."""
    _check_amount_refused(bank, wallets, 0)


def _check_amount_refused(bank: Bank, wallets: Mapping[str, str], amount: int) -> None:
    with bank.tellerd.client() as client:
        for name, wallet in wallets.items():
            code, text = _refused(client, wallet_id=wallet, **{name: amount})
            assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, name), text
    assert bank.db[INVOICES].count_documents({}) == 0


def test_invoices_duplicate_external_id(bank: Bank) -> None:
    """Blink refuses it. Here a repeat is safe: the same arguments return the first invoice, paid or not; others, and
    another wallet of the account, are ALREADY_EXISTS. Another account may use the name."""
    with bank.tellerd.client() as client:
        wallet, stranger = client.create_wallet("mine"), client.create_wallet("strangers")
        first = client.create_invoice(wallet, 1_000, external_id="order-1")
        assert client.create_invoice(wallet, 1_000, external_id="order-1") == first
        refused = _refused(client, wallet_id=wallet, amount_sat=2_000, external_id="order-1")
        assert refused[0] == grpc.StatusCode.ALREADY_EXISTS
        assert "amount_sat" in refused[1]
        sibling = wallet_pb2.CreateWalletRequest(
            currency=wallet_pb2.CURRENCY_USD, external_id="sibling", account_id=first.account_id
        )
        dollars = client.wallets.CreateWallet(sibling, timeout=CALL_S).wallet.wallet_id
        refused = _refused(client, wallet_id=dollars, amount_cents=100, external_id="order-1")
        assert refused[0] == grpc.StatusCode.ALREADY_EXISTS
        assert client.create_invoice(stranger, 1_000, external_id="order-1").payment_hash != first.payment_hash
        bank.pay([first])
        bank.wait_balance(wallet, 1_000)
        again = client.create_invoice(wallet, 1_000, external_id="order-1")
        assert (again.payment_hash, again.state) == (first.payment_hash, invoice_pb2.INVOICE_STATE_SETTLED)
    bank.check_books()


# --- integration/handle-bria-event -------------------------------------------------------------------------

SEEN = Point("while it is seen", "update", DEPOSITS, in_transaction=True)
SETTLED = Point("while it is settled", "insert", LEGS, in_transaction=True)


@pytest.mark.parametrize("chain", [{"sections": SHORT_LEASE}], indirect=True, ids=["short-lease"])
@pytest.mark.parametrize("point", [SEEN, SETTLED], ids=str)
def test_handle_bria_event_replay_in_parallel(chain: ChainBank, point: Point) -> None:
    """Two daemons have the same step of one deposit at once: the first hangs with it in an open transaction, the
    second takes over and books it, and what the first goes on with then is nothing. Told once, credited once."""
    leader, standby = chain.bank.tellerd, chain.bank.standby("standby")
    with leader.client() as client:
        wallet = client.create_wallet("shop")
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(chain.address(client, wallet), 500_000)])
    standby.start()
    standby.process.wait_until(lambda: "standby" in standby.get("/readyz").text, "waiting as standby", READY_S)
    if point is SETTLED:
        chain.broadcast(tx)
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 0, "confirmed")
    with held(chain.bank.db.client, chain.bank.database, point) as holding:
        if point is SEEN:
            chain.broadcast(tx)
        else:
            chain.bitcoind.mine(1)
        holding.wait_reached()
        assert holding.open_transactions() >= 1
        leader.process.pause()
    chain.wait_state(tx.txid, 0, "detected" if point is SEEN else "settled")
    standby.wait_ready()
    leader.process.resume()
    wait_for(lambda: "standby" in leader.get("/readyz").text, "the first stands by")
    if point is SEEN:
        assert len(chain.pending(wallet)) == 1
        chain.bitcoind.mine(2)
        chain.wait_state(tx.txid, 0, "settled")
    standby.process.stop()
    leader.wait_ready()
    chain.wait_followed()
    assert chain.told(tx.txid) == ["deposit.detected", "deposit.confirmed", "deposit.settled"]
    assert chain.booking_keys(tx.txid) == [f"chain:{tx.txid}:0:1"]
    assert chain.pending(wallet) == []
    with leader.client() as client:
        assert client.balance_sat(wallet) == 497_000


def test_handle_bria_event_remove_existing(shared_chain: ChainBank) -> None:
    """A tx that is double-spent before it is in a block: what Blink's readers saw pending is gone, of another deposit
    of the wallet it stays, and only that is credited."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("existing")
        address = chain.address(client, wallet)
        coin = make_coin(chain.bitcoind)
        gone, kept = spend(chain.bitcoind, coin, [(address, 500_000)]), chain.send(address, 100_000)
        chain.broadcast(gone)
        for outpoint in ((gone.txid, 0), kept):
            chain.wait_state(*outpoint, "detected")
        assert {one["transactionHash"] for one in chain.pending(wallet)} == {gone.txid, kept[0]}
        chain.broadcast(spend(chain.bitcoind, coin, fee_sat=50_000))
        chain.wait_state(gone.txid, 0, "dropped")
        assert [one["transactionHash"] for one in chain.pending(wallet)] == [kept[0]]
        chain.bitcoind.mine(2)
        chain.wait_state(*kept, "settled")
        assert (client.balance_sat(wallet), chain.pending(wallet)) == (97_000, [])
    assert chain.told(gone.txid) == ["deposit.detected", "deposit.dropped"]


def test_handle_bria_event_remove_unknown(shared_chain: ChainBank) -> None:
    """A double-spent tx that pays nobody here is no error: nothing is told of it, what another program has written of
    it stays, and the next deposit goes its way over the same connection."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("unknown")
        address = chain.address(client, wallet)
        coin, strangers = make_coin(chain.bitcoind), chain.bitcoind.new_address()
        unknown = spend(chain.bitcoind, coin, [(strangers, 500_000)])
        chain.wait_followed()
        connections = _connections(chain)
        chain.broadcast(unknown)
        theirs = {"walletId": wallet, "transactionHash": unknown.txid, "vout": 0, "address": strangers}
        chain.bank.db[PENDING_RECEIVES].insert_one({**theirs, "walletAmount": 497_000})
        chain.broadcast(spend(chain.bitcoind, coin, fee_sat=50_000))
        after = chain.send(address, 100_000)
        chain.wait_state(*after, "detected")
        assert {one["transactionHash"] for one in chain.pending(wallet)} == {unknown.txid, after[0]}
        chain.bitcoind.mine(2)
        chain.wait_state(*after, "settled")
        assert client.balance_sat(wallet) == 97_000
        assert [one["transactionHash"] for one in chain.pending(wallet)] == [unknown.txid]
        assert _connections(chain) == connections
    assert (chain.told(unknown.txid), chain.state(unknown.txid, 0)) == ([], None)


def _connections(chain: ChainBank) -> list[str]:
    """How often tellerd has connected to bitcoind, as its metrics say."""
    page = chain.bank.tellerd.get("/metrics").text
    found = [line for line in page.splitlines() if line.startswith('tellerd_node_connections_total{node="bitcoind"}')]
    assert len(found) == 1
    return found
