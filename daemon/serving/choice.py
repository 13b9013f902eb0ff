"""Which Lightning node an invoice is made on."""

from __future__ import annotations

from daemon.domain.errors import NodeRefused, NotFound, Unavailable
from daemon.domain.identifiers import NodePubkey
from daemon.domain.ports import LightningNode
from daemon.serving.api import Api


def choose_node(api: Api, wanted: str) -> tuple[LightningNode, NodePubkey]:
    """The node of this name or public key; without one the first that is connected, else the first.

    Raises NotFound, and Unavailable or NodeRefused when a node that is not followed does not answer, or
    stands in another network.
    """
    if wanted:
        node = named_node(api, wanted)
    else:
        connected = (node for node in api.nodes if _is_connected(api, node))
        node = next(connected, api.nodes[0])
    return node, _pubkey_of(api, node)


def node_of_pubkey(api: Api, pubkey: NodePubkey) -> LightningNode:
    """The configured node with this identity. Raises NodeRefused if there is none, Unavailable if a node that
    may be it does not answer."""
    for node in api.nodes:
        if _known_pubkey(api, node) == pubkey:
            return node
    away: Unavailable | None = None
    for node in api.nodes:
        try:
            if _known_pubkey(api, node) is None and _pubkey_of(api, node) == pubkey:
                return node
        except Unavailable as outage:
            away = away or outage  # another one may answer, and be it
    if away is not None:
        raise away
    raise NodeRefused(f"the node {pubkey} that the invoice belongs to is not in the configuration")


def named_node(api: Api, wanted: str) -> LightningNode:
    """The node of this name or public key; it is not asked. Raises NotFound."""
    for node in api.nodes:
        if node.name == wanted or _known_pubkey(api, node) == wanted.lower():
            return node
    names = ", ".join(node.name for node in api.nodes)
    raise NotFound(f"node: there is no node {wanted[:80]!r}; give a public key, or one of {names}")


def _pubkey_of(api: Api, node: LightningNode) -> NodePubkey:
    """Who the node is: as its follower knows while it is connected, else asked now."""
    pubkey = _known_pubkey(api, node)
    if pubkey is not None and _is_connected(api, node):
        return pubkey
    info = node.get_info()
    if info.network != api.network:
        raise NodeRefused(f"node {node.name} is in {info.network}, the configuration says {api.network}")
    return info.pubkey


def _known_pubkey(api: Api, node: LightningNode) -> NodePubkey | None:
    status = api.status_of(node.name)
    return None if status is None else status.pubkey


def _is_connected(api: Api, node: LightningNode) -> bool:
    status = api.status_of(node.name)
    return status is not None and status.connected
