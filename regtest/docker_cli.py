"""Docker's command line and Compose: where they come from, and how an engine is asked.

python -m regtest.docker_cli        # prints how compose is run; built here where it is missing
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from regtest.binaries import HERE, Command, Program, ProgramUnavailable, exactly, go, version_of
from regtest.cache import CannotMake, cache_folder, entry, run

COMPOSE_MODULE: Final = HERE / "compose"
COMPOSE_PACKAGE: Final = "github.com/docker/compose/v2/cmd"
COMPOSE_VERSION: Final = "2.40.3"
VERSION_PRINTED: Final = re.compile(r"Docker Compose version v?(\d+\.\d+\.\d+)")
LEAST: Final = (2, 24)
"""The compose file was never tried with an older one."""

ANSWER_S: Final = 10.0
"""An engine that lives answers a ping in milliseconds."""

CALL_S: Final = 120.0
"""The slowest call that is not a build: removing a stack's volumes, seconds."""


class DockerError(Exception):
    """A docker or compose command failed, or there is none; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Docker:
    """An engine and the programs that ask it."""

    cli: Command
    compose: Command
    host: str | None = None
    """As DOCKER_HOST; None: whatever the environment says."""

    @property
    def environment(self) -> dict[str, str]:
        """For every command that asks this engine."""
        return {**os.environ, **({"DOCKER_HOST": self.host} if self.host is not None else {})}

    def run(self, *arguments: str, timeout_s: float = CALL_S) -> str:
        """What `docker <arguments>` printed; DockerError if it fails or takes too long."""
        return output_of((*self.cli, *arguments), self.environment, timeout_s)

    def answers(self) -> str | None:
        """The engine's version, None if there is none that answers."""
        try:
            return self.run("version", "--format", "{{.Server.Version}}", timeout_s=ANSWER_S).strip() or None
        except DockerError:
            return None


def output_of(command: Command, environment: dict[str, str], timeout_s: float) -> str:
    """The standard output of a command; DockerError with its complaint if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise DockerError(f"`{shlex.join(command)}`: {failure}") from failure
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).strip()[-4_000:]
        raise DockerError(f"`{shlex.join(command)}` ended with code {done.returncode}:\n{tail}")
    return done.stdout


def docker_on_path() -> Command | None:
    """The machine's own `docker`, if it has one."""
    found = shutil.which("docker")
    return None if found is None else (found,)


def compose_at_hand(cli: Command | None) -> Command | None:
    """A Compose that is here already: a plugin of `docker`, a program, or what was built before. Builds nothing."""
    if cli is not None and _is_compose((*cli, "compose")):
        return (*cli, "compose")
    if (on_path := shutil.which("docker-compose")) and _is_compose((on_path,)):
        return (on_path,)
    built = (str(cache_folder() / _entry_name() / "docker-compose"),)
    return built if Path(built[0]).exists() and _is_compose(built) else None


def compose(cli: Command | None) -> Command:
    """compose_at_hand(), else it is built: 3 minutes of two cores. ProgramUnavailable if that fails."""
    return compose_at_hand(cli) or COMPOSE.find()


@cache
def _is_compose(command: Command) -> bool:
    try:
        return version_of((*command, "version"), VERSION_PRINTED) >= LEAST
    except CannotMake:
        return False


def _entry_name() -> str:
    recipe = (COMPOSE_MODULE / "go.mod").read_bytes() + (COMPOSE_MODULE / "go.sum").read_bytes()
    return f"docker-compose-{COMPOSE_VERSION}-{hashlib.sha256(recipe).hexdigest()[:8]}"


def _compose_from_source() -> Command:
    wanted = tuple(int(part) for part in COMPOSE_VERSION.split("."))

    def command(folder: Path) -> Command:
        return (str(folder / "docker-compose"),)

    folder = entry(_entry_name(), _build_compose, lambda folder: exactly(wanted, COMPOSE, command(folder)))
    return command(folder)


def _build_compose(folder: Path) -> None:
    version = f"-X github.com/docker/compose/v2/internal.Version=v{COMPOSE_VERSION}"
    flags = ("-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags=-s -w {version}")
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = (go(), "build", *flags, "-o", str(folder / "docker-compose"), COMPOSE_PACKAGE)
    run(command, "building docker-compose", folder=COMPOSE_MODULE, environment=environment)


COMPOSE: Final = Program(
    name="docker-compose",
    variable="TELLERD_COMPOSE",
    version=VERSION_PRINTED,
    least=LEAST,
    make=_compose_from_source,
)


def main() -> int:
    """Prints how compose is run; 1 if it cannot be had."""
    try:
        print(f"compose: {shlex.join(compose(docker_on_path()))}")
    except ProgramUnavailable as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
