"""`tellerd init`: makes what is missing, once, also when two daemons start together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.mongo import MongoStore
from adapters.mongo.collections import ACCOUNTS, DEPOSITS, INDEXES, SCHEMA_VERSION, WALLETS
from daemon.domain.errors import InvariantViolation
from regtest.mongod import Mongod


@pytest.fixture
def empty(mongod: Mongod) -> Iterator[MongoStore]:
    """A database that nobody has initialised."""
    with MongoStore.connect(mongod.url, "never_initialised") as store:
        store.client.drop_database(store.database)
        yield store
        store.client.drop_database(store.database)


def test_a_second_init_makes_nothing(empty: MongoStore) -> None:
    """Everything is there after the first."""
    made = empty.init()
    assert {f"collection {name}" for name in INDEXES} <= set(made)
    assert empty.init() == []


def test_an_account_of_blink_is_left_alone(empty: MongoStore) -> None:
    """A bank owner that exists is the bank owner."""
    empty.db[ACCOUNTS].insert_one({"id": "blink's", "role": "bankowner"})
    assert "system account bankowner" not in empty.init()
    assert empty.db[ACCOUNTS].count_documents({"role": "bankowner"}) == 1


def test_four_at_once_make_one_of_each(empty: MongoStore, mongod: Mongod) -> None:
    """Daemons that start together with init = true do not make the system accounts twice."""

    def init_once(_: int) -> None:
        with MongoStore.connect(mongod.url, empty.database) as store:
            store.init()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(init_once, range(4)))
    roles = [account["role"] for account in empty.db[ACCOUNTS].find()]
    assert sorted(roles) == ["bankowner", "dealer", "funder"]
    assert empty.db[WALLETS].count_documents({}) == 4
    empty.open()


def test_run_refuses_without_init(empty: MongoStore) -> None:
    """The text names the command that helps."""
    with pytest.raises(InvariantViolation, match="tellerd init"):
        empty.open()


def of_version_1(store: MongoStore) -> None:
    """Makes of it what the first release had made: no deposits, no addresses."""
    store.init()
    for name in ("teller_deposits", "teller_scripts", "teller_policies", "teller_derivations"):
        store.db.drop_collection(name)
    store.db.drop_collection("walletonchainpendingreceives")
    store.db["teller_schema"].update_one({"_id": "schema"}, {"$set": {"version": 1}})


def test_a_database_of_the_first_release_becomes_one_of_this(empty: MongoStore) -> None:
    """`run` names the command; `init` makes what is missing and keeps the writer; a second one makes nothing."""
    of_version_1(empty)
    before = empty.db["teller_schema"].find_one()
    assert before is not None
    with pytest.raises(InvariantViolation, match=r"version 1.*run `tellerd init`"):
        empty.open()
    made = empty.init()
    assert {
        "collection teller_deposits",
        "collection walletonchainpendingreceives",
        f"schema version {SCHEMA_VERSION}",
    } <= set(made)
    assert "collection teller_keys" not in made
    assert empty.init() == []
    assert empty.db["teller_schema"].find_one() == {**before, "version": SCHEMA_VERSION}
    assert len(list(empty.db["teller_deposits"].list_indexes())) == len(INDEXES["teller_deposits"]) + 1
    empty.open()


def test_what_is_held_for_want_of_a_document_is_looked_at_again(empty: MongoStore) -> None:
    """The dealer, or the wallet, may be there now: nobody else would ask about such a deposit any more."""
    empty.init()
    confirmed = {"state": "confirmed", "held": True}
    held = [{"_id": f"{reason}:0", "held_reason": reason, **confirmed} for reason in ("no_dealer", "no_wallet")]
    empty.db[DEPOSITS].insert_many(held)
    assert empty.init() == ["2 deposits that were held are due again"]
    found = {(one["held"], one["held_reason"]) for one in empty.db[DEPOSITS].find()}
    assert found == {(False, "")}
    assert empty.init() == []


def test_a_newer_database_stays_newer(empty: MongoStore) -> None:
    """An older `init` does not take it back, and `run` does not advise to."""
    empty.init()
    empty.db["teller_schema"].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    assert empty.init() == []
    with pytest.raises(InvariantViolation, match=r"version 99.*the tellerd that belongs to it"):
        empty.open()
