"""`tellerd verify`: recomputes chain, journals, balances and feed, and names the first break of each.

Nothing of what it compares with is trusted: every link is computed again from the ledger's documents,
and every balance is the fold of the legs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from daemon.domain.accounts import LIGHTNING, ON_CHAIN, ROUNDING
from daemon.domain.books import GENESIS_HASH, BalanceKey
from daemon.domain.identifiers import JournalId, foreign_key
from daemon.domain.money import MSAT_PER_SAT, Currency
from daemon.domain.ports import Audit, AuditedJournal, AuditedLink
from daemon.posting.chain import link_hash
from daemon.posting.seal import effects_of

MAX_BREAKS = 10
"""Breaks that are named before the rest is left out: one edited document breaks no second link."""


@dataclass(slots=True)
class Report:
    """What was counted and what is broken; the books are whole if `breaks` is empty."""

    journals: int = 0
    last_position: int = 0
    foreign: int = 0
    events: int = 0
    accounts: int = 0
    chain_hash: str = GENESIS_HASH
    balances: dict[BalanceKey, int] = field(default_factory=dict)
    breaks: list[str] = field(default_factory=list)


def verify(audit: Audit) -> Report:
    """Checks everything; names at most `MAX_BREAKS` breaks, in the order chain, balances, feed, cursors, deposits."""
    report = Report()
    ours_sat = _check_chain(audit, report)
    for checked in (
        _head_breaks(audit, report),
        _stray_breaks(audit),
        _balance_breaks(audit, report),
        _feed_breaks(audit, report),
        _cursor_breaks(audit, ours_sat),
        _deposit_breaks(audit, ours_sat),
    ):
        for problem in checked:
            if len(report.breaks) >= MAX_BREAKS:
                return report
            report.breaks.append(problem)
    return report


def _check_chain(audit: Audit, report: Report) -> dict[str, int]:
    """Walks the chain and folds the legs; returns what tellerd's own journals did to the nodes' accounts.

    Of the rounding account what came in: money that comes again may take a sat back (`daemon.matching.repeats`), which
    was a remainder that had been booked all the same.
    """
    ours_sat = {LIGHTNING: 0, ROUNDING: 0, ON_CHAIN: 0}
    for link in audit.links():
        for problem in _link_breaks(link, report):
            if len(report.breaks) < MAX_BREAKS:
                report.breaks.append(
                    f"chain position {link.position}, journal {link.journal_id} ({link.key}): {problem}"
                )
        report.journals += 1
        report.foreign += link.foreign
        report.last_position = link.position
        report.chain_hash = link.hash
        for effect in effects_of(link.journal.legs) if link.journal else ():
            account = (effect.account, effect.currency)
            report.balances[account] = report.balances.get(account, 0) + effect.delta
            taken_back = effect.account == ROUNDING and effect.delta < 0
            if effect.account in ours_sat and effect.currency == Currency.BTC and not (link.foreign or taken_back):
                ours_sat[effect.account] += effect.delta
    return ours_sat


def _link_breaks(link: AuditedLink, report: Report) -> Iterator[str]:
    if link.position != report.last_position + 1:
        yield f"position {report.last_position + 1} is missing before it"
    if link.previous != report.chain_hash:
        yield "it does not follow from the link before it"
    if link.key_journal_id != link.journal_id:
        yield f"its idempotency key names journal {link.key_journal_id}"
    journal = link.journal
    if journal is None:
        yield "the journal is gone from the ledger"
        return
    if odd := set(journal.listed_leg_ids) ^ set(journal.leg_ids):
        yield f"the legs it names are not those that it has: {', '.join(sorted(odd))}"
    computed = link_hash(
        previous=link.previous,
        key=link.key,
        journal_id=link.journal_id,
        datetime_ms=journal.datetime_ms,
        legs=journal.legs,
    )
    if computed != link.hash:
        yield _what_was_changed(link, journal)
    elif link.effects != effects_of(journal.legs):
        yield "what the link says that it does to the accounts is not what its legs do"
    if link.foreign != link.key.startswith(foreign_key(JournalId(""))):
        yield "the link is wrong about who wrote the journal"


def _what_was_changed(link: AuditedLink, journal: AuditedJournal) -> str:
    booked = {(effect.account, effect.currency): effect.delta for effect in link.effects}
    found = {(effect.account, effect.currency): effect.delta for effect in effects_of(journal.legs)}
    for account in booked | found:
        if booked.get(account, 0) != found.get(account, 0):
            name, currency = account
            return (
                f"changed after it was booked: {name} {currency} moved by {booked.get(account, 0)}, "
                f"the legs now say {found.get(account, 0)}"
            )
    return "changed after it was booked: its datetime, or the order or the split of its legs"


def _head_breaks(audit: Audit, report: Report) -> Iterator[str]:
    head = audit.head()
    if (head.chain_length, head.chain_hash) != (report.journals, report.chain_hash):
        yield (
            f"head: the chain should have {head.chain_length} links and end in {head.chain_hash[:16]}…, "
            f"it has {report.journals} and ends in {report.chain_hash[:16]}…"
        )


def _stray_breaks(audit: Audit) -> Iterator[str]:
    for leg_id, journal_id in audit.unlinked_legs():
        yield f"leg {leg_id} of journal {journal_id} is in the book, but not in the chain (not adopted yet?)"


def _balance_breaks(audit: Audit, report: Report) -> Iterator[str]:
    folded = dict(report.balances)
    for row in audit.balances():
        report.accounts += 1
        expected = folded.pop((row.account, row.currency), 0)
        if row.balance != expected:
            yield f"balance of {row.account} {row.currency} is {row.balance}, its legs add up to {expected}"
    for (account, currency), expected in folded.items():
        if expected:
            yield f"balance of {account} {currency} is missing, its legs add up to {expected}"
    totals: dict[str, int] = {}
    for (_, currency), balance in report.balances.items():
        totals[currency] = totals.get(currency, 0) + balance
    for currency, total in totals.items():
        if total:
            yield f"trial balance: all {currency} accounts together are {total}, not 0"


def _feed_breaks(audit: Audit, report: Report) -> Iterator[str]:
    for sequence in audit.outbox_sequences():
        report.events += 1
        if sequence != report.events:
            yield f"feed: event {report.events} is missing, {sequence} comes next"
            return
    if report.events != audit.head().sequence:
        yield f"feed: it should end at {audit.head().sequence}, it ends at {report.events}"


def _cursor_breaks(audit: Audit, ours_sat: Mapping[str, int]) -> Iterator[str]:
    cursors = audit.cursors()
    lightning_sat = -ours_sat[LIGHTNING]
    booked_msat = sum(
        cursor.booked_msat - cursor.remainder_msat - cursor.absorbed_sat * MSAT_PER_SAT for cursor in cursors
    )
    if booked_msat != lightning_sat * MSAT_PER_SAT:
        yield (
            f"cursors: they say that {booked_msat} msat of the nodes are booked in whole sats, "
            f"tellerd's journals on {LIGHTNING} say {lightning_sat} sat"
        )
    rounding_sat = sum(cursor.rounding_sats for cursor in cursors)
    if rounding_sat != ours_sat[ROUNDING]:
        yield (
            f"cursors: they say that {rounding_sat} sat of remainders are booked, "
            f"tellerd's journals on {ROUNDING} say {ours_sat[ROUNDING]}"
        )


def _deposit_breaks(audit: Audit, ours_sat: Mapping[str, int]) -> Iterator[str]:
    deposited_sat, booked_sat = audit.deposited_sat(), -ours_sat[ON_CHAIN]
    if deposited_sat != booked_sat:
        yield (
            f"deposits: those that are credited add up to {deposited_sat} sat, "
            f"tellerd's journals on {ON_CHAIN} say {booked_sat} sat"
        )
