"""The keeper of hold invoices: what is held is decided at once, again and in time, whatever breaks in between."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
import structlog
import trio
import trio.testing

from daemon.domain.accounts import wallet_account
from daemon.domain.books import Expectation
from daemon.domain.errors import NodeRefused, Unavailable
from daemon.domain.holds import HoldRules, Release
from daemon.domain.identifiers import PaymentHash, WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceEnded, InvoiceHeld, NodeOpened
from daemon.domain.ports import HoldPage, InvoiceState, NewHoldInvoice, NodeAnswer
from daemon.domain.quotes import Quote, Unpriced, UnpricedReason
from daemon.domain.status import HoldStatus
from daemon.ingest.handover import Inbox
from daemon.ingest.held_payments import CALLS, HeldPayments, Ready, without_prices
from daemon.ingest.holds import HoldKeeper
from daemon.ingest.pace import Pace
from daemon.posting.invoice_hints import InvoiceHints
from daemon.supervision import keep_running
from tests.samples import hash_of, invoice, preimage_of
from tests.unit.ingest.teller import FAST, PATIENCE_S, Teller, WatchedNode, eventually, wait_until


class CountedHolds:
    """What the keeper counts."""

    def __init__(self) -> None:
        self.attached: list[tuple[int, bool]] = []
        self.delays: list[float | None] = []

    def holds_attached(self, *, node: str, holds: int, again: bool) -> None:
        """After each start."""
        self.attached.append((holds, again))

    def hold_settled(self, *, node: str, delay_s: float | None) -> None:
        """Taken."""
        self.delays.append(delay_s)


class HoldTeller(Teller):
    """A teller with a keeper; `keep` runs it beside follower, sweep and posting."""

    def __init__(self, node: WatchedNode | None = None) -> None:
        super().__init__(node)
        self.hints = InvoiceHints()
        self.holds = HoldStatus(name=self.node.name)
        self.counted = CountedHolds()
        self.rules = HoldRules()
        self.dollar_wallets: list[WalletId] = []

    def hold_invoice(
        self,
        name: str,
        value_msat: int = 1_000_000,
        *,
        preimage: str | None = None,
        release: Release | None = None,
        document: bool = True,
    ) -> PaymentHash:
        """A hold invoice on the node, and another program's document of it, an hour old."""
        self.node.add_hold_invoice(
            NewHoldInvoice(
                payment_hash=hash_of(name), value_msat=value_msat, memo=name, description_hash=b"", expiry_s=3600
            )
        )
        if document:
            self.write(name, preimage=preimage, release=release)
        return hash_of(name)

    def hold_in_dollars(
        self, name: str, *, cents: int | None = None, release: Release | None = None, quote_expires_s: float = 0
    ) -> PaymentHash:
        """The same for a dollar wallet of its own. Without cents its price is asked for while it is held; with a time
        in which its quote expires it has one."""
        wallet = self.store.wallets.create(account_id=None, currency=Currency.USD, external_id=f"usd-{name}")
        self.dollar_wallets.append(wallet.wallet_id)
        payment_hash = self.hold_invoice(name, document=False)
        stored = invoice(name, wallet.wallet_id, pubkey=self.node.pubkey, currency=Currency.USD)
        self.store.another.insert_invoice(replace(stored, release=release), cents=cents)
        if quote_expires_s:
            self.quote(payment_hash, wallet.wallet_id, cents=cents or 60, expires_s=quote_expires_s)
        return payment_hash

    def quote(self, payment_hash: PaymentHash, wallet_id: WalletId, *, cents: int = 60, expires_s: float) -> Quote:
        """A thousand sats for these cents, from five minutes before it expires."""
        expires_at_ms = int((time.time() + expires_s) * 1000)
        quote = Quote(
            payment_hash=payment_hash,
            wallet_id=wallet_id,
            cents=cents,
            sat=1_000,
            price="60000.00",
            source="fixed",
            created_at_ms=expires_at_ms - 300_000,
            expires_at_ms=expires_at_ms,
        )
        return self.store.quotes.keep(quote)

    @property
    def credited_cents(self) -> int:
        """What the dollar wallets have."""
        return sum(self.store.ledger.balance((wallet_account(one), "USD"))[0] for one in self.dollar_wallets)

    def hold_since(self, payment_hash: PaymentHash, held_s: float) -> None:
        """A payment is held that came so long ago."""
        self.node._now_s = lambda: time.time() - held_s
        self.node.hold(payment_hash)
        self.node._now_s = time.time

    def write(
        self,
        name: str,
        *,
        preimage: str | None = None,
        release: Release | None = None,
        wallet: str = "",
        new: bool = False,
    ) -> None:
        """The document; one that is `new` was made just now."""
        stored = invoice(name, wallet or self.wallet, pubkey=self.node.pubkey)
        if new:
            stored = replace(stored, created_at=datetime.now(tz=UTC))
        known = stored.preimage if preimage is None else preimage
        self.store.another.insert_invoice(replace(stored, preimage=known, release=release))

    def state(self, payment_hash: PaymentHash) -> InvoiceState:
        """On the node."""
        found = self.node.lookup_invoice(payment_hash)
        assert found is not None
        return found.state

    def closed(self, payment_hash: PaymentHash) -> bool:
        """Whether the document is."""
        stored = self.store.invoices.get(payment_hash)
        assert stored is not None
        return stored.completed

    def told(self) -> list[str]:
        """The feed, openings left out."""
        rows = self.store.ledger.events(after_sequence=0, limit=1000)
        return [row.type for row in rows if row.type != "books.opened"]

    def payload(self, kind: str) -> dict[str, object]:
        """Of the only event of this type."""
        (row,) = [row for row in self.store.ledger.events(after_sequence=0, limit=1000) if row.type == kind]
        return dict(row.payload)

    @asynccontextmanager
    async def keep(
        self, *, follow: bool = True, pace: Pace = FAST, ready: Ready = without_prices
    ) -> AsyncIterator[None]:
        """The keeper under supervision, the follower, and posting."""

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            keeper = HoldKeeper(
                node=self.node,
                documents=self.store.open_invoices,
                books=self.store.books,
                inbox=inbox,
                hints=self.hints,
                status=self.holds,
                metrics=self.counted,
                rules=self.rules,
                ready=ready,
                pace=pace,
            )
            tasks: list[Callable[[Callable[[], None]], Awaitable[None]]] = [keeper.run]
            if follow:
                tasks.append(self.follower(inbox).run)
            for task in tasks:
                running = partial(
                    keep_running,
                    task,
                    name="task",
                    rng=random.Random(1),
                    backoff_s=(0.005, 0.02),
                )
                nursery.start_soon(running)

        async with self.staged(start):
            yield


