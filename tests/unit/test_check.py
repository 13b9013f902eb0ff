"""`tellerd check` on a Lightning node: what its macaroon does not allow, and what it does not keep."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.memory import MemoryLightningNode
from daemon import app, check
from daemon.config import Address, Config, LndConfig, load_config
from daemon.domain.errors import NodeRefused, Unavailable
from daemon.domain.ports import NodeInfo

NO_FILE = Path("/nonexistent")
CONFIG = LndConfig.model_construct(
    name="lnd1", address=Address("127.0.0.1", 1), tls_cert_file=NO_FILE, macaroon_file=NO_FILE
)
READS = (
    "list_invoices",
    "lookup_invoice",
    "funds",
    "forwards",
    "newest_payments",
    "wallet_txs",
    "closed_channels",
    "htlc_resolution",
)
CHANGES = ("add_invoice", "add_hold_invoice", "probe_hold_watch", "settle_invoice", "cancel_invoice")


class Node:
    """A node in memory; what is in `refused` its macaroon does not allow, all is away after `away_after` calls."""

    name = "lnd1"

    def __init__(self) -> None:
        self.memory = MemoryLightningNode(name="lnd1")
        self.refused: set[str] = set()
        self.asked: list[str] = []
        self.away = False
        self.stores = True

    def get_info(self) -> NodeInfo:
        return replace(self.memory.get_info(), stores_final_htlc_resolutions=self.stores)

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **named: object) -> object:
            self.asked.append(name)
            if self.away:
                raise Unavailable("lnd1 does not listen: start it, or check its address (Call)")
            if name in self.refused:
                raise Unavailable(f"lnd1 refuses the macaroon: bake one that does ({name.upper()})")
            if name == "probe_hold_watch":
                raise NodeRefused("lnd1 refused SubscribeSingleInvoice: UNKNOWN invalid hash length of 1, want 32")
            return getattr(self.memory, name)(*arguments, **named)

        return call


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(check, "LndNode", lambda **_config: made)
    return made


def lines(network: str = "regtest") -> list[tuple[bool, str]]:
    return [(finding.good, finding.line) for finding in check._node(CONFIG, network)]


def test_a_node_that_is_well_is_asked_for_everything(node: Node) -> None:
    """Two lines, both good; every kind of call was tried, and no invoice was made by it."""
    who, macaroon = lines()
    assert who[0]
    line = (
        "ok      lnd lnd1: the macaroon lets tellerd read invoices, channels, payments, forwards and coins, "
        "and make, watch, settle and cancel invoices"
    )
    assert macaroon == (True, line)
    assert node.asked == [*READS, *CHANGES]
    assert node.memory.list_invoices(after_add_index=0, limit=10).invoices == ()


@pytest.mark.parametrize("refused", [*READS, *CHANGES])
def test_each_call_that_the_macaroon_does_not_allow_is_named(node: Node, refused: str) -> None:
    """In one line, with the remedy; it is to be mended."""
    node.refused = {refused}
    assert lines()[1:] == [(False, f"FAILED  lnd lnd1: refuses the macaroon: bake one that does ({refused.upper()})")]


def test_all_calls_that_it_does_not_allow_are_one_line(node: Node) -> None:
    """So that a new macaroon is baked once."""
    node.refused = {"funds", "forwards", "settle_invoice"}
    assert lines()[1:] == [
        (False, "FAILED  lnd lnd1: refuses the macaroon: bake one that does (FUNDS), nor FORWARDS, SETTLE_INVOICE")
    ]


def test_a_node_that_goes_away_is_not_asked_on(node: Node) -> None:
    """Each further call would wait for its deadline."""
    node.away = True
    (failed,) = lines()[1:]
    assert failed == (False, "FAILED  lnd lnd1: does not listen: start it, or check its address (Call)")
    assert len(node.asked) == 1


def test_a_node_that_keeps_no_outcomes_is_warned_of(node: Node) -> None:
    """It is no failure: `run` works; the remedy is named. What such a node cannot answer is not asked."""
    node.stores = False
    warning = lines()[2]
    assert warning[0]
    assert warning[1].startswith("warning lnd lnd1: runs without --store-final-htlc-resolutions")
    assert "store-final-htlc-resolutions=1" in warning[1]
    assert "htlc_resolution" not in node.asked


@pytest.mark.parametrize(
    ("network", "source", "begins"),
    [
        ("regtest", "fixed", "ok      prices: fixed at 60000.00 dollars per bitcoin"),
        ("mainnet", "fixed", "warning prices: fixed at 60000.00 dollars per bitcoin"),
        ("mainnet", "http", "FAILED  prices: "),
    ],
)
def test_a_fixed_price_of_real_bitcoin_is_warned_of(tmp_path: Path, network: str, source: str, begins: str) -> None:
    """It never grows stale; the remedy is named, and `run` logs it once as it starts."""
    config = priced(tmp_path, network, source)
    assert config.prices is not None
    finding = check._price(config, config.prices)
    assert finding.line.startswith(begins)
    assert (finding.good, "stale" in finding.line) == (source == "fixed", begins.startswith("warning"))
    assert ('prices.source = "http" or "blink"' in finding.line) == begins.startswith("warning")
    with capture_logs() as logged, ExitStack() as resources:
        app._build(config, resources)
    warned = [line["log_level"] for line in logged if line["event"] == "price.fixed"]
    assert warned == (["warning"] if begins.startswith("warning") else [])


def priced(folder: Path, network: str, source: str) -> Config:
    """A configuration with a price and nothing that answers."""
    for name in ("tls.cert", "tellerd.macaroon"):
        (folder / name).write_bytes(b"")
    file = folder / "tellerd.toml"
    file.write_text(
        f'''
network = "{network}"
[mongo]
url = "mongodb://127.0.0.1:1/?replicaSet=rs0"
database = "tellerd"
[[lnd]]
name = "lnd1"
address = "127.0.0.1:1"
tls_cert_file = "tls.cert"
macaroon_file = "tellerd.macaroon"
[prices]
source = "{source}"
usd_per_btc = "60000.00"
url = "http://127.0.0.1:1/"
json_path = "usd"
'''
    )
    return load_config(file, {})
