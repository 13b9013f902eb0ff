"""API keys over a real gRPC connection: which method each scope opens, and what callers without one see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from structlog.testing import capture_logs

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    invoice_pb2,
    invoice_pb2_grpc,
    wallet_pb2,
    wallet_pb2_grpc,
)
from adapters.grpc_api.guard import RECHECK_S
from adapters.grpc_api.server import start_grpc
from daemon.domain.api_keys import ApiKey, KeyText, Scope
from daemon.domain.errors import Unavailable
from daemon.domain.ports import ApiKeys
from daemon.serving import keys
from daemon.serving.keys import CACHE_S, Forbidden, KeyCheck, Unauthenticated
from daemon.serving.scopes import SCOPES
from tests.unit.serving.bank_in_memory import Bank, open_bank

CALL_S = 20.0
"""Never reached when all is well."""

HEALTH = "grpc.health.v1.Health"

STREAMS = {
    "tellerd.v1.EventService/Subscribe",
    "tellerd.v1.InvoiceService/WatchInvoice",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

Metadata = tuple[tuple[str, str | bytes], ...]


class Breakable:
    """The bank's keys behind a connection that can break."""

    def __init__(self, kept: ApiKeys) -> None:
        self._kept = kept
        self.away = False

    def get(self, key_id: str) -> ApiKey | None:
        if self.away:
            raise Unavailable("the database is away")
        return self._kept.get(key_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)


@dataclass
class Guarded:
    """A bank whose callers need keys; `cache_age_s` makes what was read older than it is."""

    bank: Bank
    channel: grpc.Channel
    database: Breakable
    texts: list[str] = field(default_factory=list)
    cache_age_s: float = 0.0

    def key(self, *scopes: Scope, expires_in_s: float | None = None) -> str:
        """A new key's text."""
        now_ms = int(self.bank.clock.unix_s() * 1000)
        expires_at_ms = None if expires_in_s is None else now_ms + int(expires_in_s * 1000)
        _, text = keys.create_api_key(
            self.bank.store.api_keys, name="test", scopes=scopes, expires_at_ms=expires_at_ms, now_ms=now_ms
        )
        self.texts.append(text.reveal())
        return text.reveal()

    def revoke(self, text: str) -> None:
        """And lets the time pass after which that counts."""
        keys.revoke_api_key(self.bank.store.api_keys, text[:12], now_ms=int(self.bank.clock.unix_s() * 1000))
        self.cache_age_s += CACHE_S

    def call(self, method: str, *headers: str) -> tuple[grpc.StatusCode, str]:
        """How `package.Service/Method` ends for an empty request with these values of `authorization`; OK as soon
        as a stream has answered."""
        metadata = tuple(("authorization", header) for header in headers)
        stub: Any
        try:
            if method in STREAMS:
                stub = self.channel.stream_stream(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
                answers = stub(iter([b""]), metadata=metadata, timeout=CALL_S)
                next(answers)
                answers.cancel()
            else:
                stub = self.channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)
                stub(b"", metadata=metadata, timeout=CALL_S)
        except grpc.RpcError as error:
            return status_of(error)
        return grpc.StatusCode.OK, ""


def status_of(error: Any) -> tuple[grpc.StatusCode, str]:
    """grpcio's errors are calls, too, though its types do not say so."""
    return error.code(), error.details() or ""


@contextmanager
def guarded_bank(*, leading: bool = True) -> Iterator[Guarded]:
    bank = open_bank(leading=leading)
    database = Breakable(bank.store.api_keys)
    check = KeyCheck(
        cast(ApiKeys, database),
        now_ms=lambda: int(bank.clock.unix_s() * 1000),
        monotonic_s=lambda: bank.clock.unix_s() + world.cache_age_s,
    )
    server = start_grpc(bank.api, address="127.0.0.1:0", metrics=bank.metrics, on_broken=bank.broken.append, keys=check)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            world = Guarded(bank, channel, database)
            yield world
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with guarded_bank() as world:
        world.bank.open_books()  # the feed's first event: a stream of it answers at once
        yield world


def bearer(text: str) -> str:
    return f"Bearer {text}"


def with_key(text: str) -> Metadata:
    """Metadata that a caller sends."""
    return (("authorization", bearer(text)),)


def reflected_methods(guarded: Guarded) -> set[str]:
    """Every method of every service that the server says it has."""
    metadata = with_key(guarded.key(Scope.READ))
    reflect = reflection_pb2_grpc.ServerReflectionStub(guarded.channel).ServerReflectionInfo

    def ask(**what: str) -> Any:
        return next(reflect(iter([reflection_pb2.ServerReflectionRequest(**what)]), metadata=metadata, timeout=CALL_S))

    methods = set()
    for service in ask(list_services="").list_services_response.service:
        answer = ask(file_containing_symbol=service.name).file_descriptor_response
        for serialized in answer.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            methods |= {
                f"{service.name}/{method.name}"
                for declared in file.service
                if f"{file.package}.{declared.name}" == service.name
                for method in declared.method
            }
    return methods


