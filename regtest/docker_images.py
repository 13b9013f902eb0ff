"""Images under the official names, made here where no registry can be reached: Debian's base system, and the programs
that the rest of this package runs.

    python -m regtest.docker_images     # makes those that the engine has not, Grafana's left out

They do what docker-compose.regtest.yml needs of the official ones: the same entrypoints, users and folders, and the
programs that health checks call. They are no substitute for anything else: the compose file is written for the official
images, and a machine that has those never comes here.
"""

import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regtest import binaries, debian
from regtest.binaries import Command
from regtest.cache import CannotMake, entry, run
from regtest.docker_cli import Docker, DockerError, compose, docker_on_path

RELEASE: Final = "bookworm"
"""The Debian release that has Python 3.11, and is what most of the official images stand on."""

BASE: Final = "tellerd-regtest-base:1"
PACKAGES: Final = (
    "ca-certificates",
    "gosu",  # becomes the service's user
    "libcurl4",  # of mongod
    "openssl",  # python:slim has it through ca-certificates
    "python3",
    "python3-pip",
    "python3-venv",
    "wget",  # LND's image and Grafana's have it, for health checks
)
NOT_NEEDED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt")
FOR_PIP: Final = ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")
"""How this machine reaches its package index: its authorities, its settings for pip."""

IMPORT_S: Final = 300.0
"""A base system is 200 MB, a program at most 200 MB more: seconds each."""


@dataclass(frozen=True, slots=True)
class LocalImage:
    """One image: the base, programs at their paths, scripts, and lines of a Dockerfile."""

    name: str
    lines: tuple[str, ...]
    programs: dict[str, Callable[[], Command]] = field(default_factory=dict)
    """Below /usr: a copied /bin would take the place of Debian's link to /usr/bin."""
    scripts: dict[str, str] = field(default_factory=dict)


_MONGO_ENTRYPOINT: Final = """\
#!/bin/bash
set -eu
if [ "$(id -u)" = 0 ]; then
  chown -R mongodb /data/db /data/configdb
  exec gosu mongodb "$0" "$@"
fi
exec "$@"
"""

_BITCOIN_ENTRYPOINT: Final = """\
#!/bin/bash
set -eu
chown -R bitcoin:bitcoin /home/bitcoin
chmod 700 "$BITCOIN_DATA"
exec gosu bitcoin "$@" -datadir="$BITCOIN_DATA"
"""


def bitcoin_cli() -> Command:
    """Beside the bitcoind that was found."""
    *loader, program = binaries.bitcoind()
    return (*loader, str(Path(program).with_name("bitcoin-cli")))


IMAGES: Final = (
    LocalImage(
        "python:3.11-slim",
        (
            "RUN rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED",
            "RUN for name in python python3 python3.11; do ln -s /usr/bin/python3.11 /usr/local/bin/$name; done",
            'CMD ["python3"]',
        ),
    ),
    LocalImage(
        "mongo:6.0.5",
        (
            "RUN groupadd --gid 999 mongodb && useradd --uid 999 --gid mongodb --home-dir /data/db mongodb",
            "RUN mkdir -p /data/db /data/configdb && chown -R mongodb:mongodb /data",
            "VOLUME /data/db /data/configdb",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            "EXPOSE 27017",
            'CMD ["mongod"]',
        ),
        programs={"/usr/bin/mongod": binaries.mongod},
        scripts={"/usr/local/bin/docker-entrypoint.sh": _MONGO_ENTRYPOINT},
    ),
    LocalImage(
        "bitcoin/bitcoin:29.3",
        (
            "RUN groupadd --gid 101 bitcoin && useradd --create-home --uid 101 --gid bitcoin bitcoin",
            "RUN mkdir /home/bitcoin/.bitcoin && chown bitcoin:bitcoin /home/bitcoin/.bitcoin",
            "ENV BITCOIN_DATA=/home/bitcoin/.bitcoin",
            "VOLUME /home/bitcoin/.bitcoin",
            'ENTRYPOINT ["/entrypoint.sh"]',
            'CMD ["bitcoind"]',
        ),
        programs={"/usr/local/bin/bitcoind": binaries.bitcoind, "/usr/local/bin/bitcoin-cli": bitcoin_cli},
        scripts={"/entrypoint.sh": _BITCOIN_ENTRYPOINT},
    ),
    LocalImage(
        "lightninglabs/lnd:v0.21.3-beta",
        ("VOLUME /root/.lnd", "EXPOSE 9735 10009", 'ENTRYPOINT ["lnd"]'),
        programs={"/usr/bin/lnd": binaries.lnd},
    ),
    LocalImage(
        "prom/prometheus:v3.5.0",
        (
            "RUN mkdir -p /prometheus /etc/prometheus && chown nobody:nogroup /prometheus /etc/prometheus",
            "USER nobody",
            "EXPOSE 9090",
            "VOLUME /prometheus",
            "WORKDIR /prometheus",
            'ENTRYPOINT ["/bin/prometheus"]',
            'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
        ),
        programs={"/usr/bin/prometheus": binaries.prometheus, "/usr/bin/promtool": binaries.promtool},
    ),
)


