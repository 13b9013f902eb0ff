"""Money that comes again and money that is lost: in whatever order it is seen, the books end the same.

The right books are worked out here from what arrived in all and what was lost, without anything of the daemon.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from adapters.memory import MemoryStore
from adapters.prices.nothing import NoPrice
from daemon.domain.accounts import GAP, LIGHTNING, ROUNDING, SUSPENSE, wallet_account
from daemon.domain.identifiers import WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import HtlcLost, HtlcRef, InvoiceSettled, NodeEvent
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from tests.property import auditor
from tests.property.world import in_batches
from tests.samples import MORNING_MS, NODE, hash_of, invoice, node_opened, settled
from tests.silent import SilentMetrics

NODES = (NODE,)


@dataclass(frozen=True)
class Paid:
    """An invoice with a document or without; `sums_msat` ascend: what had arrived in all, each time that some came."""

    name: str
    awaited: bool
    late: bool
    sums_msat: tuple[int, ...]
    lost_msat: int

    def event(self, number: int) -> InvoiceSettled:
        """LND's word after the n-th payment."""
        return settled(self.name, int(self.name) + 1, self.sums_msat[number])

    @property
    def loss(self) -> HtlcLost:
        """Its one HTLC that was failed back."""
        return HtlcLost(
            pubkey=NODE,
            payment_hash=hash_of(self.name),
            settled_id=hash_of(self.name),
            settle_index=int(self.name) + 1,
            htlc=HtlcRef(7, int(self.name), self.lost_msat),
            seen_at_ms=MORNING_MS,
        )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Paid, ...]:
    """A few invoices, small amounts, so that fractions of sats meet."""
    paid = []
    for number in range(draw(st.integers(1, 4))):
        parts = draw(st.lists(st.one_of(st.integers(1, 3_500), st.just(2_000)), min_size=1, max_size=4))
        sums = tuple(sum(parts[: n + 1]) for n in range(len(parts)))
        lost = draw(st.sampled_from((0, parts[0])))
        late = draw(st.booleans())
        paid.append(Paid(str(number), draw(st.booleans()) or late, late, sums, lost))
    return tuple(paid)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 5), max_size=4))
def test_any_order_of_sums_ends_in_the_same_books(world: tuple[Paid, ...], seed: int, sizes: list[int]) -> None:
    """Sums seen in any order, some never, some twice, documents that come late, and losses in between: every wallet has
    what arrived for it in all in whole sats, the gap account what was lost, and the node's money is booked to the msat.
    """
    rng = random.Random(seed)
    store, poster, wallet = _bank(world)
    events = _history(world, rng)
    half = rng.randrange(len(events) + 1)
    _post(poster, events[:half], sizes, store)
    for paid in world:
        if paid.late:
            store.another.insert_invoice(invoice(paid.name, wallet))
    _post(poster, events[half:], sizes, store)
    # The full pass over the invoices at the end sees what has arrived in all.
    last: list[NodeEvent] = [paid.event(-1) for paid in world]
    _post(poster, [*last, *(paid.loss for paid in world if paid.lost_msat)], sizes, store)
    _check_final(store, wallet, world)


def _history(world: tuple[Paid, ...], rng: random.Random) -> list[NodeEvent]:
    """Any sums in any order; a loss comes behind some sum of its invoice."""
    events: list[NodeEvent] = [paid.event(n) for paid in world for n in range(len(paid.sums_msat)) for _ in range(2)]
    rng.shuffle(events)
    events = events[: rng.randrange(len(events) + 1)]
    for paid in world:
        seen = [
            n for n, e in enumerate(events) if isinstance(e, InvoiceSettled) and e.payment_hash == hash_of(paid.name)
        ]
        if paid.lost_msat and seen and rng.random() < 0.7:
            events.insert(rng.randrange(seen[0] + 1, len(events) + 1), paid.loss)
    return events


def _bank(world: tuple[Paid, ...]) -> tuple[MemoryStore, Poster, WalletId]:
    store = MemoryStore()
    wallet = store.wallets.create(account_id=None, currency=Currency.BTC, external_id="one").wallet_id
    fence = store.leases.acquire(holder="test", ttl_s=5)
    assert fence is not None
    poster = Poster(
        books=store.books,
        prices=NoPrice(),
        board=Board(),
        metrics=SilentMetrics(),
        fence=fence,
        now_ms=lambda: MORNING_MS,
        rng=random.Random(0),
    )
    for paid in world:
        if paid.awaited and not paid.late:
            store.another.insert_invoice(invoice(paid.name, wallet))
    poster.commit([node_opened()])
    return store, poster, wallet


def _post(poster: Poster, events: Sequence[NodeEvent], sizes: list[int], store: MemoryStore) -> None:
    for batch in in_batches(events, sizes):  # type: ignore[arg-type]  # it cuts any list
        poster.commit(batch)
        auditor.check_books(store, NODES)
        auditor.check_sums(store, NODES)


def _check_final(store: MemoryStore, wallet: WalletId, world: tuple[Paid, ...]) -> None:
    balances = auditor.balances(store)
    arrived = {paid: paid.sums_msat[-1] for paid in world}
    lost_msat = sum(paid.lost_msat for paid in world)
    lost_sat = sum(-(-paid.lost_msat // 1000) for paid in world)
    rests_msat = sum(msat % 1000 for msat in arrived.values()) + lost_sat * 1000 - lost_msat
    assert balances.get(wallet_account(wallet), 0) == sum(m // 1000 for paid, m in arrived.items() if paid.awaited)
    assert balances.get(SUSPENSE, 0) == sum(m // 1000 for paid, m in arrived.items() if not paid.awaited)
    assert balances.get(GAP, 0) == -lost_sat
    assert balances.get(ROUNDING, 0) == rests_msat // 1000
    cursor = auditor.all_cursors(store, NODES)[NODE]
    assert cursor.remainder_msat == rests_msat % 1000
    assert cursor.booked_msat == sum(arrived.values()) - lost_msat
    assert -balances.get(LIGHTNING, 0) * 1000 + cursor.remainder_msat == cursor.booked_msat
