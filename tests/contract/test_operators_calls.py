"""What operators ask over gRPC: books against nodes, gaps, and who called what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
)
from adapters.grpc_api.reconciliation import ITEMS_SHOWN
from adapters.grpc_api.server import start_grpc
from daemon.domain.accounts import LIGHTNING, ON_CHAIN
from daemon.domain.api_keys import Scope
from daemon.domain.books import Gap, GapState
from daemon.domain.reconciliation import Item, ItemKind, Reconciled
from daemon.serving import keys
from daemon.serving.audit_trail import AuditTrail
from daemon.serving.keys import KeyCheck
from daemon.serving.reconciliation import LOOK_S
from tests.unit.serving.bank_in_memory import Bank, open_bank
from tests.unit.serving.reconciliation_samples import (
    AT_MS,
    CHECK,
    LIGHTNING_SIDE,
    PAYMENT_HASH,
    TXID,
    look,
    reconciled,
)

CALL_S = 20.0
"""Never reached when all is well."""


@dataclass
class World:
    """A served bank with an audit trail, and whoever calls."""

    bank: Bank
    channel: grpc.Channel
    trail: AuditTrail
    lost: list[int] = field(default_factory=list)

    @property
    def admin(self) -> Any:
        return admin_pb2_grpc.AdminServiceStub(self.channel)

    def key(self, name: str, *scopes: Scope) -> tuple[str, tuple[tuple[str, str], ...]]:
        """A new key's id, and the metadata that a caller with it sends."""
        now_ms = int(self.bank.clock.unix_s() * 1000)
        key, text = keys.create_api_key(
            self.bank.store.api_keys, name=name, scopes=scopes, expires_at_ms=None, now_ms=now_ms
        )
        return key.key_id, (("authorization", f"Bearer {text.reveal()}"),)

    def recorded(self) -> list[tuple[str, str, str, dict[str, str]]]:
        """Key, method, status and subjects of all entries, oldest first."""
        assert self.trail.wait_written(CALL_S)
        entries, _ = self.bank.store.audit_log.page(after=None, limit=1000)
        return [
            (one.key_name, one.method.rpartition("/")[2], one.code, dict(one.subjects)) for one in reversed(entries)
        ]


@contextmanager
def served(*, with_keys: bool) -> Iterator[World]:
    bank = open_bank()
    lost: list[int] = []
    trail = AuditTrail(bank.store.audit_log, on_lost=lost.append)
    server = start_grpc(
        bank.api,
        address="127.0.0.1:0",
        metrics=bank.metrics,
        on_broken=bank.broken.append,
        keys=KeyCheck(bank.store.api_keys) if with_keys else None,
        audit=trail,
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield World(bank, channel, trail, lost)
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)
        trail.close()
    assert lost == []
    assert bank.broken == []


@pytest.fixture
def world() -> Iterator[World]:
    with served(with_keys=False) as opened:
        yield opened


@pytest.fixture
def guarded() -> Iterator[World]:
    with served(with_keys=True) as opened:
        yield opened


def code_of(error: Any) -> tuple[grpc.StatusCode, str]:
    """grpcio's errors are calls, too, though its types do not say so."""
    return error.code(), error.details() or ""


# --- books against nodes ----------------------------------------------------------------------------


def test_a_comparison_is_told_to_the_millisatoshi(world: World) -> None:
    """Sides, sums by reason, items, holdings; and that the caller's deadline bounds the wait."""
    world.bank.rounds.result = Reconciled(look=look(unknown_msat=7))
    answer = world.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S)
    told = answer.reconciliation
    assert (told.steady, told.sequence, told.at.ToMilliseconds(), told.unknown_msat) == (True, 77, AT_MS, 7)
    lightning, chain = told.sides
    assert (lightning.account, lightning.books_msat, lightning.nodes_msat) == (LIGHTNING, 1_000_000_500, 999_988_506)
    assert (lightning.difference_msat, lightning.unknown_msat) == (-11_994, 7)
    assert {(one.kind, one.items, one.amount_msat) for one in lightning.explained} == {
        (admin_pb2.DIFFERENCE_KIND_SENT, 2, -9_001),
        (admin_pb2.DIFFERENCE_KIND_IN_FLIGHT, 1, -3_000),
    }
    assert [(one.reference, one.amount_msat) for one in lightning.items] == [
        (PAYMENT_HASH, -10_001),
        ("ln:1:2", -3_000),
        (TXID, 1_000),
    ]
    assert (chain.account, chain.difference_msat, len(chain.items)) == (ON_CHAIN, 0, 0)
    (holding,) = told.holdings
    assert (holding.name, holding.channels_msat, holding.closing_msat, holding.wallet_msat) == (
        "lnd1",
        900_000_499,
        0,
        99_988_000,
    )
    assert not answer.HasField("full_check")
    ((full, timeout_s),) = world.bank.rounds.asked
    assert not full
    assert CALL_S - 5 < timeout_s < CALL_S


