"""What an LND does not tell: losses after a crash, and money that comes again.

LndNode on a simulated LND, followed and posted to as the daemon does it. Without the proofs (htlc_proofs.py) and the
pass of `InvoiceCheck` both stay unseen for ever, and books and node differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.node import LndNode
from daemon.domain.accounts import GAP
from daemon.domain.identifiers import NodePubkey
from daemon.ingest.handover import Inbox
from daemon.reconciling.invoices import InvoiceCheck, InvoicesChecked
from tests.samples import MORNING_MS, preimage_of
from tests.simulated_lnd.server import SimulatedLnd
from tests.unit.ingest.teller import Teller, eventually


class _Lnd(LndNode):
    """The adapter; a test may know whose it is without asking."""

    def __init__(self, lnd: SimulatedLnd) -> None:
        super().__init__(
            name="lnd1", address=lnd.address, tls_cert_file=lnd.tls_cert_file, macaroon_file=lnd.macaroon_file
        )
        self.pubkey = NodePubkey(lnd.node.pubkey)


class _Teller(Teller):
    """A teller on a simulated LND."""

    def __init__(self, lnd: SimulatedLnd) -> None:
        self.adapter = _Lnd(lnd)
        super().__init__(self.adapter)  # type: ignore[arg-type]  # all that the stages ask of a node
        self.lnd = lnd

    def awaited(self, name: str, value_msat: int) -> bytes:
        """An open invoice on the node, and its document; its payment hash."""
        self.expect(name)
        added = self.lnd.node.add(pb.Invoice(r_preimage=preimage_of(name), value_msat=value_msat, memo=name))
        assert added is not None
        return added.r_hash

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Followed; the node is open."""
        async with self.follow():
            await eventually(lambda: self.status.state == "live" and (c := self.cursor()) is not None and c.opened)
            yield

    async def check(self) -> InvoicesChecked:
        """The full pass, with posting beside it."""
        checked: list[InvoicesChecked] = []

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            async def run() -> None:
                check = InvoiceCheck(
                    node=self.adapter,
                    books=self.store.books,
                    inbox=inbox,
                    now_ms=lambda: MORNING_MS,
                    pause_s=0.0,
                    patience_s=0.01,
                )
                checked.append(await check.run())

            nursery.start_soon(run)

        async with self._posting(start):
            await eventually(lambda: bool(checked))
            if checked[0].repeats:
                await eventually(self.books_equal_node, "what was found is not booked")
        return checked[0]


@pytest.fixture
def teller(tmp_path: Path) -> Iterator[_Teller]:
    """On a server that is up."""
    with SimulatedLnd(tmp_path) as lnd:
        teller = _Teller(lnd)
        yield teller
        teller.adapter.close()


async def test_a_crash_that_loses_htlcs_is_found_and_booked(teller: _Teller) -> None:
    """LND was killed with two HTLCs in its channel and failed both back; their invoices are settled all the same. The
    loss is in the gap account, the wallet has its credit, and books and node are equal to the msat."""
    async with teller.live():
        teller.lnd.node.settle([teller.awaited("kept", 1_000_000)])
        await eventually(lambda: teller.proven_through(1))
        teller.lnd.node.htlcs.resolve_at_once = False
        teller.lnd.node.settle([teller.awaited(name, 2_000_500) for name in ("lost", "lost, too")])
        await eventually(lambda: teller.credited_sat == 5_000)
        teller.lnd.stop(ending="transport is closing")
        teller.lnd.node.fail_htlcs_back()
        teller.lnd.start()
        await eventually(lambda: teller.proven_through(3))
    assert teller.books_equal_node()
    assert teller.balance(GAP) == -2 * 2_001
    assert teller.credited_sat == 5_000
    assert sorted(gap.amount_msat for gap in teller.store.known_gaps().values()) == [-2_000_500, -2_000_500]


async def test_a_crash_that_loses_nothing_leaves_no_gap(teller: _Teller) -> None:
    """The same, but the HTLCs have ended as LND said they would."""
    async with teller.live():
        teller.lnd.node.settle([teller.awaited("kept", 1_000_000)])
        await eventually(lambda: teller.proven_through(1))
        teller.lnd.node.htlcs.resolve_at_once = False
        teller.lnd.node.settle([teller.awaited("kept, too", 2_000_500)])
        await eventually(lambda: teller.credited_sat == 3_000)
        teller.lnd.stop(ending="transport is closing")
        teller.lnd.node.resolve_htlcs()
        teller.lnd.start()
        await eventually(lambda: teller.proven_through(2))
    assert teller.books_equal_node()
    assert (teller.balance(GAP), teller.store.known_gaps()) == (0, {})


async def test_an_lnd_that_keeps_no_outcomes_is_not_taken_for_one_that_is_away(teller: _Teller) -> None:
    """It answers a look-up with UNAVAILABLE; so it is not asked, and what cannot be proven is a gap."""
    teller.lnd.node.htlcs.keeps_outcomes = False
    async with teller.live():
        teller.lnd.node.settle([teller.awaited("first", 1_000_000)])
        await eventually(lambda: teller.proven_through(1))
        teller.lnd.stop(ending="transport is closing")
        teller.lnd.start()
        teller.lnd.node.htlcs.resolve_at_once = False
        teller.lnd.node.settle([teller.awaited("second", 1_000_000)])
        await eventually(lambda: teller.credited_sat == 2_000)
        teller.lnd.stop(ending="transport is closing")
        teller.lnd.node.resolve_htlcs()
        teller.lnd.start()
        await eventually(lambda: teller.proven_through(2))
    assert {gap.kind for gap in teller.store.known_gaps().values()} <= {"htlc_unprovable"}
    assert teller.adapter.htlc_resolution(1, 1) is None


@pytest.mark.parametrize("renumber", [True, False], ids=["bbolt", "sql"])
async def test_money_that_came_again_without_an_event_is_found_by_the_pass(teller: _Teller, renumber: bool) -> None:
    """The stream says nothing of it, and books and node differ until the pass has compared what arrived in all."""
    async with teller.live():
        paid = teller.awaited("a", 1_000_000)
        teller.lnd.node.settle([paid])
        await eventually(lambda: teller.proven_through(1))
    teller.lnd.node.pay_again(paid, 250_500, renumber=renumber)
    assert not teller.books_equal_node()
    assert await teller.check() == InvoicesChecked(invoices=1, repeats=1)
    assert teller.credited_sat == 1_250
    assert teller.books_equal_node()
    assert await teller.check() == InvoicesChecked(invoices=1)


async def test_on_bbolt_the_next_payment_brings_money_that_came_again(teller: _Teller) -> None:
    """Its new index is a hole in the stream: the listing that closes it shows what has arrived in all."""
    async with teller.live():
        paid = teller.awaited("a", 1_000_000)
        teller.lnd.node.settle([paid])
        await eventually(lambda: teller.credited_sat == 1_000)
        teller.lnd.node.pay_again(paid, 250_000, renumber=True)
        teller.lnd.node.settle([teller.awaited("next", 1_000_000)])
        await eventually(lambda: teller.credited_sat == 2_250)
        await eventually(lambda: teller.proven_through(3))
    assert teller.books_equal_node()
