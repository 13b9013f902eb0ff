"""Service `logins`: passwords for bitcoind's users and the certificate of tellerd's API, before anything starts.

Made once: what is there stays, so that a second `up` fits what the other volumes hold.
"""

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from regtest.bitcoind import rpcauth
from regtest.containers.folders import (
    API_CERT,
    API_KEY,
    BITCOIND_LOGIN,
    DEVELOPER,
    LOGINS,
    SECRETS,
    TELLERD_UID,
    write_whole,
)

FLAGS: Final = LOGINS / "bitcoind.flags"
MADE_S: Final = 30.0
"""openssl makes a key on a curve in milliseconds."""

DAYS: Final = "3650"


def main() -> int:
    """0 when all is there."""
    if not FLAGS.exists():  # the last that is written
        _passwords()
    if not (SECRETS / API_CERT).exists():
        _certificate()
    print("logins: bitcoind's users and the API's certificate are there")
    return 0


def _passwords() -> None:
    passwords = {user: secrets.token_hex(32) for user in ("lnd", "tellerd", "developer")}
    write_whole(LOGINS / "lnd.password", passwords["lnd"].encode())
    write_whole(SECRETS / "bitcoind.password", passwords["tellerd"].encode(), owner=TELLERD_UID)
    write_whole(DEVELOPER / BITCOIND_LOGIN, f"developer:{passwords['developer']}\n".encode())
    flags = " ".join(f"-rpcauth={rpcauth(user, password)}" for user, password in passwords.items())
    write_whole(FLAGS, flags.encode())


def _certificate() -> None:
    """Its own authority, good for the name inside the network and for the host's loopback."""
    names = "subjectAltName=DNS:tellerd,DNS:localhost,IP:127.0.0.1"
    subject = ("-subj", "/CN=tellerd regtest", "-addext", names)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        command = ("openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(certificate))
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=MADE_S)
        write_whole(SECRETS / API_KEY, key.read_bytes(), owner=TELLERD_UID)
        write_whole(DEVELOPER / API_CERT, certificate.read_bytes())
        write_whole(SECRETS / API_CERT, certificate.read_bytes(), owner=TELLERD_UID)


if __name__ == "__main__":
    sys.exit(main())
