"""From a plan to the writes of one commit: journal ids, links, balances, and numbers in the feed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daemon.domain.books import AccountEffect, BalanceKey, Changes, Head, KeyRecord, SealedEntry
from daemon.domain.entries import JournalEntry, Leg, check_balanced
from daemon.domain.outbox import OutboxRow
from daemon.matching.plan import Plan, Step
from daemon.posting.chain import link_hash

_COUNTER_MODULUS = 1 << 24  # the counter of an ObjectId has three bytes


def journal_id(*, now_ms: int, writer_id: bytes, position: int) -> str:
    """An ObjectId of tellerd: Unix seconds, the five bytes of this database's writer, the chain position.

    Positions never repeat, so an id can only come twice after 16.7 million journals in one second.
    """
    seconds = (now_ms // 1000).to_bytes(4, "big")
    return (seconds + writer_id + (position % _COUNTER_MODULUS).to_bytes(3, "big")).hex()


def seal(plan: Plan, *, now_ms: int, writer_id: bytes) -> Changes:
    """What the plan writes, on top of the head that its facts were read with.

    Raises InvariantViolation if an entry that tellerd makes does not balance per currency.
    """
    sealing = _Sealing(plan.facts.head, now_ms, writer_id, plan.received)
    for step in plan.steps:
        sealing.add(step)
    return Changes(
        before=plan.facts.head,
        after=sealing.head(),
        committed_at_ms=now_ms,
        keys=sealing.keys,
        paid=plan.paid,
        closed=plan.closed,
        deltas=sealing.deltas,
        outbox=sealing.outbox,
        entries=sealing.entries,
        suspense_new=list(plan.suspense_new.values()),
        suspense_assigned=list(plan.suspense_assigned.values()),
        gaps=list(plan.gaps.values()),
        cursors=list(plan.cursors.values()),
        chain_cursor=plan.moved_to,
        deposits=list(plan.deposits.values()),
        pending=plan.pending,
        quotes=list(plan.quotes.values()),
        received={key: msat for key, msat in plan.received.items() if key in plan.facts.booked},
    )


@dataclass(slots=True)
class _Sealing:
    before: Head
    now_ms: int
    writer_id: bytes
    received: Mapping[str, int]
    keys: list[KeyRecord] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    entries: list[SealedEntry] = field(default_factory=list)
    deltas: dict[BalanceKey, int] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        sealed = self._seal(step.entry, step.adopted_id) if step.entry is not None else None
        booked_id = sealed.journal_id if sealed is not None else None
        sequence = None
        for event in step.events:
            sequence = self.before.sequence + len(self.outbox) + 1
            self.outbox.append(OutboxRow(sequence, event, booked_id))
        received_msat = self.received.get(step.key)
        self.keys.append(KeyRecord(key=step.key, journal_id=booked_id, sequence=sequence, received_msat=received_msat))
        self.keys.extend(KeyRecord(key=key, journal_id=booked_id, sequence=sequence) for key in step.also_takes)

    def _seal(self, entry: JournalEntry, adopted_id: str | None) -> SealedEntry:
        position = self.before.chain_length + len(self.entries) + 1
        previous = self.entries[-1].hash if self.entries else self.before.chain_hash
        if adopted_id is None:
            check_balanced(entry.legs, what=entry.key)
        entry_id = adopted_id or journal_id(now_ms=self.now_ms, writer_id=self.writer_id, position=position)
        sealed = SealedEntry(
            journal_id=entry_id,
            entry=entry,
            foreign=adopted_id is not None,
            position=position,
            previous=previous,
            hash=link_hash(
                previous=previous,
                key=entry.key,
                journal_id=entry_id,
                datetime_ms=entry.datetime_ms,
                legs=entry.legs,
            ),
            effects=effects_of(entry.legs),
        )
        self.entries.append(sealed)
        for effect in sealed.effects:
            balance = (effect.account, effect.currency)
            self.deltas[balance] = self.deltas.get(balance, 0) + effect.delta
        return sealed

    def head(self) -> Head:
        return Head(
            fence=self.before.fence,
            sequence=self.before.sequence + len(self.outbox),
            chain_length=self.before.chain_length + len(self.entries),
            chain_hash=self.entries[-1].hash if self.entries else self.before.chain_hash,
        )


def effects_of(legs: tuple[Leg, ...]) -> tuple[AccountEffect, ...]:
    """What legs do to each account and currency: credit minus debit, in order of the first leg."""
    sums: dict[BalanceKey, int] = {}
    for leg in legs:
        balance = (leg.account, leg.currency)
        sums[balance] = sums.get(balance, 0) + leg.credit - leg.debit
    return tuple(
        AccountEffect(account=account, currency=currency, delta=delta) for (account, currency), delta in sums.items()
    )
