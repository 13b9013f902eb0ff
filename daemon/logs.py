"""Log lines: readable on a terminal, one JSON object a line everywhere else.

The level can be changed while the process runs (SIGHUP, see `daemon.rereading`), so it is asked for each line.
"""

from __future__ import annotations

import os
import sys
from typing import Final, Literal, cast

import structlog

# gRPC's core writes lines of its own past every logger, in another format, and what they say comes as the error of a
# call, too. It reads this variable when grpc is imported, so this module goes before that; set it to see the lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

Level = Literal["debug", "info", "warning", "error", "critical"]
Format = Literal["auto", "json", "text"]

_RANKS: Final = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "exception": 40, "critical": 50}


class _Threshold:
    """Drops what is below the level; first of the processors, so that a dropped line costs next to nothing."""

    def __init__(self) -> None:
        self.level: Level = "info"

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, method: str, fields: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        if _RANKS.get(method, 50) < _RANKS[self.level]:
            raise structlog.DropEvent
        return fields


_threshold = _Threshold()


def _terminal() -> structlog.typing.Processor:
    # Plain tracebacks: the ones with local variables would show preimages.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def set_up(*, is_terminal: bool, line_format: Format = "auto", level: Level = "info") -> None:
    """Configures structlog for the process; lines go to stderr, so that stdout belongs to commands' answers."""
    as_text = line_format == "text" or (line_format == "auto" and is_terminal)
    set_level(level)
    last: structlog.typing.Processor
    last = _terminal() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            cast("structlog.typing.Processor", _threshold),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if as_text else [structlog.processors.format_exc_info]),
            last,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def set_level(level: Level) -> None:
    """From now on lines below this level are dropped."""
    _threshold.level = level


def lower_to(level: Level) -> None:
    """As `set_level`, unless lines of a lower level are written already."""
    _threshold.level = min(level, _threshold.level, key=lambda one: _RANKS[one])
