"""ops/tellerd.service: systemd understands it, and what it promises fits to what the daemon does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from daemon.config import PostingConfig
from daemon.serving.heartbeat import MAX_AGE_S
from tests.unit.addresses.keys import tpub

UNIT = Path(__file__).parents[2] / "ops" / "tellerd.service"
ANALYZE = shutil.which("systemd-analyze")
EXPOSURE_MAX = 1.5
"""systemd's own score, 0 to 10; the rest is that it needs the network and Unix sockets."""

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")


def settings(name: str) -> list[str]:
    """Every value of a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*arguments: str) -> str:
    done = subprocess.run([str(ANALYZE), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """With a program that is there in the place of tellerd; a setting that systemd does not know is a complaint."""
    copy = tmp_path / "tellerd.service"
    copy.write_text(UNIT.read_text().replace("/opt/tellerd/venv/bin/tellerd", sys.executable))
    assert "tellerd.service" not in analyze("verify", str(copy))


@needs_systemd
def test_systemd_finds_little_to_attack() -> None:
    """The overall exposure level of `systemd-analyze security`."""
    told = analyze("security", "--offline=true", str(UNIT))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found is not None
    assert float(found[1]) <= EXPOSURE_MAX


def test_its_times_fit_to_the_daemons() -> None:
    """The watchdog waits longer than /healthz does, the stop longer than both parts of a drain with their defaults."""
    assert settings("Type") == ["notify"]
    assert int(settings("WatchdogSec")[0]) > MAX_AGE_S
    assert int(settings("TimeoutStopSec")[0]) > 2 * PostingConfig().drain_s
    assert settings("RestartPreventExitStatus") == ["2"]


def test_no_secret_is_in_it_or_on_a_command_line() -> None:
    """They come as credentials, which are files."""
    assert settings("ExecStart") == ["/opt/tellerd/venv/bin/tellerd run --config /etc/tellerd/tellerd.toml"]
    assert "tellerd.macaroon:/etc/tellerd/tellerd.macaroon" in settings("LoadCredential")
    assert "TELLERD_LND__0__MACAROON_FILE=%d/tellerd.macaroon" in settings("Environment")


MEMORY_DENIED = """
import ctypes, mmap, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(77)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    sys.exit("not enforced")
except OSError:
    pass
from pathlib import Path
import daemon.__main__
from adapters.addresses import address_source
import grpc
from concurrent.futures import ThreadPoolExecutor
key, folder = sys.argv[1], Path(sys.argv[2])
for given in (key, f"wpkh({key}/0/*)", f"tr({key}/0/*)"):
    print(address_source(given, network="regtest", state_folder=folder).derive(0).address)
server = grpc.server(ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as connection:
    grpc.channel_ready_future(connection).result(timeout=20)
server.stop(None).wait()
"""


def test_no_library_of_the_daemon_needs_memory_that_is_written_and_run(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute, which the kernel (6.3 and newer) enforces here as it does for the service."""
    command = [sys.executable, "-c", textwrap.dedent(MEMORY_DENIED), tpub(11), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 2  # an xpub is a wpkh descriptor; tr gives another address
