"""Addresses on a real bitcoind: tellerd's own, derived as bitcoind derives them, and those of other programs."""

from __future__ import annotations

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2
from adapters.mongo.collections import SCRIPTS, WALLETS
from regtest.bitcoind import Bitcoind
from regtest.tellerd import CALL_S, RUN, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import XPUB, ChainBank
from tests.e2e.coins import make_coin, spend
from tests.unit.addresses.keys import fixed_key, tprv, tpub

SHARED_CHAIN = {"keys": "foreign_addresses = true"}


def test_an_address_is_the_one_that_bitcoind_derives_and_pays_its_wallet(shared_chain: ChainBank) -> None:
    """An xpub is a BIP84 account: wpkh on its receiving branch; the address stands in the wallet's document."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        _check_derived(chain, client, f"wpkh({XPUB}/0/*)")


@pytest.mark.parametrize("chain", [{"xpub": f"wpkh({XPUB}/1/*)"}], indirect=True)
def test_each_kind_of_descriptor_gives_the_addresses_that_bitcoind_derives(chain: ChainBank) -> None:
    """Each is paid and settled; an address of the key before goes on paying its wallet."""
    with chain.bank.tellerd.client() as client:
        _check_derived(chain, client, f"wpkh({XPUB}/1/*)")
        wallet = client.create_wallet("of-the-first-key")
        address = chain.address(client, wallet)
    for descriptor in (f"tr({XPUB}/0/*)", f"wsh(sortedmulti(2,{XPUB}/0/*,{tpub(1)}/0/*))"):
        chain.restart_with_key(descriptor)
        with chain.bank.tellerd.client() as client:
            _check_derived(chain, client, descriptor)
    paid = chain.send(address, 100_000)
    chain.wait_state(*paid, "detected")
    chain.bitcoind.mine(2)
    chain.wait_state(*paid, "settled")
    chain.bank.wait_balance(wallet, 97_000)


def _check_derived(chain: ChainBank, client: Client, descriptor: str) -> None:
    wallet = client.create_wallet(f"derived-{hashlib.sha256(descriptor.encode()).hexdigest()[:16]}")
    given = [_given(client, wallet, new=True) for _ in range(3)]
    assert [one.index for one in given] == [given[0].index + place for place in range(3)]
    derived = [_derived(chain.bitcoind, descriptor, one.index) for one in given]
    assert [one.address for one in given] == derived
    assert _addresses_in(chain, wallet) == derived
    outpoints = [chain.send(address, 100_000) for address in derived]
    for outpoint in outpoints:
        chain.wait_state(*outpoint, "detected")
    chain.bitcoind.mine(2)
    for outpoint in outpoints:
        chain.wait_state(*outpoint, "settled")
    assert client.balance_sat(wallet) == 3 * 97_000


def _given(client: Client, wallet: str, *, new: bool) -> deposit_pb2.GetAddressResponse:
    return client.deposits.GetAddress(deposit_pb2.GetAddressRequest(wallet_id=wallet, new=new), timeout=CALL_S)


def _derived(bitcoind: Bitcoind, descriptor: str, index: int | None = None) -> str:
    """The address by bitcoind's own derivation; without an index, that of a descriptor of one address."""
    checked = bitcoind.rpc("getdescriptorinfo", descriptor)["descriptor"]
    places = () if index is None else ([index, index],)
    return str(bitcoind.rpc("deriveaddresses", checked, *places)[0])


def _addresses_in(chain: ChainBank, wallet: str) -> list[str]:
    document = chain.bank.db[WALLETS].find_one({"id": wallet})
    assert document is not None
    return [entry["address"] for entry in document["onchain"]]


def test_the_same_address_is_given_until_it_is_paid(shared_chain: ChainBank) -> None:
    """As soon as a payment is seen in the mempool the next one is new; the old one goes on paying the wallet."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("same")
        first = _given(client, wallet, new=False)
        repeated = _given(client, wallet, new=False)
        assert first.created
        assert (repeated.address, repeated.created) == (first.address, False)
        assert not repeated.HasField("index")
        paid = chain.send(first.address, 100_000)
        chain.wait_state(*paid, "detected")
        second = _given(client, wallet, new=False)
        assert second.created
        assert second.address != first.address
        assert _given(client, wallet, new=False).address == second.address
        late = chain.send(first.address, 100_000)
        chain.wait_state(*late, "detected")
        chain.bitcoind.mine(2)
        chain.wait_state(*late, "settled")
        chain.wait_state(*paid, "settled")
        assert client.balance_sat(wallet) == 2 * 97_000


def test_calls_at_the_same_time_are_given_different_addresses(shared_chain: ChainBank) -> None:
    """Each index of the key is taken once, over all wallets."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client, ThreadPoolExecutor(12) as callers:
        wallets = [client.create_wallet(f"at-once-{number}") for number in range(4)]
        given = list(callers.map(lambda wallet: _given(client, wallet, new=True), wallets * 6))
    assert len({one.address for one in given}) == len(given)
    indexes = sorted(one.index for one in given)
    assert indexes == list(range(indexes[0], indexes[0] + len(given)))
    for wallet in wallets:
        assert sorted(_addresses_in(chain, wallet)) == sorted(one.address for one in given if one.wallet_id == wallet)


