"""The stack of docker-compose.regtest.yml, run once for all tests here, on an engine that answers or one of our own.

Without an engine these tests are not collected, and the run says so in its last lines: `make test` needs no engine, but
nobody shall believe that these tests have run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from regtest.docker_cli import Docker, compose_at_hand, docker_on_path
from regtest.docker_engine import own_engine
from tests.compose.stack import ComposeStack

_TOLD = pytest.StashKey[list[str]]()
_ENGINE = pytest.StashKey[Docker | str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make compose-test ARGS=--own-engine`."""
    what = "start a Docker engine for this run (Debian's, unpacked into the cache; needs root)"
    parser.addoption("--own-engine", action="store_true", help=what)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing here is collected where it cannot run."""
    return True if isinstance(_engine(config), str) else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where tests run in several processes, each tells the first one its part."""
    workeroutput: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["compose"] = session.config.stash.get(_TOLD, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The first process hears it (pytest-xdist)."""
    node.config.stash.setdefault(_TOLD, []).extend(getattr(node, "workeroutput", {}).get("compose", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Figures, and what has not run."""
    engine = _engine(config)
    if isinstance(engine, str):
        hint = "`make compose-test ARGS=--own-engine` starts one as root on Debian"
        terminalreporter.write_line(f"docker-compose.regtest.yml was NOT run: {engine}; {hint}", yellow=True)
    for line in config.stash.get(_TOLD, []):
        terminalreporter.write_line(f"docker-compose.regtest.yml: {line}")


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash.setdefault(_TOLD, [])


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tell: list[str]) -> Iterator[Any]:
    """The stack, up and healthy; taken down with its volumes at the end, whatever happens."""
    own = request.config.getoption("--own-engine")
    engine = _engine(request.config)
    assert isinstance(engine, Docker)
    with own_engine() if own else nullcontext(engine) as docker:
        running = ComposeStack(docker, tmp_path_factory.mktemp("compose"), build_in_host_network=own)
        try:
            running.get_images()
            running.up()
            tell += running.figures()
            yield running
        finally:
            running.remove()


def _engine(config: pytest.Config) -> Docker | str:
    """The engine that answers, or why there is none; with --own-engine what stands here is not used."""
    if _ENGINE not in config.stash:
        config.stash[_ENGINE] = _find_engine(own=config.getoption("--own-engine"))
    return config.stash[_ENGINE]


def _find_engine(*, own: bool) -> Docker | str:
    cli = docker_on_path()
    if own:
        return Docker((), ())
    if cli is None:
        return "no `docker` on PATH"
    docker = Docker(cli, compose_at_hand(cli) or ())
    if docker.answers() is None:
        return "no Docker engine answers"
    return docker if docker.compose else "no Docker Compose (`python -m regtest.docker_cli` builds it)"
