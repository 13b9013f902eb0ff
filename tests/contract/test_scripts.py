"""The ports `Scripts` and `ForeignAddresses`: whose a script is, and addresses that other programs wrote."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from daemon.domain.ports import ForeignAddresses
from tests.contract.conftest import Database
from tests.contract.deposit_samples import KEY, derived, script_of


def swept(foreign: ForeignAddresses, limit: int = 1_000) -> int:
    """How many new scripts a sweep over all wallets finds."""
    new, after = foreign.sweep(after=None, limit=limit)
    while after is not None:
        more, after = foreign.sweep(after=after, limit=limit)
        new += more
    return new


def test_owners_of_a_blocks_scripts(store: Database) -> None:
    """Those that pay a wallet among thousands that do not, each once; a huge script is no reason to fail."""
    wallets = [store.new_wallet(f"w{n}") for n in range(3)]
    for index, wallet in enumerate(wallets):
        store.addresses.give(wallet.wallet_id, derived(index), key_id=KEY)
    strangers = [script_of(f"bcrt1stranger{n}") for n in range(5_000)]
    asked = [derived(0).script, *strangers, derived(2).script, b"", b"\x6a" * 5_000_000]
    owners = {one.script: one for one in store.scripts.owners(asked)}
    assert {script: one.wallet_id for script, one in owners.items()} == {
        derived(0).script: wallets[0].wallet_id,
        derived(2).script: wallets[2].wallet_id,
    }
    assert owners[derived(2).script].address == derived(2).address
    assert len(store.scripts.owners([derived(0).script] * 3)) == 1
    assert store.scripts.owners([]) == []


def test_scripts_that_nobody_watches_do_not_come_out(store: Database) -> None:
    """None of 5,000, whoever else is watched; the empty one and those that carry data neither."""
    wallet = store.new_wallet()
    for index in range(20):
        store.addresses.give(wallet.wallet_id, derived(index), key_id=KEY)
    strangers = [script_of(f"bcrt1stranger{n}") for n in range(5_000)]
    assert store.scripts.owners(strangers) == []
    assert store.scripts.owners([b"", b"\x6a", b"\x6a" + derived(0).script, derived(0).script + b"\x00"]) == []


def test_addresses_of_other_programs_are_learnt_once(store: Database) -> None:
    """A sweep in pages finds all; they are to be scanned until they were; the next sweep finds nothing new."""
    wallets = [store.new_wallet(f"w{n}") for n in range(5)]
    for n, wallet in enumerate(wallets):
        store.another.add_address(wallet.wallet_id, f"bcrt1one{n}")
        store.another.add_address(wallet.wallet_id, f"bcrt1two{n}")
    foreign = store.foreign_addresses(script_of)
    assert swept(foreign, limit=2) == 10
    assert swept(foreign) == 0
    found = store.scripts.unscanned(limit=100)
    assert {(one.script, one.address, one.wallet_id) for one in found} == {
        (script_of(address), address, wallet.wallet_id)
        for n, wallet in enumerate(wallets)
        for address in (f"bcrt1one{n}", f"bcrt1two{n}")
    }
    assert len(store.scripts.owners([one.script for one in found])) == 10
    assert store.scripts.unscanned(limit=4) == found[:4]
    store.scripts.mark_scanned([one.script for one in found[:9]])
    assert store.scripts.unscanned(limit=100) == found[9:]
    assert swept(foreign) == 0
    assert store.scripts.unscanned(limit=100) == found[9:]


def test_given_addresses_are_known(store: Database) -> None:
    """A sweep does not make tellerd's own addresses another program's."""
    wallet = store.new_wallet()
    store.addresses.give(wallet.wallet_id, derived(0), key_id=KEY)
    assert swept(store.foreign_addresses(script_of)) == 0
    assert store.scripts.unscanned(limit=10) == []


def test_what_is_an_lnds_is_left_alone(store: Database) -> None:
    """An address with a pubkey is among that LND's coins."""
    wallet = store.new_wallet()
    store.another.add_address(wallet.wallet_id, "bcrt1lnd", pubkey="02" * 33)
    assert swept(store.foreign_addresses(script_of)) == 0
    assert store.scripts.owners([script_of("bcrt1lnd")]) == []


def test_two_spellings_are_one_script(store: Database) -> None:
    """Upper case, as in QR codes, is the same address."""
    wallet = store.new_wallet()
    store.another.add_address(wallet.wallet_id, "BCRT1UPPER")
    store.another.add_address(wallet.wallet_id, "bcrt1upper")
    assert swept(store.foreign_addresses(script_of)) == 1
    (found,) = store.scripts.owners([script_of("bcrt1upper")])
    assert found.address == "BCRT1UPPER"


def test_what_is_no_address_is_told_once(store: Database) -> None:
    """It is left alone, and the wallet's other addresses count."""
    wallet = store.new_wallet()
    store.another.add_address(wallet.wallet_id, "garbage")
    store.another.add_address(wallet.wallet_id, "bcrt1good")
    foreign = store.foreign_addresses(script_of)
    with capture_logs() as logs:
        assert [swept(foreign), swept(foreign)] == [1, 0]
    assert [line["wallet_id"] for line in logs] == [wallet.wallet_id]
    assert "garbage" in logs[0]["detail"]


@pytest.mark.parametrize("limit", [1, 100])
def test_an_address_in_two_wallets_stays_the_firsts(store: Database, limit: int) -> None:
    """Within a page and over pages; it is told once, and no wallet loses what it had."""
    first, second = store.new_wallet("w1"), store.new_wallet("w2")
    foreign = store.foreign_addresses(script_of)
    store.another.add_address(first.wallet_id, "bcrt1same")
    store.another.add_address(second.wallet_id, "bcrt1same")
    with capture_logs() as logs:
        assert [swept(foreign, limit), swept(foreign, limit)] == [1, 0]
    assert [one.wallet_id for one in store.scripts.owners([script_of("bcrt1same")])] == [first.wallet_id]
    assert [(line["wallet_id"], line["detail"]) for line in logs] == [(second.wallet_id, "bcrt1same")]


def test_another_programs_address_is_hinted_at(store: Database) -> None:
    """Who waits learns of it well before the time is up, in wallets old and new."""
    old = store.new_wallet("old")
    foreign = store.foreign_addresses(script_of)
    assert foreign.take_hinted(0.05) == 0  # from here on hints are listened for
    learnt: list[int] = []

    def wait() -> None:
        for _ in range(60):
            learnt.append(foreign.take_hinted(0.5))
            if sum(learnt) == 2:
                return

    waiter = threading.Thread(target=wait)
    waiter.start()
    new = store.new_wallet("new")
    store.another.add_address(old.wallet_id, "bcrt1old")
    store.another.add_address(new.wallet_id, "bcrt1new")
    waiter.join()
    assert sum(learnt) == 2
    scripts = {one.script: one.wallet_id for one in store.scripts.unscanned(limit=10)}
    assert scripts == {script_of("bcrt1old"): old.wallet_id, script_of("bcrt1new"): new.wallet_id}
    assert foreign.take_hinted(0.05) == 0
