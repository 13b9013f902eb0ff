"""What is held, or on its way out: in which of a node's lists and figures it is. Memory, simulated LND, real LND."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.domain.identifiers import PaymentHash
from daemon.domain.ports import NewHoldInvoice
from regtest.stack import Stack
from tests.contract.lightning_world import KINDS, RealWorld, World, wait_until, world_of


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A node of each kind."""
    with world_of(request, tmp_path) as world:
        yield world


def quiet_msat(world: World) -> int:
    """What the node holds when nothing is on its way."""
    wait_until(lambda: not world.node.funds().incoming_hashes)
    return world.node.funds().funds_msat


def test_a_held_payment_is_an_incoming_htlc_and_no_money(world: World) -> None:
    """Named by its payment hash until it is over; in no figure before it is settled, to the msat."""
    before_msat = quiet_msat(world)
    preimages = [os.urandom(32) for _ in range(2)]
    hashes = [PaymentHash(hashlib.sha256(preimage).hexdigest()) for preimage in preimages]
    for payment_hash in hashes:
        asked = NewHoldInvoice(
            payment_hash=payment_hash, value_msat=7_654_321, memo="", description_hash=b"", expiry_s=3600
        )
        world.hold(world.node.add_hold_invoice(asked))
    assert world.node.incoming_htlcs().final_hashes == set(hashes)
    assert world.node.funds().funds_msat == before_msat
    world.node.cancel_invoice(hashes[0])
    world.node.settle_invoice(preimages[1])
    wait_until(lambda: not world.node.incoming_htlcs().final_hashes)
    assert quiet_msat(world) == before_msat + 7_654_321


@pytest.mark.regtest
def test_a_payment_on_its_way_out_is_ours_until_it_went_through(lnd_stack: Stack) -> None:
    """It would come back; another program sends it, for tellerd sends nothing."""
    world = RealWorld(lnd_stack)
    lnd_stack.payer.pay(lnd_stack.lnd.add_invoice(2_000_000_000).payment_request)  # more than the channel's reserve
    before_msat = quiet_msat(world)
    payment_hash = os.urandom(32).hex()
    added = lnd_stack.payer.add_hold_invoice(payment_hash, 1_234_567)
    with ThreadPoolExecutor(1) as pool:
        payment = pool.submit(lnd_stack.lnd.pay, added.payment_request)
        wait_until(lambda: lnd_stack.payer.lookup_invoice(payment_hash).state == "ACCEPTED")
        held_msat = world.node.funds().funds_msat
        lnd_stack.payer.cancel_invoice(payment_hash)
        assert not payment.result().succeeded
    assert held_msat == before_msat
    wait_until(lambda: world.node.funds().funds_msat == before_msat)
    world.close()
