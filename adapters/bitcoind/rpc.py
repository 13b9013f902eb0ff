"""Single JSON-RPC calls with python-bitcoinrpc, which is given connections of ours.

A proxy of that library is not thread-safe, and dead after its first transport error (node-interfaces.md C). So each
call makes a proxy of its own (some microseconds; the library itself makes one for each method looked up) around a
connection that is kept in a pool. The connection adds the credentials, so that the proxy's URL, which the library
keeps, holds none; and it stops at an answer that is not JSON, of which the library tells neither status nor text.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import SplitResult

from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException

from adapters.bitcoind.connections import Connections, check_length, text_of
from adapters.bitcoind.credentials import Credentials
from adapters.bitcoind.errors import HttpFailure, RpcRefused, outages
from daemon.domain.errors import Unavailable

MAX_CONNECTIONS: Final = 4
"""The follower asks one thing at a time; the API's checks of addresses and the status come beside it. bitcoind has
16 threads (4 before v29), which it shares with LND."""

_MAX_ANSWER_BYTES: Final = 200_000_000
"""The txids of a mempool of 300 MB (maxmempool) are 67 bytes for each of some million; a block in hex is 8 MB."""

_IN_WARMUP: Final = -28
_MISSING_RESULT: Final = -343
"""The library's own code for an answer without result."""

_NOT_JSON_RPC: Final = (ValueError, LookupError, AttributeError, TypeError)
"""How the library stumbles over JSON that is no answer of JSON-RPC."""


class _Connection(http.client.HTTPConnection):
    """Has the credentials that the proxy does not have; lets only JSON through to it."""

    authorization = ""

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, Any] | None = None,
        *,
        encode_chunked: bool = False,
    ) -> None:
        """As the base's, with our credentials in place of the proxy's."""
        super().request(
            method,
            url,
            body,
            {**(headers or {}), "Authorization": self.authorization},
            encode_chunked=encode_chunked,
        )

    def getresponse(self) -> http.client.HTTPResponse:
        """The answer, which is JSON and of a bounded length; else HttpFailure."""
        response = super().getresponse()
        if response.getheader("Content-Type") != "application/json":
            raise HttpFailure(response.status, text_of(response))
        check_length(response, max_bytes=_MAX_ANSWER_BYTES)
        return response


class Rpc:
    """bitcoind's JSON-RPC; thread-safe. `timeout_s` bounds each wait for the node: to connect, to send, for bytes."""

    def __init__(self, *, node: str, url: SplitResult, credentials: Credentials, timeout_s: float) -> None:
        self._node = node
        self._credentials = credentials
        self._timeout_s = timeout_s
        # The library wants a user and a password in the URL; the connection sends the real ones.
        self._proxy_url = f"http://user:none@{url.netloc}{url.path or '/'}"
        host, port = url.hostname or "", url.port
        self._connections = Connections(
            lambda: _Connection(host, port, timeout=timeout_s), size=MAX_CONNECTIONS, wait_s=timeout_s
        )

    @property
    def failures(self) -> int:
        """How many connections have failed so far: who answers after one may be another, restarted node."""
        return self._connections.failures

    def call(self, method: str, *params: object) -> Any:
        """One call that changes nothing at the node; numbers with a fraction (amounts in BTC) come as Decimal.

        Raises Unavailable, or RpcRefused with bitcoind's code.
        """
        with outages(self._node, method):
            answer = self._answer(method, params)
        if not isinstance(answer, JSONRPCException):
            return answer
        code, text = answer.code, str(answer.message)
        if code == _IN_WARMUP:
            raise Unavailable(f"{self._node} is starting: {text} ({method})")
        if code == _MISSING_RESULT:
            raise Unavailable(f"{self._node} gives an answer without a result ({method})")
        raise RpcRefused(node=self._node, method=method, code=code, text=text)

    def close(self) -> None:
        """Closes what is idle; a later call connects again."""
        self._connections.close()

    def _answer(self, method: str, params: tuple[object, ...]) -> Any:
        """The result or the JSONRPCException; the cookie is read again if the node refuses the one that is known."""
        authorization = self._credentials.authorization()
        try:
            return self._post(method, params, authorization)
        except HttpFailure as failure:
            if failure.status != HTTPStatus.UNAUTHORIZED:
                raise
            renewed = self._credentials.read_again()
            if renewed == authorization:
                raise
        return self._post(method, params, renewed)

    def _post(self, method: str, params: tuple[object, ...], authorization: str) -> Any:
        def use(connection: _Connection) -> Any:
            connection.authorization = authorization
            proxy = AuthServiceProxy(self._proxy_url, method, self._timeout_s, connection)
            try:
                return proxy(*params)
            except JSONRPCException as refusal:
                return refusal  # a whole answer, after which the connection is as good as before
            except _NOT_JSON_RPC as stumble:
                raise HttpFailure(HTTPStatus.OK, f"an answer that is not JSON-RPC ({stumble})") from stumble

        return self._connections.exchange(use)
