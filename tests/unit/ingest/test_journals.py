"""Other programs' journals are found once they are complete, wherever their ids sort."""

from __future__ import annotations

import trio

from adapters.memory.journals import MemoryJournals
from adapters.memory.store import MemoryStore
from daemon.domain.identifiers import JournalId
from daemon.domain.node_events import ForeignJournalFound
from daemon.ingest.journals import OVERLAP_S, smallest_id
from tests.samples import moved
from tests.unit.ingest.teller import Teller, eventually

WALLET = "Liabilities:somebody"


class ListeningJournals(MemoryJournals):
    """Counts how often hints were waited for, and how often ended."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store._tables)
        self.waits = self.ended = 0

    def wait_for_hint(self, timeout_s: float) -> bool:
        self.waits += 1
        return super().wait_for_hint(timeout_s)

    def end_hints(self) -> None:
        self.ended += 1
        super().end_hints()


LEGS = moved("Liabilities:another", WALLET, 5)


async def test_journals_from_before_the_start_are_adopted() -> None:
    """All that have no link, in pages."""
    teller = Teller()
    for _ in range(3):
        teller.store.another.write_journal(LEGS)
    async with teller.find_journals():
        await eventually(lambda: teller.balance(WALLET) == 15)


async def test_a_new_journal_is_adopted_once() -> None:
    """A sweep that comes again before posting has linked it does no harm."""
    teller = Teller()
    async with teller.find_journals():
        await trio.sleep(0.01)
        journal_id = teller.store.another.write_journal(LEGS)
        await eventually(lambda: teller.balance(WALLET) == 5)
        teller.store.another.write_journal(LEGS)
        await eventually(lambda: teller.balance(WALLET) == 10)
    found = [event for event in teller.handed_over if isinstance(event, ForeignJournalFound)]
    assert journal_id in {event.journal_id for event in found}
    assert len(teller.store.chain()) == 2


async def test_a_journal_of_a_slow_clock_is_found() -> None:
    """Its id sorts below one that was adopted already, within the overlap."""
    teller = Teller()
    tables = teller.store._tables
    now_s = tables.now_s
    async with teller.find_journals():
        teller.store.another.write_journal(LEGS)
        await eventually(lambda: teller.balance(WALLET) == 5)
        tables.now_s = lambda: now_s() - OVERLAP_S / 2
        late = teller.store.another.write_journal(LEGS)
        await eventually(lambda: teller.balance(WALLET) == 10)
    assert late < teller.store.chain()[0].link.journal_id


async def test_a_journal_without_its_document_is_not_adopted_yet() -> None:
    """Legs come first; the journal's own document makes it complete."""
    teller = Teller()
    begun = teller.store.another.begin_journal(LEGS)
    async with teller.find_journals():
        teller.store.another.write_journal(moved("Liabilities:another", "Liabilities:third", 1))
        await eventually(lambda: teller.balance("Liabilities:third") == 1)
        assert teller.balance(WALLET) == 0
        teller.store.another.finish_journal(begun)
        await eventually(lambda: teller.balance(WALLET) == 5)


async def test_hints_are_listened_for_only_where_others_write() -> None:
    """They cost the server a look at every commit of ours; a journal that comes all the same is found by the sweep."""
    teller = Teller()
    listening = teller.store.journals = ListeningJournals(teller.store)
    async with teller.find_journals():
        await eventually(lambda: listening.ended > 3)
        assert listening.waits == 0
        teller.store.another.write_journal(LEGS)
        await eventually(lambda: teller.balance(WALLET) == 5)
        await eventually(lambda: listening.waits > 3)


def test_the_smallest_id_of_a_second_sorts_before_all_of_it() -> None:
    """ObjectIds begin with four bytes of Unix time."""
    assert smallest_id(1_790_000_000.9) == JournalId("6ab13b80" + "00" * 8)
    assert smallest_id(-5.0) == JournalId("00" * 12)