@pytest.mark.parametrize("kind", list(ItemKind))
def test_every_reason_has_a_name_of_its_own(world: World, kind: ItemKind) -> None:
    """None is told as unspecified."""
    side = replace(LIGHTNING_SIDE, items=(Item(kind=kind, reference="x", amount_msat=1),))
    world.bank.rounds.result = Reconciled(look=replace(look(), sides=(side,)))
    answer = world.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S)
    told = answer.reconciliation.sides[0]
    name = admin_pb2.DifferenceKind.Name(told.items[0].kind)
    assert name == admin_pb2.DifferenceKind.Name(told.explained[0].kind) == f"DIFFERENCE_KIND_{kind.value.upper()}"


def test_items_are_bounded_and_their_sum_is_not(world: World) -> None:
    """A node that routes has thousands of payments under way."""
    items = tuple(Item(kind=ItemKind.IN_FLIGHT, reference=str(n), amount_msat=1) for n in range(ITEMS_SHOWN + 5))
    world.bank.rounds.result = Reconciled(look=replace(look(), sides=(replace(LIGHTNING_SIDE, items=items),)))
    answer = world.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S)
    (side,) = answer.reconciliation.sides
    assert len(side.items) == ITEMS_SHOWN
    assert [(one.items, one.amount_msat) for one in side.explained] == [(ITEMS_SHOWN + 5, ITEMS_SHOWN + 5)]


def test_a_full_check_is_told_with_its_counts(world: World) -> None:
    """And with what it could not compare."""
    world.bank.rounds.result = Reconciled(look=look(), full_check=replace(CHECK, unfinished=("lnd1: away",)))
    told = world.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=CALL_S)
    check = told.full_check
    assert (check.invoices, check.deposits, check.repeats, check.losses, check.gaps) == (1_200, 34, 1, 2, 3)
    assert (check.began_at.ToMilliseconds(), check.ended_at.ToMilliseconds()) == (AT_MS - 70_000, AT_MS - 10_000)
    assert list(check.unfinished) == ["lnd1: away"]
    assert world.bank.rounds.asked[0][0]


def test_without_a_deadline_a_comparison_has_its_own(world: World) -> None:
    """Not the full check's."""
    world.bank.rounds.result = Reconciled(look=look())
    world.admin.Reconcile(admin_pb2.ReconcileRequest())
    assert world.bank.rounds.asked == [(False, LOOK_S)]


def test_no_result_is_an_error_that_says_what_to_do(world: World) -> None:
    """Not in time: DEADLINE_EXCEEDED; nobody compares: UNAVAILABLE."""
    with pytest.raises(grpc.RpcError) as late:
        world.admin.Reconcile(admin_pb2.ReconcileRequest(full=True), timeout=CALL_S)
    assert code_of(late.value)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "GetStatus will show it" in code_of(late.value)[1]
    world.bank.rounds.away = "books and nodes are not compared now"
    with pytest.raises(grpc.RpcError) as away:
        world.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S)
    assert code_of(away.value) == (grpc.StatusCode.UNAVAILABLE, "books and nodes are not compared now")


