"""Books against nodes on the real ones: a bank that is paid, routes, opens and closes channels, and whose LND is used
by hand as well. Every difference is explained, to the msat."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.mongo.collections import GAPS, OUTBOX
from regtest.stack import CHAIN_TOML, Stack
from tests.e2e.bank import Bank, wait_for
from tests.e2e.receives import make_hold, paying, wait_accepted
from tests.e2e.routing_net import RoutingNet

LIGHTNING: Final = "Assets:Reserve:Lightning"
CHAIN: Final = "Assets:OnChain"

EXPLAINED_S: Final = 240.0
"""Until a difference is explained; a look is tried until nothing moves, on two cores with five nodes."""


SWEPT_MOST: Final = 60
"""Blocks until LND has swept: it hears of each, and sweeps when it comes to it."""


@pytest.fixture
def net() -> Iterator[RoutingNet]:
    """The nodes; ours has coins, and a channel to the third, before tellerd's first start."""
    with Stack() as stack, RoutingNet(stack) as net:
        net.fund(20_000_000)
        net.open_channel(3_000_000)
        yield net


@pytest.fixture
def bank(net: RoutingNet, tmp_path: Path) -> Iterator[Bank]:
    """A bank that follows both LND and bitcoind, and compares twice a second."""
    bitcoind = net.stack.bitcoind
    chain = CHAIN_TOML.format(
        rpc_url=bitcoind.rpc_url,
        cookie_file=bitcoind.cookie_file,
        zmq=", ".join(f'"{address}"' for address in bitcoind.zmq_addresses),
        descriptor=bitcoind.bank_descriptor(),
    )
    bank = Bank(net.stack, tmp_path, settings=chain + "\n[reconciliation]\nevery_s = 0.5\n")
    try:
        bank.open()
        yield bank
    finally:
        bank.close()


