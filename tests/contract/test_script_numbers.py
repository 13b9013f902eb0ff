"""How watched scripts are numbered and matched in MongoDB: none is missed, by whichever daemon it was added."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from adapters.mongo import MongoStore, foreign_addresses, scripts
from adapters.mongo.collections import DERIVATIONS, SCRIPTS
from adapters.mongo.script_numbers import last_number
from daemon.domain.errors import InvariantViolation, NotFound, Unavailable
from daemon.domain.identifiers import WalletId
from daemon.domain.money import Currency
from regtest.mongod import Mongod
from tests.contract.deposit_samples import KEY, derived, script_of

pytestmark = pytest.mark.mongo


@dataclass
class TwoDaemons:
    """Two stores with connections of their own on one database, and a wallet."""

    one: MongoStore
    other: MongoStore
    wallet_id: WalletId

    def numbers(self) -> list[int]:
        """Of all scripts, ascending."""
        return sorted(script["n"] for script in self.one.db[SCRIPTS].find())

    def last(self) -> int:
        """The number in the counter."""
        return last_number(self.one.db)

    def finds(self, index: int) -> bool:
        """Whether `one` matches the address of this index."""
        return [found.script for found in self.one.scripts.owners([derived(index).script])] == [derived(index).script]


@pytest.fixture
def daemons(mongod: Mongod) -> Iterator[TwoDaemons]:
    """On a fresh database."""
    name = f"contract_{uuid.uuid4().hex[:12]}"
    with MongoStore.connect(mongod.url, name) as one, MongoStore.connect(mongod.url, name) as other:
        one.init()
        wallet = one.wallets.create(account_id=None, currency=Currency.BTC, external_id="w")
        yield TwoDaemons(one, other, wallet.wallet_id)
        one.client.drop_database(name)


def test_every_script_gets_the_next_number(daemons: TwoDaemons) -> None:
    """Two daemons with several callers each, and a sweep beside them: 1, 2, 3, …, and none is refused."""
    wallets = [
        daemons.one.wallets.create(account_id=None, currency=Currency.BTC, external_id=str(n)).wallet_id
        for n in range(6)
    ]
    foreign = [{"address": f"bcrt1foreign{n}"} for n in range(50)]
    daemons.one.db["wallets"].update_one({"id": daemons.wallet_id}, {"$set": {"onchain": foreign}})

    def give(n: int) -> None:
        store = (daemons.one, daemons.other)[n % 2]
        store.addresses.give(wallets[n % 6], derived(n), key_id=KEY)

    with ThreadPoolExecutor(7) as threads:
        swept = threads.submit(daemons.one.foreign_addresses(script_of).sweep, after=None, limit=100)
        list(threads.map(give, range(60)))
        assert swept.result()[0] == 50
    assert daemons.numbers() == list(range(1, 111))
    assert daemons.last() == 110
    assert len(daemons.other.scripts.owners([derived(n).script for n in range(60)])) == 60


def test_a_repeat_takes_no_number(daemons: TwoDaemons) -> None:
    """Nor does an address that another program wrote first, nor a refusal."""
    for _ in range(2):
        daemons.one.addresses.give(daemons.wallet_id, derived(0), key_id=KEY)
    daemons.one.db["wallets"].update_one(
        {"id": daemons.wallet_id}, {"$push": {"onchain": {"address": derived(1).address}}}
    )
    foreign = daemons.one.foreign_addresses(script_of)
    assert [foreign.sweep(after=None, limit=10)[0] for _ in range(2)] == [1, 0]
    daemons.one.addresses.give(daemons.wallet_id, derived(1), key_id=KEY)
    with pytest.raises(NotFound):
        daemons.one.addresses.give(WalletId("nobody"), derived(2), key_id=KEY)
    assert (daemons.numbers(), daemons.last()) == ([1, 2], 2)


def test_what_another_daemon_gives_is_matched_by_the_next_look(daemons: TwoDaemons) -> None:
    """Between the first script and the last, in either daemon, whatever was loaded before."""
    assert not daemons.finds(0)
    for index in range(20):
        giver = (daemons.other, daemons.one)[index % 3 == 2]
        giver.addresses.give(daemons.wallet_id, derived(index), key_id=KEY)
        assert daemons.finds(index)
        assert not daemons.finds(index + 1)


def test_scripts_are_added_and_loaded_in_parts(daemons: TwoDaemons, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the parts, also when the last one is full; a script lost where two meet is seen."""
    monkeypatch.setattr(scripts, "_PAGE", 5)
    monkeypatch.setattr(foreign_addresses, "_MOST_IN_A_TRANSACTION", 4)
    addresses = [f"bcrt1foreign{n}" for n in range(15)]
    onchain = [{"address": address} for address in addresses]
    daemons.one.db["wallets"].update_one({"id": daemons.wallet_id}, {"$set": {"onchain": onchain}})
    assert daemons.one.foreign_addresses(script_of).sweep(after=None, limit=10) == (15, None)
    assert daemons.numbers() == list(range(1, 16))
    for store in (daemons.one, daemons.other):
        assert len(store.scripts.owners([script_of(address) for address in addresses])) == 15
        daemons.one.addresses.give(daemons.wallet_id, derived(0), key_id=KEY)
        assert [one.script for one in store.scripts.owners([derived(0).script])] == [derived(0).script]
    daemons.one.db[SCRIPTS].delete_one({"n": 5})
    with pytest.raises(InvariantViolation, match="from 1 to 5"):
        MongoStore(daemons.one.client, daemons.one.database).scripts.owners([])


