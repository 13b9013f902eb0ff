"""Where the containers' files are: three volumes, so that each service sees no more secrets than it needs."""

import os
from pathlib import Path
from typing import Final

LOGINS: Final = Path("/logins")
"""For bitcoind and who asks it: the flags with its users' salted hashes, and LND's password."""

SECRETS: Final = Path("/secrets")
"""For tellerd alone, as ops/compose/tellerd.toml names it."""

DEVELOPER: Final = Path("/developer")
"""For people outside: admin key, certificates, the nodes' macaroons, a login for bitcoind."""

TELLERD_CONFIG: Final = Path("/etc/tellerd/tellerd.toml")
TELLERD_UID: Final = 10001
"""As in ops/Dockerfile."""

LND_CERT: Final = "lnd.cert"
LND_MACAROON: Final = "lnd.macaroon"
PAYER_CERT: Final = "payer.cert"
PAYER_MACAROON: Final = "payer.macaroon"
API_CERT: Final = "api.cert"
API_KEY: Final = "api.key"
ADMIN_KEY: Final = "admin.key"
BITCOIND_LOGIN: Final = "bitcoind.login"
"""user:password, as bitcoind's own cookie."""


def write_whole(file: Path, content: bytes, *, owner: int | None = None) -> None:
    """Write a file that only its owner can read (root, or `owner`); it appears whole or not at all."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_bytes(content)
    if owner is not None:
        os.chown(new, owner, owner)
    new.replace(file)
