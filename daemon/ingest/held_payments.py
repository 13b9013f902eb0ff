"""What one node holds now: decided as soon as it comes and again until it is over, and the node asked accordingly.

Payments that need a price are decided apart: a dealer's server that does not answer must not hold up the others. One
that waits for a person needs it when he has released it.

Nor does a call that the node does not answer in time hold up the others, or cost them their streams: it is made again
for its own payment, after a pause. Whether the node is away, its streams tell, the look at its height, and calls for
several payments of which none is answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import structlog
import trio

from daemon.domain.books import Expectation, Facts, Wanted
from daemon.domain.errors import NodeRefused, Unavailable
from daemon.domain.holds import HoldRules
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.money import MSAT_PER_SAT
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.ports import Books, HoldMetrics, HoldState, LightningNode, NodeAnswer
from daemon.domain.quotes import Quote, Unpriced, UnpricedReason, release_until_ms
from daemon.matching.decide import why_not_credited
from daemon.matching.holds import Cancel, HoldFacts, Settle, Wait, deadline_of, decide_hold, waits_for_release

CHUNK: Final = 250
"""Decided together, on one read of the database; settlements begin after it."""

CALLS: Final = 8
"""SettleInvoice and CancelInvoice under way at once: LND takes some 1,200 a second so (node-interfaces.md A.0)."""

PRICINGS: Final = 4
"""Prices asked for at once; each may wait a few seconds for a dealer's server."""

RELEASED_BY_THEN_MS: Final = 10_000
"""So long after the last moment for a release a payment is given back: a release that was accepted in that moment has
been written by then, also to a slow database."""

_PAUSES_S: Final = (1.0, 60.0)
"""First and longest pause before the node is asked again for what it has refused, or not answered."""

Ready = Callable[[Expectation, int], Quote | Unpriced | None]
"""`daemon.posting.pricing.Pricing.ready`: blocks, and raises Unavailable."""

_Order = tuple[HoldState, Settle | Cancel]

log = structlog.get_logger()


def needs_price(expectation: Expectation, received_msat: int) -> bool:
    """Whether a price has to be asked for before this can be credited."""
    return expectation.is_in_dollars and expectation.cents is None and received_msat >= MSAT_PER_SAT


def without_prices(expectation: Expectation, received_msat: int) -> Quote | Unpriced | None:
    """For a daemon that has no [prices]: what needs one, waits."""
    return Unpriced(UnpricedReason.MISSING) if needs_price(expectation, received_msat) else None


class _Due:
    """Hashes that have to be decided, each once; bounded by how many are held."""

    def __init__(self) -> None:
        self._hashes: dict[PaymentHash, None] = {}
        self._added = trio.Event()

    def add(self, hashes: Iterable[PaymentHash]) -> None:
        self._hashes.update(dict.fromkeys(hashes))
        if self._hashes:
            self._added.set()

    async def take(self) -> list[PaymentHash]:
        """The next ones, at least one, at most a chunk."""
        while not self._hashes:
            self._added = trio.Event()
            await self._added.wait()
        taken = list(self._hashes)[:CHUNK]
        for payment_hash in taken:
            del self._hashes[payment_hash]
        return taken


@dataclass(slots=True)
class _Pause:
    """Of a call that the node has refused, or not answered."""

    pause_s: float
    again_at: float


