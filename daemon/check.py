"""`tellerd check`: every connection that `run` needs, tried once."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adapters.bitcoind.node import BitcoindNode
from adapters.grpc_api.tls import ServerCertificate, TlsFiles
from adapters.lnd.node import LndNode
from adapters.mongo import MongoStore
from adapters.prices.blink import BlinkPrice
from adapters.prices.refreshed import PriceUnreadable, RefreshedPrice
from adapters.redis import RedisBeside
from daemon import on_chain
from daemon.app import is_fixed_on_mainnet, make_prices, tls_files
from daemon.config import BitcoindConfig, Config, LndConfig, PricesConfig, RedisConfig
from daemon.domain.errors import BadInput, InvariantViolation, Misconfigured, NodeRefused, Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import AddressSource, ChainInfo, NewHoldInvoice, NewInvoice, NodeInfo


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried, and how it went, in one line for people."""

    good: bool
    line: str


_CHECK_LOCK_MS = 10_000
"""Of a lock whose name nobody else uses."""


_TOO_SHORT = b"\x00"
"""For a preimage or a hash: 32 bytes."""


def _well(what: str, how: str) -> Finding:
    return Finding(True, f"ok      {what}: {how}")


def _doubtful(what: str, why: str) -> Finding:
    """`run` works without it, and money is less safe."""
    return Finding(True, f"warning {what}: {why}")


def _ill(what: str, why: str) -> Finding:
    return Finding(False, f"FAILED  {what}: {why}")


def findings(config: Config) -> Iterator[Finding]:
    """Tries the database, every node, the price source and the API's certificate; each within its own deadline."""
    yield from _database(config)
    for node in config.lnd:
        yield from _node(node, config.network)
    if config.bitcoind is not None:
        yield from _chain(config, config.bitcoind)
    if config.prices is not None:
        yield _price(config, config.prices)
    if config.redis is not None:
        yield redis(config.redis)
    tls = tls_files(config.api)
    if tls is not None:
        yield _certificate(tls)


def redis(config: RedisConfig) -> Finding:
    """Takes a lock of its own and gives it back, as posting does."""
    name = f"locks:tellerd-check:{uuid.uuid4().hex}"
    try:
        beside = RedisBeside.connect(config.url.get_secret_value())
    except BadInput as problem:
        return _ill("redis", str(problem))
    try:
        beside.take([name], ttl_ms=_CHECK_LOCK_MS)
        beside.release([name])
    except Unavailable as outage:
        return _ill("redis", f"{outage}; start Redis, or mend redis.url")
    finally:
        beside.close()
    return _well("redis", "a lock was taken and given back")


def _database(config: Config) -> Iterator[Finding]:
    what = f"mongo {config.mongo.database}"
    with MongoStore.connect(config.mongo.url.get_secret_value(), config.mongo.database) as store:
        try:
            info = store.probe()
        except (Unavailable, Misconfigured) as outage:
            yield _ill(what, f"{outage}; start MongoDB, or mend mongo.url")
            return
        if not info.replica_set:
            yield _ill(what, "not a replica set, so there are no transactions; start mongod with --replSet")
            return
        yield _well(what, f"MongoDB {info.version}, replica set {info.replica_set}")
        try:
            store.open()
        except InvariantViolation as problem:
            if config.mongo.init:
                yield _well(what, "not initialised yet, `run` will do it")
            else:
                yield _ill(what, str(problem))
        else:
            yield _well(what, "initialised")


def _node(config: LndConfig, network: str) -> Iterator[Finding]:
    what = f"lnd {config.name}"
    node = LndNode(
        name=config.name,
        address=str(config.address),
        tls_cert_file=config.tls_cert_file,
        macaroon_file=config.macaroon_file,
    )
    try:
        info = node.get_info()
        if info.network != network:
            yield _ill(what, f'is on {info.network}; set network = "{info.network}", or give a {network} node')
            return
        yield _well(
            what, f"{info.pubkey}, LND {info.version.partition(' ')[0]}, {info.network}, block {info.block_height}"
        )
        yield _permissions(node, info, what)
        if not info.stores_final_htlc_resolutions:
            yield _doubtful(
                what,
                "runs without --store-final-htlc-resolutions: payments that it forgets when it is killed cannot be "
                "found; set store-final-htlc-resolutions=1 in its lnd.conf and start it anew",
            )
        if not info.synced_to_chain:
            yield _ill(what, "is not synced to the chain: wait, or look at its bitcoind")
    except (Unavailable, NodeRefused) as problem:
        yield _ill(what, str(problem).removeprefix(config.name).lstrip(": "))
    finally:
        node.close()