async def opened(node: WatchedNode | None = None) -> HoldTeller:
    """With the opening booked."""
    teller = HoldTeller(node)
    async with teller.follow():
        await eventually(lambda: any(isinstance(event, NodeOpened) for event in teller.handed_over))
        await eventually(lambda: (c := teller.cursor()) is not None and c.opened)
    return teller


async def test_a_held_payment_is_taken_and_credited() -> None:
    """Told in order; the delay is counted; nothing is held afterwards."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a")
    async with teller.keep():
        await eventually(lambda: teller.holds.watched == 1)
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)
        await eventually(lambda: teller.holds.held == 0)
    assert teller.told() == ["invoice.held", "invoice.settled"]
    assert teller.payload("invoice.held")["received_msat"] == 1_000_000
    assert teller.books_equal_node()


async def test_a_payment_is_decided_when_it_comes_and_when_it_is_released() -> None:
    """Not only at the next look, which is far away here."""
    teller = await opened()
    by_itself, by_call = teller.hold_invoice("by itself"), teller.hold_invoice("by call", release=Release.MANUAL)
    async with teller.keep(pace=replace(FAST, hold_look_s=3600.0)):
        for payment_hash in (by_itself, by_call):
            teller.node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)
        teller.store.invoices.release(by_call, None)
        teller.hints.look(teller.node.pubkey, by_call)
        await eventually(lambda: teller.credited_sat == 2000)


async def test_what_was_held_while_nobody_watched_is_taken() -> None:
    """A daemon that comes back finds it in its listing."""
    teller = await opened()
    for name in ("a", "b"):
        teller.node.hold(teller.hold_invoice(name))
    async with teller.keep():
        await eventually(lambda: teller.credited_sat == 2000)
    assert teller.counted.attached == [(2, False)]


async def test_an_invoice_of_another_program_is_watched_when_its_document_appears() -> None:
    """Blink's core makes the invoice first and writes the document after it."""
    teller = await opened()
    async with teller.keep():
        await eventually(lambda: teller.counted.attached == [(0, False)])
        payment_hash = teller.hold_invoice("a", document=False)
        teller.write("a", new=True)
        await eventually(lambda: teller.holds.watched == 1)
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)


async def test_a_hint_is_watched_at_once() -> None:
    """Also before the invoice is made, and although its document does not count as new."""
    teller = await opened()
    async with teller.keep():
        await eventually(lambda: teller.counted.attached == [(0, False)])
        teller.hints.look(teller.node.pubkey, hash_of("a"))
        payment_hash = teller.hold_invoice("a")
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)