def test_the_status_has_the_last_comparison_while_this_daemon_leads(world: World) -> None:
    """Empty before the first, and on a standby."""
    status = world.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S)
    assert status.reconciliation == admin_pb2.ReconciliationStatus()
    known = reconciled(unknown_msat=7)
    kept = world.bank.api.reconciliation
    kept.last_steady, kept.last_full, kept.unknown_since_ms = known.last_steady, known.last_full, known.unknown_since_ms
    kept.problem = "lnd2 is away"
    status = world.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S)
    told = status.reconciliation
    assert told.steady_at.ToMilliseconds() == AT_MS
    assert {(one.account, one.unknown_msat) for one in told.unknown} == {(LIGHTNING, 7), (ON_CHAIN, 0)}
    assert told.unknown_since.ToMilliseconds() == AT_MS - 60_000
    assert told.last_full_check.invoices == 1_200
    assert told.problem == "lnd2 is away"
    world.bank.api.gate.stand_by()
    status = world.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S)
    assert status.reconciliation == admin_pb2.ReconciliationStatus()


# --- gaps -------------------------------------------------------------------------------------------


def gap(number: int, state: GapState) -> Gap:
    return Gap(
        key=f"gap-{number}",
        kind="sent_elsewhere",
        detail="a payment of another program",
        amount_msat=-10_001 - number,
        seen_at_ms=AT_MS + number,
        state=state,
        reference=PAYMENT_HASH,
        node="lnd1",
    )


def listed(world: World, *states: admin_pb2.GapState.ValueType, page_size: int = 0) -> list[str]:
    """Keys of all pages."""
    found: list[str] = []
    token = ""
    while True:
        request = admin_pb2.ListGapsRequest(states=states, page_size=page_size, page_token=token)
        answer = world.admin.ListGaps(request, timeout=CALL_S)
        found += [one.key for one in answer.gaps]
        token = answer.next_page_token
        if not token:
            return found


def test_gaps_are_listed_by_state_in_pages(world: World) -> None:
    """Newest first, each with all that is known of it."""
    world.bank.store.gaps.put([gap(n, state) for n, state in enumerate([*GapState, GapState.OPEN])])
    assert listed(world) == listed(world, page_size=1) == ["gap-3", "gap-2", "gap-1", "gap-0"]
    assert listed(world, admin_pb2.GAP_STATE_OPEN) == ["gap-3", "gap-0"]
    assert listed(world, admin_pb2.GAP_STATE_OPEN, admin_pb2.GAP_STATE_CLOSED, page_size=2) == [
        "gap-3",
        "gap-2",
        "gap-0",
    ]
    explained = admin_pb2.ListGapsRequest(states=[admin_pb2.GAP_STATE_EXPLAINED])
    answer = world.admin.ListGaps(explained, timeout=CALL_S)
    (told,) = answer.gaps
    assert (told.kind, told.state, told.amount_msat) == ("sent_elsewhere", admin_pb2.GAP_STATE_EXPLAINED, -10_002)
    assert (told.reference, told.node, told.seen_at.ToMilliseconds()) == (PAYMENT_HASH, "lnd1", AT_MS + 1)
    assert told.detail == "a payment of another program"


@pytest.mark.parametrize(
    ("request_", "field_"),
    [
        (admin_pb2.ListGapsRequest(states=[admin_pb2.GAP_STATE_UNSPECIFIED]), "states"),
        (admin_pb2.ListGapsRequest(page_size=1_001), "page_size"),
        (admin_pb2.ListGapsRequest(page_token="yesterday"), "page_token"),
    ],
)
def test_what_cannot_be_listed_is_refused(world: World, request_: admin_pb2.ListGapsRequest, field_: str) -> None:
    """Field, value and remedy."""
    with pytest.raises(grpc.RpcError) as refused:
        world.admin.ListGaps(request_, timeout=CALL_S)
    code, text = code_of(refused.value)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith(f"{field_}: ")


def closing(key: str, **changed: str) -> admin_pb2.CloseGapRequest:
    return admin_pb2.CloseGapRequest(**{"gap_key": key, "closed_by": "ada", "reason": "put in from savings", **changed})


