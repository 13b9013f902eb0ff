"""What the chain means for the books: deposits are detected, confirmed, settled, dropped, and taken back.

Each function decides one event of `daemon.domain.chain_events`. The cursor orders them: a move counts only from
the block where the last one ended, and what was seen at a tip only while that tip is the cursor's block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from daemon.domain.books import TELLERD, Gap, SuspenseChange, SuspenseEntry, SuspenseState, Wanted
from daemon.domain.chain import BlockRef, ChainCursor, Deposit, DepositBooking, DepositState
from daemon.domain.chain_events import (
    ChainEvent,
    ChainMoved,
    ConnectedBlock,
    DepositDue,
    GoneTx,
    OutputsFound,
    OutputsSeen,
    TxsGone,
    WatchedOutput,
)
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, DepositTerms
from daemon.domain.entries import MAX_LEG_AMOUNT
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import NodePubkey, PaymentHash, deposit_key, outpoint_of
from daemon.domain.money import MSAT_PER_SAT, Currency, Price
from daemon.domain.outcomes import AlreadyPosted, DepositsChanged, Held, Outcome, Stale, Suspended
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from daemon.matching import deposit_entries as entries
from daemon.matching.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRules:
    """What the configuration says: fee and dust, and the policy that counts until one is set over the API."""

    terms: DepositTerms
    default_policy: ConfirmationPolicy


BLINKS_RULES: Final = DepositRules(
    terms=DepositTerms(),
    default_policy=ConfirmationPolicy(version=0, tiers=(ConfirmationTier(from_sat=0, confirmations=2),)),
)
"""Blink's numbers (blink-contract.md 4), for whoever configures none."""


def want(wanted: Wanted, event: ChainEvent) -> None:
    """Adds what must be read before the event can be decided."""
    wanted.chain = True
    match event:
        case OutputsSeen():
            _want_outputs(wanted, event.outputs)
        case ChainMoved():
            _want_outputs(wanted, _outputs_of(event.connected))
            wanted.disconnected.update(block.hash for block in event.disconnected)
        case OutputsFound():
            _want_outputs(wanted, _outputs_of(event.blocks))
        case TxsGone():
            wanted.gone_txids.update(tx.txid for tx in event.txs)
        case DepositDue():
            wanted.outpoints.add(outpoint_of(event.txid, event.vout))


def _outputs_of(blocks: Iterable[ConnectedBlock]) -> Iterable[WatchedOutput]:
    return (output for block in blocks for output in block.outputs)


def _want_outputs(wanted: Wanted, outputs: Iterable[WatchedOutput]) -> None:
    """The wallets, too: a deposit that is new in a batch may be due in the same one."""
    for output in outputs:
        wanted.outpoints.add(outpoint_of(output.txid, output.vout))
        wanted.wallet_ids.add(output.wallet_id)


def in_books(events: Sequence[object], cursor: ChainCursor | None) -> int:
    """How many of a batch's first events are in the books already, as far as they are of the chain.

    A batch whose reply was lost comes again whole. Its moves follow each other, so the cursor is at the end of
    one of them; commits are in order, so all that was told before that move is in the books with it.
    """
    if cursor is None:
        return 0
    moves = [(number, event) for number, event in enumerate(events, 1) if isinstance(event, ChainMoved)]
    if not moves or moves[0][1].base == cursor.block:
        return 0
    return next((number for number, move in reversed(moves) if move.target == cursor), 0)


def decide_chain(plan: Plan, event: ChainEvent, rules: DepositRules, price: Price | None) -> None:
    """Decides one event; later ones of the batch see what it did. Adds one outcome."""
    plan.outcomes.append(_Decision(plan, rules, price).on(event))


def note_repeated(plan: Plan, event: ChainEvent) -> None:
    """Adds the outcome of an event that is in the books already (`in_books`)."""
    plan.outcomes.append(AlreadyPosted(_name_of(event)))


