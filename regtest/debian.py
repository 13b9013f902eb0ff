"""A program of Debian unstable with its libraries, unpacked into a folder and not installed.

The machine's package database is neither read nor written: apt runs with a state, a cache and a source list of its
own. The mirror is the one that the machine itself uses for Debian, and every package is checked with the Debian
archive's keyring through apt's signed list.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regtest.cache import CannotMake, run

SOURCES: Final = Path("/etc/apt")
SUITE: Final = "unstable"
QUERY_S: Final = 300.0
"""apt-cache and dpkg -x work on local files: seconds, a minute on a slow disk."""

TRIES: Final = 3
AGAIN_S: Final = 10.0
"""Between tries: a mirror answers again, or has the packages of the list that it has just renewed."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where the machine gets Debian from, and the keyring that signs it."""

    uri: str
    keyring: str


def unpack(
    package: str,
    folder: Path,
    *,
    also: tuple[str, ...] = (),
    suite: str = SUITE,
    shared: tuple[str, ...] = ("fonts",),
) -> None:
    """Unpack `package` and every library it needs into `folder`; CannotMake if the machine has no Debian mirror.

    `also` are packages that it needs, too, and that are no libraries: data, fonts. Of usr/share only the folders named
    in `shared` stay; the rest is manuals and the like.
    """
    for tool in ("apt-get", "apt-cache", "apt-config", "dpkg"):
        if shutil.which(tool) is None:
            raise CannotMake(f"`{tool}` is not on PATH: not a Debian machine")
    private = folder / ".apt"
    apt = _private_apt(private, debian_mirror(), suite)
    what = f"fetching {package} from Debian {suite}"
    for left in reversed(range(TRIES)):
        try:
            run(("apt-get", "update", "--error-on=any"), what, environment=apt)
            packages = _with_libraries((package, *also), apt)
            run(("apt-get", "download", *packages), what, folder=private, environment=apt)
            break
        except CannotMake:
            if not left:
                raise
            time.sleep(AGAIN_S)
    for archive in sorted(private.glob("*.deb")):
        run(("dpkg", "-x", str(archive), str(folder)), f"unpacking {archive.name}", timeout_s=QUERY_S)
    shutil.rmtree(private)
    for unpacked in (folder / "usr" / "share").glob("*"):
        if unpacked.name not in shared:
            shutil.rmtree(unpacked)


def with_own_loader(folder: Path, program: str) -> tuple[str, ...]:
    """The command that runs `program` (a path in `folder`) with the libraries of `folder`, not the machine's."""
    loaders = sorted(folder.glob("usr/lib/*/ld-linux-*.so.*"))
    if not loaders:
        raise CannotMake(f"{folder} holds no loader")
    return (str(loaders[0]), "--library-path", str(loaders[0].parent), str(folder / program))


def debian_mirror() -> Mirror:
    """The machine's own source of Debian: the first entry with `main`, not the security archive, that names the
    Debian archive's keyring. Another vendor's entry is never taken. CannotMake if there is none."""
    for uri, suites, components, keyring in _entries():
        ours = Path(keyring).name.startswith("debian-archive-") and Path(keyring).is_file()
        security = any(suite.rstrip("/").endswith("-security") for suite in suites)
        if ours and not security and "main" in components:
            return Mirror(uri, keyring)
    raise CannotMake(f"no entry under {SOURCES} is signed by the Debian archive's keyring")


def _entries() -> Iterator[tuple[str, list[str], list[str], str]]:
    """(URI, suites, components, keyring) of every binary entry of the machine, in both of apt's formats."""
    parts = SOURCES / "sources.list.d"
    for file in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text(errors="replace")):
            fields = _fields(stanza)
            enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
            if enabled and "deb" in fields.get("types", "").split():
                for uri in fields.get("uris", "").split():
                    suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
                    yield uri, suites, components, fields.get("signed-by", "")
    for file in (SOURCES / "sources.list", *sorted(parts.glob("*.list"))):
        for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
            if entry := re.match(
                r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)", line
            ):
                options = dict(o.split("=", 1) for o in (entry["options"] or "").split() if "=" in o)
                components = entry["rest"].split("#")[0].split()
                yield entry["uri"], [entry["suite"]], components, options.get("signed-by", "")


def _fields(stanza: str) -> dict[str, str]:
    """The fields of one deb822 stanza, names in lower case, comments left out, continuation lines joined."""
    lines = [line for line in stanza.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    pairs = (line.split(":", 1) for line in joined.splitlines() if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _private_apt(private: Path, mirror: Mirror, suite: str) -> dict[str, str]:
    """An apt of our own under `private`; returns the environment that makes apt use it.

    Of the machine's configuration only how it reaches the network is kept (Acquire: a proxy, say); its hooks would
    act on the machine.
    """
    for needed in ("state/lists/partial", "cache/archives/partial"):
        (private / needed).mkdir(parents=True)
    (private / "status").touch()
    (private / "sources.list").write_text(f"deb [signed-by={mirror.keyring}] {mirror.uri} {suite} main\n")
    dump = _output(("apt-config", "dump"), {}).splitlines()
    network = [line for line in dump if line.startswith("Acquire::") and "::IndexTargets" not in line]
    settings = {
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::SourceList": private / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": private / "state",
        "Dir::State::status": private / "status",
        "Dir::Cache": private / "cache",
        "APT::Sandbox::User": "root",  # as root, apt would become _apt, which may not enter the cache folder
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
    }
    configuration = private / "apt.conf"
    configuration.touch(mode=0o600)  # a proxy's address may hold a password
    configuration.write_text("\n".join([*network, *(f'{name} "{value}";' for name, value in settings.items())]) + "\n")
    return {"APT_CONFIG": str(configuration), "LC_ALL": "C"}


def _with_libraries(packages: tuple[str, ...], apt: dict[str, str]) -> list[str]:
    """`packages` and the libraries they need, by the packages' own Depends; what is not a library (systemd, debconf)
    serves the installation only."""
    found: list[str] = []
    wanted = list(packages)
    while wanted:
        found += wanted
        shown = _output(("apt-cache", "show", "--no-all-versions", *wanted), apt)
        depends = [line.split(":", 1)[1] for line in shown.splitlines() if re.match(r"(Pre-)?Depends:", line)]
        names = {re.split(r"[\s(:|]", one.strip(), maxsplit=1)[0] for line in depends for one in line.split(",")}
        # libjs-…: scripts for browsers, which live under usr/share.
        libraries = (name for name in names if name.startswith("lib") and not name.startswith("libjs-"))
        wanted = sorted(name for name in libraries if name not in found)
    return found


def _output(command: tuple[str, ...], environment: dict[str, str]) -> str:
    """A quick command's output; CannotMake with its complaint if it fails."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=QUERY_S, check=False
    )
    if done.returncode != 0:
        raise CannotMake(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
