"""Service `miner`: a block every ten minutes. An LND whose newest block is two hours old calls itself out of sync.

`--check` is its health check: 0 while the last block is not too old.
"""

import signal
import sys
import time
from pathlib import Path
from typing import Final

from bitcoinrpc.authproxy import JSONRPCException

from regtest.containers.bitcoind_rpc import BitcoindRpc
from regtest.containers.folders import BITCOIND_LOGIN, DEVELOPER

MINE_EVERY_S: Final = 600.0
LATE_S: Final = 3 * MINE_EVERY_S
RETRY_S: Final = 10.0
"""bitcoind is restarted by its developer: it is back in seconds."""

MINED: Final = Path("/tmp/mined")
"""Its time is that of the last block."""


def main() -> int:
    """Until SIGTERM; with --check 0 or 1 at once."""
    if sys.argv[1:] == ["--check"]:
        return 0 if MINED.exists() and time.time() - MINED.stat().st_mtime < LATE_S else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as a container's first process it has no default
    bitcoind = BitcoindRpc("bitcoind:18443", DEVELOPER / BITCOIND_LOGIN)
    while True:
        try:
            bitcoind.load_wallet()
            bitcoind.mine(1)
        except (OSError, JSONRPCException) as problem:
            print(f"miner: {problem}", file=sys.stderr, flush=True)
            time.sleep(RETRY_S)
        else:
            MINED.touch()
            time.sleep(MINE_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
