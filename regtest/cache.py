"""What takes long to get is got once: a cache folder outside the checkout, with whole entries only.

An entry is a folder named by the version of what it holds. It is made in a temporary folder beside it, checked there,
and then renamed, so an entry that exists is complete; a file lock keeps two processes from making the same entry.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CACHE_VARIABLE: Final = "TELLERD_CACHE"

MAKE_S: Final = 3_600.0
"""The slowest entry is LND: 5 minutes of two cores; an hour is a machine that is much slower or stuck."""

LINE_S: Final = 15.0
"""Between progress lines where nobody watches (a log); a terminal gets its line rewritten every second."""

TAIL_CHARACTERS: Final = 2_000


class CannotMake(Exception):
    """An entry could not be made, or is not what its name says; the message says why."""


def cache_folder() -> Path:
    """$TELLERD_CACHE, else tellerd/ in the user's cache folder; made if missing."""
    named = os.environ.get(CACHE_VARIABLE)
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tellerd"
    folder = Path(named).absolute() if named else default
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def entry(name: str, make: Callable[[Path], None], check: Callable[[Path], None]) -> Path:
    """The folder of the entry `name`, made by `make(folder)` if it is missing or `check(folder)` refuses it.

    Both raise CannotMake. Safe to call from several processes at once: one makes, the others wait.
    """
    cache = cache_folder()
    wanted = cache / name
    if _passes(wanted, check):
        return wanted
    with _locked(cache / f".{name}.lock", name):
        if _passes(wanted, check):  # another process has made it while this one waited
            return wanted
        for leftover in cache.glob(f".{name}.new-*"):  # of a process that was killed: we hold the lock
            _remove(leftover)
        _remove(wanted)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=cache))
        try:
            make(fresh)
            check(fresh)
            fresh.rename(wanted)
        finally:
            _remove(fresh)
    return wanted


def run(
    command: tuple[str, ...],
    what: str,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = MAKE_S,
) -> None:
    """Run a command that may take minutes, with progress on stderr; CannotMake with its output's end if it fails."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children (compilers) can be ended with it
        )
        try:
            with progress(what, timeout_s) as tick:
                while child.poll() is None:
                    tick()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child.returncode != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace").strip()[-TAIL_CHARACTERS:]
            raise CannotMake(f"{what}: `{command[0]}` ended with code {child.returncode}:\n{tail}")


@contextmanager
def progress(what: str, timeout_s: float) -> Iterator[Callable[[], None]]:
    """Gives a `tick` to call while waiting: it sleeps a moment and says on stderr that `what` still goes on.

    A terminal gets one line that counts; anything else at most a line every 15 s and none for what is quick.
    CannotMake from `tick` after `timeout_s` seconds.
    """
    started = said = time.monotonic()
    on_terminal = sys.stderr.isatty()

    def tick() -> None:
        nonlocal said
        time.sleep(0.1)
        now = time.monotonic()
        if now - started > timeout_s:
            raise CannotMake(f"{what}: not done after {timeout_s:.0f} s")
        if now - said >= (1.0 if on_terminal else LINE_S):
            said = now
            line = f"{what} … {now - started:.0f} s"
            print(
                f"\r\033[K{line}" if on_terminal else line, end="" if on_terminal else "\n", file=sys.stderr, flush=True
            )

    try:
        yield tick
    finally:
        if on_terminal and said != started:
            print(file=sys.stderr, flush=True)


def _passes(folder: Path, check: Callable[[Path], None]) -> bool:
    if not folder.is_dir():
        return False
    try:
        check(folder)
    except CannotMake:
        return False
    return True


@contextmanager
def _locked(lock_file: Path, name: str) -> Iterator[None]:
    """Hold the lock; the kernel frees it when its process ends, so a killed maker blocks nobody."""
    with lock_file.open("w") as lock, progress(f"waiting for another process that makes {name}", MAKE_S) as tick:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tick()
        yield


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