async def test_an_ordinary_invoice_is_not_watched_on() -> None:
    """Its own stream says what it is."""
    teller = await opened()
    async with teller.keep():
        teller.node.add("ordinary", 1_000_000)
        teller.write("ordinary", new=True)
        teller.hints.ordinary(hash_of("known"))
        teller.node.add("known", 1_000_000)
        teller.write("known", new=True)
        held = teller.hold_invoice("held", document=False)
        teller.write("held", new=True)
        teller.node.hold(held)
        await eventually(lambda: teller.credited_sat == 1000)
        await eventually(lambda: teller.node.holds.watched == 0)
    assert teller.told() == ["invoice.held", "invoice.settled"]


async def test_a_hold_invoice_without_a_document_is_left_alone() -> None:
    """It is another program's business, whatever it holds and however near its end."""
    teller = await opened()
    others = teller.hold_invoice("others", document=False)
    teller.node.hold(others, expiry_height=160)
    ours = teller.hold_invoice("ours")
    async with teller.keep():
        await eventually(lambda: bool(teller.counted.attached))
        teller.hints.look(teller.node.pubkey, others)
        await eventually(lambda: teller.holds.held == 1)
        teller.node.hold(ours)
        await eventually(lambda: teller.credited_sat == 1000)
        await trio.sleep(5 * FAST.hold_look_s)
        await eventually(lambda: (teller.holds.held, teller.holds.nearest_deadline_blocks) == (1, None))
    assert teller.state(others) is InvoiceState.ACCEPTED
    assert teller.node.holds.settle_calls == [ours]
    assert teller.counted.attached == [(1, False)]


async def test_a_manual_one_waits_for_its_release() -> None:
    """What the document says in the end counts, whoever has written it."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a", release=Release.MANUAL)
    async with teller.keep():
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.told() == ["invoice.held"])
        await trio.sleep(5 * FAST.hold_look_s)
        assert teller.node.holds.settle_calls == []
        assert (teller.holds.held, teller.holds.held_msat) == (1, 1_000_000)
        assert teller.holds.nearest_deadline_blocks == 80 - 18 - 6
        teller.store.invoices.release(payment_hash, None)
        await eventually(lambda: teller.credited_sat == 1000)
    assert teller.holds.nearest_deadline_blocks is None


async def test_what_nobody_expects_is_counted_and_left_alone() -> None:
    """Until it has a document; the others are served meanwhile."""
    teller = await opened()
    others, ours = teller.hold_invoice("others", document=False), teller.hold_invoice("ours")
    async with teller.keep():
        teller.node.hold(others)
        await eventually(lambda: teller.holds.unknown == 1)
        assert (teller.holds.held, teller.holds.nearest_deadline_blocks) == (0, None)
        teller.node.hold(ours)
        await eventually(lambda: teller.credited_sat == 1000)
        assert teller.state(others) is InvoiceState.ACCEPTED
        teller.write("others", new=True)
        await eventually(lambda: teller.credited_sat == 2000)
        await eventually(lambda: teller.holds.unknown == 0)


async def test_nothing_is_shown_while_nobody_looks() -> None:
    """A deadline of an hour ago would be an alarm about nothing, on a standby for good."""
    teller = await opened()
    teller.node.hold(teller.hold_invoice("a", release=Release.MANUAL))
    async with teller.keep():
        await eventually(lambda: teller.holds.nearest_deadline_blocks == 80 - 18 - 6)
        await eventually(lambda: teller.holds.unknown == 0)
    assert teller.holds == HoldStatus(name=teller.node.name)


async def test_one_without_its_preimage_waits_for_it() -> None:
    """It comes with the release."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a", preimage="", release=Release.MANUAL)
    async with teller.keep():
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.holds.held == 1)
        teller.store.invoices.release(payment_hash, preimage_of("a").hex())
        await eventually(lambda: teller.credited_sat == 1000)


