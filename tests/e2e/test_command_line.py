"""The commands as an operator meets them: exit codes, one clear line for what is wrong, a clean end."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from adapters.grpc_api._pb.tellerd.v1 import event_pb2
from adapters.mongo.collections import INVOICES, LEGS
from regtest.process import NodeError, take_port
from regtest.stack import TELLERD_CALLS, Stack
from regtest.tellerd import RUN
from tests.e2e.bank import Bank, wait_for

COMMAND_S = 300
"""The slowest, a `check` without a database, gives up after 3 s."""

STOP_S = 60.0
"""An idle daemon ends in about a second, one with work after the drain's 10 s at the latest; beyond this it would be
killed, and its exit code not 0."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The one line on stderr; never a traceback, nothing on stdout."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line


def tellerd(*arguments: str, environment: Mapping[str, str] | None = None) -> Done:
    """Runs a command to its end."""
    done = subprocess.run(
        [*RUN, *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert "Traceback" not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def unopened(stack: Stack, tmp_path: Path) -> Iterator[Bank]:
    """A bank whose database was not initialised, and whose daemon was not started."""
    bank = Bank(stack, tmp_path)
    try:
        yield bank
    finally:
        bank.close()


def config(bank: Bank) -> tuple[str, str]:
    """The option that every command needs."""
    return "--config", str(bank.tellerd.config_file)


# --- the command line and the configuration -------------------------------------------------------------------


def test_the_version_is_told() -> None:
    """`--version` needs no configuration."""
    done = tellerd("--version")
    assert (done.code, done.out.split()[0]) == (0, "tellerd")


@pytest.mark.parametrize("arguments", [(), ("run",), ("credit",)])
def test_a_wrong_command_line_is_exit_2(arguments: tuple[str, ...]) -> None:
    """No command, no configuration, an unknown command: usage on stderr."""
    done = tellerd(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: tellerd")


@pytest.mark.parametrize("command", ["run", "init", "check", "verify"])
def test_a_missing_configuration_is_one_line(command: str, tmp_path: Path) -> None:
    """Every command says it alike, with exit 2."""
    done = tellerd(command, "--config", str(tmp_path / "absent.toml"))
    assert done.code == 2
    assert done.complaint() == (
        f"tellerd: {tmp_path}/absent.toml: No such file or directory; give the configuration with --config FILE"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[prices]", "[price]", "price: unknown key; remove it or mend its spelling"),
        ('name = "lnd1"', "name = 7", "lnd.0.name: 7 cannot be used: "),
        ("tls.cert", "tls.crt", "no file at "),
        ("[mongo]", "[mongo", "not TOML: "),
        ('[api]\nlisten = "127.0.0.1', '[api]\nlisten = "0.0.0.0', "can be reached from other machines"),
    ],
    ids=["unknown key", "wrong type", "missing file", "not TOML", "API off loopback"],
)
def test_a_wrong_configuration_is_one_line(unopened: Bank, old: str, new: str, said: str) -> None:
    """`run` does not start: one line that names what is wrong, exit 2."""
    file = unopened.tellerd.config_file
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    done = tellerd("run", *config(unopened))
    assert done.code == 2
    assert done.complaint().startswith(f"tellerd: {file}: ")
    assert said in done.complaint()


def test_an_address_that_is_taken_ends_the_second_daemon(bank: Bank) -> None:
    """A second daemon with the same file does not share the first one's ports: it ends, the first goes on."""
    command = [*RUN, "run", *config(bank)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 1
    assert "http.listen: cannot listen at" in done.stderr
    assert "Traceback" not in done.stderr
    assert bank.tellerd.get("/readyz").status == 200


# --- init and check -------------------------------------------------------------------------------------------


def test_without_init_every_command_says_so(unopened: Bank) -> None:
    """`run`, `check` and `verify` name the remedy and end with 1; `init` twice is fine, and then all is well."""
    ran = tellerd("run", *config(unopened))
    assert ran.code == 1
    assert "is not initialised: run `tellerd init`" in ran.err.splitlines()[-1]
    checked = tellerd("check", *config(unopened))
    assert (checked.code, checked.out.splitlines()[-1]) == (1, "1 to mend")
    assert f"FAILED  mongo {unopened.database}: database '{unopened.database}' is not initialised" in checked.out
    verified = tellerd("verify", *config(unopened))
    assert verified.code == 1
    assert "run `tellerd init`" in verified.complaint()

    made = tellerd("init", *config(unopened))
    assert (made.code, made.err) == (0, "")
    assert "made collection teller_head" in made.out.splitlines()
    again = tellerd("init", *config(unopened))
    assert (again.code, again.err) == (0, "")
    assert again.out == f"database {unopened.database} is ready\n"

    checked = tellerd("check", *config(unopened))
    assert (checked.code, checked.err, checked.out.splitlines()[-1]) == (0, "", "all well")
    assert unopened.stack.lnd.pubkey in checked.out
    assert tellerd("verify", *config(unopened)).code == 0


@dataclass(frozen=True, slots=True)
class Broken:
    """A configuration that one variable makes wrong, and the line that `check` must have for it."""

    variable: str
    value: Callable[[Bank], str]
    said: tuple[str, ...]


def _junk_file(bank: Bank) -> str:
    file = bank.folder / "junk"
    file.write_bytes(b"junk")
    return str(file)


def _narrow_macaroon(bank: Bank) -> str:
    return str(bank.stack.lnd.bake_macaroon(["/lnrpc.Lightning/GetInfo"], 8, bank.folder / "narrow.macaroon"))


def _macaroon_without(call: str) -> Callable[[Bank], str]:
    def bake(bank: Bank) -> str:
        calls = [one for one in TELLERD_CALLS if not one.endswith(f"/{call}")]
        return str(bank.stack.lnd.bake_macaroon(calls, 9, bank.folder / f"without-{call}.macaroon"))

    return bake


HOLD_CALLS = ("AddHoldInvoice", "SubscribeSingleInvoice", "SettleInvoice", "CancelInvoice")

BROKEN = {
    "no database": Broken(
        "TELLERD_MONGO__URL",
        lambda bank: f"mongodb://127.0.0.1:{take_port()}/?replicaSet=rs0",
        ("FAILED  mongo ", "Connection refused", "start MongoDB, or mend mongo.url"),
    ),
    "another replica set": Broken(
        "TELLERD_MONGO__URL",
        lambda bank: f"mongodb://{bank.stack.mongod.address}/?replicaSet=rs9",
        ("FAILED  mongo ", "rs9", "mend mongo.url"),
    ),
    "no node": Broken(
        "TELLERD_LND__0__ADDRESS",
        lambda bank: f"127.0.0.1:{take_port()}",
        ("FAILED  lnd lnd1: does not listen: start it, or check its address",),
    ),
    "no LND at the address": Broken(
        "TELLERD_LND__0__ADDRESS",
        lambda bank: bank.stack.mongod.address,
        ("FAILED  lnd lnd1: does not answer: it hangs, or it is no LND at this address",),
    ),
    "another node's macaroon": Broken(
        "TELLERD_LND__0__MACAROON_FILE",
        lambda bank: str(bank.stack.payer.admin_macaroon_file),
        ("FAILED  lnd lnd1: refuses the macaroon: it is another node's; copy this node's to macaroon_file",),
    ),
    "no macaroon": Broken(
        "TELLERD_LND__0__MACAROON_FILE", _junk_file, ("FAILED  lnd lnd1: ", "macaroon", "check macaroon_file")
    ),
    "a macaroon for too little": Broken(
        "TELLERD_LND__0__MACAROON_FILE",
        _narrow_macaroon,
        ("FAILED  lnd lnd1: refuses the macaroon: its permissions do not cover this call; bake one that does",),
    ),
    **{
        f"a macaroon without {call}": Broken(
            "TELLERD_LND__0__MACAROON_FILE",
            _macaroon_without(call),
            (f"refuses the macaroon: its permissions do not cover this call; bake one that does ({call})",),
        )
        for call in ("AddInvoice", "LookupInvoice", *HOLD_CALLS)
    },
    "another node's certificate": Broken(
        "TELLERD_LND__0__TLS_CERT_FILE",
        lambda bank: str(bank.stack.payer.tls_cert_file),
        ("FAILED  lnd lnd1: shows another certificate: copy its tls.cert to tls_cert_file",),
    ),
    "another network": Broken(
        "TELLERD_NETWORK",
        lambda bank: "mainnet",
        ('FAILED  lnd lnd1: is on regtest; set network = "regtest", or give a mainnet node',),
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_check_says_what_is_wrong_and_how_to_mend_it(unopened: Bank, broken: Broken) -> None:
    """One thing broken: one line for it with the remedy, exit 1, and nothing else that is called broken."""
    environment = {"TELLERD_MONGO__INIT": "true", broken.variable: broken.value(unopened)}
    done = tellerd("check", *config(unopened), environment=environment)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[-1] == "1 to mend"
    (line,) = (line for line in done.out.splitlines() if line.startswith("FAILED"))
    for part in broken.said:
        assert part in line


@pytest.mark.parametrize("command", ["init", "verify"])
def test_a_database_that_is_away_is_exit_3(unopened: Bank, command: str) -> None:
    """The same command may work later: that is another exit code than books that are broken."""
    environment = {"TELLERD_MONGO__URL": f"mongodb://127.0.0.1:{take_port()}/?replicaSet=rs0"}
    done = tellerd(command, *config(unopened), environment=environment)
    assert done.code == 3
    assert "Connection refused" in done.complaint()


def test_a_node_on_another_network_is_refused(unopened: Bank) -> None:
    """`run` stops before it books anything, and names the remedy."""
    environment = {"TELLERD_MONGO__INIT": "true", "TELLERD_NETWORK": "mainnet"}
    done = tellerd("run", *config(unopened), environment=environment)
    assert done.code == 1
    assert "lnd1 is on regtest, tellerd is configured for mainnet" in done.err.splitlines()[-1]
    assert unopened.db[LEGS].count_documents({}) == 0


# --- verify ---------------------------------------------------------------------------------------------------


def test_a_leg_edited_by_hand_is_found_and_named(bank: Bank) -> None:
    """The books are whole; one satoshi more in one leg, and `verify` names journal and account; put back, whole."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, [5_000, 6_000])
    bank.pay(invoices)
    bank.wait_balance(wallet, 11_000)
    assert "the books are whole" in bank.command("verify")

    leg = bank.db[LEGS].find_one({"hash": invoices[0].payment_hash, "credit": {"$gt": 0}})
    assert leg is not None
    bank.db[LEGS].update_one({"_id": leg["_id"]}, {"$inc": {"credit": 1}})
    done = tellerd("verify", *config(bank))
    assert (done.code, done.err) == (1, "")
    assert "the books are whole" not in done.out
    first = next(line for line in done.out.splitlines() if line.startswith("BROKEN: "))
    assert str(leg["_journal"]) in first
    assert f"Liabilities:{wallet} BTC moved by 5000, the legs now say 5001" in first

    bank.db[LEGS].update_one({"_id": leg["_id"]}, {"$inc": {"credit": -1}})
    assert "the books are whole" in bank.command("verify")


# --- the end --------------------------------------------------------------------------------------------------


def test_an_idle_daemon_ends_at_once(bank: Bank) -> None:
    """SIGTERM: exit 0, nothing has to be waited for."""
    bank.tellerd.process.stop(STOP_S)
    assert bank.tellerd.process.exit_code == 0
    assert '"event": "process.stopping"' in bank.tellerd.process.log_file.read_text()


def test_a_daemon_with_work_drains(bank: Bank) -> None:
    """SIGTERM with an open stream and payments under way: exit 0, the stream ends with UNAVAILABLE, and after the
    next start every payment is credited, once."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        invoices = bank.invoices(client, wallet, range(1_000, 1_020))
        request = event_pb2.SubscribeRequest(types=["invoice.settled"])
        stream = client.events.Subscribe(request, timeout=COMMAND_S)
        paying = bank.start_paying(invoices)
        next(stream)
        bank.tellerd.process.stop(STOP_S)
        assert bank.tellerd.process.exit_code == 0
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert status_of(ended.value) is grpc.StatusCode.UNAVAILABLE
    assert all(payment.succeeded for payment in paying.result(timeout=COMMAND_S))
    bank.tellerd.start()
    bank.tellerd.wait_ready()
    bank.wait_balance(wallet, sum(range(1_000, 1_020)))
    bank.check_books()


def status_of(error: object) -> grpc.StatusCode | None:
    """grpcio's errors are calls, too, though its types do not say so."""
    return error.code() if isinstance(error, grpc.Call) else None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_waits_for_its_database_can_be_ended(unopened: Bank, number: signal.Signals) -> None:
    """Nothing is there to drain: it ends at once, without a traceback, and not with a code that means success."""
    url = f"mongodb://127.0.0.1:{take_port()}/?replicaSet=rs0"
    daemon = subprocess.Popen(
        [*RUN, "run", *config(unopened)],
        env={**os.environ, "TELLERD_MONGO__URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: answers(unopened), "the daemon is up, without its database")
        daemon.send_signal(number)
        _, said = daemon.communicate(timeout=STOP_S)
    finally:
        daemon.kill()
        daemon.wait()
    assert daemon.returncode in {-number, 128 + number}
    assert "Traceback" not in said


def answers(bank: Bank) -> bool:
    """Whether /healthz is served."""
    try:
        return bank.tellerd.get("/healthz").status == 200
    except (OSError, NodeError):
        return False


# --- secrets --------------------------------------------------------------------------------------------------


def test_no_secret_is_written_to_log_or_metrics(bank: Bank) -> None:
    """After a payment and an outage: neither the macaroon nor the preimage, in hex or base64, in any case."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        (invoice,) = bank.invoices(client, wallet, [5_000])
        bank.pay([invoice])
        bank.wait_balance(wallet, 5_000)
        bank.stack.lnd.pause()
        try:
            wait_for(lambda: not bank.node_status(client).connected, "the hung LND is noticed")
        finally:
            bank.stack.lnd.resume()
        wait_for(lambda: bank.node_status(client).connected, "LND is followed again")
        bank.stack.wait_payable()
    document = bank.db[INVOICES].find_one({"_id": invoice.payment_hash})
    assert document is not None
    preimage = bytes.fromhex(document["secret"])
    assert len(preimage) == 32
    log = bank.tellerd.process.log_file.read_text()
    assert "task.waiting" in log  # the outage is there: the log is the right one
    written = log + bank.tellerd.get("/metrics").text + bank.tellerd.get("/").text
    for secret in (preimage, bank.stack.tellerd_macaroon_file.read_bytes()):
        assert secret.hex() not in written.lower()
        assert base64.b64encode(secret).decode() not in written
        assert base64.urlsafe_b64encode(secret).decode() not in written
