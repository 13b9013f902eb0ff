"""`tellerd`: run, init, check, verify, keys. What is wrong is one clear line; exit 2 for a wrong configuration."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import structlog
import trio

import daemon.logs  # before anything that imports grpc, see there
from adapters.mongo import MongoStore
from adapters.mongo.audit import audit_of
from daemon import __version__, app, check, keys_command
from daemon.config import Config, ConfigError, load_config
from daemon.domain.errors import BadInput, InvariantViolation, Misconfigured, NotFound, Unavailable
from daemon.posting.verify import verify

EXIT_BROKEN = 1
"""Something is not as it must be: books that do not verify, a check that failed, a broken invariant."""
EXIT_USAGE = 2
"""The configuration or the command line cannot be used."""
EXIT_UNAVAILABLE = 3
"""The database cannot be reached now; the same command may work later."""
EXIT_INTERRUPTED = 130
"""Ctrl-C while the daemon waits for its database: there is nothing to drain yet."""

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point; ends the process with the command's exit code."""
    arguments = _parser().parse_args(argv)
    load = partial(load_config, arguments.config, os.environ)
    try:
        config = load()
        daemon.logs.set_up(is_terminal=sys.stderr.isatty(), line_format=config.log.format, level=config.log.level)
        if arguments.command == "run":
            sys.exit(_run(config, load))
        sys.exit(_act(arguments, config))
    except (ConfigError, BadInput) as problem:
        _complain(str(problem))
        sys.exit(EXIT_USAGE)
    except (InvariantViolation, Misconfigured, NotFound) as broken:
        _complain(str(broken))
        sys.exit(EXIT_BROKEN)
    except Unavailable as outage:
        _complain(str(outage))
        sys.exit(EXIT_UNAVAILABLE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tellerd", description="The teller of a Bitcoin bank.")
    parser.add_argument("--version", action="version", version=f"tellerd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("run", "credit payments until SIGTERM"),
        ("init", "make collections, indexes and system accounts where they are missing"),
        ("check", "try every connection, and say what is wrong and how to mend it"),
        ("verify", "recompute the books and name the first break"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML, see the README")
    keys_command.add_to(commands)
    return parser


def _act(arguments: argparse.Namespace, config: Config) -> int:
    if arguments.command == keys_command.NAME:
        with _store(config) as store:
            for line in keys_command.act(arguments, store):
                print(line)
        return 0
    return _COMMANDS[arguments.command](config)


def _run(config: Config, load: Callable[[], Config]) -> int:
    # A script's shell starts background jobs with SIGINT ignored; here it ends every phase, the start included.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _spare_garbage_collection()
    try:
        trio.run(app.run, config, load)
    except BaseExceptionGroup as group:
        return _ended_by(group)
    except (InvariantViolation, Misconfigured) as broken:
        return _ended_by(BaseExceptionGroup("before the tasks began", [broken]))
    return 0


def _spare_garbage_collection() -> None:
    """What the imports have made lives as long as the process: the collector looks at it no more.

    A full collection stopped every thread for some 60 ms, and a payment with it (measured).
    """
    gc.collect()
    gc.freeze()


def _ended_by(group: BaseExceptionGroup[BaseException]) -> int:
    """A broken invariant, a node that is not the configured one, Ctrl-C, or a bug; the exit code is never 0."""
    rest = group.split(KeyboardInterrupt)[1]
    if rest is None:
        return EXIT_INTERRUPTED
    told, bugs = rest.split((InvariantViolation, Misconfigured))
    if bugs is not None:
        log.critical("process.crashed", exc_info=bugs)
    for reason in _leaves(told) if told is not None else ():
        log.critical("process.stopped", reason=str(reason))
    return EXIT_BROKEN


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one


def _init(config: Config) -> int:
    with _store(config) as store:
        made = store.init()
    for thing in made:
        print(f"made {thing}")
    print(f"database {config.mongo.database} is ready")
    return 0


def _check(config: Config) -> int:
    problems = 0
    for finding in check.findings(config):
        print(finding.line)
        problems += not finding.good
    print("all well" if not problems else f"{problems} to mend")
    return EXIT_BROKEN if problems else 0


def _verify(config: Config) -> int:
    with _store(config) as store, audit_of(store.db) as audit:
        report = verify(audit)
    print(
        f"{report.journals} journals ({report.foreign} of other programs), {report.events} events, "
        f"{report.accounts} accounts, chain ends in {report.chain_hash}"
    )
    for problem in report.breaks:
        print(f"BROKEN: {problem}")
    if not report.breaks:
        print("the books are whole")
    return EXIT_BROKEN if report.breaks else 0


def _store(config: Config) -> MongoStore:
    return MongoStore.connect(config.mongo.url.get_secret_value(), config.mongo.database)


def _complain(problem: str) -> None:
    print(f"tellerd: {problem}", file=sys.stderr)


_COMMANDS = {"init": _init, "check": _check, "verify": _verify}

if __name__ == "__main__":
    main()