@pytest.mark.parametrize("private", [tprv(1), f"wpkh([d34db33f/84h/1h/0h]{tprv(1)}/0/*)"], ids=["key", "descriptor"])
def test_a_private_key_in_the_configuration_is_refused_and_not_shown(
    shared_chain: ChainBank, tmp_path: Path, private: str
) -> None:
    """It must not be on this host: exit 2, and no word of it in what is printed."""
    text = shared_chain.bank.tellerd.config_file.read_text()
    config = tmp_path / "tellerd.toml"
    config.write_text(text.replace(f'xpub = "{XPUB}"', f'xpub = "{private}"'))
    assert private in config.read_text()
    command = [*RUN, "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 2, printed
    assert "private key" in printed
    assert tprv(1)[4:20] not in printed


def _foreign(bitcoind: Bitcoind, seed: int) -> list[str]:
    """An address of every kind, of a key that is in no wallet; the last one in capitals, as in a QR code."""
    key = fixed_key(seed)
    forms = (f"pkh({key})", f"sh(wpkh({key}))", f"wpkh({key})", f"tr({key})", f"wpkh({fixed_key(seed + 1)})")
    addresses = [_derived(bitcoind, form) for form in forms]
    return [*addresses[:-1], addresses[-1].upper()]


def _pay_all(chain: ChainBank, addresses: list[str]) -> str:
    """One tx to all of them, in order, into the mempool; its txid."""
    tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(address, 100_000) for address in addresses])
    chain.broadcast(tx)
    return tx.txid


def _wait_all(chain: ChainBank, txid: str, state: str) -> None:
    for vout in range(5):
        chain.wait_state(txid, vout, state)


def test_addresses_of_another_program_count_from_when_they_are_written(shared_chain: ChainBank) -> None:
    """Legacy, P2SH, segwit v0, taproot, and capitals."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, addresses = client.create_wallet("foreign-before"), _foreign(chain.bitcoind, 100)
        for address in addresses:
            chain.write_address(wallet, address)
        known = {"wallet_id": wallet, "unscanned": {"$ne": True}}
        wait_for(lambda: chain.bank.db[SCRIPTS].count_documents(known) == 5, "the addresses are watched")
        txid = _pay_all(chain, addresses)
        _wait_all(chain, txid, "detected")
        chain.bitcoind.mine(2)
        _wait_all(chain, txid, "settled")
        assert client.balance_sat(wallet) == 5 * 97_000
        assert [chain.deposit(client, txid, vout).address for vout in range(5)] == addresses


def test_an_address_written_while_its_payment_is_in_the_mempool_is_found(shared_chain: ChainBank) -> None:
    """The mempool is searched once more for it."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, addresses = client.create_wallet("foreign-mempool"), _foreign(chain.bitcoind, 200)
        txid = _pay_all(chain, addresses)
        for address in addresses:
            chain.write_address(wallet, address)
        _wait_all(chain, txid, "detected")
        chain.bitcoind.mine(2)
        _wait_all(chain, txid, "settled")
        assert client.balance_sat(wallet) == 5 * 97_000


def test_an_address_written_after_its_payment_was_mined_is_found(shared_chain: ChainBank) -> None:
    """Some blocks are searched back: the deposit is settled at once, for it is deep enough."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, addresses = client.create_wallet("foreign-mined"), _foreign(chain.bitcoind, 300)
        txid = _pay_all(chain, addresses)
        mined_at = chain.bitcoind.height() + 1
        chain.bitcoind.mine(6)
        chain.wait_followed()
        assert chain.told(txid) == []
        for address in addresses:
            chain.write_address(wallet, address)
        _wait_all(chain, txid, "settled")
        assert client.balance_sat(wallet) == 5 * 97_000
        assert {chain.deposit(client, txid, vout).block_height for vout in range(5)} == {mined_at}


def test_an_address_with_a_pubkey_is_an_lnds_and_left_alone(shared_chain: ChainBank) -> None:
    """It is that LND's coin: a later address of the same wallet counts, this one does not."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("lnds")
        of_lnd, of_program = _foreign(chain.bitcoind, 400)[2:4]
        chain.write_address(wallet, of_lnd, pubkey="02" * 33)
        chain.write_address(wallet, of_program)
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(of_lnd, 100_000), (of_program, 200_000)])
        chain.mine_txs(tx)
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 1, "settled")
        assert client.balance_sat(wallet) == 197_000
    assert chain.state(tx.txid, 0) is None
