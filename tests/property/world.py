"""A world of payments, written down before any code of the daemon sees it, and what the books must say of it.

The expected books are worked out here from the payments alone, without anything of the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import hypothesis.strategies as st

from daemon.domain.identifiers import NodePubkey
from daemon.domain.node_events import InvoiceSettled
from tests.samples import NODE, OTHER_NODE, settled

NODES = (NODE, OTHER_NODE)


class Kind(Enum):
    """Who waits for a payment."""

    AWAITED = "a document that was there before it"
    AWAITED_LATE = "a document that appears later"
    UNKNOWN = "nobody"
    AMP = "a document, but it is one set of an AMP invoice"
    NO_WALLET = "a document whose wallet does not exist"
    DOLLARS = "a document in dollars"
    OTHER_NODE = "a document of the other node"
    BOOKED_BY_BLINK = "another program that has booked it"
    MARKED_PAID = "a document that is marked paid, though no journal has it"


SUSPENDED = {Kind.UNKNOWN, Kind.AMP, Kind.NO_WALLET, Kind.DOLLARS, Kind.OTHER_NODE}
CREDITED = {Kind.AWAITED, Kind.AWAITED_LATE}


@dataclass(frozen=True)
class Payment:
    """One settlement on one node, to be seen any number of times."""

    name: str
    kind: Kind
    wallet: int
    event: InvoiceSettled
    before_opening: bool

    @property
    def sats(self) -> int:
        return self.event.received_msat // 1000


@dataclass(frozen=True)
class World:
    """All that happens: payments per node in order of their index, and journals of another program."""

    payments: tuple[Payment, ...]
    own_funds_msat: dict[NodePubkey, int]
    foreign_amounts: tuple[int, ...]

    def of_node(self, pubkey: NodePubkey) -> list[Payment]:
        return [payment for payment in self.payments if payment.event.pubkey == pubkey]


@dataclass(frozen=True)
class Books:
    """What must come out, whatever the order: balances in sats, remainders in msat."""

    wallets: tuple[int, int]
    suspense: int
    opening: int
    rounding: int
    lightning: int
    remainders_msat: dict[NodePubkey, int]


def expected_books(world: World) -> Books:
    """The only right books of this world."""
    wallets = [0, 0]
    suspense = opening = rounding = 0
    remainders: dict[NodePubkey, int] = {}
    for pubkey in NODES:
        payments = world.of_node(pubkey)
        for payment in payments:
            if payment.kind in CREDITED:
                wallets[payment.wallet] += payment.sats
            elif payment.kind in SUSPENDED and not payment.before_opening:
                suspense += payment.sats
        old = [p for p in payments if p.before_opening]
        # Awaited money that came before the opening is credited from it, or before it: the sats are the same.
        funds_msat = world.own_funds_msat[pubkey] + sum(p.event.received_msat for p in old)
        credited = [p for p in old if p.kind in CREDITED]
        early_rests = sum(p.event.received_msat % 1000 for p in credited if p.kind is Kind.AWAITED)
        opening += funds_msat // 1000 - sum(p.sats for p in credited) - early_rests // 1000
        new = [p for p in payments if not p.before_opening and p.kind in CREDITED | SUSPENDED]
        rests_msat = funds_msat % 1000 + sum(p.event.received_msat % 1000 for p in new)
        rounding += early_rests // 1000 + rests_msat // 1000
        remainders[pubkey] = rests_msat % 1000
    return Books(
        wallets=(wallets[0], wallets[1]),
        suspense=suspense,
        opening=opening,
        rounding=rounding,
        lightning=-(sum(wallets) + suspense + opening + rounding),
        remainders_msat=remainders,
    )


@st.composite
def worlds(draw: st.DrawFn, *, most: int = 14) -> World:
    """Some payments on two nodes, with indexes that have gaps, some before the node's opening."""
    payments: list[Payment] = []
    for pubkey in NODES:
        count = draw(st.integers(0, most))
        old = draw(st.integers(0, min(count, 4)))
        index = 0
        for number in range(count):
            index += draw(st.sampled_from((1, 1, 1, 1, 2, 3)))
            payments.append(_payment(draw, f"{pubkey[:2]}-{number}", pubkey, index, number < old))
    return World(
        payments=tuple(payments),
        own_funds_msat={pubkey: draw(st.integers(0, 5_000_000)) for pubkey in NODES},
        foreign_amounts=tuple(draw(st.lists(st.integers(1, 9), max_size=4))),
    )


def _payment(draw: st.DrawFn, name: str, pubkey: NodePubkey, index: int, old: bool) -> Payment:
    kind = draw(st.one_of(st.just(Kind.AWAITED), st.sampled_from(Kind)))
    received_msat = draw(st.one_of(st.integers(1, 3_000), st.integers(1_000, 10**9)))
    settled_id = f"a{name:0>63}" if kind is Kind.AMP else None
    event = settled(name, index, received_msat, pubkey=pubkey, settled_id=settled_id)
    return Payment(name=name, kind=kind, wallet=draw(st.integers(0, 1)), event=event, before_opening=old)


def in_batches(events: Sequence[InvoiceSettled], sizes: Sequence[int]) -> list[list[InvoiceSettled]]:
    """Cuts a list into batches of these sizes, the last size as often as needed."""
    batches, rest, turn = [], list(events), 0
    while rest:
        size = sizes[min(turn, len(sizes) - 1)] if sizes else len(rest)
        batches.append(rest[:size])
        rest, turn = rest[size:], turn + 1
    return batches
