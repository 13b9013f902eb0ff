"""A Docker engine of one's own, for machines that have none: Debian's, unpacked into the cache and not installed.

    python -m regtest.docker_engine     # keeps one up until Ctrl-C, and prints how to reach it

It needs root. Everything of it is in a temporary folder: images, containers, socket. The machine's network stays as it
is: no rule for the packet filter, no forwarding, no docker0. So containers reach each other and are reached by ports
published on loopback, and reach nothing outside; an image is built in the host's network (REGTEST_BUILD_NETWORK=host,
which docker-compose.regtest.yml knows).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from regtest import debian
from regtest.binaries import ProgramUnavailable, version_of
from regtest.cache import CannotMake, entry
from regtest.docker_cli import Docker, compose
from regtest.interrupts import interrupt_on_signals
from regtest.process import NodeError, NodeProcess

BUILD_NETWORK: Final = {"REGTEST_BUILD_NETWORK": "host"}
"""For every build with this engine."""

READY_S: Final = 60.0
"""1 s when idle."""

UNMOUNT_S: Final = 10.0
DEFAULT_BRIDGE: Final = Path("/sys/class/net/docker0")
PACKAGES: Final = ("containerd", "runc", "iptables", "tini")
VERSION: Final = re.compile(r"version (\d+\.\d+\.\d+)")


@contextmanager
def own_engine() -> Iterator[Docker]:
    """An engine that ends with the `with`, and its containers with it. ProgramUnavailable, NodeError with its log."""
    if os.geteuid() != 0:
        raise ProgramUnavailable("an engine of one's own needs root")
    if DEFAULT_BRIDGE.exists():  # with --bridge=none dockerd removes it, whosever it is
        raise ProgramUnavailable(f"{DEFAULT_BRIDGE.name} is there, so another engine is or was: use that one")
    try:
        unpacked = _unpacked()
    except CannotMake as reason:
        raise ProgramUnavailable(f"no Docker engine: {reason}") from reason
    compose_command = compose(None)  # may be built for minutes: before anything runs
    folder = Path(tempfile.mkdtemp(prefix="tellerd-docker-"))
    socket = folder / "docker.sock"
    flags = (
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
        f"--host=unix://{socket}",
        "--bridge=none",
        "--iptables=false",
        "--ip-forward=false",
    )
    environment = _environment(unpacked)
    engine = NodeProcess("dockerd", ("dockerd", *flags), folder / "dockerd.log", environment)
    docker = Docker((str(unpacked / "usr" / "bin" / "docker"),), compose_command, f"unix://{socket}")
    try:
        engine.start()
        engine.wait_until(docker.answers, "answering", READY_S)
        yield docker
    finally:
        engine.stop()
        _unmount_below(folder)
        shutil.rmtree(folder)


def _unpacked() -> Path:
    """The cache entry: dockerd, containerd, runc, the client, of this machine's own Debian release."""
    release = _release()

    def check(folder: Path) -> None:
        environment = _environment(folder)
        command = ("env", *(f"{name}={value}" for name, value in environment.items()), "dockerd", "--version")
        if version_of(command, VERSION) < (20, 10):
            raise CannotMake("this Debian's docker.io is too old")

    return entry(f"docker-engine-{release}", lambda folder: _unpack(folder, release), check)


def _release() -> str:
    """Debian's name for what this machine runs: an engine's programs start each other again by their own paths, so
    they cannot bring a loader of their own and must fit the machine's C library."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise CannotMake("/etc/os-release names no release of Debian")
    return found[1]


def _unpack(folder: Path, release: str) -> None:
    debian.unpack("docker.io", folder, also=PACKAGES, suite=release)
    for libraries in _libraries(folder):
        for library in libraries.glob("*.so*"):
            if (Path("/") / library.relative_to(folder)).exists():  # the machine's own fits its loader for certain
                library.unlink()
    for name in ("iptables", "ip6tables"):  # what dpkg would make as alternatives
        for action in ("", "-restore", "-save"):
            (folder / "usr" / "sbin" / f"{name}{action}").symlink_to("xtables-nft-multi")


def _libraries(folder: Path) -> list[Path]:
    """Where the packages have put them; of the machine's own none is among them."""
    return [*folder.glob("usr/lib/*-linux-gnu"), *folder.glob("lib/*-linux-gnu")]


def _environment(folder: Path) -> dict[str, str]:
    """For dockerd and all that it starts; a container's own environment is none of this."""
    programs = f"{folder}/usr/sbin:{folder}/usr/bin"
    libraries = _libraries(folder)
    return {
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "XTABLES_LIBDIR": ":".join(str(one / "xtables") for one in libraries),
    }


def _unmount_below(folder: Path) -> None:
    """dockerd leaves the mount of its own network namespace."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(("umount", mount), check=True, timeout=UNMOUNT_S)


def main() -> int:
    """Until Ctrl-C or SIGTERM; 1 with the reason on stderr."""
    interrupt_on_signals()
    try:
        with own_engine() as docker:
            print(f"export DOCKER_HOST={docker.host} REGTEST_BUILD_NETWORK=host", flush=True)
            print(f"compose: {' '.join(docker.compose)}\ndocker:  {' '.join(docker.cli)}", flush=True)
            while docker.answers():
                time.sleep(5)
            raise NodeError("the engine does not answer any more")
    except KeyboardInterrupt:
        return 0
    except (NodeError, ProgramUnavailable) as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