@dataclass(slots=True)
class _Decision:
    plan: Plan
    rules: DepositRules
    price: Price | None
    changed: DepositsChanged = field(default_factory=DepositsChanged)

    def on(self, event: ChainEvent) -> Outcome:
        """Decides the event."""
        match event:
            case OutputsSeen():
                return self.seen(event)
            case ChainMoved():
                return self.moved(event)
            case OutputsFound():
                return self.found(event)
            case TxsGone():
                return self.gone(event)
            case DepositDue():
                return self.due(event)

    def seen(self, event: OutputsSeen) -> Outcome:
        """In the mempool: new, or back after it was dropped."""
        for output in _worth_something(event.outputs):
            known = self.plan.deposit(outpoint_of(output.txid, output.vout))
            if known is None:
                self._detect(output, event.seen_at_ms)
            elif known.state is DepositState.DROPPED:
                self._detect_again(known, event.seen_at_ms)
        return self.changed

    def moved(self, event: ChainMoved) -> Outcome:
        """The chain went on, maybe on another branch."""
        cursor = self.plan.chain_cursor()
        if cursor == event.target:
            return AlreadyPosted(_key_of(event.target.block))
        if (cursor.block if cursor else None) != event.base or (cursor and cursor.genesis != event.genesis):
            raise InvariantViolation(f"a move of the chain begins at {event.base}, the books are at {cursor}")
        target = event.target
        if cursor is not None:
            lost = {block.hash for block in event.disconnected}
            for deposit in self.plan.deposits_in(lost):
                self._fall_back(deposit, event.moved_at_ms)
            self._connect(event.connected, event.moved_at_ms)
            connected = [one.block for one in event.connected]
            target = cursor.moved(target.block, disconnected=len(event.disconnected), connected=connected)
        self.plan.move_chain(target)
        return self.changed

    def found(self, event: OutputsFound) -> Outcome:
        """In blocks that are in the books already."""
        if not self._is_at(event.base):
            return Stale(_key_of(event.base))
        self._connect(event.blocks, event.found_at_ms)
        return self.changed

    def gone(self, event: TxsGone) -> Outcome:
        """Neither in the chain nor in the mempool."""
        if not self._is_at(event.base):
            return Stale(_key_of(event.base))
        reasons = {tx.txid: tx for tx in event.txs}
        for deposit in self.plan.deposits_of(reasons):
            if deposit.state is DepositState.DETECTED:
                self._drop(deposit, reasons[deposit.txid], event.gone_at_ms)
        return self.changed

    def due(self, event: DepositDue) -> Outcome:
        """Deep enough to be credited, if it still is."""
        outpoint = outpoint_of(event.txid, event.vout)
        deposit, cursor = self.plan.deposit(outpoint), self.plan.chain_cursor()
        if deposit is None or cursor is None:
            raise InvariantViolation(f"deposit {outpoint} is due, but not in the books")
        if deposit.state is DepositState.SETTLED or deposit.is_held:
            return AlreadyPosted(outpoint)
        if deposit.confirmations(cursor.block.height) < deposit.confirmations_required:
            return Stale(outpoint)
        if outpoint in self.plan.facts.chain.booked_elsewhere:
            self._settle_elsewhere(deposit, event.due_at_ms)
        elif self._is_barred(deposit):
            return self._suspend(deposit, event.due_at_ms)
        elif reason := self._why_held(deposit, event.deal):
            if reason == deposit.held_reason:
                return AlreadyPosted(outpoint)
            self.plan.put_deposit(_revised(deposit, event.due_at_ms, held_reason=reason))
            return Held(outpoint, reason)
        else:
            self._settle(deposit, event.due_at_ms, event.deal)
        return self.changed

    def _is_at(self, base: BlockRef) -> bool:
        cursor = self.plan.chain_cursor()
        return cursor is not None and cursor.block == base

    def _policy(self) -> ConfirmationPolicy:
        return self.plan.facts.chain.policy or self.rules.default_policy

    def _detect(self, output: WatchedOutput, at_ms: int) -> Deposit:
        policy = self._policy()
        deposit = Deposit(
            txid=output.txid,
            vout=output.vout,
            wallet_id=output.wallet_id,
            address=output.address,
            amount_sat=output.amount_sat,
            is_coinbase=output.is_coinbase,
            inputs=output.inputs,
            state=DepositState.DETECTED,
            policy_version=policy.version,
            confirmations_required=policy.confirmations_for(output.amount_sat, is_coinbase=output.is_coinbase),
            detected_at_ms=at_ms,
            updated_at_ms=at_ms,
        )
        self._put_waiting(deposit)
        self.plan.take(entries.revision_step(deposit, entries.detected_event(deposit, again=False)))
        self._count(detected=1)
        return deposit

    def _detect_again(self, deposit: Deposit, at_ms: int) -> None:
        deposit = _revised(
            deposit, at_ms, state=DepositState.DETECTED, block=None, booking=None, dropped_reason="", replaced_by=None
        )
        self._put_waiting(deposit)
        self.plan.take(entries.revision_step(deposit, entries.detected_event(deposit, again=True)))
        self._count(detected=1)

    def _connect(self, blocks: Sequence[ConnectedBlock], at_ms: int) -> None:
        for connected in blocks:
            for output in _worth_something(connected.outputs):
                known = self.plan.deposit(outpoint_of(output.txid, output.vout))
                if known is None:
                    known = self._detect(output, at_ms)
                elif known.block == connected.block:
                    continue
                elif known.block is not None:
                    raise InvariantViolation(f"{known.outpoint} is in {known.block} and in {connected.block}")
                self._confirm(known, connected.block, at_ms)

    def _confirm(self, deposit: Deposit, block: BlockRef, at_ms: int) -> None:
        deposit = _revised(
            deposit, at_ms, state=DepositState.CONFIRMED, block=block, dropped_reason="", replaced_by=None
        )
        self._put_waiting(deposit)
        self.plan.take(entries.revision_step(deposit, entries.confirmed_event(deposit)))
        self._count(confirmed=1)

    def _fall_back(self, deposit: Deposit, at_ms: int) -> None:
        """Its block is lost: what was credited is taken back at once."""
        if deposit.booking is not None:
            taken_back = self._take_back(deposit, at_ms)
            step = entries.reversal_step(deposit, deposit.booking, at_ms, taken_back)
            self.plan.take(step)
            owner = None if deposit.booking.is_dust else deposit.credited_to
            balance = 0 if owner is None else self.plan.balance(owner)
            if owner is not None and balance < 0:
                currency = self.plan.facts.chain.currencies.get(owner, Currency.BTC)
                of_owner = replace(deposit, wallet_id=owner)
                step.events += (entries.overdrawn_event(of_owner, step.key, balance, currency, at_ms),)
                self._count(overdrawn=1)
            self._count(reversed=1, reversed_sat=deposit.amount_sat)
        elif deposit.state is DepositState.SETTLED:
            self._note_gap(deposit, at_ms)
        self._detect_again(replace(deposit, held_reason=""), at_ms)

    def _take_back(self, deposit: Deposit, at_ms: int) -> SuspenseEntry | None:
        """The entry of a deposit that was booked to suspense, from now on without its money; None if it has none."""
        if deposit.booking is None or not deposit.booking.suspense_reason:
            return None
        key = deposit_key(deposit.outpoint, deposit.settlements)
        entry = self.plan.suspense(key)
        if entry is None:
            raise InvariantViolation(f"deposit {deposit.outpoint} was booked to suspense, where there is no {key}")
        taken_back = entry.changed(
            SuspenseChange(at_ms=at_ms, state=SuspenseState.REVERSED, by=TELLERD, reason="reorg")
        )
        self.plan.put_suspense(taken_back)
        return taken_back

    def _note_gap(self, deposit: Deposit, at_ms: int) -> None:
        """Another program's credit rests on a lost block: its journal is not ours to undo."""
        key = f"chain:{deposit.outpoint}:{deposit.block.hash if deposit.block else ''}:lost"
        self.plan.gaps[key] = Gap(
            key=key,
            kind="foreign_deposit_lost",
            detail=f"deposit {deposit.outpoint}, booked by another program, is in a block that left the chain",
            amount_msat=deposit.amount_sat * MSAT_PER_SAT,
            seen_at_ms=at_ms,
        )

    def _settle(self, deposit: Deposit, at_ms: int, deal: Deal | Unpriced | None) -> None:
        facts, exchange = self.plan.facts.chain, None
        if self._currency(deposit) is Currency.USD and facts.dealer is not None and isinstance(deal, Deal):
            exchange = (facts.dealer, deal)
        booking = entries.booking_of(deposit, self.rules.terms, facts.bank_owner, self.price, exchange)
        deposit = self._put_settled(deposit, booking, at_ms)
        self.plan.take(entries.settlement_step(deposit, booking, at_ms))
        self._count(settled=1, settled_sat=deposit.amount_sat)

    def _put_settled(self, deposit: Deposit, booking: DepositBooking, at_ms: int) -> Deposit:
        if booking.fee_sat and booking.bank_owner is None:
            raise InvariantViolation("there is no bank owner's wallet to book a deposit's fee to: run `tellerd init`")
        deposit = _revised(
            deposit,
            at_ms,
            state=DepositState.SETTLED,
            settlements=deposit.settlements + 1,
            booking=booking,
            held_reason="",
        )
        self.plan.put_deposit(deposit)
        self.plan.pending[deposit.outpoint] = None
        return deposit

    def _is_barred(self, deposit: Deposit) -> bool:
        """Whether its wallet gets nothing now; dust reaches no wallet anyhow."""
        return deposit.wallet_id in self.plan.facts.chain.barred and not self.rules.terms.is_dust(deposit.amount_sat)

    def _suspend(self, deposit: Deposit, at_ms: int) -> Outcome:
        """To suspense, less the fee, until a person says whose it is."""
        facts = self.plan.facts.chain
        reason = facts.barred[deposit.wallet_id].value
        booking = entries.booking_of(deposit, self.rules.terms, facts.bank_owner, self.price)
        booking = replace(booking, suspense_reason=reason)
        deposit = self._put_settled(deposit, booking, at_ms)
        waiting = SuspenseEntry(
            key=deposit_key(deposit.outpoint, deposit.settlements),
            pubkey=NodePubkey(""),
            payment_hash=PaymentHash(""),
            amount_sat=deposit.amount_sat - booking.fee_sat,
            received_msat=deposit.amount_sat * MSAT_PER_SAT,
            reason=reason,
            received_at_ms=at_ms,
            outpoint=deposit.outpoint,
        )
        self.plan.take(entries.suspense_step(deposit, booking, waiting, at_ms))
        self.plan.put_suspense(waiting)
        return Suspended(waiting.key, waiting.amount_sat, reason)

    def _settle_elsewhere(self, deposit: Deposit, at_ms: int) -> None:
        """Another program has credited it: nothing of ours is booked, and nothing of ours is ever taken back."""
        deposit = _revised(deposit, at_ms, state=DepositState.SETTLED, held_reason="")
        self.plan.put_deposit(deposit)
        self.plan.pending[deposit.outpoint] = None

    def _why_held(self, deposit: Deposit, deal: Deal | Unpriced | None) -> str:
        """Why a deposit cannot be credited now; a dollar wallet's needs a price, and dust reaches no wallet."""
        currency = self._currency(deposit)
        if currency is Currency.BTC or self.rules.terms.is_dust(deposit.amount_sat):
            return ""
        if currency is None:
            return "no_wallet"
        if self.plan.facts.chain.dealer is None:
            return "no_dealer"
        if deal is None:
            return UnpricedReason.MISSING.value
        if isinstance(deal, Deal) and not 0 < deal.amount_cents <= MAX_LEG_AMOUNT:
            # More than any ledger holds is no price; nothing for more than dust is an answer without its field.
            return UnpricedReason.MISSING.value
        return deal.reason.value if isinstance(deal, Unpriced) else ""

    def _currency(self, deposit: Deposit) -> Currency | None:
        """What its wallet counts in; None where there is no such wallet."""
        return self.plan.facts.chain.currencies.get(deposit.wallet_id)

    def _drop(self, deposit: Deposit, tx: GoneTx, at_ms: int) -> None:
        deposit = _revised(
            deposit,
            at_ms,
            state=DepositState.DROPPED,
            dropped_reason=tx.reason,
            replaced_by=tx.replaced_by,
        )
        self.plan.put_deposit(deposit)
        self.plan.pending[deposit.outpoint] = None
        self.plan.take(entries.revision_step(deposit, entries.dropped_event(deposit)))
        self._count(dropped=1)

    def _put_waiting(self, deposit: Deposit) -> None:
        """What another program has booked is not on its way any more (blink-contract.md 3.4)."""
        self.plan.put_deposit(deposit)
        currency = self._currency(deposit) or Currency.BTC
        pending = entries.pending_receive(deposit, self.rules.terms, self.price, currency)
        if pending is None or deposit.outpoint in self.plan.facts.chain.booked_elsewhere:
            self.plan.pending[deposit.outpoint] = None
        else:
            self.plan.pending[deposit.outpoint] = pending

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self.changed, name) + number for name, number in more.items()}
        self.changed = replace(self.changed, **counted)


def _revised(deposit: Deposit, at_ms: int, **changes: object) -> Deposit:
    revised: Deposit = replace(deposit, revision=deposit.revision + 1, updated_at_ms=at_ms, **changes)  # type: ignore[arg-type]  # fields by name
    return revised


def _worth_something(outputs: Iterable[WatchedOutput]) -> Iterable[WatchedOutput]:
    """An output of no sats is valid in a block, and whoever mines can send one: there is nothing to book."""
    return (output for output in outputs if output.amount_sat > 0)


def _name_of(event: ChainEvent) -> str:
    match event:
        case ChainMoved():
            return _key_of(event.target.block)
        case OutputsFound() | TxsGone():
            return _key_of(event.base)
        case DepositDue():
            return outpoint_of(event.txid, event.vout)
        case OutputsSeen():
            return "chain:mempool"


def _key_of(block: BlockRef) -> str:
    return f"chain:{block.hash}"