def make_missing(docker: Docker, wanted: Collection[str]) -> list[str]:
    """Make those of the images that can be made and the engine has not; returns what was made.

    DockerError or CannotMake if one cannot be made: it needs root and a Debian machine.
    """
    made: list[str] = []
    for image in IMAGES:
        if image.name in wanted and not has_image(docker, image.name):
            if not has_image(docker, BASE):
                docker.run("import", str(_base() / "base.tar"), BASE, timeout_s=IMPORT_S)
            _build(docker, image)
            made.append(image.name)
    return made


def has_image(docker: Docker, name: str) -> bool:
    """Whether the engine has it; nothing is pulled."""
    return bool(docker.run("images", "--quiet", name).strip())


def _build(docker: Docker, image: LocalImage) -> None:
    """With the old builder, which needs nothing that is not in the engine; without a network."""
    with tempfile.TemporaryDirectory(prefix="tellerd-image-") as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        for path, find in image.programs.items():
            _place_program(root, path, find())
        for path, text in image.scripts.items():
            _place_script(root / path.lstrip("/"), text)
        (Path(scratch) / "Dockerfile").write_text("\n".join((f"FROM {BASE}", "COPY root /", *image.lines)) + "\n")
        old = Docker((*("env", "DOCKER_BUILDKIT=0"), *docker.cli), docker.compose, docker.host)
        old.run("build", "--network=none", "--tag", image.name, scratch, timeout_s=IMPORT_S)


def _place_program(root: Path, path: str, command: Command) -> None:
    """A program that stands alone is copied; one that runs through a loader of its own comes with it and its
    libraries, behind a script at its path."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if len(command) == 1:
        shutil.copy2(command[0], target)
        return
    loader, _, libraries, program = command
    own = Path("/opt") / target.name
    shutil.copytree(libraries, root / own.relative_to("/") / "lib")
    shutil.copy2(program, root / own.relative_to("/") / "program")
    run_it = f'exec {own}/lib/{Path(loader).name} --library-path {own}/lib {own}/program "$@"'
    _place_script(target, f"#!/bin/sh\n{run_it}\n")


def _place_script(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o755)


def _base() -> Path:
    """The cache entry with base.tar: Debian's smallest system and PACKAGES."""

    def check(folder: Path) -> None:
        if not (folder / "base.tar").is_file():
            raise CannotMake("no base.tar")

    return entry(f"debian-{RELEASE}-base-1", _make_base, check)


def _make_base(folder: Path) -> None:
    mirror = debian.debian_mirror()
    tools, root = folder / "tools", folder / "root"
    tools.mkdir()
    debian.unpack("debootstrap", tools, shared=("debootstrap",))
    run(
        (
            str(tools / "usr" / "sbin" / "debootstrap"),
            "--variant=minbase",
            f"--keyring={mirror.keyring}",
            f"--include={','.join(PACKAGES)}",
            RELEASE,
            str(root),
            mirror.uri,
        ),
        f"installing Debian {RELEASE} into a folder",
        environment={"DEBOOTSTRAP_DIR": str(tools / "usr" / "share" / "debootstrap")},
    )
    for unneeded in NOT_NEEDED:
        shutil.rmtree(root / unneeded, ignore_errors=True)
    for lists in (root / "var" / "lib" / "apt" / "lists").iterdir():
        if stat.S_ISREG(lists.lstat().st_mode):
            lists.unlink()
    for settings in FOR_PIP:
        if (Path("/") / settings).is_file():
            shutil.copy(Path("/") / settings, root / settings)
    subprocess.run(("tar", "-C", str(root), "-cf", str(folder / "base.tar"), "."), check=True, timeout=IMPORT_S)
    shutil.rmtree(root)
    shutil.rmtree(tools)


def main() -> int:
    """Makes what the engine has not; 1 with the reason on stderr."""
    try:
        cli = docker_on_path()
        if cli is None:
            raise DockerError("no `docker` on PATH")
        docker = Docker(cli, compose(cli))
        if docker.answers() is None:
            raise DockerError("no Docker engine answers; python -m regtest.docker_engine starts one")
        for name in make_missing(docker, [image.name for image in IMAGES]):
            print(f"made {name}")
    except (DockerError, CannotMake, binaries.ProgramUnavailable) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