async def test_a_wallet_that_comes_later_releases_what_is_held() -> None:
    """Automatic, once the wallet is fine."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a", document=False)
    teller.write("a", wallet="nobody's")
    async with teller.keep():
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.holds.held == 1)
        await trio.sleep(5 * FAST.hold_look_s)
        assert teller.node.holds.settle_calls == []
        teller.write("a")
        await eventually(lambda: teller.credited_sat == 1000)


async def test_what_cannot_be_taken_goes_back_in_time() -> None:
    """At the height at which LND is six blocks from doing so itself; told, counted, and its document closed."""
    teller = await opened()
    waits = teller.hold_invoice("waits", release=Release.MANUAL)
    async with teller.keep():
        teller.node.hold(waits, expiry_height=250)
        await eventually(lambda: teller.holds.held == 1)
        teller.node.holds.height = 225
        await eventually(lambda: teller.holds.nearest_deadline_blocks == 1)
        await trio.sleep(5 * FAST.hold_look_s)
        assert teller.state(waits) is InvoiceState.ACCEPTED
        teller.node.holds.height = 226
        await eventually(lambda: teller.closed(waits))
        await eventually(lambda: teller.metrics.canceled == ["not_released"])
    assert teller.state(waits) is InvoiceState.CANCELED
    assert teller.told() == ["invoice.held", "invoice.canceled"]
    canceled = teller.payload("invoice.canceled")
    assert (canceled["reason"], canceled["returned_msat"]) == ("not_released", 1_000_000)
    assert teller.credited_sat == 0
    assert teller.books_equal_node()


class AnswersLast(WatchedNode):
    """A node whose stream says SETTLED before the call that settled it is answered, as LND's often does."""

    def __init__(self) -> None:
        super().__init__(funds_msat=0)
        self.was_told: Callable[[PaymentHash], bool] = lambda _hash: True

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        answer = super().settle_invoice(preimage)
        wait_until(lambda: self.was_told(PaymentHash(hashlib.sha256(preimage).hexdigest())))
        return answer


@pytest.mark.parametrize("node", [WatchedNode(funds_msat=0), AnswersLast()], ids=["answers first", "answers last"])
async def test_the_delay_is_of_payments_that_could_be_taken_when_they_came(node: WatchedNode) -> None:
    """How long one has waited for a person, a wallet or a price says nothing of how fast payments are taken."""
    teller = await opened(node)
    if isinstance(node, AnswersLast):
        node.was_told = lambda _hash: teller.holds.held == 0
    by_call, by_itself = teller.hold_invoice("by call", release=Release.MANUAL), teller.hold_invoice("by itself")
    with structlog.testing.capture_logs() as logs:

        def logged(event: str) -> int:
            return sum(line["event"] == event for line in logs)

        async with teller.keep():
            node.hold(by_call)
            await eventually(lambda: logged("hold.waiting") == 1)
            teller.store.invoices.release(by_call, None)
            await eventually(lambda: logged("hold.settled") == 1)
            assert teller.counted.delays == []
            node.hold(by_itself)
            await eventually(lambda: logged("hold.settled") == 2)
            assert len(teller.counted.delays) == 1


async def test_less_than_a_sat_is_declined() -> None:
    """The payer gets it back."""
    teller = await opened()
    payment_hash = teller.hold_invoice("small", 995)
    async with teller.keep():
        teller.node.hold(payment_hash)
        await eventually(lambda: teller.closed(payment_hash))
    assert teller.payload("invoice.canceled")["reason"] == "under_one_sat"
    assert teller.node.holds.settle_calls == []


