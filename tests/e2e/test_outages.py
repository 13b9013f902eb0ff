"""What is away comes back: the daemon, LND, MongoDB. Everything paid meanwhile is credited, once each."""

from __future__ import annotations

from adapters.mongo.collections import CURSORS
from tests.e2e.bank import Bank, wait_for

AMOUNTS_SAT = range(1_000, 1_020)
TOTAL_SAT = sum(AMOUNTS_SAT)


def test_paid_while_the_daemon_was_stopped(bank: Bank) -> None:
    """20 invoices are paid while tellerd is down; started again, it credits all."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, AMOUNTS_SAT)
    bank.tellerd.process.stop()
    assert bank.tellerd.process.exit_code == 0
    bank.pay(invoices)
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, TOTAL_SAT)
    bank.check_books()


def test_lnd_restarted_between_payments(bank: Bank) -> None:
    """LND ends (SIGTERM) and is back seconds later: the stream resumes by itself, from the cursor."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, AMOUNTS_SAT)
        bank.pay(invoices[:10])
        bank.stack.lnd.restart()
        bank.stack.wait_payable()
        bank.pay(invoices[10:])
        bank.wait_balance(wallet, TOTAL_SAT)
        wait_for(lambda: bank.node_status(client).connected, "LND is followed again")
    bank.check_books()


def test_lnd_with_a_new_certificate(bank: Bank) -> None:
    """LND comes back with another TLS certificate in the same file: it is read again."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, [5_000])
        before = bank.stack.lnd.tls_cert_file.read_bytes()
        bank.stack.lnd.stop()
        bank.stack.lnd.tls_cert_file.unlink()
        bank.stack.lnd.tls_cert_file.with_suffix(".key").unlink()
        bank.stack.lnd.start()
        bank.stack.lnd.wait_ready()
        assert bank.stack.lnd.tls_cert_file.read_bytes() != before
        bank.stack.wait_payable()
        bank.pay(invoices)
        bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_lnd_hung_is_noticed_within_thirty_seconds(bank: Bank) -> None:
    """LND stopped with SIGSTOP keeps its connections open: status and metric say so within 30 s; then it goes on."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, [7_000])
        wait_for(lambda: bank.node_status(client).connected, "LND is followed")
        bank.stack.lnd.pause()
        try:
            wait_for(lambda: not bank.node_status(client).connected, "the hung LND is noticed", timeout_s=30)
            assert 'tellerd_node_connected{node="lnd1"} 0.0' in bank.tellerd.get("/metrics").text
        finally:
            bank.stack.lnd.resume()
        wait_for(lambda: bank.node_status(client).connected, "LND is followed again")
        bank.stack.wait_payable()
        bank.pay(invoices)
        bank.wait_balance(wallet, 7_000)
    bank.check_books()


def test_mongod_restarted_while_payments_come_in(bank: Bank) -> None:
    """MongoDB goes away in the middle of payments: they settle on the node, and are in the books once it is back."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, AMOUNTS_SAT)
    paying = bank.start_paying(invoices)
    bank.stack.mongod.restart()
    assert all(payment.succeeded for payment in paying.result(timeout=120))
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, TOTAL_SAT)
    bank.check_books()


def test_mongod_killed_while_payments_come_in(bank: Bank) -> None:
    """The same with SIGKILL: what was acknowledged is there, what was not is posted again."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, AMOUNTS_SAT)
    paying = bank.start_paying(invoices)
    wait_for(lambda: bank.settled_count() >= 3, "some payments are in the books")
    bank.stack.mongod.kill()
    bank.stack.mongod.start()
    bank.stack.mongod.wait_ready()
    assert all(payment.succeeded for payment in paying.result(timeout=120))
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, TOTAL_SAT)
    bank.check_books()


def test_lnd_replaced_by_an_empty_node(own_bank: Bank) -> None:
    """Another node at the same address: said clearly, its settlements are followed from its own beginning although
    the stored index is far ahead of it, and the old node's books stay."""
    bank = own_bank
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        bank.pay(bank.invoices(client, wallet, AMOUNTS_SAT))
        bank.wait_balance(wallet, TOTAL_SAT)
        old = bank.stack.lnd.pubkey
        bank.stack.lnd.wipe()
        bank.stack.bake_macaroon()
        new = bank.stack.lnd.pubkey
        assert new != old
        bank.stack.open_channel()
        bank.stack.wait_payable()
        wait_for(lambda: bank.node_status(client).pubkey == new, "the new node is followed")
        wait_for(lambda: bank.cursor(new).get("opening_index") is not None, "the new node is opened")
        assert old in bank.tellerd.process.log_file.read_text()
        assert "another node answers at the address of lnd1" in bank.tellerd.process.log_file.read_text()
        invoices = bank.invoices(client, wallet, [9_000, 9_001])
        bank.pay(invoices)  # settle_index 1 and 2, where the old node stood at 20
        bank.wait_balance(wallet, TOTAL_SAT + 18_001)
    assert bank.cursor(new)["settle_index"] == 2
    assert bank.db[CURSORS].count_documents({"name": "lnd1"}) == 2
    books_msat = bank.cursor(new)["booked_msat"]
    wait_for(lambda: bank.node_msat() == books_msat, "the new node holds what the books say of it")
    bank.check_feed()
    bank.command("verify")
