"""Drives a world through the daemon's own deciding, sealing and committing, with faults on the way.

What feeds it behaves as ingest must: a batch is offered until it is in the books; a daemon that was
killed forgets everything and begins again from its cursors.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from adapters.memory import CommitFault, MemoryStore
from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Conflict, Unavailable
from daemon.domain.identifiers import NodePubkey, WalletId, foreign_key, lightning_key, opening_key, rounding_key
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import ListingCompleted, NodeEvent, NodeOpened
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from tests.property import auditor
from tests.property.world import (
    AMP,
    CREDITED,
    LATE,
    MARKED,
    NODES,
    SPONTANEOUS,
    SUSPENDED,
    Books,
    Kind,
    Payment,
    World,
    expected_books,
    in_batches,
)
from tests.samples import MORNING_MS, hash_of, invoice, moved
from tests.silent import SilentMetrics

KILLED_AT = ("read", "commit", "committed")
Fate = CommitFault | str | None
"""What befalls a step's commit: a fault of the store, death at one of KILLED_AT, or nothing."""


class Killed(BaseException):
    """SIGKILL: nothing in the daemon may catch it."""


class NoPrice:
    """A price source without a price."""

    def current(self) -> Price | None:
        return None


class LedgerRun:
    """One world, one store, and daemons that come and go."""

    def __init__(self, world: World) -> None:
        self.store = MemoryStore(now_s=lambda: MORNING_MS / 1000)
        self._make_wallets()
        self.world = world = self._with_wallets_named(world)
        self.happened = dict.fromkeys(NODES, 0)
        self._late = [p for p in world.payments if p.kind in LATE]
        self._foreign = list(world.foreign_amounts)
        self._lives = 0
        for payment in world.payments:
            self._write_what_is_known_early(payment)
        self._restart()

    # --- what happens outside ---------------------------------------------------------------------

    def settle(self, pubkey: NodePubkey, count: int) -> None:
        """The node's next payments happen."""
        self.happened[pubkey] = min(self.happened[pubkey] + count, len(self.world.of_node(pubkey)))

    def write_document(self) -> None:
        """One more late document appears, if its node is open."""
        for payment in self._late:
            if self._cursor(payment.event.pubkey).opened:
                self._late.remove(payment)
                self._insert(payment)
                return

    def write_foreign(self) -> None:
        """Another program moves money inside."""
        if self._foreign:
            amount = self._foreign.pop()
            source, target = (wallet_account(self.wallets[n]) for n in (0, 1))
            self.store.another.write_journal(moved(source, target, amount))

    # --- what ingest does -------------------------------------------------------------------------

    def open_node(self, pubkey: NodePubkey, sizes: Sequence[int], fate: Fate) -> None:
        """First start: all that has been settled, then the opening; again from the beginning if killed."""
        while not self._cursor(pubkey).opened:
            old = [payment for payment in self.world.of_node(pubkey) if payment.before_opening]
            self.happened[pubkey] = max(self.happened[pubkey], len(old))
            funds_msat = self.world.own_funds_msat[pubkey] + sum(p.event.received_msat for p in old)
            opened = NodeOpened(
                pubkey=pubkey,
                name=pubkey[:2],
                funds_msat=funds_msat,
                through_index=max((p.event.settle_index for p in old), default=0),
                checkpoint_hash=None,
                opened_at_ms=MORNING_MS,
            )
            self._offer([*in_batches([p.event for p in old], sizes), [opened]], fate)
            fate = None

    def stream(self, picks: Sequence[tuple[NodePubkey, int]], sizes: Sequence[int], fate: Fate) -> None:
        """The streams deliver what has happened, in this order, twice or not at all."""
        events = [
            self.world.of_node(pubkey)[number % self.happened[pubkey]].event
            for pubkey, number in picks
            if self.happened[pubkey]
        ]
        self._offer(in_batches(events, sizes), fate)

    def listing(self, pubkey: NodePubkey, sizes: Sequence[int], fate: Fate, shuffle: int = 0) -> None:
        """A complete pass over all that has happened."""
        events = [payment.event for payment in self.world.of_node(pubkey)[: self.happened[pubkey]]]
        if not events:
            return
        newest = max(events, key=lambda event: event.settle_index)
        done = ListingCompleted(
            pubkey=pubkey,
            through_index=newest.settle_index,
            checkpoint_hash=newest.payment_hash if newest.settled_id == newest.payment_hash else None,
        )
        random.Random(shuffle).shuffle(events)
        batches: list[Sequence[NodeEvent]] = [*in_batches(events, sizes)]
        batches[-1] = [*batches[-1], done]
        self._offer(batches, fate)

    def look_up_open(self, fate: Fate) -> None:
        """Every document that waits is looked up on its node."""
        for pubkey in NODES:
            waiting = {
                o.payment_hash for o in self.store.open_invoices.open_invoices(pubkey=pubkey, after=None, limit=1000)
            }
            events = [
                payment.event
                for payment in self.world.of_node(pubkey)[: self.happened[pubkey]]
                if payment.event.payment_hash in waiting
            ]
            self._offer([events], fate)

    def adopt(self, limit: int, fate: Fate) -> None:
        """Journals of other programs are taken into the chain."""
        self._offer([self.store.journals.foreign_journals(after=None, limit=limit)], fate)

    def finish(self) -> None:
        """All faults are healed, all that could happen happens, and everything is looked through."""
        self.store.faults.heal()
        for pubkey in NODES:
            self.open_node(pubkey, (), None)
            self.settle(pubkey, len(self.world.payments))
        while self._late:
            self.write_document()
        while self._foreign:
            self.write_foreign()
        self.adopt(1000, None)
        for pubkey in NODES:
            self.listing(pubkey, (), None)
        self.look_up_open(None)

    # --- the verdict ------------------------------------------------------------------------------

    def check(self) -> None:
        """What must hold at any moment."""
        auditor.check_books(self.store, NODES)
        auditor.check_sums(self.store, NODES)
        for pubkey, cursor in auditor.all_cursors(self.store, NODES).items():
            payments = self.world.of_node(pubkey)[: self.happened[pubkey]]
            newest = max((payment.event.settle_index for payment in payments), default=0)
            assert cursor.newest_index() <= newest, "the cursor is ahead of the node"
            for payment in payments:
                if cursor.has_booked(payment.event.settle_index):
                    assert self._is_accounted(payment), "the cursor is ahead of the books"

    def _is_accounted(self, payment: Payment) -> bool:
        untouched = payment.kind in MARKED | {Kind.BOOKED_BY_BLINK}
        return untouched or payment.before_opening or _key(payment) in self.store.taken_keys()

    def final_books(self) -> Books:
        """The books as they stand, without what other programs did to them."""
        sums: dict[str, int] = {}
        for linked in self.store.chain():
            if not linked.link.foreign:
                for leg in linked.legs:
                    sums[leg.account] = sums.get(leg.account, 0) + leg.credit - leg.debit
        cursors = auditor.all_cursors(self.store, NODES)
        return Books(
            wallets=(sums.get(wallet_account(self.wallets[0]), 0), sums.get(wallet_account(self.wallets[1]), 0)),
            suspense=sums.get("Liabilities:Teller:Suspense", 0),
            opening=sums.get("Liabilities:Teller:Opening", 0),
            rounding=sums.get("Liabilities:Teller:Rounding", 0),
            lightning=sums.get(LIGHTNING, 0),
            remainders_msat={pubkey: cursors[pubkey].remainder_msat for pubkey in NODES},
        )

    def check_final(self) -> None:
        """The only right books, keys, marks and cursors of this world."""
        self.check()
        books = expected_books(self.world)
        assert self.final_books() == books
        cursors = auditor.all_cursors(self.store, NODES)
        keys = {key for key in self.store.taken_keys() if not key.endswith(":assigned")}
        booked = {_key(p) for p in self.world.payments if self._takes_a_key(p)}
        booked |= {_invoice_key(p) for p in self.world.payments if p.kind in AMP & CREDITED}
        roundings = {
            rounding_key(pubkey, n) for pubkey, cursor in cursors.items() for n in range(1, cursor.rounding_sats + 1)
        }
        foreign = {foreign_key(linked.link.journal_id) for linked in self.store.chain() if linked.link.foreign}
        assert keys == booked | roundings | foreign | {opening_key(pubkey) for pubkey in NODES}
        assert self.store.journals.foreign_journals(after=None, limit=1) == []
        for payment in self.world.payments:
            document = self.store.invoices.get(payment.event.payment_hash)
            if payment.kind in SPONTANEOUS:
                assert document is None
            elif payment.kind in CREDITED:
                assert document is not None
                assert (document.paid, document.completed) == (True, True)
            elif payment.kind in SUSPENDED and document is not None:
                assert not document.paid
        assert set(self.store.known_gaps()) == {_key(p) for p in self.world.payments if p.kind in MARKED}
        for pubkey, cursor in cursors.items():
            newest = max((p.event.settle_index for p in self.world.of_node(pubkey)), default=0)
            assert (cursor.settle_index, cursor.booked_above) == (newest, ())

    def _takes_a_key(self, payment: Payment) -> bool:
        return payment.is_credited or payment.is_suspended

    # --- inside -----------------------------------------------------------------------------------

    def _offer(self, batches: Sequence[Sequence[NodeEvent]], fate: Fate) -> None:
        """Batches in order, each until it is in the books; the fate strikes the first commit."""
        try:
            for batch in batches:
                self._arm(fate)
                self._post(batch)
                fate = None
        except Killed:
            self._restart()
            for pubkey, cursor in auditor.all_cursors(self.store, NODES).items():
                if cursor.opened:
                    self._replay(pubkey, cursor)

    def _post(self, batch: Sequence[NodeEvent]) -> None:
        for _ in range(10):
            try:
                self._poster.commit(batch)
            except (Conflict, Unavailable):
                continue
            self.check()
            return
        raise AssertionError("a batch cannot be committed")

    def _replay(self, pubkey: NodePubkey, cursor: LndCursor) -> None:
        """What LND sends to one that asks from the watermark on."""
        payments = self.world.of_node(pubkey)[: self.happened[pubkey]]
        above = [p.event for p in payments if p.event.settle_index > cursor.settle_index]
        self._offer([above], None)

    def _arm(self, fate: Fate) -> None:
        self.store.faults.heal()
        self.store.faults.at_step = lambda _step: None
        if isinstance(fate, CommitFault):
            self.store.faults.plan(fate)
        elif fate is not None:
            self.store.faults.at_step = lambda step: _die(step, fate)

    def _restart(self) -> None:
        self._arm(None)
        self._lives += 1
        fence = self.store.leases.acquire(holder="daemon", ttl_s=5)
        assert fence is not None
        self._poster = Poster(
            books=self.store.books,
            prices=NoPrice(),
            board=Board(),
            metrics=SilentMetrics(),
            fence=fence,
            now_ms=lambda: MORNING_MS,
            rng=random.Random(0),
        )
        if self._lives > 1:
            self.check()

    def _cursor(self, pubkey: NodePubkey) -> LndCursor:
        return auditor.all_cursors(self.store, NODES).get(pubkey) or LndCursor(pubkey=pubkey, name="")

    def _make_wallets(self) -> None:
        first = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="one")
        second = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="two")
        dollars = self.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
        self.wallets = (first.wallet_id, second.wallet_id)
        self._dollars = dollars.wallet_id

    def _with_wallets_named(self, world: World) -> World:
        """Whoever pays of his own accord knows the wallet's id."""
        names = {Kind.SPONTANEOUS: self.wallets, Kind.SPONTANEOUS_ASTRAY: ("nobody", "")}
        payments = tuple(
            replace(p, event=replace(p.event, wallet_named=names[p.kind][p.wallet])) if p.kind in SPONTANEOUS else p
            for p in world.payments
        )
        return replace(world, payments=payments)

    def _write_what_is_known_early(self, payment: Payment) -> None:
        if payment.kind not in LATE | SPONTANEOUS | {Kind.UNKNOWN}:
            self._insert(payment)
        if payment.kind in MARKED | {Kind.BOOKED_BY_BLINK}:
            self.store.another.mark_paid(payment.event.payment_hash)
        if payment.kind is Kind.BOOKED_BY_BLINK:
            self.store.another.write_journal(
                moved(LIGHTNING, wallet_account(self.wallets[payment.wallet]), payment.sats + 1),
                details={"type": "invoice", "hash": payment.event.payment_hash},
            )

    def _insert(self, payment: Payment) -> None:
        if payment.kind in AMP and self.store.invoices.get(payment.event.payment_hash) is not None:
            return  # written for another of its sets
        dollars = payment.kind is Kind.DOLLARS
        wallet = self._dollars if dollars else self.wallets[payment.wallet]
        if payment.kind is Kind.NO_WALLET:
            wallet = WalletId("nobody")
        on_node = payment.event.pubkey
        if payment.kind is Kind.OTHER_NODE:
            on_node = NODES[1 - NODES.index(on_node)]
        self.store.another.insert_invoice(
            invoice(payment.name, wallet, pubkey=on_node, currency=Currency.USD if dollars else Currency.BTC)
        )
        assert hash_of(payment.name) == payment.event.payment_hash


def _key(payment: Payment) -> str:
    return lightning_key(payment.event.pubkey, payment.event.settled_id)


def _invoice_key(payment: Payment) -> str:
    return lightning_key(payment.event.pubkey, payment.event.payment_hash)


def _die(step: str, at: str) -> None:
    if step == at:
        raise Killed(step)
