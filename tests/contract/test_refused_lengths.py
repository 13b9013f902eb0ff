"""What is no preimage and no hash is refused, and nothing is made: so `tellerd check` asks whether it may. Memory,
simulated LND, real LND; what a macaroon does not allow is refused otherwise, see tests/e2e/test_command_line.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.lnd.node import LndNode
from daemon.domain.errors import NodeRefused
from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import NewHoldInvoice, NewInvoice
from tests.contract.lightning_world import KINDS, World, world_of


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A node of each kind."""
    with world_of(request, tmp_path) as world:
        yield world


def ordinary(preimage: bytes) -> NewInvoice:
    """An invoice to add."""
    return NewInvoice(preimage=preimage, value_msat=0, memo="", description_hash=b"", expiry_s=60)


def test_what_is_no_preimage_and_no_hash_is_refused(world: World) -> None:
    """The next invoice has the next index."""
    before = world.node.add_invoice(ordinary(os.urandom(32)))
    hold = NewHoldInvoice(payment_hash=PaymentHash("00"), value_msat=0, memo="", description_hash=b"", expiry_s=60)
    with pytest.raises(NodeRefused, match="invalid preimage length of 1, want 32"):
        world.node.add_invoice(ordinary(b"\x00"))
    with pytest.raises(NodeRefused, match="invalid hash length of 1, want 32"):
        world.node.add_hold_invoice(hold)
    after = world.node.add_invoice(ordinary(os.urandom(32)))
    assert after.add_index == before.add_index + 1


@pytest.mark.parametrize("world", KINDS[1:], indirect=True)
def test_the_stream_of_what_is_no_hash_is_refused_at_once(world: World) -> None:
    """The probe is the adapter's own: the fake has none."""
    assert isinstance(world.node, LndNode)
    with pytest.raises(NodeRefused, match="SubscribeSingleInvoice: UNKNOWN invalid hash length of 1, want 32"):
        world.node.probe_hold_watch()
