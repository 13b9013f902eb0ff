"""Blocks as bytes by REST, which an operator may have turned on (`rest=1`): 1 ms a block against 15 by getblock.

REST has no credentials; what comes is checked by the block's hash. Where the node does not offer it, or has not this
block, JSON-RPC is asked instead, whose errors say why.
"""

from __future__ import annotations

import http.client
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult

import structlog

from adapters.bitcoind.connections import Connections, check_length, text_of
from adapters.bitcoind.errors import HttpFailure, outages
from daemon.domain.blocks import MAX_BYTES
from daemon.domain.identifiers import BlockHash

MAX_CONNECTIONS: Final = 2
"""One block at a time is followed, and one may be fetched ahead."""

_log = structlog.get_logger()


class RestBlocks:
    """Thread-safe. `timeout_s` bounds each wait for the node."""

    def __init__(self, *, node: str, url: SplitResult, timeout_s: float) -> None:
        self._node = node
        host, port = url.hostname or "", url.port
        self._connections = Connections(
            lambda: http.client.HTTPConnection(host, port, timeout=timeout_s), size=MAX_CONNECTIONS, wait_s=timeout_s
        )
        self._absent_after: int | None = None

    def fetch(self, block_hash: BlockHash, *, outages_seen: int) -> bytes | None:
        """The block as the node gives it, unchecked; None if it has no REST or not this block. Raises Unavailable.

        A node without REST is asked again when `outages_seen` is another number: it may have been restarted with.
        """
        if self._absent_after == outages_seen:
            return None
        with outages(self._node, "REST block"):
            status, block, said = self._connections.exchange(lambda connection: _get(connection, block_hash))
        if block is not None or (status == HTTPStatus.NOT_FOUND and block_hash in said):
            return block
        # Without REST bitcoind answers 404 and no text, as for any path it does not know.
        if self._absent_after is None:
            _log.info("rest_not_offered", node=self._node, http_status=status, remedy="set rest=1 in bitcoin.conf")
        self._absent_after = outages_seen
        return None

    def close(self) -> None:
        """Closes what is idle; a later call connects again."""
        self._connections.close()


def _get(connection: http.client.HTTPConnection, block_hash: BlockHash) -> tuple[int, bytes | None, str]:
    """HTTP status, the block if there is one, else the text."""
    connection.request("GET", f"/rest/block/{block_hash}.bin")
    response = connection.getresponse()
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise HttpFailure(response.status, text_of(response))
    if response.status == HTTPStatus.OK:
        check_length(response, max_bytes=MAX_BYTES)
        return response.status, response.read(), ""
    said = text_of(response)
    connection.close()  # there may be more of the text; the next request connects again
    return response.status, None, said
