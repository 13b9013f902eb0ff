"""Two real LNDs of one bank: each with a cursor and a macaroon of its own, and one that is away stops nobody else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, invoice_pb2
from adapters.mongo.collections import CURSORS
from regtest.stack import Stack
from regtest.tellerd import READY_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.holding import HELD, SETTLED, create, settle
from tests.e2e.receives import dealers, paying, told, wait_cents, wait_state
from tests.e2e.second_node import SecondNode

CALL_S = 120.0
LIGHTNING = "Assets:Reserve:Lightning"


@pytest.fixture
def second() -> Iterator[SecondNode]:
    """The nodes, on a stack of their own: one of them is killed."""
    with Stack() as stack, SecondNode(stack) as second:
        yield second


@pytest.fixture
def bank(second: SecondNode, tmp_path: Path) -> Iterator[Bank]:
    """A bank that follows both."""
    bank = Bank(second.stack, tmp_path, settings=second.toml + "\n[reconciliation]\nevery_s = 0.5\n")
    try:
        bank.open()
        wait_for(
            lambda: bank.db[CURSORS].count_documents({"opening_index": {"$ne": None}}) == 2, "both nodes are opened"
        )
        yield bank
    finally:
        bank.close()


def invoice_on(client: Client, wallet: str, amount_sat: int, node: str = "", name: str = "") -> invoice_pb2.Invoice:
    """An invoice on the node that is asked for, or on any."""
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet, amount_sat=amount_sat, node=node, external_id=name)
    return client.invoices.CreateInvoice(request, timeout=CALL_S).invoice


def refused(client: Client, wallet: str, node: str) -> tuple[grpc.StatusCode, str]:
    """How CreateInvoice on this node is refused."""
    with pytest.raises(grpc.RpcError) as refusal:
        invoice_on(client, wallet, 1_000, node)
    error: grpc.Call = refusal.value  # type: ignore[assignment]  # grpcio's errors are calls, too
    return error.code(), error.details() or ""


def metric(bank: Bank, line: str) -> bool:
    """Whether /metrics has this line."""
    return line in bank.tellerd.get("/metrics").text.splitlines()


def wait_explained(bank: Bank, second: SecondNode) -> None:
    """Books and nodes are equal: what both hold is all that the books have, and nothing is unknown."""
    looks: list[admin_pb2.Reconciliation] = []

    def explained() -> bool:
        with bank.tellerd.client() as client:
            looks.append(client.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S).reconciliation)
        sides = {side.account: side for side in looks[-1].sides}
        return looks[-1].steady and LIGHTNING in sides and sides[LIGHTNING].difference_msat == 0

    wait_for(explained, "books and nodes agree")
    held_msat = {one.name: one.channels_msat + one.closing_msat + one.wallet_msat for one in looks[-1].holdings}
    assert held_msat == {"lnd1": second.stack.lnd.held_msat(), "lnd2": second.lnd.held_msat()}
    assert looks[-1].unknown_msat == 0
    for node in ("lnd1", "lnd2"):
        # Of a look in which nothing moved: the scrape may be of an earlier one.
        line = f'tellerd_node_holding_millisatoshis{{node="{node}",where="channels"}}'
        assert any(one.startswith(line) for one in bank.tellerd.get("/metrics").text.splitlines())


def pay(bank: Bank, invoices: Sequence[invoice_pb2.Invoice]) -> None:
    """The payer pays all of them, a few at a time."""
    bank.pay(invoices, in_flight=4)


def test_two_nodes_settle_and_one_that_is_killed_stops_nobody(second: SecondNode, bank: Bank) -> None:
    """Invoices on both settle; the node asked for is taken, else one that answers; the one that was killed is told to
    be away, and catches up when it is back. Books and holdings are equal for both."""
    first_key, second_key = second.stack.lnd.pubkey, second.lnd.pubkey
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        on_both = [
            invoice_on(client, wallet, 1_000, "lnd1"),
            invoice_on(client, wallet, 2_000, "lnd2"),
            invoice_on(client, wallet, 4_000, second_key),
            invoice_on(client, wallet, 8_000),
        ]
        assert [one.node for one in on_both] == [first_key, second_key, second_key, first_key]
        pay(bank, on_both)
        bank.wait_balance(wallet, 15_000)
        assert (bank.cursor(first_key)["settle_index"], bank.cursor(second_key)["settle_index"]) == (2, 2)
        wait_explained(bank, second)
        code, text = refused(client, wallet, "lnd3")
        assert code == grpc.StatusCode.NOT_FOUND
        assert "lnd1, lnd2" in text

        waiting = invoice_on(client, wallet, 16_000, "lnd2")
        second.lnd.kill()
        wait_for(lambda: metric(bank, 'tellerd_node_connected{node="lnd2"} 0.0'), "lnd2 is seen to be away")
        assert metric(bank, 'tellerd_node_connected{node="lnd1"} 1.0')
        code, text = refused(client, wallet, "lnd2")
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "lnd2 does not listen: start it" in text
        meanwhile = [invoice_on(client, wallet, 32_000) for _ in range(3)]
        assert {one.node for one in meanwhile} == {first_key}
        pay(bank, meanwhile)
        bank.wait_balance(wallet, 15_000 + 3 * 32_000)
        status = client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).lnd
        assert {one.name: one.connected for one in status} == {"lnd1": True, "lnd2": False}

        second.lnd.start()
        second.lnd.wait_ready()
        second.wait_payable()
        pay(bank, [waiting])
        bank.wait_balance(wallet, 15_000 + 3 * 32_000 + 16_000)
        wait_for(lambda: metric(bank, 'tellerd_node_connected{node="lnd2"} 1.0'), "lnd2 is followed again")
        for node, connections, settled in (("lnd1", 1, 5), ("lnd2", 2, 3)):
            line = f'tellerd_settle_index{{node="{node}"}} {float(settled)}'
            wait_for(lambda line=line: metric(bank, line), line)  # type: ignore[misc]  # a lambda with a default
            told = bank.tellerd.get("/metrics").text
            count = next(one for one in told.splitlines() if f'tellerd_node_connections_total{{node="{node}"}}' in one)
            assert float(count.split()[-1]) >= connections
        wait_explained(bank, second)
    bank.check_feed()
    bank.command("verify")


def test_without_the_first_node_invoices_are_made_on_the_second(second: SecondNode, bank: Bank) -> None:
    """A caller that asks for no node gets one that answers; a payment is credited while the other is away, and tellerd
    starts with one node away, too."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("bob")
        second.stack.lnd.kill()
        wait_for(lambda: metric(bank, 'tellerd_node_connected{node="lnd1"} 0.0'), "lnd1 is seen to be away")
        invoice = invoice_on(client, wallet, 3_000)
        assert invoice.node == second.lnd.pubkey
        pay(bank, [invoice])
        bank.wait_balance(wallet, 3_000)
        late = invoice_on(client, wallet, 5_000)
    bank.tellerd.process.stop()
    bank.pay([late])  # nobody follows: it is caught up with
    bank.tellerd.start()
    bank.tellerd.process.wait_until(lambda: bank.tellerd.get("/healthz").status == 200, "it serves", READY_S)
    wait_for(lambda: metric(bank, 'tellerd_node_connected{node="lnd2"} 1.0'), "lnd2 is followed")
    bank.wait_balance(wallet, 8_000)
    second.stack.lnd.start()
    second.stack.lnd.wait_ready()
    second.stack.bake_macaroon()
    wait_for(lambda: metric(bank, 'tellerd_node_connected{node="lnd1"} 1.0'), "lnd1 is followed again")
    wait_explained(bank, second)