@pytest.mark.parametrize("state", [GapState.OPEN, GapState.EXPLAINED])
def test_a_person_closes_a_gap_with_a_reason_that_stays(world: World, state: GapState) -> None:
    """Once: a repeat changes nothing. It is on record who did it."""
    world.bank.store.gaps.put([gap(1, state), gap(2, GapState.OPEN)])
    closed = world.admin.CloseGap(closing("gap-1"), timeout=CALL_S).gap
    assert (closed.state, closed.amount_msat) == (admin_pb2.GAP_STATE_CLOSED, -10_002)
    assert closed.detail == "a payment of another program; closed by ada: put in from savings"
    again = world.admin.CloseGap(closing("gap-1", closed_by="bob"), timeout=CALL_S).gap
    assert again == closed
    assert listed(world, admin_pb2.GAP_STATE_OPEN) == ["gap-2"]
    assert [subjects for *_, subjects in world.recorded()] == [
        {"gap_key": "gap-1", "closed_by": "ada", "node": "lnd1"},
        {"gap_key": "gap-1", "closed_by": "bob", "node": "lnd1"},
    ]


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (closing(""), grpc.StatusCode.INVALID_ARGUMENT, "gap_key: "),
        (closing("gap-1", closed_by=" "), grpc.StatusCode.INVALID_ARGUMENT, "closed_by: "),
        (closing("gap-1", reason="two\nlines"), grpc.StatusCode.INVALID_ARGUMENT, "reason: "),
        (closing("gap-9"), grpc.StatusCode.NOT_FOUND, "gap_key: there is no gap 'gap-9'"),
    ],
)
def test_a_gap_is_not_closed_without_key_name_and_reason(
    world: World, request_: admin_pb2.CloseGapRequest, code: grpc.StatusCode, said: str
) -> None:
    """Field and remedy; the gap stays as it is."""
    world.bank.store.gaps.put([gap(1, GapState.EXPLAINED)])
    with pytest.raises(grpc.RpcError) as refused:
        world.admin.CloseGap(request_, timeout=CALL_S)
    assert code_of(refused.value)[0] == code
    assert code_of(refused.value)[1].startswith(said)
    assert world.bank.store.gaps.get(["gap-1"]) == {"gap-1": gap(1, GapState.EXPLAINED)}


# --- who called what --------------------------------------------------------------------------------


def test_calls_that_may_change_something_are_recorded_with_what_they_were_about(world: World) -> None:
    """The ids of request and answer, whatever the outcome; no memo; nothing of calls that only read."""
    wallets: Any = wallet_pb2_grpc.WalletServiceStub(world.channel)
    invoices: Any = invoice_pb2_grpc.InvoiceServiceStub(world.channel)
    asked = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_BTC, external_id="shop-1")
    wallet_id = wallets.CreateWallet(asked, timeout=CALL_S).wallet.wallet_id
    wallets.GetWallet(wallet_pb2.GetWalletRequest(wallet_id=wallet_id), timeout=CALL_S)
    order = invoice_pb2.CreateInvoiceRequest(
        wallet_id=wallet_id, amount_sat=21, memo="for my eyes only", external_id="order-1"
    )
    invoice = invoices.CreateInvoice(order, timeout=CALL_S).invoice
    with pytest.raises(grpc.RpcError):
        invoices.CreateInvoice(invoice_pb2.CreateInvoiceRequest(wallet_id="x" * 300, amount_sat=1), timeout=CALL_S)
    recorded = world.recorded()
    assert [(key, method, code) for key, method, code, _ in recorded] == [
        ("", "CreateWallet", "OK"),
        ("", "CreateInvoice", "OK"),
        ("", "CreateInvoice", "INVALID_ARGUMENT"),
    ]
    created, ordered, failed = (subjects for *_, subjects in recorded)
    assert created.items() >= {"external_id": "shop-1", "wallet_id": wallet_id}.items()
    assert ordered.items() >= {"external_id": "order-1", "payment_hash": invoice.payment_hash}.items()
    assert failed == {"wallet_id": "x" * 100}
    assert "for my eyes only" not in str(recorded)
    assert invoice.payment_request not in str(recorded)
    entries, _ = world.bank.store.audit_log.page(after=None, limit=10)
    assert all(entry.peer.startswith(("ipv4:127.0.0.1:", "ipv6:[::1]:")) for entry in entries)