async def test_what_is_held_for_a_paid_invoice_goes_back() -> None:
    """Blink's core pays an invoice between two wallets and cancels it on the node: killed in between, we do."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a")
    teller.store.another.mark_paid(payment_hash)
    teller.node.hold(payment_hash)
    async with teller.keep():
        await eventually(lambda: teller.state(payment_hash) is InvoiceState.CANCELED)
        await eventually(lambda: any(isinstance(event, InvoiceEnded) for event in teller.handed_over))
        await eventually(lambda: teller.metrics.canceled == ["already_paid"])
    assert teller.told() == []  # it is paid, whatever the node says of it


async def test_what_comes_for_an_invoice_that_another_program_has_closed_goes_back() -> None:
    """It is open on its node all the same, and was not watched when nothing was held for it."""
    teller = await opened()
    closed = teller.hold_invoice("closed")
    teller.store.another.mark_paid(closed)
    async with teller.keep():
        await eventually(lambda: teller.counted.attached == [(0, False)])
        teller.node.hold(closed)
        await eventually(lambda: teller.state(closed) is InvoiceState.CANCELED)
    assert teller.credited_sat == 0


async def test_an_invoice_that_expires_is_told_and_closed() -> None:
    """After the node has said CANCELED; before its time it was canceled by somebody."""
    teller = await opened()
    teller.node._now_s = lambda: datetime.now(tz=UTC).timestamp() - 4_000  # the invoice was made then
    expired = teller.hold_invoice("expired")
    teller.node._now_s = time.time
    by_hand = teller.hold_invoice("by hand")
    async with teller.keep():
        await eventually(lambda: teller.holds.watched == 2)
        assert not teller.closed(expired)
        for payment_hash in (expired, by_hand):
            teller.node.cancel(payment_hash)
            await eventually(lambda payment_hash=payment_hash: teller.closed(payment_hash))  # type: ignore[misc]  # a lambda with a default
    assert teller.told() == ["invoice.expired", "invoice.canceled"]
    assert teller.payload("invoice.canceled")["reason"] == "on_node"


async def test_a_call_says_why_it_cancels() -> None:
    """The reason is noted before the node is asked."""
    teller = await opened()
    payment_hash = teller.hold_invoice("a")
    async with teller.keep():
        await eventually(lambda: teller.holds.watched == 1)
        teller.hints.canceling(teller.node.pubkey, payment_hash, reason="by_call")
        assert teller.node.cancel_invoice(payment_hash) is NodeAnswer.DONE
        await eventually(lambda: teller.closed(payment_hash))
    assert teller.payload("invoice.canceled")["reason"] == "by_call"


async def test_everything_is_watched_again_after_an_outage() -> None:
    """Also what was paid meanwhile; and it is told once."""
    teller = await opened()
    hashes = [teller.hold_invoice(f"invoice {number}", release=Release.MANUAL) for number in range(20)]
    async with teller.keep():
        await eventually(lambda: teller.holds.watched == 20)
        teller.node.hold(hashes[0])
        await eventually(lambda: teller.holds.held == 1)
        teller.node.go_away()
        await eventually(lambda: teller.holds.watched == 0)
        teller.node.hold(hashes[1])
        teller.node.come_back()
        await eventually(lambda: teller.holds.held == 2)
        for payment_hash in hashes[:2]:
            teller.store.invoices.release(payment_hash, None)
        await eventually(lambda: teller.credited_sat == 2000)
    assert teller.counted.attached == [(20, False), (20, True)]
    assert sorted(teller.told()) == ["invoice.held"] * 2 + ["invoice.settled"] * 2


async def test_a_refusal_is_tried_again_with_pauses() -> None:
    """A node that says no for a reason that we do not know is not asked in a loop, and the others are served."""

    class Refusing(WatchedNode):
        def __init__(self) -> None:
            super().__init__(funds_msat=0)
            self.asked_s: list[float] = []

        def settle_invoice(self, preimage: bytes) -> NodeAnswer:
            if preimage == preimage_of("refused"):
                self.asked_s.append(time.monotonic())
                if len(self.asked_s) <= 2:
                    raise NodeRefused("no")
            return super().settle_invoice(preimage)

    node = Refusing()
    teller = HoldTeller(node)
    async with teller.keep():
        await eventually(lambda: (c := teller.cursor()) is not None and c.opened)
        refused, fine = teller.hold_invoice("refused"), teller.hold_invoice("fine")
        for payment_hash in (refused, fine):
            teller.hints.look(node.pubkey, payment_hash)
            node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 2000)
    first_s, second_s, third_s = node.asked_s
    assert second_s - first_s >= 1.0  # many looks, and the first pause
    assert third_s - second_s >= 2.0


class UnansweringNode(WatchedNode):
    """Does not answer these calls: they end at their deadline, which comes when the test says so."""

    def __init__(self) -> None:
        super().__init__(funds_msat=0)
        self.silent: set[PaymentHash] = set()
        self.deadline = threading.Event()
        self.hanging: list[PaymentHash] = []
        self.timed_out: list[PaymentHash] = []

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        self._maybe_hang(PaymentHash(hashlib.sha256(preimage).hexdigest()))
        return super().settle_invoice(preimage)

    def cancel_invoice(self, payment_hash: PaymentHash) -> NodeAnswer:
        self._maybe_hang(payment_hash)
        return super().cancel_invoice(payment_hash)

    def _maybe_hang(self, payment_hash: PaymentHash) -> None:
        if payment_hash in self.silent:
            self.hanging.append(payment_hash)
            self.deadline.wait(2 * PATIENCE_S)
            self.timed_out.append(payment_hash)
            raise Unavailable("deadline exceeded")


@asynccontextmanager
async def keeping_unanswered(names: Sequence[str]) -> AsyncIterator[tuple[HoldTeller, UnansweringNode]]:
    """A keeper whose node does not answer for these payments, which are held."""
    node = UnansweringNode()
    teller = await opened(node)
    hashes = [teller.hold_invoice(name) for name in names]
    node.silent.update(hashes)
    async with teller.keep():
        try:
            await eventually(lambda: teller.counted.attached == [(len(names), False)])
            for payment_hash in hashes:
                node.hold(payment_hash)
            await eventually(lambda: len(node.hanging) == min(len(names), CALLS))
            yield teller, node
        finally:
            node.deadline.set()


async def test_a_call_that_hangs_holds_up_no_other_payment() -> None:
    """Others are taken, priced, and given back at their deadline meanwhile; it is not asked for twice at once."""
    async with keeping_unanswered(["hangs"]) as (teller, node):
        fine, near = teller.hold_invoice("fine"), teller.hold_invoice("near")
        dollars = teller.hold_in_dollars("dollars")
        for payment_hash in (fine, near, dollars):
            teller.hints.look(node.pubkey, payment_hash)
        node.hold(near, expiry_height=node.holds.height + 16)
        node.hold(fine)
        node.hold(dollars)
        await eventually(lambda: teller.credited_sat == 1000)
        await eventually(lambda: teller.closed(near))
        node.holds.height = 230 - 18 - 6
        await eventually(lambda: teller.closed(dollars))
        assert node.hanging == [hash_of("hangs")]
    assert teller.counted.attached == [(1, False)]


async def test_a_call_that_is_not_answered_is_made_again_for_its_payment_alone() -> None:
    """After a pause; the streams of all the others stay as they are."""
    async with keeping_unanswered([f"slow {number}" for number in range(CALLS - 1)]) as (teller, node):
        node.deadline.set()
        await eventually(lambda: len(node.hanging) > CALLS)
        node.silent.clear()
        await eventually(lambda: teller.credited_sat == (CALLS - 1) * 1000)
    assert teller.counted.attached == [(CALLS - 1, False)]


async def test_a_cancel_that_is_not_answered_keeps_its_reason() -> None:
    """It is told when the node has done it at last."""
    node = UnansweringNode()
    teller = await opened(node)
    payment_hash = teller.hold_invoice("a", release=Release.MANUAL)
    node.silent.add(payment_hash)
    node.deadline.set()
    async with teller.keep():
        node.hold(payment_hash)
        await eventually(lambda: teller.holds.held == 1)
        node.holds.height = 230 - 18 - 6
        await eventually(lambda: bool(node.hanging))
        node.silent.clear()
        await eventually(lambda: teller.closed(payment_hash))
    assert teller.payload("invoice.canceled")["reason"] == "not_released"
    assert teller.counted.attached == [(1, False)]


async def test_a_node_that_answers_for_no_payment_is_away() -> None:
    """Else thousands of payments would wait for their deadlines, one after the other: the keeper says that it fails,
    and begins anew."""
    async with keeping_unanswered([f"slow {number}" for number in range(CALLS + 3)]) as (teller, node):
        node.deadline.set()
        await eventually(lambda: len(teller.counted.attached) > 1)
        node.silent.clear()
        await eventually(lambda: teller.credited_sat == (CALLS + 3) * 1000)
    assert teller.counted.attached[:2] == [(CALLS + 3, False), (CALLS + 3, True)]


async def test_more_than_can_be_watched_are_left_to_the_sweep() -> None:
    """The others are watched all the same."""
    teller = await opened()
    teller.node.holds.max_watched = 3
    hashes = [teller.hold_invoice(f"invoice {number}") for number in range(5)]
    async with teller.keep():
        await eventually(lambda: teller.counted.attached == [(3, False)])
        teller.node.hold(hashes[0])
        await eventually(lambda: teller.credited_sat == 1000)


async def test_what_is_held_is_watched_in_any_case() -> None:
    """Also beyond the bound, which is for those that may never be paid: found by the listing, and by a hint."""
    teller = await opened()
    teller.node.holds.max_watched = 1
    hashes = [teller.hold_invoice(f"invoice {number}") for number in range(4)]
    teller.node.hold(hashes[2])
    async with teller.keep(pace=replace(FAST, hold_look_s=3600.0)):
        await eventually(lambda: teller.credited_sat == 1000)
        teller.node.hold(hashes[3])
        for payment_hash in hashes:
            teller.hints.look(teller.node.pubkey, payment_hash)  # as the sweep does
        await eventually(lambda: teller.credited_sat == 2000)
        await eventually(lambda: teller.node.holds.watched == 1)


async def test_what_its_node_never_had_is_not_watched_for_ever() -> None:
    """A refused invoice, or one that LND has canceled and deleted: each would take a place until the next outage."""
    teller = await opened()
    teller.hold_invoice("open")
    async with teller.keep(pace=replace(FAST, silent_watch_s=0.05)):
        await eventually(lambda: teller.counted.attached == [(1, False)])
        teller.hints.look(teller.node.pubkey, hash_of("never made"))
        later = teller.hold_invoice("later")
        teller.hints.look(teller.node.pubkey, later)
        teller.node.hold(later)
        await eventually(lambda: teller.credited_sat == 1000)  # so both hints were taken
        await eventually(lambda: teller.node.holds.watched == 1)
        await trio.sleep(0.1)
        assert teller.node.holds.watched == 1  # the one that is open tells nothing more, and is watched on


async def test_a_slow_listing_holds_up_nothing() -> None:
    """LND reads all its invoices for it, which may be millions."""

    class Slow(WatchedNode):
        may_list = threading.Event()

        def pending_holds(self, *, after_add_index: int, limit: int) -> HoldPage:
            self.may_list.wait(2 * PATIENCE_S)
            return super().pending_holds(after_add_index=after_add_index, limit=limit)

    node = Slow(funds_msat=0)
    teller = HoldTeller(node)
    async with teller.keep():
        try:
            await eventually(lambda: (c := teller.cursor()) is not None and c.opened)
            hinted, new = teller.hold_invoice("hinted"), teller.hold_invoice("new", document=False)
            teller.write("new", new=True)
            teller.hints.look(node.pubkey, hinted)
            node.hold(hinted)
            node.hold(new)
            await eventually(lambda: teller.credited_sat == 2000)
            assert teller.counted.attached == []
        finally:
            node.may_list.set()


async def test_dollars_without_a_price_wait_and_do_not_hold_up_sats() -> None:
    """There is no [prices] here."""
    teller = await opened()
    in_dollars = teller.hold_in_dollars("dollars")
    in_sats = teller.hold_invoice("sats")
    async with teller.keep():
        for payment_hash in (in_dollars, in_sats):
            teller.node.hold(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)
        assert teller.state(in_dollars) is InvoiceState.ACCEPTED
        teller.node.holds.height = 230 - 18 - 6
        await eventually(lambda: teller.closed(in_dollars))
    assert teller.payload("invoice.canceled")["reason"] == "price_missing"


async def test_a_price_is_not_kept_for_who_waits_and_sees() -> None:
    """Nobody releases it: it goes back when its quote has expired, and a minute after it came at the earliest. What is
    taken by itself, what another program has given a price, and what is priced later is none of this."""
    teller = await opened()
    manual = partial(teller.hold_in_dollars, cents=60, release=Release.MANUAL)
    over = manual("over", quote_expires_s=-200)
    just_held = manual("just held", quote_expires_s=-200)
    quoted = manual("quoted", quote_expires_s=200)
    others = manual("others")
    no_amount = manual("no amount", cents=None, quote_expires_s=-200)
    by_itself = teller.hold_in_dollars("by itself", cents=60, quote_expires_s=-200)
    async with teller.keep():
        for payment_hash in (just_held, quoted, others, no_amount, by_itself):
            teller.hold_since(payment_hash, 0 if payment_hash == just_held else 4_000)
        teller.hold_since(over, 4_000)
        await eventually(lambda: teller.closed(over))
        await eventually(lambda: teller.credited_cents == 60)
        await trio.sleep(5 * FAST.hold_look_s)
        assert {teller.state(one) for one in (just_held, quoted, others, no_amount)} == {InvoiceState.ACCEPTED}
    assert teller.payload("invoice.canceled")["reason"] == "quote_expired"
    assert teller.state(by_itself) is InvoiceState.SETTLED


async def test_what_was_released_in_time_is_taken_however_late() -> None:
    """The node was away meanwhile, or nobody looked: blink-contract.md 3.3 (g)."""
    teller = await opened()
    payment_hash = teller.hold_in_dollars("late", cents=60, release=Release.MANUAL, quote_expires_s=-200)
    teller.hold_since(payment_hash, 4_000)
    teller.store.invoices.release(payment_hash, None)
    async with teller.keep():
        await eventually(lambda: teller.credited_cents == 60)


async def test_what_waits_for_a_person_is_priced_when_it_is_released() -> None:
    """Else he could wait until the price of before is better than the one of now."""
    teller = await opened()
    asked: list[PaymentHash] = []

    def price(expectation: Expectation, _received_msat: int) -> Quote:
        asked.append(expectation.payment_hash)
        return teller.quote(expectation.payment_hash, expectation.wallet_id, cents=77, expires_s=300)

    waits = teller.hold_in_dollars("waits", release=Release.MANUAL)
    async with teller.keep(ready=price):
        teller.node.hold(waits)
        await eventually(lambda: teller.holds.held == 1)
        await trio.sleep(5 * FAST.hold_look_s)
        assert (asked, teller.store.quotes.get(waits)) == ([], None)
        teller.store.invoices.release(waits, None)
        await eventually(lambda: teller.credited_cents == 77)
    assert asked == [waits]


async def test_what_is_over_while_its_price_is_asked_for_is_left_alone() -> None:
    """Nothing more is asked of the node for it, and it is counted once, as the node's."""
    teller = await opened()
    asked, may_answer = threading.Event(), threading.Event()

    def slow_price(_expectation: Expectation, _received_msat: int) -> Unpriced:
        asked.set()
        may_answer.wait(PATIENCE_S)
        return Unpriced(UnpricedReason.MISSING)

    first, second = teller.hold_in_dollars("first"), teller.hold_in_dollars("second")
    async with teller.keep(ready=slow_price):
        teller.node.hold(first, expiry_height=160)  # ten blocks from now: it is to go back
        await eventually(asked.is_set)
        teller.node.cancel(first)
        await eventually(lambda: teller.closed(first))
        teller.node.hold(second)
        teller.hints.look(teller.node.pubkey, second)
        teller.node.holds.height = 230 - 18 - 6
        may_answer.set()
        await eventually(lambda: teller.closed(second))
        await eventually(lambda: teller.metrics.canceled == ["on_node", "price_missing"])


