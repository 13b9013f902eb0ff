"""Money that no wallet could be credited with: an operator says whose it is, once, whatever is killed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2, suspense_pb2
from adapters.mongo.collections import DEPOSITS, SUSPENSE
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import Bank, wait_for
from tests.e2e.chain_bank import ChainBank


def assign(client: Client, entry_key: str, wallet_id: str) -> suspense_pb2.SuspenseEntry:
    request = suspense_pb2.AssignSuspenseRequest(
        entry_key=entry_key, wallet_id=wallet_id, reason="ticket 7", assigned_by="ann"
    )
    return client.suspense.AssignSuspense(request, timeout=CALL_S).entry


def waiting(client: Client) -> list[suspense_pb2.SuspenseEntry]:
    request = suspense_pb2.ListSuspenseRequest(state=suspense_pb2.SUSPENSE_STATE_WAITING)
    return list(client.suspense.ListSuspense(request, timeout=CALL_S).entries)


def refused(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: grpc.Call = caught.value  # type: ignore[assignment]  # grpcio's errors are calls, too
    return error.code()


def test_money_in_suspense_is_assigned_once_also_when_the_daemon_is_killed(bank: Bank) -> None:
    """kill -9 while operators ask: whoever repeats gets the first answer, and the wallet has the money once."""
    invoices = [bank.stack.lnd.add_invoice(amount_sat * 1000) for amount_sat in (7_000, 9_000)]
    for invoice in invoices:
        assert bank.stack.payer.pay(invoice.payment_request).succeeded
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("found")
        wait_for(lambda: len(waiting(client)) == 2, "both wait in suspense")
        keys = {entry.amount_sat: entry.entry_key for entry in waiting(client)}
        first = assign(client, keys[7_000], wallet)

    def ask() -> None:
        with bank.tellerd.client() as hurried:
            try:
                assign(hurried, keys[9_000], wallet)
            except grpc.RpcError:
                pass  # the daemon was killed: whether it is in the books is what the test asks for

    asking = threading.Thread(target=ask)
    asking.start()
    bank.tellerd.process.kill()
    asking.join()
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    with bank.tellerd.client() as client:
        assert assign(client, keys[7_000], wallet) == first
        second = assign(client, keys[9_000], wallet)
        assert [change.by for change in second.trail] == ["ann"]
        other = client.create_wallet("other")
        assert refused(lambda: assign(client, keys[9_000], other)) is grpc.StatusCode.ALREADY_EXISTS
        assert waiting(client) == []
    bank.wait_balance(wallet, 16_000)
    assert bank.db[SUSPENSE].count_documents({"trail": {"$size": 1}}) == 2
    bank.check_books()


def test_a_locked_accounts_money_waits_until_a_person_decides(bank: Bank) -> None:
    """An invoice made before; no new ones. Unlocked, it is the wallet's, and its invoice is settled."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("locked")
        invoice = client.create_invoice(wallet, 5_000)
        bank.write_status(wallet, "locked")
        assert refused(lambda: client.create_invoice(wallet, 5_000)) is grpc.StatusCode.FAILED_PRECONDITION
        bank.pay([invoice])
        wait_for(lambda: len(waiting(client)) == 1, "it waits in suspense")
        (entry,) = waiting(client)
        assert (entry.suspense_reason, entry.amount_sat) == ("account_locked", 5_000)
        assert client.balance_sat(wallet) == 0
        assert refused(lambda: assign(client, entry.entry_key, wallet)) is grpc.StatusCode.FAILED_PRECONDITION
        bank.write_status(wallet, "active")
        assign(client, entry.entry_key, wallet)
        assert client.invoice(invoice.payment_hash).received_sat == 5_000
    bank.wait_balance(wallet, 5_000)
    bank.check_books()


def test_a_locked_accounts_deposit_waits_and_a_reorg_takes_it_from_whoever_has_it(chain: ChainBank) -> None:
    """Assigned to another wallet, taken back from there, and waiting again when it has confirmed again."""
    with chain.bank.tellerd.client() as client:
        wallet, other = client.create_wallet("locked"), client.create_wallet("other")
        address = chain.address(client, wallet)
        chain.bank.write_status(wallet, "closed")
        request = deposit_pb2.GetAddressRequest(wallet_id=wallet, new=True)
        code = refused(lambda: client.deposits.GetAddress(request, timeout=CALL_S))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        txid, vout = chain.send(address, 500_000)
        chain.wait_state(txid, vout, "detected")
        chain.bitcoind.mine(2)
        wait_for(lambda: len(waiting(client)) == 1, "the deposit waits in suspense")
        (entry,) = waiting(client)
        assert (entry.txid, entry.vout, entry.suspense_reason) == (txid, vout, "account_closed")
        assert client.deposit(txid, vout).suspense_reason == "account_closed"
        assign(client, entry.entry_key, other)
        assert client.balance_sat(other) == entry.amount_sat == 497_000
        height = chain.bitcoind.height()
        chain.bitcoind.rpc("invalidateblock", chain.bitcoind.rpc("getblockhash", height - 1))
        chain.bitcoind.mine(1)
        wait_for(lambda: client.balance_sat(other) == 0, "the reorg takes it back")
        chain.bitcoind.mine(2)
        wait_for(lambda: len(waiting(client)) == 1, "it waits again")
        (again,) = waiting(client)
        assert again.entry_key == f"chain:{txid}:{vout}:2"
        assert (client.balance_sat(wallet), client.balance_sat(other)) == (0, 0)
    assert chain.bank.db[DEPOSITS].count_documents({"txid": txid, "state": "settled"}) == 1
