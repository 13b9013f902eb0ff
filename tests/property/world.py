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
    SPONTANEOUS = "nobody, but it names its wallet"
    SPONTANEOUS_ASTRAY = "nobody, and it names a wallet that does not exist"
    AMP = "a document of an AMP invoice: it is one of its sets"
    AMP_LATE = "a document of an AMP invoice that appears later"
    AMP_MARKED_PAID = "a document of an AMP invoice that another program marked paid"
    NO_WALLET = "a document whose wallet does not exist"
    DOLLARS = "a document in dollars"
    OTHER_NODE = "a document of the other node"
    BOOKED_BY_BLINK = "another program that has booked it"
    MARKED_PAID = "a document that is marked paid, though no journal has it"


SUSPENDED = {Kind.UNKNOWN, Kind.SPONTANEOUS_ASTRAY, Kind.NO_WALLET, Kind.DOLLARS, Kind.OTHER_NODE}
CREDITED = {Kind.AWAITED, Kind.AWAITED_LATE, Kind.AMP, Kind.AMP_LATE}
EARLY = {Kind.AWAITED, Kind.AMP, Kind.DOLLARS}
LATE = {Kind.AWAITED_LATE, Kind.AMP_LATE}
AMP = {Kind.AMP, Kind.AMP_LATE, Kind.AMP_MARKED_PAID}
SPONTANEOUS = {Kind.SPONTANEOUS, Kind.SPONTANEOUS_ASTRAY}
ANY_KIND = st.one_of(st.just(Kind.AWAITED), st.sampled_from(Kind))
MARKED = {Kind.MARKED_PAID, Kind.AMP_MARKED_PAID}


@dataclass(frozen=True)
class Payment:
    """One settlement on one node, to be seen any number of times."""

    name: str
    kind: Kind
    wallet: int
    event: InvoiceSettled
    before_opening: bool

    @property
    def is_credited(self) -> bool:
        """A payer's own word counts from the opening on; what somebody waits for counts whenever it came."""
        return self.kind in CREDITED or (self.kind is Kind.SPONTANEOUS and not self.before_opening)

    @property
    def is_suspended(self) -> bool:
        """A customer waits for dollars that nobody can price any more: a person sees them whenever they came. What
        nobody can be credited with otherwise, and came before the opening, belongs to that."""
        return self.kind in SUSPENDED and (not self.before_opening or self.kind is Kind.DOLLARS)

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
            if payment.is_credited:
                wallets[payment.wallet] += payment.sats
            elif payment.is_suspended:
                suspense += payment.sats
        old = [p for p in payments if p.before_opening]
        # Awaited money that came before the opening is credited from it, or before it: the sats are the same.
        funds_msat = world.own_funds_msat[pubkey] + sum(p.event.received_msat for p in old)
        booked = [p for p in old if p.is_credited or p.is_suspended]
        early_rests = sum(p.event.received_msat % 1000 for p in booked if p.kind in EARLY)
        opening += funds_msat // 1000 - sum(p.sats for p in booked) - early_rests // 1000
        new = [p for p in payments if not p.before_opening and (p.is_credited or p.is_suspended)]
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
def worlds(draw: st.DrawFn, *, most: int = 14, kinds: st.SearchStrategy[Kind] = ANY_KIND) -> World:
    """Some payments on two nodes, with indexes that have gaps, some before the node's opening."""
    payments: list[Payment] = []
    for pubkey in NODES:
        count = draw(st.integers(0, most))
        old = draw(st.integers(0, min(count, 4)))
        index = 0
        for number in range(count):
            index += draw(st.sampled_from((1, 1, 1, 1, 2, 3)))
            payments.append(_payment(draw, f"{pubkey[:2]}-{number}", draw(kinds), pubkey, index, number < old))
    return World(
        payments=tuple(payments),
        own_funds_msat={pubkey: draw(st.integers(0, 5_000_000)) for pubkey in NODES},
        foreign_amounts=tuple(draw(st.lists(st.integers(1, 9), max_size=4))),
    )


def _payment(draw: st.DrawFn, name: str, kind: Kind, pubkey: NodePubkey, index: int, old: bool) -> Payment:
    received_msat = draw(st.one_of(st.integers(1, 3_000), st.integers(1_000, 10**9)))
    wallet, settled_id = draw(st.integers(0, 1)), None
    if kind in AMP:  # all sets for one wallet of a node are of one invoice
        name, settled_id = f"{pubkey[:2]}-{kind.name}-{wallet}", f"a{name:0>63}"
    event = settled(name, index, received_msat, pubkey=pubkey, settled_id=settled_id)
    return Payment(name=name, kind=kind, wallet=wallet, event=event, before_opening=old)


def in_batches(events: Sequence[InvoiceSettled], sizes: Sequence[int]) -> list[list[InvoiceSettled]]:
    """Cuts a list into batches of these sizes, the last size as often as needed."""
    batches, rest, turn = [], list(events), 0
    while rest:
        size = sizes[min(turn, len(sizes) - 1)] if sizes else len(rest)
        batches.append(rest[:size])
        rest, turn = rest[size:], turn + 1
    return batches
