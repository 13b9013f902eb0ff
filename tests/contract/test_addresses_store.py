"""The port `Addresses`: an index is taken once; an address is in the wallet and among the scripts, or in neither."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.domain.chain import DepositState
from daemon.domain.errors import InvariantViolation, NotFound
from daemon.domain.identifiers import WalletId
from tests.contract.conftest import Database
from tests.contract.deposit_samples import KEY, deposit, derived, put, script_of

OTHER_KEY = "fedcba9876543210"


def test_an_index_is_taken_once(store: Database) -> None:
    """From 0, per key, whoever asks."""
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda _: store.addresses.take_index(key_id=KEY), range(40)))
    assert sorted(taken) == list(range(40))
    assert [store.addresses.take_index(key_id=OTHER_KEY) for _ in range(2)] == [0, 1]
    assert store.addresses.take_index(key_id=KEY) == 40


def test_an_address_that_is_given_pays_the_wallet(store: Database) -> None:
    """It is found by its script, and other programs read it last in the wallet; nothing is to be scanned."""
    wallet = store.new_wallet()
    store.another.add_address(wallet.wallet_id, "bcrt1older")
    store.addresses.give(wallet.wallet_id, derived(2**31 - 1), key_id=KEY)
    (watched,) = store.scripts.owners([derived(2**31 - 1).script])
    assert (watched.address, watched.wallet_id) == (derived(2**31 - 1).address, wallet.wallet_id)
    assert store.another.addresses(wallet.wallet_id) == ["bcrt1older", derived(2**31 - 1).address]
    assert store.scripts.unscanned(limit=10) == []


def test_a_repeat_gives_it_once(store: Database) -> None:
    """A caller that did not get the answer asks again."""
    wallet = store.new_wallet()
    for _ in range(2):
        store.addresses.give(wallet.wallet_id, derived(0), key_id=KEY)
    assert store.another.addresses(wallet.wallet_id) == [derived(0).address]


def test_no_wallet_no_address(store: Database) -> None:
    """NotFound, and the script stays unknown."""
    with pytest.raises(NotFound):
        store.addresses.give(WalletId("nobody"), derived(0), key_id=KEY)
    assert store.scripts.owners([derived(0).script]) == []


def test_an_address_is_never_given_to_two_wallets(store: Database) -> None:
    """The second time is an error that stops the daemon; nothing changes hands."""
    first, second = store.new_wallet("w1"), store.new_wallet("w2")
    store.addresses.give(first.wallet_id, derived(0), key_id=KEY)
    with pytest.raises(InvariantViolation):
        store.addresses.give(second.wallet_id, derived(0), key_id=KEY)
    assert [one.wallet_id for one in store.scripts.owners([derived(0).script])] == [first.wallet_id]
    assert store.another.addresses(second.wallet_id) == []


def test_the_current_address_is_the_newest_of_its_key(store: Database) -> None:
    """None before the first; another key's or wallet's address is not it, nor is one that another program wrote."""
    wallet, other = store.new_wallet("w1"), store.new_wallet("w2")
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) is None
    store.another.add_address(wallet.wallet_id, "bcrt1foreign")
    store.foreign_addresses(script_of).sweep(after=None, limit=100)
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) is None
    for index in (9, 10):
        store.addresses.give(wallet.wallet_id, derived(index), key_id=KEY)
    store.addresses.give(wallet.wallet_id, derived(11), key_id=OTHER_KEY)
    store.addresses.give(other.wallet_id, derived(12), key_id=KEY)
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) == derived(10).address
    assert store.addresses.current(wallet.wallet_id, key_id=OTHER_KEY) == derived(11).address


@pytest.mark.parametrize("state", list(DepositState))
def test_an_address_that_was_paid_is_not_current_any_more(store: Database, state: DepositState) -> None:
    """In whatever state the deposit is; the next one that is given is current."""
    wallet = store.new_wallet()
    for index in (0, 1):
        store.addresses.give(wallet.wallet_id, derived(index), key_id=KEY)
    put(store, deposit("a", wallet_id=wallet.wallet_id, address=derived(1).address, state=state))
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) is None
    store.addresses.give(wallet.wallet_id, derived(2), key_id=KEY)
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) == derived(2).address


def test_callers_at_once_all_get_their_address(store: Database) -> None:
    """Addresses for one wallet, given at the same time, all stand in it."""
    wallet = store.new_wallet()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda n: store.addresses.give(wallet.wallet_id, derived(n), key_id=KEY), range(6)))
    assert sorted(store.another.addresses(wallet.wallet_id)) == [derived(n).address for n in range(6)]


def test_an_address_that_another_program_wrote_first_becomes_ours(store: Database) -> None:
    """Two programs that derive from one key: it stands in the wallet once, and is still looked for in old blocks."""
    wallet = store.new_wallet()
    store.another.add_address(wallet.wallet_id, derived(0).address)
    store.foreign_addresses(script_of).sweep(after=None, limit=100)
    store.addresses.give(wallet.wallet_id, derived(0), key_id=KEY)
    assert store.another.addresses(wallet.wallet_id) == [derived(0).address]
    assert store.addresses.current(wallet.wallet_id, key_id=KEY) == derived(0).address
    assert [one.script for one in store.scripts.unscanned(limit=10)] == [derived(0).script]
