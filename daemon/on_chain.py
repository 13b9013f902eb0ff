"""What [bitcoind] adds to the composition: the node, the addresses, and the follower of the chain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from adapters.addresses import address_source, script_of
from adapters.bitcoind.node import BitcoindNode
from adapters.mongo import MongoStore
from daemon.config import BitcoindConfig, Config
from daemon.domain.ports import AddressSource, Dealer, ForeignAddresses, Metrics
from daemon.domain.status import ChainStatus
from daemon.ingest.chain import ChainFollower, ChainLimits
from daemon.ingest.foreign_addresses import ForeignAddressFinder
from daemon.ingest.handover import Inbox
from daemon.posting.board import Board
from daemon.serving.api import OnChain


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What is built once. `foreign` is None where other programs' addresses do not count."""

    network: str
    node: BitcoindNode
    limits: ChainLimits
    status: ChainStatus
    api: OnChain
    foreign: ForeignAddresses | None


def build(config: Config, store: MongoStore, resources: ExitStack) -> Chain | None:
    """None without [bitcoind]. Raises Misconfigured for a key or an address that cannot be used."""
    if config.bitcoind is None:
        return None
    node = node_of(config.bitcoind)
    resources.callback(node.close)
    rules = config.deposits.rules()
    status = ChainStatus()
    return Chain(
        network=config.network,
        node=node,
        limits=ChainLimits(
            start_height=config.bitcoind.start_height,
            max_reorg_depth=config.bitcoind.max_reorg_depth,
            back_scan_blocks=config.bitcoind.back_scan_blocks,
            foreign_addresses=config.bitcoind.foreign_addresses,
        ),
        status=status,
        api=OnChain(
            node=node,
            source=addresses_of(config, config.bitcoind),
            addresses=store.addresses,
            deposits=store.deposits,
            policies=store.policies,
            terms=rules.terms,
            default_policy=rules.default_policy,
            status=status,
        ),
        foreign=_foreign(config, config.bitcoind, store),
    )


def node_of(config: BitcoindConfig) -> BitcoindNode:
    """The node of the configuration; connects with the first call."""
    return BitcoindNode(
        name="bitcoind",
        rpc_url=config.rpc_url,
        rpc_cookie_file=config.rpc_cookie_file,
        rpc_user=config.rpc_user,
        rpc_password_file=config.rpc_password_file,
        zmq=config.zmq,
    )


def addresses_of(config: Config, bitcoind: BitcoindConfig) -> AddressSource | None:
    """Where addresses come from; None without `bitcoind.xpub`. Raises Misconfigured."""
    if bitcoind.xpub is None:
        return None
    with TemporaryDirectory(prefix="tellerd-") as folder:  # bitcoinlib writes files when it is imported
        return address_source(bitcoind.xpub.get_secret_value(), network=config.network, state_folder=Path(folder))


def _foreign(config: Config, bitcoind: BitcoindConfig, store: MongoStore) -> ForeignAddresses | None:
    if not bitcoind.foreign_addresses:
        return None
    to_script: Callable[[str], bytes] = partial(script_of, network=config.network)
    return store.foreign_addresses(to_script)


def follower(
    chain: Chain,
    *,
    store: MongoStore,
    board: Board,
    inbox: Inbox,
    metrics: Metrics,
    finder: ForeignAddressFinder | None,
    dealer: Dealer,
) -> ChainFollower:
    """The follower of one turn as leader."""
    return ChainFollower(
        node=chain.node,
        network=chain.network,
        deposits=store.deposits,
        scripts=store.scripts,
        board=board,
        inbox=inbox,
        status=chain.status,
        metrics=metrics,
        limits=chain.limits,
        dealer=dealer,
        addresses_known=None if finder is None else finder.known,
    )


def finder(chain: Chain) -> ForeignAddressFinder | None:
    """Looks for addresses of other programs, where they count."""
    return None if chain.foreign is None else ForeignAddressFinder(addresses=chain.foreign)
