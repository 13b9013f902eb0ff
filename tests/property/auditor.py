"""Checks the books from the outside: nothing here is the daemon's own code but the types and the chain's recipe."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict

from adapters.memory import MemoryStore
from daemon.domain.accounts import LIGHTNING, SUSPENSE
from daemon.domain.books import GENESIS_HASH, SuspenseState, Wanted
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import NodePubkey


def all_cursors(store: MemoryStore, pubkeys: tuple[NodePubkey, ...]) -> dict[NodePubkey, LndCursor]:
    """The cursors as stored."""
    return dict(store.books.read_facts(Wanted(pubkeys=set(pubkeys))).cursors)


def check_books(store: MemoryStore, pubkeys: tuple[NodePubkey, ...]) -> None:
    """What must hold after every commit, whatever has happened."""
    _check_trial_balance(store)
    _check_feed(store)
    _check_chain(store)
    _check_suspense(store)
    for cursor in all_cursors(store, pubkeys).values():
        assert 0 <= cursor.remainder_msat < 1000


def check_sums(store: MemoryStore, pubkeys: tuple[NodePubkey, ...]) -> None:
    """The asset account, less what other programs did to it, and the remainders are what the cursors
    say was booked, to the msat."""
    cursors = all_cursors(store, pubkeys).values()
    booked_msat = sum(cursor.booked_msat for cursor in cursors)
    remainder_msat = sum(cursor.remainder_msat for cursor in cursors)
    ours = [leg for linked in store.chain() if not linked.link.foreign for leg in linked.legs]
    lightning_sat = sum(leg.debit - leg.credit for leg in ours if leg.account == LIGHTNING)
    assert lightning_sat * 1000 + remainder_msat == booked_msat


def balances(store: MemoryStore) -> dict[str, int]:
    """Every account's sats."""
    rows = store.ledger.trial_balance(after=None, limit=10_000).rows
    return {row.account: row.balance for row in rows}


def _check_trial_balance(store: MemoryStore) -> None:
    page = store.ledger.trial_balance(after=None, limit=10_000)
    assert not any(page.totals.values()), page.totals
    folded: dict[tuple[str, str], int] = defaultdict(int)
    for linked in store.chain():
        for leg in linked.legs:
            folded[leg.account, leg.currency] += leg.credit - leg.debit
    assert {(row.account, row.currency): row.balance for row in page.rows} == dict(folded)


def _check_feed(store: MemoryStore) -> None:
    events = store.ledger.events(after_sequence=0, limit=1_000_000)
    assert [event.sequence for event in events] == list(range(1, store.ledger.head().sequence + 1))
    assert len({event.id for event in events}) == len(events)


def _check_chain(store: MemoryStore) -> None:
    previous = GENESIS_HASH
    for linked in store.chain():
        content = {
            "datetime_ms": linked.journal.datetime_ms,
            "id": linked.link.journal_id,
            "key": linked.link.key,
            "legs": [[leg.account, leg.currency, leg.debit, leg.credit] for leg in linked.legs],
        }
        # Keys sorted, no spaces, ASCII content: what RFC 8785 gives for these values.
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        previous = hashlib.sha256(bytes.fromhex(previous) + canonical).hexdigest()
        assert linked.link.hash == previous
    head = store.ledger.head()
    assert (head.chain_hash, head.chain_length) == (previous, len(store.chain()))


def _check_suspense(store: MemoryStore) -> None:
    entries = store.known_suspense().values()
    waiting = sum(entry.amount_sat for entry in entries if entry.state is SuspenseState.WAITING)
    assert store.ledger.balance((SUSPENSE, "BTC"))[0] == waiting