# --- rules ------------------------------------------------------------------------------------------


def test_every_method_has_a_rule(guarded: Guarded) -> None:
    """By reflection, so that a method of a later release cannot be forgotten; and no rule is for nothing."""
    methods = reflected_methods(guarded)
    assert len(methods) > 20
    assert {method for method in methods if not method.startswith(HEALTH)} == set(SCOPES)
    assert methods >= STREAMS


def test_who_must_be_admin_is_said_here_once_more() -> None:
    """A slip in the table would give keys or policies away: both must be changed."""
    assert {method.rpartition("/")[2] for method, scope in SCOPES.items() if scope is Scope.ADMIN} == {
        "SetConfirmationPolicy",
        "CreateApiKey",
        "ListApiKeys",
        "RevokeApiKey",
        "Reconcile",
        "CloseGap",
        "ListAuditLog",
    }
    assert {method.rpartition("/")[2] for method, scope in SCOPES.items() if scope is Scope.RECEIVE} == {
        "CreateWallet",
        "CreateInvoice",
        "GetAddress",
    }


@pytest.mark.parametrize("given", list(Scope))
def test_each_scope_opens_its_methods_and_no_others(guarded: Guarded, given: Scope) -> None:
    """All methods with a key of one scope: PERMISSION_DENIED, or what the method itself says of an empty request."""
    header = bearer(guarded.key(given))
    for method, needed in SCOPES.items():
        code, text = guarded.call(method, header)
        if given in (needed, Scope.ADMIN):
            assert code not in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}, method
        else:
            assert (code, text) == (grpc.StatusCode.PERMISSION_DENIED, str(Forbidden())), method


def test_without_a_key_no_method_says_anything(guarded: Guarded) -> None:
    """The same status and text for all of them, before requests are looked at."""
    said = {guarded.call(method) for method in SCOPES}
    assert said == {(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))}


def test_a_key_that_does_not_count_is_as_good_as_none(guarded: Guarded) -> None:
    """Unknown, wrong, expired, revoked, malformed: the same as without, for calls and streams."""
    good, expired, revoked = (
        guarded.key(Scope.ADMIN),
        guarded.key(Scope.ADMIN, expires_in_s=60),
        guarded.key(Scope.ADMIN),
    )
    unknown = KeyText.from_random(for_id=b"other", for_secret=bytes(32)).reveal()
    wrong = good[:-1] + ("A" if good[-1] != "A" else "E")
    for method in ("tellerd.v1.AdminService/ListApiKeys", "tellerd.v1.EventService/Subscribe"):
        for text in (expired, revoked):
            assert guarded.call(method, bearer(text))[0] == grpc.StatusCode.OK
    guarded.bank.clock.advance(seconds=60)
    guarded.revoke(revoked)
    for method in ("tellerd.v1.AdminService/ListApiKeys", "tellerd.v1.EventService/Subscribe"):
        headers: list[tuple[str, ...]] = [(bearer(text),) for text in (unknown, wrong, expired, revoked, good[:12], "")]
        headers += [(good,), (f"Basic {good}",), (bearer(good), bearer(good)), ("",)]
        said = {guarded.call(method, *values) for values in headers}
        assert said == {(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))}
        assert guarded.call(method, bearer(good))[0] == grpc.StatusCode.OK