def _permissions(node: LndNode, info: NodeInfo, what: str) -> Finding:
    """Every kind of call, for each has a permission of its own; LND names it in what it says of a refused call. The
    settle stream is left out: a second one beside the leader's can deadlock LND (node-interfaces.md A.1)."""
    refused: list[str] = []
    for ask in (*_readings(node, info), *_changes(node)):
        try:
            ask()
        except NodeRefused:
            pass  # it may be asked, and has looked at what it was asked for
        except Unavailable as problem:
            refused.append(str(problem).removeprefix(node.name).lstrip(": "))
            if "macaroon" not in refused[-1]:
                break  # it is away: so is the rest
    if not refused:
        return _well(
            what,
            "the macaroon lets tellerd read invoices, channels, payments, forwards and coins, "
            "and make, watch, settle and cancel invoices",
        )
    others = ", ".join(text.rpartition("(")[2].rstrip(")") for text in refused[1:])
    return _ill(what, refused[0] + (f", nor {others}" if others else ""))


def _readings(node: LndNode, info: NodeInfo) -> list[Callable[[], object]]:
    asks: list[Callable[[], object]] = [
        lambda: node.list_invoices(after_add_index=0, limit=1),
        lambda: node.lookup_invoice(PaymentHash(os.urandom(32).hex())),
        node.funds,
        lambda: node.forwards(after_ns=time.time_ns(), limit=1),
        lambda: node.newest_payments(limit=1),
        lambda: node.wallet_txs(from_height=info.block_height),
        node.closed_channels,
    ]
    if info.stores_final_htlc_resolutions:
        asks.append(lambda: node.htlc_resolution(0, 0))  # of no channel: not found, if it may be asked
    return asks


def _changes(node: LndNode) -> list[Callable[[], object]]:
    """What LND refuses to make, or does not find: nothing is changed by it."""
    ordinary = NewInvoice(preimage=_TOO_SHORT, value_msat=0, memo="", description_hash=b"", expiry_s=60)
    hold = NewHoldInvoice(
        payment_hash=PaymentHash(_TOO_SHORT.hex()), value_msat=0, memo="", description_hash=b"", expiry_s=60
    )
    return [
        lambda: node.add_invoice(ordinary),
        lambda: node.add_hold_invoice(hold),
        node.probe_hold_watch,
        lambda: node.settle_invoice(os.urandom(32)),
        lambda: node.cancel_invoice(PaymentHash(os.urandom(32).hex())),
    ]


def _chain(config: Config, bitcoind: BitcoindConfig) -> Iterator[Finding]:
    what = "bitcoind"
    try:
        node = on_chain.node_of(bitcoind)
        source = on_chain.addresses_of(config, bitcoind)
    except Misconfigured as problem:
        yield _ill(what, str(problem))
        return
    try:
        info = node.info()
        if info.network != config.network:
            yield _ill(what, f'is on {info.network}; set network = "{info.network}", or give a {config.network} node')
            return
        yield _well(what, f"{info.version}, {info.network}, block {info.tip.height}")
        yield from _chain_limits(info, bitcoind)
        if source is not None:
            yield _derivation(node, source)
    except (Unavailable, NodeRefused) as problem:
        yield _ill(what, f"{str(problem).removeprefix(what).lstrip(': ')}; start bitcoind, or mend [bitcoind]")
    finally:
        node.close()


def _chain_limits(info: ChainInfo, bitcoind: BitcoindConfig) -> Iterator[Finding]:
    if info.initial_download:
        yield _ill("bitcoind", f"still loads the chain, block {info.tip.height} of {info.headers}: wait")
    if info.prune_height is not None:
        yield _well(
            "bitcoind", f"prunes below block {info.prune_height}: what tellerd has not seen by then is lost to it"
        )
    if not bitcoind.zmq:
        yield _well("bitcoind", "no zmq: deposits are seen by polling, within some 5 s")


def _derivation(node: BitcoindNode, source: AddressSource) -> Finding:
    ours, theirs = source.derive(0).address, node.derive(source.descriptor, 0)
    if ours != theirs:
        return _ill("bitcoind.xpub", f"tellerd derives {ours} and bitcoind {theirs}: give another descriptor")
    return _well("bitcoind.xpub", f"tellerd and bitcoind derive the same addresses, the first is {ours}")


def _certificate(files: TlsFiles) -> Finding:
    try:
        ServerCertificate(files)
    except Misconfigured as problem:
        return _ill("api", str(problem))
    return _well("api", "certificate and key belong together")


def _price(config: Config, prices: PricesConfig) -> Finding:
    if is_fixed_on_mainnet(config):
        return _doubtful(
            "prices",
            f"fixed at {prices.usd_per_btc} dollars per bitcoin, which never grows stale: whoever sees a better one "
            'elsewhere trades with the dealer; set prices.source = "http" or "blink"',
        )
    if prices.source == "fixed":
        return _well("prices", f"fixed at {prices.usd_per_btc} dollars per bitcoin")
    source = make_prices(prices)
    if not isinstance(source, RefreshedPrice):
        raise InvariantViolation(f"prices: source {prices.source} is never read")
    remedy = "prices.url or prices.json_path" if prices.source == "http" else "prices.price_address or dealer_address"
    try:
        source.refresh()
    except PriceUnreadable as problem:
        return _ill("prices", f"{problem}; mend {remedy}")
    finally:
        if isinstance(source, BlinkPrice):
            source.close()
    price = source.current()
    return _well(
        "prices", f"a price was read: {price.usd_per_btc} dollars per bitcoin" if price else "a price was read"
    )
