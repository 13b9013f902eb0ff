"""Name and password for bitcoind's JSON-RPC: from its cookie file, or a user and a password file.

The cookie is another one after every start of bitcoind, so the file is read again when the node refuses it. Neither
may ever be in a log, an error or a repr.
"""

from __future__ import annotations

import base64
import threading
from pathlib import Path

from daemon.domain.errors import Misconfigured, Unavailable


class Credentials:
    """Thread-safe. Raises Unavailable where the file cannot be read: bitcoind writes its cookie when it starts."""

    def __init__(
        self, *, node: str, cookie_file: Path | None, user: str | None = None, password_file: Path | None = None
    ) -> None:
        self._node = node
        self._user = user
        if cookie_file is not None and user is None and password_file is None:
            self._file, self._setting = cookie_file, "rpc_cookie_file"
        elif cookie_file is None and user is not None and password_file is not None:
            self._file, self._setting = password_file, "rpc_password_file"
        else:
            raise Misconfigured(f"{node}: set either rpc_cookie_file, or rpc_user and rpc_password_file")
        self._lock = threading.Lock()
        self._authorization: str | None = None

    def authorization(self) -> str:
        """The header's value, as it was read last."""
        with self._lock:
            known = self._authorization
        return known or self.read_again()

    def read_again(self) -> str:
        """The header's value, as the file has it now."""
        try:
            secret = self._file.read_text().strip()
        except (OSError, UnicodeDecodeError) as problem:
            why = problem.strerror if isinstance(problem, OSError) else "it is no text"
            # Not chained: a decoding error carries the file's bytes.
            raise Unavailable(f"{self._node}: {self._setting} {self._file} cannot be read ({why})") from None
        if not secret:
            raise Unavailable(f"{self._node}: {self._setting} {self._file} is empty")
        pair = secret if self._user is None else f"{self._user}:{secret}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        with self._lock:
            self._authorization = authorization
        return authorization
