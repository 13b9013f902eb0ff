"""`tellerd check` on a Lightning node: what its macaroon does not allow, and what it does not keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.memory import MemoryLightningNode
from daemon import check
from daemon.config import Address, LndConfig
from daemon.domain.errors import Unavailable
from daemon.domain.ports import NodeInfo

NO_FILE = Path("/nonexistent")
CONFIG = LndConfig.model_construct(
    name="lnd1", address=Address("127.0.0.1", 1), tls_cert_file=NO_FILE, macaroon_file=NO_FILE
)
READS = ("list_invoices", "funds", "forwards", "newest_payments", "wallet_txs", "closed_channels", "htlc_resolution")


class Node:
    """A node in memory; what is in `refused` its macaroon does not allow, all is away after `away_after` calls."""

    name = "lnd1"

    def __init__(self) -> None:
        self._node = MemoryLightningNode(name="lnd1")
        self.refused: set[str] = set()
        self.asked: list[str] = []
        self.away = False
        self.stores = True

    def get_info(self) -> NodeInfo:
        return replace(self._node.get_info(), stores_final_htlc_resolutions=self.stores)

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **named: object) -> object:
            self.asked.append(name)
            if self.away:
                raise Unavailable("lnd1 does not listen: start it, or check its address (Call)")
            if name in self.refused:
                raise Unavailable(f"lnd1 refuses the macaroon: bake one that does ({name.upper()})")
            return getattr(self._node, name)(*arguments, **named)

        return call


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(check, "LndNode", lambda **_config: made)
    return made


def lines(network: str = "regtest") -> list[tuple[bool, str]]:
    return [(finding.good, finding.line) for finding in check._node(CONFIG, network)]


def test_a_node_that_is_well_is_asked_for_everything(node: Node) -> None:
    """Two lines, both good; every kind of reading was tried."""
    who, macaroon = lines()
    assert who[0]
    assert macaroon == (
        True,
        "ok      lnd lnd1: the macaroon lets tellerd read invoices, channels, payments, forwards and coins",
    )
    assert node.asked == list(READS)


@pytest.mark.parametrize("refused", READS)
def test_each_call_that_the_macaroon_does_not_allow_is_named(node: Node, refused: str) -> None:
    """In one line, with the remedy; it is to be mended."""
    node.refused = {refused}
    assert lines()[1:] == [(False, f"FAILED  lnd lnd1: refuses the macaroon: bake one that does ({refused.upper()})")]


def test_all_calls_that_it_does_not_allow_are_one_line(node: Node) -> None:
    """So that a new macaroon is baked once."""
    node.refused = {"funds", "forwards", "closed_channels"}
    assert lines()[1:] == [
        (False, "FAILED  lnd lnd1: refuses the macaroon: bake one that does (FUNDS), nor FORWARDS, CLOSED_CHANNELS")
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
