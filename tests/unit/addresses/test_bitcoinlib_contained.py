"""bitcoinlib writes files and sets up logging when it is imported: none of it may reach the host or the daemon.

Each test has a process of its own, for a library is imported once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.unit.addresses.keys import tpub

REPOSITORY = Path(__file__).parents[3]

# What Python reports of files: opened for writing, made, renamed, removed (PEP 578). The audit hook sees every
# attempt, one that is undone later, too.
PROGRAM = """
import json, logging, os, sys
from pathlib import Path

written = []
def seen(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        if (isinstance(args[1], str) and set(args[1]) & set("wxa+")) or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            written.append(os.path.abspath(os.fsdecode(args[0])))
    elif event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "sqlite3.connect"):
        written.append(os.path.abspath(os.fsdecode(args[0])))
    elif event in ("os.remove", "os.rmdir"):
        folder = os.readlink(f"/proc/self/fd/{args[1]}") if args[1] >= 0 else os.getcwd()
        written.append(os.path.normpath(os.path.join(folder, os.fsdecode(args[0]))))
sys.addaudithook(seen)

from adapters.addresses import address_source, script_of
early = "bitcoinlib" in sys.modules
source = address_source(sys.argv[1], network="regtest", state_folder=Path(sys.argv[2]))
address = source.derive(5).address
script_of(address, network="regtest")
print(json.dumps({
    "address": address, "written": written, "early": early, "loaded": "bitcoinlib" in sys.modules,
    "root_handlers": len(logging.getLogger().handlers), "root_level": logging.getLogger().level,
    "its_handlers": len(logging.getLogger("bitcoinlib").handlers),
    "BCL_DATA_DIR": os.environ.get("BCL_DATA_DIR"),
}))
"""


def run(text: str, state_folder: Path, home: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Derives one address in a process of its own, with every warning an error."""
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROGRAM, text, str(state_folder), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_nothing_is_written_outside_the_state_folder(tmp_path: Path) -> None:
    """Nor is anything left inside it; and the daemon's logging is as it was."""
    state_folder = tmp_path / "state"
    told = run(tpub(1), state_folder, tmp_path / "home")
    assert told["loaded"]
    assert told["written"], "the audit hook saw nothing: it proves nothing"
    outside = {path for path in told["written"] if not Path(path).is_relative_to(state_folder)}
    assert outside <= {os.devnull}
    assert list(state_folder.iterdir()) == []
    assert list((tmp_path / "home").iterdir()) == []
    assert told["root_handlers"] == 0
    assert told["root_level"] == 30
    assert told["its_handlers"] == 0
    assert told["BCL_DATA_DIR"] is None


def test_a_folder_of_the_environment_is_left_alone(tmp_path: Path) -> None:
    """An operator's own bitcoinlib settings are neither read nor lost."""
    other = tmp_path / "other"
    told = run(tpub(1), tmp_path / "state", tmp_path / "home", BCL_DATA_DIR=str(other))
    assert told["BCL_DATA_DIR"] == str(other)
    assert not other.exists()


def test_descriptors_do_without_bitcoinlib(tmp_path: Path) -> None:
    """It is imported for an xpub only, and then not before it is needed."""
    told = run(f"tr({tpub(1)}/0/*)", tmp_path / "state", tmp_path / "home")
    assert not told["loaded"]
    assert not told["early"]
    assert told["written"] == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where the folder should be: one line with the place."""
    (tmp_path / "state").write_text("")
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, tpub(1), str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("daemon.domain.errors.Misconfigured: bitcoinlib writes files when it is loaded, and cannot")
    assert str(tmp_path / "state") in last
