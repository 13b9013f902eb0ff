"""A daemon that needs TLS and keys, as an operator sets it up and callers meet it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, event_pb2
from adapters.mongo.collections import API_KEYS
from daemon.domain.api_keys import KeyText
from regtest.stack import Stack
from regtest.tellerd import CALL_S, RUN, Client
from tests.certificates import Certificate, self_signed
from tests.e2e.bank import Bank, wait_for

REFUSED_S = 5.0
"""What the README promises of a revoked key."""

COMMAND_S = 300


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "api")


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path, certificate: Certificate) -> Iterator[Bank]:
    """A bank whose API needs TLS and keys; its daemon was not started."""
    bank = Bank(stack, tmp_path)
    file = bank.tellerd.config_file
    api = f'\n[api]\ntls_cert_file = "{certificate.certificate}"\ntls_key_file = "{certificate.key}"\nkeys = true\n'
    file.write_text(file.read_text().replace("\n[api]\n", api, 1))
    try:
        yield bank
    finally:
        bank.close()


def keys(bank: Bank, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs `tellerd keys …` to its end."""
    command = [*RUN, "keys", *arguments, "--config", str(bank.tellerd.config_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def made(bank: Bank, *arguments: str) -> tuple[str, str]:
    """A new key's text, and what was said beside it."""
    done = keys(bank, "create", *arguments)
    return done.stdout.removesuffix("\n"), done.stderr


def code_of(error: Any) -> grpc.StatusCode:
    """grpcio's errors are calls, too, though its types do not say so."""
    code: grpc.StatusCode = error.code()
    return code


def outcome(client: Client) -> grpc.StatusCode:
    """How GetStatus ends."""
    try:
        client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S)
    except grpc.RpcError as error:
        return code_of(error)
    return grpc.StatusCode.OK


def test_a_revoked_key_is_refused_within_seconds(guarded: Bank, certificate: Certificate) -> None:
    """Made on the command line, used over TLS, listed, revoked: calls are refused and the stream ends, and the key is
    in no log, no metric, no other command's answer and not in the database."""
    guarded.command("init")
    text, beside = made(guarded, "--name", "core API", "--scopes", "read,receive", "--expires-days", "30")
    admin, _ = made(guarded, "--name", "operator", "--scopes", "admin")
    guarded.tellerd.start()
    guarded.tellerd.wait_ready()
    guarded.wait_opened()

    root = certificate.certificate.read_bytes()
    with (
        guarded.tellerd.client(root_certificate=root, key=text) as client,
        guarded.tellerd.client(root_certificate=root) as nobody,
        guarded.tellerd.client(root_certificate=root, key=text[:-4] + "AAAA") as guesser,
        guarded.tellerd.client() as plain,
    ):
        assert outcome(plain) == grpc.StatusCode.UNAVAILABLE
        assert outcome(nobody) == outcome(guesser) == grpc.StatusCode.UNAUTHENTICATED
        wallet = client.create_wallet("alice")
        guarded.pay(guarded.invoices(client, wallet, [1_000]))
        wait_for(lambda: client.balance_sat(wallet) == 1_000, "the payment is credited")
        with pytest.raises(grpc.RpcError) as forbidden:
            client.admin.ListApiKeys(admin_pb2.ListApiKeysRequest(), timeout=CALL_S)
        assert code_of(forbidden.value) == grpc.StatusCode.PERMISSION_DENIED
        stream = client.events.Subscribe(event_pb2.SubscribeRequest(), timeout=COMMAND_S)
        next(stream)

        listed = keys(guarded, "list").stdout
        assert [line[:12] for line in listed.splitlines()] == [admin[:12], text[:12]]
        assert "read,receive" in listed
        assert listed.endswith("core API\n")
        assert "last used" in listed

        revoked = keys(guarded, "revoke", text[:12])
        revoked_at = time.monotonic()
        asked_at = revoked_at
        while outcome(client) != grpc.StatusCode.UNAUTHENTICATED:
            assert asked_at - revoked_at < REFUSED_S, "a call that was begun so late is refused, however long it takes"
            time.sleep(0.05)
            asked_at = time.monotonic()
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert code_of(ended.value) == grpc.StatusCode.UNAUTHENTICATED
    with guarded.tellerd.client(root_certificate=root, key=admin) as operator:
        assert outcome(operator) == grpc.StatusCode.OK
        keys_there = operator.admin.ListApiKeys(admin_pb2.ListApiKeysRequest(), timeout=CALL_S).api_keys
        assert [key.HasField("revoked_at") for key in keys_there] == [False, True]

    metrics = guarded.tellerd.get("/metrics").text
    guarded.tellerd.process.stop()
    log = guarded.tellerd.process.log_file.read_text()
    assert '"keys": true' in log  # the log is the right one
    assert 'code="UNAUTHENTICATED"' in metrics
    stored = repr(list(guarded.db[API_KEYS].find()))
    assert text[:12] in stored
    for key in (text, admin):
        parsed = KeyText.parse(key)
        assert parsed is not None
        for written in (log, metrics, listed, beside, revoked.stdout + revoked.stderr, stored):
            assert parsed.secret not in written


def test_what_the_command_cannot_do_is_one_line(guarded: Bank) -> None:
    """No database initialised, a wrong scope, an unknown key; a whole key in place of its id is not repeated."""
    said = keys(guarded, "create", "--name", "x", "--scopes", "read", expect=1)
    assert said.stdout == ""
    assert "tellerd init" in said.stderr
    guarded.command("init")
    assert keys(guarded, "list").stdout == ""
    assert "read,receive,write,admin" in keys(guarded, "create", "--name", "x", "--scopes", "red", expect=2).stderr
    assert "there is no key tlr_aaaaaaaa" in keys(guarded, "revoke", "tlr_aaaaaaaa", expect=1).stderr
    text, _ = made(guarded, "--name", "x", "--scopes", "read")
    refused = keys(guarded, "revoke", text, expect=2).stderr
    assert "first 12 characters" in refused
    assert text[13:] not in refused


def test_an_address_off_loopback_needs_both(guarded: Bank) -> None:
    """With TLS, but without keys, `run` is exit 2 and one line that names what to set; with both it is accepted.

    Without either: `test_a_wrong_configuration_is_one_line`."""
    port = guarded.tellerd.api.rpartition(":")[2]
    file = guarded.tellerd.config_file
    file.write_text(file.read_text().replace("127.0.0.1:" + port, "0.0.0.0:" + port, 1))
    assert "not initialised" in keys(guarded, "list", expect=1).stderr  # past the configuration
    file.write_text(file.read_text().replace("keys = true", "keys = false", 1))
    (line,) = guarded.command("run", expect=2).splitlines()
    assert line.startswith(f"tellerd: {file}: api: listen 0.0.0.0:{port} can be reached from other machines")
    assert f'set keys = true, or listen = "127.0.0.1:{port}"' in line


def test_check_tries_the_certificate(guarded: Bank) -> None:
    """With the connections; a key that is another certificate's would be named before `run`."""
    assert "ok      api: certificate and key belong together" in guarded.command("check", expect=None)