def test_health_needs_no_key(guarded: Guarded) -> None:
    """Whoever starts and stops processes has none."""
    stub = health_pb2_grpc.HealthStub(guarded.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()


def test_a_standby_says_what_it_is_to_key_holders_only() -> None:
    """The key comes before the gate."""
    with guarded_bank(leading=False) as standby:
        standby.bank.api.gate.stand_by()
        key = bearer(standby.key(Scope.READ))
        assert standby.call("tellerd.v1.WalletService/ListWallets")[0] == grpc.StatusCode.UNAUTHENTICATED
        code, text = standby.call("tellerd.v1.WalletService/ListWallets", key)
        assert (code, text.partition(":")[0]) == (grpc.StatusCode.UNAVAILABLE, "standby")
        assert standby.call("tellerd.v1.AdminService/GetStatus", key)[0] == grpc.StatusCode.OK


def test_while_keys_cannot_be_looked_up_calls_are_unavailable(guarded: Guarded) -> None:
    """Callers repeat that; UNAUTHENTICATED would make them throw a good key away."""
    key = bearer(guarded.key(Scope.READ))
    guarded.database.away = True
    for method in ("tellerd.v1.AdminService/GetStatus", "tellerd.v1.EventService/Subscribe"):
        assert guarded.call(method, key)[0] == grpc.StatusCode.UNAVAILABLE
        assert guarded.call(method)[0] == grpc.StatusCode.UNAUTHENTICATED
    guarded.database.away = False
    assert guarded.call("tellerd.v1.AdminService/GetStatus", key)[0] == grpc.StatusCode.OK


# --- streams ----------------------------------------------------------------------------------------


def feed_of(guarded: Guarded, key: str) -> Any:
    stub = event_pb2_grpc.EventServiceStub(guarded.channel)
    return stub.Subscribe(event_pb2.SubscribeRequest(), metadata=with_key(key), timeout=CALL_S)


def watch_of(guarded: Guarded, key: str) -> Any:
    metadata = with_key(key)
    wallet = guarded.bank.wallet()
    order = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet.wallet_id, amount_sat=1000)
    stub = invoice_pb2_grpc.InvoiceServiceStub(guarded.channel)
    invoice = stub.CreateInvoice(order, metadata=metadata, timeout=CALL_S).invoice
    request = invoice_pb2.WatchInvoiceRequest(payment_hash=invoice.payment_hash)
    return stub.WatchInvoice(request, metadata=metadata, timeout=CALL_S)


@pytest.mark.parametrize("open_stream", [feed_of, watch_of])
@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_stream_ends_when_its_key_does(
    guarded: Guarded, open_stream: Callable[[Guarded, str], Any], end: str
) -> None:
    """Though nothing happens on it; another key's stream goes on, and the place is free again."""
    key, other = guarded.key(Scope.ADMIN, expires_in_s=60), guarded.key(Scope.READ)
    stream, others = open_stream(guarded, key), feed_of(guarded, other)
    next(stream)
    next(others)
    if end == "revoked":
        guarded.revoke(key)
    else:
        guarded.bank.clock.advance(seconds=60)
    with pytest.raises(grpc.RpcError) as ended:
        list(stream)
    assert status_of(ended.value) == (grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))
    wallet_id = guarded.bank.wallet().wallet_id
    request = invoice_pb2.CreateInvoiceRequest(wallet_id=wallet_id, amount_sat=5)
    stub = invoice_pb2_grpc.InvoiceServiceStub(guarded.channel)
    admin = with_key(guarded.key(Scope.ADMIN))
    guarded.bank.pay(stub.CreateInvoice(request, metadata=admin, timeout=CALL_S).invoice.payment_hash)
    assert next(others).event.type == "invoice.settled"
    others.cancel()


def test_a_reflection_stream_of_a_revoked_key_ends_when_it_wakes(guarded: Guarded) -> None:
    """It asks nothing by itself: the next question is its last, and is not answered."""
    key = guarded.key(Scope.READ)
    go_on = threading.Event()

    def questions() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        go_on.wait(CALL_S)
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    answers = stub.ServerReflectionInfo(questions(), metadata=with_key(key), timeout=CALL_S)
    next(answers)
    guarded.revoke(key)
    time.sleep(RECHECK_S + 0.1)  # later it would be refused all the same
    go_on.set()
    with pytest.raises(grpc.RpcError) as ended:
        next(answers)
    assert status_of(ended.value)[0] == grpc.StatusCode.UNAUTHENTICATED


# --- the calls that manage keys ---------------------------------------------------------------------