def test_the_callers_key_is_recorded_and_refused_calls_of_a_key_are(guarded: World) -> None:
    """By id and name; a call without a key leaves no trace, so that nobody can fill the log from outside."""
    admin_id, admin = guarded.key("operator", Scope.ADMIN)
    shop_id, shop = guarded.key("shop", Scope.RECEIVE)
    request = admin_pb2.CreateApiKeyRequest(name="till 3", scopes=[admin_pb2.SCOPE_READ])
    stub = guarded.admin
    made = stub.CreateApiKey(request, metadata=admin, timeout=CALL_S)
    stub.RevokeApiKey(admin_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id), metadata=admin, timeout=CALL_S)
    for metadata in (shop, ()):
        with pytest.raises(grpc.RpcError):
            stub.CreateApiKey(request, metadata=metadata, timeout=CALL_S)
    with pytest.raises(grpc.RpcError):  # the whole key, where its id was asked for
        stub.RevokeApiKey(admin_pb2.RevokeApiKeyRequest(key_id=made.key), metadata=admin, timeout=CALL_S)
    assert guarded.recorded() == [
        ("operator", "CreateApiKey", "OK", {"name": "till 3", "key_id": made.api_key.key_id}),
        ("operator", "RevokeApiKey", "OK", {"name": "till 3", "key_id": made.api_key.key_id}),
        ("shop", "CreateApiKey", "PERMISSION_DENIED", {"name": "till 3"}),
        ("operator", "RevokeApiKey", "INVALID_ARGUMENT", {"key_id": "(not an id)"}),
    ]
    assert made.key not in str(guarded.recorded())
    entries, _ = guarded.bank.store.audit_log.page(after=None, limit=10)
    assert [entry.key_id for entry in entries] == [admin_id, shop_id, admin_id, admin_id]


def test_what_the_gate_refuses_is_not_recorded(world: World) -> None:
    """A standby has changed nothing, and callers that ask the wrong daemon do so often."""
    world.bank.api.gate.stand_by()
    wallets: Any = wallet_pb2_grpc.WalletServiceStub(world.channel)
    with pytest.raises(grpc.RpcError):
        wallets.CreateWallet(wallet_pb2.CreateWalletRequest(), timeout=CALL_S)
    assert world.recorded() == []


def test_the_audit_log_is_listed_in_pages_for_admins_only(guarded: World) -> None:
    """Newest first, with key, peer and subjects; listing it is a call of its own."""
    _, admin = guarded.key("operator", Scope.ADMIN)
    _, writer = guarded.key("core", Scope.WRITE, Scope.READ, Scope.RECEIVE)
    wallets: Any = wallet_pb2_grpc.WalletServiceStub(guarded.channel)
    stub = guarded.admin
    for number in range(5):
        request = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_BTC, external_id=f"w{number}")
        wallets.CreateWallet(request, metadata=writer, timeout=CALL_S)
        assert guarded.trail.wait_written(CALL_S)
        guarded.bank.clock.advance(seconds=1)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ListAuditLog(admin_pb2.ListAuditLogRequest(), metadata=writer, timeout=CALL_S)
    assert code_of(refused.value)[0] == grpc.StatusCode.PERMISSION_DENIED
    assert guarded.trail.wait_written(CALL_S)
    first = stub.ListAuditLog(admin_pb2.ListAuditLogRequest(page_size=4), metadata=admin, timeout=CALL_S)
    rest = stub.ListAuditLog(
        admin_pb2.ListAuditLogRequest(page_size=4, page_token=first.next_page_token), metadata=admin, timeout=CALL_S
    )
    assert [one.code for one in first.entries] == ["PERMISSION_DENIED", "OK", "OK", "OK"]
    entries = [*first.entries, *rest.entries]
    made = [one for one in entries if one.method == "tellerd.v1.WalletService/CreateWallet"]
    assert [one.subjects["external_id"] for one in made] == ["w4", "w3", "w2", "w1", "w0"]
    assert rest.next_page_token == ""
    assert {(one.key_name, one.key_id[:4], one.peer[:4]) for one in made} <= {
        ("core", "tlr_", "ipv4"),
        ("core", "tlr_", "ipv6"),
    }
    assert len({one.entry_id for one in entries}) == len(entries)
