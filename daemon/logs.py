"""Log lines: readable on a terminal, one JSON object a line everywhere else."""

from __future__ import annotations

import os
import sys

import structlog

# gRPC's core writes lines of its own past every logger, in another format, and what they say comes as the error of a
# call, too. It reads this variable when grpc is imported, so this module goes before that; set it to see the lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _terminal() -> structlog.typing.Processor:
    # Plain tracebacks: the ones with local variables would show preimages.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def set_up(*, is_terminal: bool) -> None:
    """Configures structlog for the process; lines go to stderr, so that stdout belongs to commands' answers."""
    last: structlog.typing.Processor
    last = _terminal() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if is_terminal else [structlog.processors.format_exc_info]),
            last,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