class Comparison:
    """What tellerd says of the difference."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.last = admin_pb2.Reconciliation()

    def reconcile(self, *, full: bool = False) -> admin_pb2.ReconcileResponse:
        """Compares now."""
        with self.bank.tellerd.client() as client:
            answer = client.admin.Reconcile(admin_pb2.ReconcileRequest(full=full), timeout=180)
        self.last = answer.reconciliation
        return answer

    def wait_explained(self, what: str, holds: Callable[[], bool] = lambda: True) -> None:
        """Returns when a steady look leaves nothing unknown on either account."""

        def explained() -> bool:
            self.reconcile()
            sides = {side.account: side.unknown_msat for side in self.last.sides}
            return self.last.steady and sides == {LIGHTNING: 0, CHAIN: 0} and self._closes_for_fees() and holds()

        try:
            wait_for(explained, f"explained: {what}", EXPLAINED_S)
        except AssertionError:
            print(self.last)
            raise

    def _closes_for_fees(self) -> bool:
        """Nothing of a channel that closes is counted twice, or not at all, for a while: what is missing is a fee."""
        items = self.side(LIGHTNING).items
        missing = [item.amount_msat for item in items if item.kind == admin_pb2.DIFFERENCE_KIND_CLOSING]
        return all(-20_000_000 < amount_msat <= 0 for amount_msat in missing)

    def side(self, account: str) -> admin_pb2.ReconciliationSide:
        """One account of the last look."""
        return next(side for side in self.last.sides if side.account == account)

    def gaps(self, kind: str) -> dict[str, int]:
        """Amounts in msat by reference, of those that are not over."""
        found = self.bank.db[GAPS].find({"kind": kind, "state": {"$ne": "closed"}})
        return {str(one["reference"]): int(one["amount_msat"]) for one in found}

    def told(self, kind: str) -> list[dict[str, object]]:
        """Payloads of the events of a type, in order."""
        return [row["payload"] for row in self.bank.db[OUTBOX].find({"type": kind}).sort("_id", 1)]


def test_a_bank_that_routes_and_opens_and_closes_channels_is_explained_to_the_msat(
    net: RoutingNet, bank: Bank, figures: list[str]
) -> None:
    """200 payments, 20 deposits, a channel opened, a payment routed, channels closed, coins and a payment sent by hand:
    0 msat are unknown after each, routing income and channel fees are booked, and what was sent is listed."""
    compared = Comparison(bank)
    compared.wait_explained("the opening, with the wallet's coins and a channel of ours")
    assert compared.side(LIGHTNING).difference_msat == 0
    first_point = next(str(one["channel_point"]) for one in net.ours.list_channels() if one["initiator"])

    with bank.tellerd.client() as client:
        wallet = client.create_wallet("everybody")
        invoices = [net.ours.add_invoice(1_000_000 + 7_003 * number) for number in range(100)]
        for invoice in invoices:
            bank.write_invoice_document(invoice.payment_hash, wallet)
        requests = [invoice.payment_request for invoice in invoices]
        requests += [one.payment_request for one in bank.invoices(client, wallet, range(1_000, 1_100))]
        payments = net.stack.pay_many(requests, 20)
        assert all(payment.succeeded for payment in payments)
        addresses = [client.address(wallet, new=True) for _ in range(20)]
    for number, address in enumerate(addresses):
        net.stack.bitcoind.send(address, 50_000 + number)
    net.mine(3)
    wait_for(lambda: len(compared.told("deposit.settled")) == 20, "20 deposits are credited")
    compared.wait_explained("200 payments and 20 deposits")
    assert compared.side(LIGHTNING).difference_msat == 0
    assert compared.side(CHAIN).difference_msat == 0

    opened = net.begin_channel(5_000_000, push_sat=400_000)
    compared.wait_explained("a channel that is not confirmed yet")
    net.mine(6)
    net.wait_active(opened)
    compared.wait_explained("a channel opened", lambda: len(compared.told("channel_fee.booked")) == 1)
    assert compared.gaps("channel_push") == {opened: -400_000_000}

    routed = net.route(100_123_456)
    compared.wait_explained("a payment routed", lambda: len(compared.told("routing.booked")) == 1)
    assert compared.told("routing.booked")[0]["fee_msat"] == routed.fee_msat > 0

    sent = net.pay_by_hand(77_777_777)
    compared.wait_explained("a payment sent by hand", lambda: sent.payment_hash in compared.gaps("sent_elsewhere"))
    assert compared.gaps("sent_elsewhere") == {sent.payment_hash: -77_777_777 - sent.fee_msat}

    txid = net.send_coins(123_456)
    compared.wait_explained("coins sent by hand, not confirmed")
    net.mine(1)
    compared.wait_explained("coins sent by hand", lambda: txid in compared.gaps("wallet_sent"))
    received = net.fund(2_000_000)
    compared.wait_explained("coins received", lambda: received in compared.gaps("wallet_received"))

    net.close(first_point)
    compared.wait_explained("a channel that closes, not confirmed")
    net.mine(1)
    compared.wait_explained("a channel that closes, with one confirmation")
    net.mine(6)
    wait_for(lambda: net.closed(first_point), "the channel is closed")
    compared.wait_explained("a channel closed", lambda: len(compared.told("channel_fee.booked")) == 2)

    net.close(opened, force=True)
    compared.wait_explained("a channel closed by force, not confirmed")
    net.mine(1)
    compared.wait_explained("a channel closed by force, with one confirmation")
    net.mine(3)
    wait_for(lambda: net.blocks_til_maturity(opened) is not None, "LND waits for our output")
    compared.wait_explained("a channel closed by force, confirmed")
    net.mine(max(net.blocks_til_maturity(opened) or 1, 1))
    for _ in range(SWEPT_MOST):
        compared.wait_explained("a channel closed by force, being swept")
        if net.closed(opened):
            break
        net.mine(1)
    assert net.closed(opened)
    compared.wait_explained("a channel closed by force", lambda: len(compared.told("channel_fee.booked")) == 3)

    full = compared.reconcile(full=True).full_check
    assert (full.invoices >= 200, full.deposits, full.repeats, full.losses) == (True, 20, 0, 0)
    assert list(full.unfinished) == []
    assert compared.gaps("unknown_difference") == {}
    # Only the payer's channel is left, so that LND's own sums are all there is.
    assert compared.side(LIGHTNING).nodes_msat == net.ours.held_msat()
    figures += _figures(compared)
    bank.command("verify")


def test_payments_that_are_held_on_either_side_are_explained_to_the_msat(net: RoutingNet, bank: Bank) -> None:
    """One of ours waits beyond our channel, one for us waits on our node: what is ours until it is taken, and what is
    not before it is. Neither makes a difference, and no gap is opened."""
    compared = Comparison(bank)
    compared.wait_explained("the opening")
    preimage = os.urandom(32)
    theirs = hashlib.sha256(preimage).hexdigest()
    request = net.third.add_hold_invoice(theirs, 33_333_333).payment_request
    incoming = make_hold(bank, 20_000_777)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(net.ours.pay, request)
        wait_for(lambda: net.third.lookup_invoice(theirs).state == "ACCEPTED", "the third holds our payment")
        compared.wait_explained("a payment of ours that is held")
        assert compared.side(LIGHTNING).difference_msat == 0
        with paying(bank, incoming.payment_request) as payment:
            wait_accepted(bank, incoming.payment_hash)
            compared.wait_explained("payments that are held on both sides")
            assert compared.side(LIGHTNING).difference_msat == 0
            net.third.settle_hold(preimage.hex())
            sent = sending.result(120)
            assert sent.succeeded
            compared.wait_explained("a payment that went through", lambda: theirs in compared.gaps("sent_elsewhere"))
            assert compared.side(LIGHTNING).difference_msat == -33_333_333 - sent.fee_msat
            net.ours.settle_hold(incoming.preimage)
            assert payment.result(120).succeeded
        wait_for(lambda: len(compared.told("suspense.received")) == 1, "nobody expected it: it waits in suspense")
    compared.wait_explained("a payment that was taken")
    assert compared.side(LIGHTNING).difference_msat == -33_333_333 - sent.fee_msat
    assert bank.db[GAPS].count_documents({"kind": "unknown_difference"}) == 0
    bank.check_feed()
    bank.command("verify")


def test_a_routed_payment_that_waits_beyond_us_is_explained_to_the_msat(net: RoutingNet, bank: Bank) -> None:
    """The third holds it: what goes out is ours as long as what comes in is not, and the fee is earned only then."""
    compared = Comparison(bank)
    routed = net.route(1_000_000)  # the payer has found the way
    compared.wait_explained("a payment routed", lambda: len(compared.told("routing.booked")) == 1)
    preimage = os.urandom(32)
    theirs = hashlib.sha256(preimage).hexdigest()
    invoice = net.third.add_hold_invoice(theirs, 55_555_555)
    with paying(bank, invoice.payment_request) as payment:
        wait_for(lambda: net.third.lookup_invoice(theirs).state == "ACCEPTED", "the third holds it")
        compared.wait_explained("a routed payment that is held")
        assert compared.side(LIGHTNING).difference_msat == 0
        net.third.settle_hold(preimage.hex())
        sent = payment.result(120)
        assert sent.succeeded
    compared.wait_explained("it went through", lambda: len(compared.told("routing.booked")) == 2)
    assert compared.side(LIGHTNING).difference_msat == 0
    assert [one["fee_msat"] for one in compared.told("routing.booked")] == [routed.fee_msat, sent.fee_msat]
    assert bank.db[GAPS].count_documents({"kind": "unknown_difference"}) == 0
    bank.check_feed()
    bank.command("verify")


def _figures(compared: Comparison) -> list[str]:
    """For the summary: what the last look says."""
    found = [
        f"{side.account}: books {side.books_msat} msat, nodes {side.nodes_msat} msat, difference "
        f"{side.difference_msat} msat, unknown {side.unknown_msat} msat"
        for side in compared.last.sides
    ]
    told = compared.told("channel_fee.booked")
    fees = {f"{one['change']} of {str(one['channel_point'])[:8]}": one["fee_msat"] for one in told}
    income = [one["fee_msat"] for one in compared.told("routing.booked")]
    return [*found, f"channel fees booked, msat: {fees}; routing income booked, msat: {income}"]
