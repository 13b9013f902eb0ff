"""What the tests beside Blink's own processes share: tellerd's settings for Blink's Redis, how long Blink locks."""

from __future__ import annotations

import re
from typing import Final

from regtest.redis_server import RedisServer
from tests.e2e.bank import Bank

LOCKED_MS: Final = 3_600_000


def beside_blink(redis: RedisServer) -> str:
    """The section of the configuration with which a bank uses this Redis."""
    return f'[redis]\nurl = "{redis.url}"\n'


def metric(bank: Bank, name: str) -> float:
    """Now; -1 if it is not there."""
    found = re.search(rf"^{name} (\S+)$", bank.tellerd.get("/metrics").text, re.MULTILINE)
    return -1.0 if found is None else float(found[1])
