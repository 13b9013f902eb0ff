"""Log lines: their format, and a level that changes while the process runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

import daemon.logs
from daemon.config import Config, ConfigError, load_config
from daemon.rereading import reread, reread_on_hangup

SMALLEST = """
network = "regtest"

[mongo]
url = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
database = "tellerd"

[[lnd]]
name = "lnd1"
address = "127.0.0.1:10009"
tls_cert_file = "tls.cert"
macaroon_file = "tellerd.macaroon"
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """structlog is the process's: other tests find it as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    daemon.logs.set_level("info")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for name in ("tls.cert", "tellerd.macaroon"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tellerd.toml").write_text(SMALLEST)
    return tmp_path / "tellerd.toml"


def loading(file: Path) -> Callable[[], Config]:
    return lambda: load_config(file, {})


def set_up(*, is_terminal: bool = False, **options: Any) -> None:
    """As the process does it; but no logger may keep this test's stderr."""
    daemon.logs.set_up(is_terminal=is_terminal, **options)
    structlog.configure(cache_logger_on_first_use=False)


def logger() -> structlog.stdlib.BoundLogger:
    made: structlog.stdlib.BoundLogger = structlog.get_logger()
    return made


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was written to stderr; stdout is for answers."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


@pytest.mark.parametrize(
    ("line_format", "is_terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("json", True, True), ("text", False, False)],
)
def test_lines_are_text_for_people_and_json_for_machines(
    line_format: daemon.logs.Format, is_terminal: bool, is_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless the configuration says which."""
    set_up(is_terminal=is_terminal, line_format=line_format)
    logger().info("process.begun", answer=42)
    written = capsys.readouterr().err
    assert written.startswith("{") == is_json
    if is_json:
        line = json.loads(written)
        assert (line["event"], line["level"], line["answer"]) == ("process.begun", "info", 42)
        assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_dropped_from_that_moment(capsys: pytest.CaptureFixture[str]) -> None:
    """Also by a logger that was in use before: it keeps nothing of the old level."""
    set_up(level="warning")
    log = logger()
    log.info("one")
    log.warning("two")
    daemon.logs.set_level("error")
    log.warning("three")
    log.error("four")
    log.critical("five")
    daemon.logs.set_level("debug")
    log.debug("six")
    assert [line["event"] for line in lines(capsys)] == ["two", "four", "five", "six"]


def test_a_changed_file_changes_the_level_and_says_what_waits_for_a_restart(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the level counts at once."""
    set_up()
    started = loading(file)()
    file.write_text(SMALLEST + '\n[log]\nlevel = "debug"\n')
    reread(started, loading(file))
    logger().debug("heard")
    file.write_text(SMALLEST + '\n[log]\nlevel = "debug"\nmoney = false\n[http]\nlisten = "127.0.0.1:1"\n')
    reread(started, loading(file))
    told = lines(capsys)
    assert [line["event"] for line in told] == ["config.reread", "heard", "config.reread"]
    assert [line.get("needs_restart") for line in told] == [[], None, ["http", "log"]]


@pytest.mark.parametrize("levels", [("info", "warning"), ("warning", "info")])
def test_a_change_of_the_level_is_told_under_either(
    levels: tuple[daemon.logs.Level, str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has sent the signal sees that it was heard, and then the new level counts."""
    set_up(level=levels[0])
    started = loading(file)()
    file.write_text(SMALLEST + f'\n[log]\nlevel = "{levels[1]}"\n')
    reread(started, loading(file))
    logger().info("after")
    assert [line["event"] for line in lines(capsys)] == ["config.reread", "after"][: 1 + (levels[1] == "info")]


@pytest.mark.parametrize("broken", ["\nnetwork = ", '\n[log]\nlevel = "loud"\n', None])
def test_a_wrong_file_changes_nothing_and_is_named(
    file: Path, broken: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not TOML, not a level, or gone."""
    set_up(level="warning")
    started = loading(file)()
    if broken is None:
        file.unlink()
    else:
        file.write_text(SMALLEST + broken)
    reread(started, loading(file))
    logger().info("not heard")
    (told,) = lines(capsys)
    assert told["event"] == "config.not_reread"
    assert str(file) in str(told["reason"])


async def test_sighup_reads_the_file_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each time, and the process lives on."""
    set_up()
    read_again = [trio.Event(), trio.Event()]
    told = iter(read_again)

    def load() -> Config:
        trio.from_thread.run_sync(next(told).set)
        raise ConfigError("read")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reread_on_hangup, loading(file)(), load)
        await wait_all_tasks_blocked()
        for event in read_again:
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(10):
                await event.wait()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines(capsys)] == ["config.not_reread"] * 2
