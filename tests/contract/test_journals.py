"""The port `Journals`: other programs' journals are found complete, in order, and until they have their link."""

from __future__ import annotations

import threading

from daemon.domain.accounts import LIGHTNING
from daemon.domain.entries import Leg
from daemon.domain.node_events import NodeOpened
from daemon.domain.ports import Journals
from tests.contract.conftest import Database
from tests.samples import NODE, invoice, moved, node_opened, settled

WALLET, OTHER_WALLET = "Liabilities:wallet-1", "Liabilities:wallet-2"


def foreign_ids(store: Database, *, after: str | None = None, limit: int = 10) -> list[str]:
    return [
        found.journal_id
        for found in store.journals.foreign_journals(after=after, limit=limit)  # type: ignore[arg-type]  # a plain str reads better here
    ]


def test_a_foreign_journal_is_found_with_its_legs_in_order(store: Database) -> None:
    """Legs come as they were written, in the order of their ids."""
    legs = (
        Leg(account=WALLET, currency="BTC", debit=30),
        Leg(account=OTHER_WALLET, currency="BTC", credit=20),
        Leg(account=LIGHTNING, currency="BTC", credit=10),
    )
    journal_id = store.another.write_journal(legs, memo="a send")
    (found,) = store.journals.foreign_journals(after=None, limit=10)
    assert (found.journal_id, found.memo) == (journal_id, "a send")
    assert [(leg.account, leg.currency, leg.debit, leg.credit) for leg in found.legs] == [
        (leg.account, leg.currency, leg.debit, leg.credit) for leg in legs
    ]


def test_an_incomplete_journal_is_not_found_yet(store: Database) -> None:
    """Legs whose journal is not written do not count, and are found once it is."""
    begun = store.another.begin_journal(moved(WALLET, OTHER_WALLET, 5))
    assert foreign_ids(store) == []
    store.another.finish_journal(begun)
    assert foreign_ids(store) == [begun.journal_id]


def test_journals_are_found_in_order_in_pages_and_above_a_mark(store: Database) -> None:
    """Ascending by id, at most `limit`, from the one after `after`; a page over its journals misses none."""
    written = [store.another.write_journal(moved(WALLET, OTHER_WALLET, n)) for n in (1, 2, 3, 4, 5)]
    assert written == sorted(written)
    assert foreign_ids(store) == written
    assert foreign_ids(store, limit=2) == written[:2]
    assert foreign_ids(store, after=written[1], limit=2) == written[2:4]
    assert foreign_ids(store, after=written[4]) == []


def test_the_newest_adopted_is_told(store: Database) -> None:
    """The largest id that has its link, whatever was adopted last; ours do not count."""
    assert store.journals.newest_adopted() is None
    first, second, third = (store.another.write_journal(moved(WALLET, OTHER_WALLET, 1)) for _ in range(3))
    found = {one.journal_id: one for one in store.journals.foreign_journals(after=None, limit=10)}
    store.post(found[second])
    store.post(found[first])
    store.post(
        NodeOpened(pubkey=NODE, name="n", funds_msat=5_000, through_index=0, checkpoint_hash=None, opened_at_ms=1)
    )
    assert store.journals.newest_adopted() == second
    store.post(found[third])
    assert store.journals.newest_adopted() == third


def test_tellerds_own_journals_are_not_foreign(store: Database) -> None:
    """What tellerd posts is never adopted."""
    store.post(
        node_opened(5_000),
        settled("a", 1, 2_000),
    )
    assert len(store.ledger.entries(account=LIGHTNING, before=None, limit=10)) == 2
    assert foreign_ids(store) == []


def test_an_adopted_journal_moves_balances_and_is_found_no_more(store: Database) -> None:
    """Adoption gives it a link and its balances, once; the ledger's documents are left alone."""
    journal_id = store.another.write_journal(moved(WALLET, OTHER_WALLET, 7), memo="inside")
    assert store.balance(WALLET) == 0
    (found,) = store.journals.foreign_journals(after=None, limit=10)
    store.post(found)
    assert (store.balance(WALLET), store.balance(OTHER_WALLET)) == (-7, 7)
    assert foreign_ids(store) == []
    assert store.decided(found).keys == []
    (entry,) = store.ledger.entries(account=WALLET, before=None, limit=10)
    assert (entry.journal_id, entry.key) == (journal_id, f"foreign:{journal_id}")
    assert (entry.delta, entry.balance_after, entry.memo) == (-7, -7, found.memo)


def test_an_unbalanced_foreign_journal_is_adopted_as_it_stands(store: Database) -> None:
    """Another program's mistake shows in the trial balance; it does not stop tellerd."""
    store.another.write_journal((Leg(account=WALLET, currency="BTC", credit=9),))
    (found,) = store.journals.foreign_journals(after=None, limit=10)
    store.post(found)
    assert store.ledger.trial_balance(after=None, limit=10).totals == {"BTC": 9}


def test_another_programs_journal_is_hinted_at(store: Database) -> None:
    """Who waits is woken well before the time is up, also after hints were ended and begun again."""
    for _ in range(2):
        store.journals.wait_for_hint(0.05)  # from here on hints are listened for
        hinted = threading.Event()
        waiter = threading.Thread(target=set_when_hinted, args=(store.journals, hinted))
        waiter.start()
        store.another.write_journal(moved(WALLET, OTHER_WALLET, 1))
        waiter.join()
        assert hinted.is_set()
        store.journals.end_hints()


def set_when_hinted(journals: Journals, hinted: threading.Event) -> None:
    """Waits up to half a minute."""
    for _ in range(60):
        if journals.wait_for_hint(0.5):
            hinted.set()
            return


def test_our_own_writes_are_no_hint(store: Database) -> None:
    """A journal of ours and a document of an invoice wake nobody."""
    store.journals.wait_for_hint(0.05)
    store.post(node_opened(5_000), settled("a", 1, 2_000))
    store.another.insert_invoice(invoice("b", "w"))
    assert not store.journals.wait_for_hint(0.5)
