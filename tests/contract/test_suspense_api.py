"""SuspenseService over a real gRPC connection, and what a locked account means for those who ask for money."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import (
    event_pb2,
    event_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    suspense_pb2,
    suspense_pb2_grpc,
)
from adapters.grpc_api.server import start_grpc
from daemon.domain.identifiers import deposit_key, lightning_key, outpoint_of
from daemon.domain.node_events import InvoiceSettled
from daemon.serving.suspense import COMMIT_S
from tests.samples import block_at, chain_moved, connected, deposit_due, hash_of, output, settled, txid_of
from tests.unit.serving.bank_in_memory import Bank, Posting, open_bank

CALL_S = 20.0
"""Never reached when all is well."""


@dataclass
class Desk:
    """A served bank, and whoever looks after suspense."""

    bank: Bank
    channel: grpc.Channel

    @property
    def suspense(self) -> Any:
        return suspense_pb2_grpc.SuspenseServiceStub(self.channel)

    def arrives(self, name: str, index: int, received_msat: int) -> str:
        """Money that nobody expects; returns its key."""
        event: InvoiceSettled = settled(name, index, received_msat, pubkey=self.bank.node.pubkey)
        self.bank.post(event)
        return lightning_key(self.bank.node.pubkey, hash_of(name))

    def assign(self, key: str, wallet_id: str, *, timeout_s: float | None = CALL_S, **fields: str) -> Any:
        words = {"reason": "ticket 7", "assigned_by": "ann"} | fields
        request = suspense_pb2.AssignSuspenseRequest(entry_key=key, wallet_id=wallet_id, **words)
        return self.suspense.AssignSuspense(request, timeout=timeout_s).entry

    def refused(self, *args: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.assign(*args, **fields)
        error: Any = caught.value
        return error.code(), error.details()


@pytest.fixture
def desk() -> Iterator[Desk]:
    yield from served(open_bank())


def served(bank: Bank) -> Iterator[Desk]:
    server = start_grpc(bank.api, address="127.0.0.1:0", metrics=bank.metrics, on_broken=bank.broken.append)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Desk(bank, channel)
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)
    assert bank.broken == []


def test_money_that_waits_is_listed_assigned_and_told(desk: Desk) -> None:
    """Entry, trail and event say who has said so and why; a repeat with other words gets the first answer."""
    desk.bank.open_books()
    key = desk.arrives("a", 1, 7_500)
    waiting = suspense_pb2.ListSuspenseRequest(state=suspense_pb2.SUSPENSE_STATE_WAITING)
    (entry,) = desk.suspense.ListSuspense(waiting, timeout=CALL_S).entries
    assert (entry.entry_key, entry.amount_sat, entry.suspense_reason) == (key, 7, "no_expectation")
    wallet_id = desk.bank.wallet().wallet_id
    assigned = desk.assign(key, wallet_id)
    assert (assigned.state, assigned.wallet_id) == (suspense_pb2.SUSPENSE_STATE_ASSIGNED, wallet_id)
    assert [(one.by, one.reason, one.wallet_id) for one in assigned.trail] == [("ann", "ticket 7", wallet_id)]
    assert desk.assign(key, wallet_id, reason="another") == assigned
    assert desk.suspense.ListSuspense(waiting, timeout=CALL_S).entries == []
    assert list(desk.suspense.ListSuspense(suspense_pb2.ListSuspenseRequest(), timeout=CALL_S).entries) == [assigned]
    feed = event_pb2_grpc.EventServiceStub(desk.channel).Subscribe(
        event_pb2.SubscribeRequest(types=["suspense.assigned"]), timeout=CALL_S
    )
    told = next(feed).event
    feed.cancel()
    assert told.wallet_id == wallet_id
    assert (told.suspense_assigned.by, told.suspense_assigned.reason) == ("ann", "ticket 7")


def test_a_call_without_a_deadline_waits_as_long_as_is_promised(desk: Desk) -> None:
    """gRPC tells a server of a deadline in centuries then, which no wait of a thread can have."""
    desk.bank.open_books()
    key, wallet_id = desk.arrives("a", 1, 7_000), desk.bank.wallet().wallet_id
    assert desk.assign(key, wallet_id, timeout_s=None).wallet_id == wallet_id
    desk.assign(key, wallet_id, timeout_s=CALL_S)
    decider = desk.bank.api.decider
    assert isinstance(decider, Posting)
    without, with_one = decider.timeouts_s
    assert without == COMMIT_S
    assert COMMIT_S < with_one < CALL_S  # less what an answer takes; the exact time is gRPC's, which rounds


def test_what_cannot_be_assigned_is_refused_with_its_reason(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status for each, and what to do."""
    desk.bank.open_books()
    key, wallet, other = desk.arrives("a", 1, 7_000), desk.bank.wallet(), desk.bank.wallet("other")
    nobody = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    assert desk.refused("nothing", wallet.wallet_id)[0] is grpc.StatusCode.NOT_FOUND
    assert desk.refused(key, nobody)[0] is grpc.StatusCode.NOT_FOUND
    for field in ("reason", "assigned_by"):
        code, text = desk.refused(key, wallet.wallet_id, **{field: " "})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith(field)
    assert desk.refused("", wallet.wallet_id)[0] is grpc.StatusCode.INVALID_ARGUMENT
    with monkeypatch.context() as no_time_left:
        no_time_left.setattr("daemon.serving.suspense.ANSWER_S", 2 * CALL_S)
        code, text = desk.refused(key, wallet.wallet_id)
    assert (code, "repeat the call" in text) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
    desk.bank.store.another.set_status(wallet.account_id, "locked")
    code, text = desk.refused(key, wallet.wallet_id)
    assert (code, "locked or closed" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    desk.assign(key, other.wallet_id)
    desk.bank.store.another.set_status(wallet.account_id, "active")
    code, text = desk.refused(key, wallet.wallet_id)
    assert (code, other.wallet_id in text) == (grpc.StatusCode.ALREADY_EXISTS, True)


def test_a_repeat_after_a_reorg_says_that_the_money_is_gone(desk: Desk) -> None:
    """By its status, and in words who had it; also to somebody who names another wallet."""
    bank, wallet, other = desk.bank, desk.bank.wallet(), desk.bank.wallet("other")
    bank.store.another.set_status(wallet.account_id, "locked")
    bank.post(chain_moved(None, connected(block_at(100))))
    paid = connected(block_at(101), output("a", wallet.wallet_id))
    bank.post(chain_moved(block_at(100), paid, connected(block_at(102))))
    bank.post(deposit_due("a"))
    key = deposit_key(outpoint_of(txid_of("a"), 0), 1)
    desk.assign(key, other.wallet_id)
    bank.post(chain_moved(block_at(102), lost=[block_at(102), block_at(101)], fork=block_at(100)))
    for asked_for in (other, bank.wallet("third")):
        code, text = desk.refused(key, asked_for.wallet_id)
        assert (code, "reorg" in text, other.wallet_id in text) == (grpc.StatusCode.FAILED_PRECONDITION, True, True)


def test_a_state_that_does_not_exist_is_refused(desk: Desk) -> None:
    """Of a later release, or a mistake."""
    with pytest.raises(grpc.RpcError) as caught:
        desk.suspense.ListSuspense(suspense_pb2.ListSuspenseRequest(state=9), timeout=CALL_S)  # type: ignore[arg-type]  # on purpose
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_nobody_is_asked_to_pay_a_locked_account(desk: Desk) -> None:
    """A new invoice is refused; one that was made before is still shown to whoever repeats its call."""
    wallet = desk.bank.wallet()
    invoices: Any = invoice_pb2_grpc.InvoiceServiceStub(desk.channel)

    def create(external_id: str) -> Any:
        request = invoice_pb2.CreateInvoiceRequest(
            wallet_id=wallet.wallet_id, amount_sat=1_000, external_id=external_id
        )
        return invoices.CreateInvoice(request, timeout=CALL_S).invoice

    made = create("first")
    desk.bank.store.another.set_status(wallet.account_id, "closed")
    assert create("first") == made
    with pytest.raises(grpc.RpcError) as caught:
        create("second")
    error: Any = caught.value
    assert (error.code(), "is closed" in error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, True)


def test_a_standby_assigns_nothing() -> None:
    """As every call that writes."""
    bank = open_bank(leading=False)
    bank.api.gate.stand_by()
    for desk in served(bank):
        assert desk.refused("key", bank.wallet().wallet_id)[0] is grpc.StatusCode.UNAVAILABLE