@dataclass(kw_only=True, slots=True)
class HeldPayments:
    """The payments of one connection. `version` and `height` are the node's, as last seen."""

    node: LightningNode
    books: Books
    pubkey: NodePubkey
    version: str
    height: int
    rules: HoldRules
    ready: Ready
    metrics: HoldMetrics
    now: Callable[[], datetime]
    _held: dict[PaymentHash, HoldState] = field(default_factory=dict)
    _due: _Due = field(default_factory=_Due)
    _due_priced: _Due = field(default_factory=_Due)
    _reasons: dict[PaymentHash, str] = field(default_factory=dict)
    _waiting: dict[PaymentHash, Wait] = field(default_factory=dict)
    _paused: dict[PaymentHash, _Pause] = field(default_factory=dict)
    _asking: set[PaymentHash] = field(default_factory=set)
    _unanswered: set[PaymentHash] = field(default_factory=set)
    _orders: trio.MemorySendChannel[_Order] = field(init=False)
    _ordered: trio.MemoryReceiveChannel[_Order] = field(init=False)
    _changes: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(CALLS))
    _pricings: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PRICINGS))
    _reads: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1 + PRICINGS))

    def __post_init__(self) -> None:
        self._orders, self._ordered = trio.open_memory_channel[_Order](0)

    # --- what is held -------------------------------------------------------------------------------

    def put(self, hold: HoldState) -> None:
        """A payment is held; it is decided once `decide_now` names it."""
        self._held[hold.payment_hash] = hold

    def forget(self, payment_hash: PaymentHash) -> str | None:
        """It is over; returns why, where it was given back from here."""
        self._held.pop(payment_hash, None)
        self._waiting.pop(payment_hash, None)
        self._paused.pop(payment_hash, None)
        self._unanswered.discard(payment_hash)
        return self._reasons.pop(payment_hash, None)

    def decide_now(self, hashes: Iterable[PaymentHash] | None = None) -> None:
        """These are decided soon, or all that is held."""
        wanted = self._held if hashes is None else (one for one in hashes if one in self._held)
        self._due.add(wanted)

    @property
    def count(self) -> int:
        """How many."""
        return len(self._held)

    @property
    def held_msat(self) -> int:
        """How much."""
        return sum(hold.received_msat for hold in self._held.values())

    @property
    def nearest_deadline_blocks(self) -> int | None:
        """Blocks until the first of them is decided whatever is missing; None if nothing is to be decided here."""
        nobodys = {one for one, wait in self._waiting.items() if wait.deadline_height is None}
        deadlines = [
            deadline_of(hold, version=self.version, rules=self.rules)
            for payment_hash, hold in self._held.items()
            if payment_hash not in nobodys
        ]
        return min(deadlines) - self.height if deadlines else None

    # --- what is done with it -----------------------------------------------------------------------

    async def run(self) -> None:
        """Decides what is due and asks the node for it, for ever. Raises Unavailable, in a group."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._decide_in_sats)
            nursery.start_soon(self._decide_priced)
            for _ in range(CALLS):
                nursery.start_soon(self._carry_out)

    async def _decide_in_sats(self) -> None:
        while True:
            due = await self._due.take()
            facts = await self._read_facts(due)
            decided: list[tuple[HoldState, Settle | Cancel | Wait]] = []
            for hold in self._still_held(due):
                expectation = facts.expectations.get(hold.payment_hash)
                if expectation is not None and self._has_to_be_priced(expectation, hold.received_msat):
                    self._due_priced.add([hold.payment_hash])
                else:
                    decided.append((hold, self._decision(hold, facts, None)))
            # All are decided before the first waits for its turn: these facts say nothing of any later moment.
            for hold, decision in decided:
                await self._act(hold, decision)

    async def _decide_priced(self) -> None:
        while True:
            due = await self._due_priced.take()
            async with trio.open_nursery() as pricings:
                for hold in self._still_held(due):
                    pricings.start_soon(self._price_and_act, hold)

    def _has_to_be_priced(self, expectation: Expectation, received_msat: int) -> bool:
        return needs_price(expectation, received_msat) and not waits_for_release(expectation, self.rules)

    async def _price_and_act(self, hold: HoldState) -> None:
        facts = await self._read_facts([hold.payment_hash])
        expectation = facts.expectations.get(hold.payment_hash)
        not_priced = None
        if expectation is not None and self._has_to_be_priced(expectation, hold.received_msat):
            ask = partial(self.ready, expectation, hold.received_msat)
            answer = await trio.to_thread.run_sync(ask, limiter=self._pricings, abandon_on_cancel=True)
            if isinstance(answer, Unpriced):
                not_priced = answer.reason.value
            else:
                facts = await self._read_facts([hold.payment_hash])  # the quote is one of them now
        await self._act(hold, self._decision(hold, facts, not_priced))

    def _still_held(self, due: Iterable[PaymentHash]) -> list[HoldState]:
        """Without those of which the node is being asked, or that pause: they are looked at again."""
        now = trio.current_time()
        ready = (one for one in due if (pause := self._paused.get(one)) is None or pause.again_at <= now)
        return [hold for one in ready if one not in self._asking and (hold := self._held.get(one)) is not None]

    def _decision(self, hold: HoldState, facts: Facts, not_priced: str | None) -> Settle | Cancel | Wait:
        if_settled = InvoiceSettled(
            pubkey=self.pubkey,
            payment_hash=hold.payment_hash,
            settled_id=hold.payment_hash,
            settle_index=0,
            received_msat=hold.received_msat,
            settled_at_ms=hold.accepted_at_s * 1000,
            memo="",
        )
        return decide_hold(
            HoldFacts(
                hold=hold,
                expectation=facts.expectations.get(hold.payment_hash),
                not_credited=why_not_credited(facts, if_settled),
                not_priced=not_priced,
                height=self.height,
                version=self.version,
                price_is_over=self._price_is_over(hold, facts),
            ),
            self.rules,
        )

    def _price_is_over(self, hold: HoldState, facts: Facts) -> bool:
        """Whether a price that its invoice was given by a quote, here, is over for whoever is to release it."""
        expectation = facts.expectations.get(hold.payment_hash)
        quote = facts.dollars.quotes.get(hold.payment_hash)
        if expectation is None or expectation.cents is None or quote is None:
            return False
        until_ms = release_until_ms(quote.expires_at_ms, held_at_s=hold.accepted_at_s)
        return self.now().timestamp() * 1000 >= until_ms + RELEASED_BY_THEN_MS

    async def _act(self, hold: HoldState, decision: Settle | Cancel | Wait) -> None:
        payment_hash = hold.payment_hash
        if not self._is_due(hold):
            return
        if not isinstance(decision, Wait):
            await self._orders.send((hold, decision))  # waits while as many calls as may be are under way
        elif self._waiting.get(payment_hash) != decision:
            self._waiting[payment_hash] = decision
            log.info(
                "hold.waiting",
                node=self.node.name,
                payment_hash=payment_hash,
                reason=decision.reason,
                deadline_height=decision.deadline_height,
            )

    def _is_due(self, hold: HoldState) -> bool:
        """Not if it was over while its price was asked for, or it was its turn, or if it was decided anew."""
        return self._held.get(hold.payment_hash) is hold and hold.payment_hash not in self._asking

    async def _carry_out(self) -> None:
        """One of the calls that are under way at once."""
        async for hold, decision in self._ordered:
            if self._is_due(hold):
                self._asking.add(hold.payment_hash)
                await self._ask_node(hold, decision)
                self._asking.remove(hold.payment_hash)

    async def _ask_node(self, hold: HoldState, decision: Settle | Cancel) -> None:
        try:
            if isinstance(decision, Settle):
                await self._settle(hold, decision.preimage)
            else:
                await self._cancel(hold, decision.reason)
        except NodeRefused as refusal:
            self._pause(hold, "hold.refused", refusal)
        except Unavailable as problem:
            if hold.payment_hash not in self._held:
                return  # its stream has told the answer
            self._unanswered.add(hold.payment_hash)
            if len(self._unanswered) >= CALLS:
                raise  # each of the next ones would wait for its deadline, too
            self._pause(hold, "hold.not_answered", problem)
            return
        self._unanswered.clear()

    async def _settle(self, hold: HoldState, preimage: bytes) -> None:
        waited = hold.payment_hash in self._waiting  # for a person, a wallet, a price: that is no delay of ours
        answer = await self._ask(partial(self.node.settle_invoice, preimage))
        self._log("hold.settled", hold, answer)
        if answer is NodeAnswer.DONE:
            if not waited:
                delay_s = (time.monotonic_ns() - hold.seen_at_ns) / 1e9 if hold.seen_at_ns else None
                self.metrics.hold_settled(node=self.node.name, delay_s=delay_s)
            self.forget(hold.payment_hash)

    async def _cancel(self, hold: HoldState, reason: str) -> None:
        self._reasons[hold.payment_hash] = reason  # before the stream tells that it is done
        answer = await self._ask(partial(self.node.cancel_invoice, hold.payment_hash))
        if answer is not NodeAnswer.DONE:  # else counted and logged by posting, which the stream tells of it
            self._log("hold.not_canceled", hold, answer, reason=reason)
            self.forget(hold.payment_hash)

    async def _ask(self, call: Callable[[], NodeAnswer]) -> NodeAnswer:
        # Left to its deadline when the task is cancelled: what came of it the node tells at the next start.
        return await trio.to_thread.run_sync(call, limiter=self._changes, abandon_on_cancel=True)

    async def _read_facts(self, hashes: Iterable[PaymentHash]) -> Facts:
        read = partial(self.books.read_facts, Wanted(payment_hashes=set(hashes)))
        return await trio.to_thread.run_sync(read, limiter=self._reads, abandon_on_cancel=True)

    def _log(self, event: str, hold: HoldState, answer: NodeAnswer, **fields: str) -> None:
        write = log.info if answer is NodeAnswer.DONE else log.warning
        write(
            event,
            node=self.node.name,
            payment_hash=hold.payment_hash,
            received_msat=hold.received_msat,
            answer=answer.value,
            **fields,
        )

    def _pause(self, hold: HoldState, event: str, cause: NodeRefused | Unavailable) -> None:
        payment_hash = hold.payment_hash
        known = self._paused.get(payment_hash)
        pause_s = _PAUSES_S[0] if known is None else min(2 * known.pause_s, _PAUSES_S[1])
        self._paused[payment_hash] = _Pause(pause_s=pause_s, again_at=trio.current_time() + pause_s)
        log.error(event, node=self.node.name, payment_hash=payment_hash, cause=str(cause), retry_in_s=pause_s)
