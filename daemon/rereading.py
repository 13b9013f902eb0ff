"""SIGHUP: the configuration is read again, and the log level in it counts from then on.

Nothing else changes in a running daemon. Certificates need no signal: the API's are read again with each new
connection, a Lightning node's certificate and macaroon with each new try to reach it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import structlog
import trio

import daemon.logs
from daemon.config import Config, ConfigError

log = structlog.get_logger()


async def reread_on_hangup(config: Config, load: Callable[[], Config]) -> None:
    """Until cancelled; `config` is what the process was started with, `load` raises ConfigError."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            await trio.to_thread.run_sync(reread, config, load)


def reread(config: Config, load: Callable[[], Config]) -> None:
    """Takes the level of what `load` gives; a configuration that cannot be used changes nothing."""
    try:
        new = load()
    except ConfigError as problem:
        log.error("config.not_reread", reason=str(problem))
        return
    daemon.logs.lower_to(new.log.level)  # so that the change is told under the old level or under the new one
    log.info("config.reread", level=new.log.level, needs_restart=_needs_restart(config, new))
    daemon.logs.set_level(new.log.level)


def _needs_restart(old: Config, new: Config) -> list[str]:
    """The sections in which something else has changed: a restart takes it."""
    same_level = new.model_copy(update={"log": new.log.model_copy(update={"level": old.log.level})})
    return [name for name in Config.model_fields if getattr(same_level, name) != getattr(old, name)]