def test_looks_at_once_miss_nothing(daemons: TwoDaemons) -> None:
    """Four threads look for each address right after it was given, while others are given."""
    missed = []

    def give_and_look(index: int) -> None:
        (daemons.one, daemons.other)[index % 2].addresses.give(daemons.wallet_id, derived(index), key_id=KEY)
        if not daemons.finds(index):
            missed.append(index)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(give_and_look, range(80)))
    assert missed == []


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("seen", [False, True])
def test_a_missing_script_stops_the_daemon(daemons: TwoDaemons, lost: int, seen: bool) -> None:
    """The first, one in the middle or the last: payments to it would be lost. Those looked at before are at hand."""
    if seen:
        daemons.one.addresses.give(daemons.wallet_id, derived(10), key_id=KEY)
        assert daemons.finds(10)
    for index in range(3):
        daemons.one.addresses.give(daemons.wallet_id, derived(index), key_id=KEY)
    daemons.one.db[SCRIPTS].delete_one({"_id": derived(lost).script})
    for _ in range(2):
        with pytest.raises(InvariantViolation, match="some are lost"):
            daemons.finds(10)


def test_a_script_without_a_number_stops_the_daemon(daemons: TwoDaemons) -> None:
    """A program that inserts scripts by itself: it would never be matched."""
    daemons.one.addresses.give(daemons.wallet_id, derived(0), key_id=KEY)
    daemons.one.db[SCRIPTS].insert_one({"_id": derived(1).script, "address": "x", "wallet_id": "w"})
    with pytest.raises(InvariantViolation, match="without a number"):
        daemons.finds(0)


def test_without_its_counter_the_daemon_stops(daemons: TwoDaemons) -> None:
    """As in a database that was made before scripts had numbers."""
    daemons.one.db[DERIVATIONS].delete_one({"_id": "scripts"})
    with pytest.raises(InvariantViolation, match="tellerd init"):
        daemons.finds(0)
    with pytest.raises(InvariantViolation, match="tellerd init"):
        daemons.one.addresses.give(daemons.wallet_id, derived(0), key_id=KEY)


def test_a_counter_that_went_back_is_waited_out(daemons: TwoDaemons) -> None:
    """An older database in place of this one: what is given there is matched, though its number was seen before."""
    for index in range(3):
        daemons.one.addresses.give(daemons.wallet_id, derived(index), key_id=KEY)
    assert daemons.finds(2)
    daemons.one.db[SCRIPTS].delete_one({"_id": derived(2).script})
    daemons.one.db[DERIVATIONS].update_one({"_id": "scripts"}, {"$set": {"n": 2}})
    with pytest.raises(Unavailable, match="number 2"):
        daemons.finds(0)
    daemons.other.addresses.give(daemons.wallet_id, derived(3), key_id=KEY)
    assert [daemons.finds(index) for index in range(4)] == [True, True, False, True]


def test_the_query_decides_on_what_the_table_lets_pass(daemons: TwoDaemons) -> None:
    """With every bit set each script is looked for, and only those watched come out; a huge one is not even sent."""
    daemons.one.addresses.give(daemons.wallet_id, derived(0), key_id=KEY)
    daemons.one.scripts.owners([])
    table = daemons.one.scripts._filter
    table._bits[:] = b"\xff" * len(table._bits)
    strangers = [script_of(f"bcrt1stranger{n}") for n in range(5_000)]
    assert table.count == 1
    assert len(table.candidates(strangers)) == 5_000
    found = daemons.one.scripts.owners([*strangers, derived(0).script, b"\x6a" * 20_000_000])
    assert [one.script for one in found] == [derived(0).script]