def test_a_key_made_over_the_api_works_and_is_listed_without_its_secret(guarded: Guarded) -> None:
    """Made, used, listed, revoked, refused; what is listed has neither secret nor hash."""
    admin = admin_pb2_grpc.AdminServiceStub(guarded.channel)
    metadata = with_key(guarded.key(Scope.ADMIN))
    expires_at = Timestamp(seconds=int(guarded.bank.clock.unix_s()) + 3600, nanos=5_000_000)
    scopes = [admin_pb2.SCOPE_RECEIVE, admin_pb2.SCOPE_READ, admin_pb2.SCOPE_READ]
    request = admin_pb2.CreateApiKeyRequest(name=" shop ", scopes=scopes, expires_at=expires_at)
    made = admin.CreateApiKey(request, metadata=metadata, timeout=CALL_S)
    guarded.texts.append(made.key)
    assert made.key.startswith(made.api_key.key_id + "_")
    assert made.api_key.name == "shop"
    assert list(made.api_key.scopes) == [admin_pb2.SCOPE_READ, admin_pb2.SCOPE_RECEIVE]
    assert made.api_key.expires_at == expires_at
    assert not made.api_key.HasField("revoked_at")
    assert not made.api_key.HasField("last_used_at")

    wallets = wallet_pb2_grpc.WalletServiceStub(guarded.channel)
    order = wallet_pb2.CreateWalletRequest(currency=wallet_pb2.CURRENCY_BTC, external_id="shop")
    wallets.CreateWallet(order, metadata=with_key(made.key), timeout=CALL_S)

    seen: list[admin_pb2.ApiKey] = []
    token = ""
    while True:
        page = admin.ListApiKeys(
            admin_pb2.ListApiKeysRequest(page_size=1, page_token=token), metadata=metadata, timeout=CALL_S
        )
        seen += page.api_keys
        token = page.next_page_token
        if not token:
            break
    assert {key.key_id for key in seen} == {text[:12] for text in guarded.texts}
    assert len(seen) == 2
    (listed,) = (key for key in seen if key.key_id == made.api_key.key_id)
    assert listed.HasField("last_used_at")
    text = KeyText.parse(made.key)
    assert text is not None
    assert text.secret not in str(seen)
    assert text.secret_hash() not in str(seen)

    end = admin_pb2.RevokeApiKeyRequest(key_id=made.api_key.key_id)
    revoked = admin.RevokeApiKey(end, metadata=metadata, timeout=CALL_S).api_key
    assert revoked.HasField("revoked_at")
    assert admin.RevokeApiKey(end, metadata=metadata, timeout=CALL_S).api_key == revoked
    guarded.cache_age_s += CACHE_S
    code, _ = guarded.call("tellerd.v1.WalletService/ListWallets", bearer(made.key))
    assert code == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("request_fields", "named"),
    [
        ({"name": "", "scopes": [admin_pb2.SCOPE_READ]}, "name: "),
        ({"name": "x", "scopes": []}, "scopes: "),
        ({"name": "x", "scopes": [admin_pb2.SCOPE_UNSPECIFIED, admin_pb2.SCOPE_READ]}, "scopes: "),
        ({"name": "x", "scopes": [99]}, "scopes: "),
        ({"name": "x", "scopes": [admin_pb2.SCOPE_READ], "expires_at": Timestamp(seconds=1)}, "expires_at: "),
        ({"name": "x", "scopes": [admin_pb2.SCOPE_READ], "expires_at": Timestamp(seconds=2**62)}, "expires_at: "),
    ],
)
def test_a_key_that_cannot_be_is_refused(guarded: Guarded, request_fields: dict[str, Any], named: str) -> None:
    """INVALID_ARGUMENT names the field, and no key is made."""
    admin = admin_pb2_grpc.AdminServiceStub(guarded.channel)
    metadata = with_key(guarded.key(Scope.ADMIN))
    with pytest.raises(grpc.RpcError) as refused:
        admin.CreateApiKey(admin_pb2.CreateApiKeyRequest(**request_fields), metadata=metadata, timeout=CALL_S)
    code, text = status_of(refused.value)
    assert (code, text[: len(named)]) == (grpc.StatusCode.INVALID_ARGUMENT, named)
    listed = admin.ListApiKeys(admin_pb2.ListApiKeysRequest(), metadata=metadata, timeout=CALL_S)
    assert len(listed.api_keys) == 1


# --- secrets ----------------------------------------------------------------------------------------


def test_no_key_is_in_logs_metrics_or_errors(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After calls that went well, that were refused, and one that crashed the method."""
    admin, reader = guarded.key(Scope.ADMIN), guarded.key(Scope.READ)
    said = []
    with capture_logs() as logged:
        for text in (admin, reader):
            said += [guarded.call(method, bearer(text)) for method in SCOPES]
            said.append(guarded.call("tellerd.v1.AdminService/GetStatus", bearer(text + "x")))
            said.append(guarded.call("tellerd.v1.AdminService/Steal", bearer(text)))

        def crash(*_: object, **__: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(guarded.bank.store.wallets, "page", crash)
        said.append(guarded.call("tellerd.v1.WalletService/ListWallets", bearer(admin)))
        whole = admin_pb2.RevokeApiKeyRequest(key_id=reader)
        with pytest.raises(grpc.RpcError) as refused:
            admin_pb2_grpc.AdminServiceStub(guarded.channel).RevokeApiKey(
                whole, metadata=with_key(admin), timeout=CALL_S
            )
        said.append(status_of(refused.value))
    assert grpc.StatusCode.INTERNAL in {code for code, _ in said}
    assert any(line["event"] == "api.call_failed" for line in logged)
    page = guarded.bank.metrics.page().decode()
    assert 'code="UNAUTHENTICATED"' in page
    assert 'code="PERMISSION_DENIED"' in page
    written = f"{said}{logged}{caplog.text}{page}"
    for text in guarded.texts:
        parsed = KeyText.parse(text)
        assert parsed is not None
        assert parsed.secret not in written
        assert parsed.secret_hash() not in written
        assert text[:12] not in page