def test_held_payments_of_the_second_node_are_its_own(second: SecondNode, bank: Bank) -> None:
    """A hold invoice on it waits for its call and is credited, an amountless dollar invoice on it is held, priced and
    taken; its metrics tell of them and the first node's do not. Books and holdings are equal for both."""
    with bank.tellerd.client() as client:
        wallet, dollars = client.create_wallet("alice"), client.create_dollar_wallet("tips")
        invoice = create(client, wallet, 5_000, node="lnd2")
        request = invoice_pb2.CreateInvoiceRequest(wallet_id=dollars, node="lnd2")
        amountless = client.invoices.CreateInvoice(request, timeout=CALL_S).invoice
        assert (invoice.node, amountless.node) == (second.lnd.pubkey, second.lnd.pubkey)
        with paying(bank, invoice.payment_request) as payment:
            wait_state(client, invoice.payment_hash, HELD)
            wait_for(lambda: metric(bank, 'tellerd_holds_held{node="lnd2"} 1.0'), "lnd2 holds it")
            assert metric(bank, 'tellerd_holds_held{node="lnd1"} 0.0')
            wait_explained(bank, second)
            assert second.stack.payer.pay(amountless.payment_request, amount_msat=1_000_999).succeeded
            wait_cents(client, dollars, 60)
            assert settle(client, invoice.payment_hash).state == SETTLED
            assert payment.result(120).succeeded
        bank.wait_balance(wallet, 5_000)
        rows, totals = client.trial_balance()
        assert set(totals.values()) == {0}
        assert {row.account: row.balance for row in rows}[dealers(bank)[0]] == 1_000
    for paid in (invoice, amountless):
        assert told(bank, paid.payment_hash) == ["invoice.held", "invoice.settled"]
    first, other = (bank.cursor(pubkey) for pubkey in (second.stack.lnd.pubkey, second.lnd.pubkey))
    assert (first["settle_index"], other["settle_index"], other["remainder_msat"]) == (0, 2, 999)
    wait_explained(bank, second)
    bank.check_feed()
    bank.command("verify")