async def test_another_node_at_the_address_is_kept_from_its_own_beginning() -> None:
    """Its invoices are its own."""
    teller = await opened()
    teller.node.hold(teller.hold_invoice("first", release=Release.MANUAL))
    async with teller.keep(follow=False):
        await eventually(lambda: teller.holds.held == 1)
        teller.node.replace_by_empty("03" * 33)
        await eventually(lambda: teller.holds.held == 0)
        second = teller.hold_invoice("second")
        teller.hints.look(teller.node.pubkey, second)
        await eventually(lambda: teller.node.holds.watched == 1)
        teller.node.hold(second)
        await eventually(lambda: teller.state(second) is InvoiceState.SETTLED)
    assert [e.payment_hash for e in teller.handed_over if isinstance(e, InvoiceHeld)] == [hash_of("first"), second]


class SlowNode(WatchedNode):
    """Answers to SettleInvoice when the test says so."""

    def __init__(self) -> None:
        super().__init__(funds_msat=0)
        self.may_answer = threading.Event()
        self.asked = 0

    def settle_invoice(self, preimage: bytes) -> NodeAnswer:
        self.asked += 1
        self.may_answer.wait(2 * PATIENCE_S)
        return super().settle_invoice(preimage)


async def test_what_is_released_while_the_node_is_slow_with_others_is_taken() -> None:
    """It was released in time. What was read before that decides nothing by the clock of after it."""
    node = SlowNode()
    teller = await opened(node)
    for number in range(CALLS + 1):
        node.hold(teller.hold_invoice(f"before {number}"))
    released = teller.hold_in_dollars("released", cents=60, release=Release.MANUAL, quote_expires_s=100)
    node.hold(released)
    later_s = 0.0
    held = HeldPayments(
        node=node,
        books=teller.store.books,
        pubkey=node.pubkey,
        version=node.get_info().version,
        height=node.get_info().block_height,
        rules=teller.rules,
        ready=without_prices,
        metrics=teller.counted,
        now=lambda: datetime.fromtimestamp(time.time() + later_s, tz=UTC),
    )
    for hold in node.pending_holds(after_add_index=0, limit=100).holds:
        held.put(hold)
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(held.run)
            held.decide_now()
            await eventually(lambda: node.asked == CALLS)
            await trio.testing.wait_all_tasks_blocked()  # the next one waits for its turn
            teller.store.invoices.release(released, None)
            later_s = 120.0
            held.decide_now([released])
        finally:
            node.may_answer.set()
        await eventually(lambda: teller.state(released) is not InvoiceState.ACCEPTED)
        nursery.cancel_scope.cancel()
    assert teller.state(released) is InvoiceState.SETTLED


async def test_calls_that_time_out_although_the_node_has_done_them_do_not_count() -> None:
    """The stream has told that it is over: the node is not away."""
    node = UnansweringNode()
    teller = await opened(node)
    async with teller.keep():
        await eventually(lambda: teller.counted.attached == [(0, False)])
        for number in range(CALLS + 1):
            name = f"slow {number}"
            payment_hash = teller.hold_invoice(name)
            teller.hints.look(node.pubkey, payment_hash)
            node.deadline.clear()
            node.silent.add(payment_hash)
            node.hold(payment_hash)
            await eventually(lambda: payment_hash in node.hanging)  # noqa: B023 (awaited here)
            WatchedNode.settle_invoice(node, preimage_of(name))
            await eventually(lambda: teller.holds.held == 0)
            node.deadline.set()
            await eventually(lambda: len(node.timed_out) == number + 1)  # noqa: B023 (awaited here)
            await trio.testing.wait_all_tasks_blocked()
    assert teller.counted.attached == [(0, False)]
