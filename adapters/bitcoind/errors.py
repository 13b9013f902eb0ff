"""What a failed exchange means: the node is away, starting or overloaded (Unavailable), or it said no (NodeRefused).

Whatever is not an answer of JSON-RPC is an outage that is waited out and shown: bitcoind that starts, stops or has
too much to do answers with HTTP errors and plain text or HTML (node-interfaces.md B.7).
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from daemon.domain.errors import NodeRefused, TellerdError, Unavailable

MAX_TEXT: Final = 300
"""Characters of a node's own text in an error: the rest helps nobody."""

_REMEDIES: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "refuses the credentials: check rpc_cookie_file, or rpc_user and rpc_password_file",
    HTTPStatus.FORBIDDEN: "forbids this call: look at its rpcwhitelist and rpcallowip",
    HTTPStatus.SERVICE_UNAVAILABLE: "takes no calls now: it starts, stops, or has more to do than rpcworkqueue holds",
}


class HttpFailure(TellerdError):
    """An answer that is none: an HTTP status and what was said with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status} {text[:MAX_TEXT]}".rstrip())
        self.status = status


class RpcRefused(NodeRefused):
    """bitcoind's answer to one call is an error; `code` is its own (RPC_…), `text` what it says."""

    def __init__(self, *, node: str, method: str, code: int | None, text: str) -> None:
        super().__init__(f"{node} refused {method}: {text[:MAX_TEXT]} ({code})")
        self.code = code
        self.text = text


@contextmanager
def outages(node: str, call: str) -> Iterator[None]:
    """Raises Unavailable, with cause and remedy, for what goes wrong below an answer."""
    try:
        yield
    except ConnectionRefusedError as error:
        raise Unavailable(f"{node} does not listen: start it, or check rpc_url ({call})") from error
    except TimeoutError as error:
        raise Unavailable(f"{node} did not answer in time ({call})") from error
    except HttpFailure as error:
        said = _REMEDIES.get(error.status, "cannot be asked")
        raise Unavailable(f"{node} {said} ({call}: {error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{node} cannot be asked: {str(error)[:MAX_TEXT] or repr(error)} ({call})") from error
