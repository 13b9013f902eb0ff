"""The chain changes its mind on real bitcoinds: deposits are taken back, and given again where they are in it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, deposit_pb2
from regtest import binaries
from regtest.bitcoind import Bitcoind
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.coins import Coin, make_coin, spend


def test_a_confirmed_deposit_falls_back_to_detected(shared_chain: ChainBank) -> None:
    """Nothing was credited, so nothing is taken back; it settles on the new branch."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("fallen")
        txid, vout = chain.send(chain.address(client, wallet), 500_000)
        (lost,) = chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "confirmed")
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        fallen = chain.deposit(client, txid, vout)
        assert (fallen.confirmations, fallen.block_hash, fallen.HasField("block_height")) == (0, "", False)
        assert len(chain.pending(wallet)) == 1
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(wallet) == 497_000
    assert chain.told(txid) == [
        "deposit.detected",
        "deposit.confirmed",
        "deposit.detected",
        "deposit.confirmed",
        "deposit.settled",
    ]
    assert chain.booking_keys(txid) == [f"chain:{txid}:{vout}:1"]


def test_a_settled_deposit_is_taken_back_at_once_and_given_again(shared_chain: ChainBank) -> None:
    """Three journals: credit, reversal, second credit, each with a key and an event of its own."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, owner = client.create_wallet("reversed"), chain.bank_owner()
        fees_sat = client.balance_sat(owner)
        address = chain.address(client, wallet)
        txid, vout = chain.send(address, 500_000)
        lost, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert (client.balance_sat(wallet), client.balance_sat(owner)) == (497_000, fees_sat + 3_000)
        assert chain.pending(wallet) == []
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        assert (client.balance_sat(wallet), client.balance_sat(owner)) == (0, fees_sat)
        assert len(chain.pending(wallet)) == 1
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert (client.balance_sat(wallet), client.balance_sat(owner)) == (497_000, fees_sat + 3_000)
        assert chain.pending(wallet) == []
        assert chain.deposit(client, txid, vout).settlements == 2
        events = chain.events(client, wallet, 7)
    assert [event.type for event in events] == [
        "deposit.detected",
        "deposit.confirmed",
        "deposit.settled",
        "deposit.reversed",
        "deposit.detected",
        "deposit.confirmed",
        "deposit.settled",
    ]
    undone = events[3].deposit_reversed
    assert (undone.txid, undone.vout, undone.wallet_id, undone.address) == (txid, vout, wallet, address)
    assert (undone.amount_sat, undone.fee_sat, undone.credited_sat, undone.settlement) == (500_000, 3_000, 497_000, 1)
    assert undone.block_hash == lost
    assert events[4].deposit_detected.again
    assert events[6].deposit_settled.settlement == 2
    first = f"chain:{txid}:{vout}:1"
    assert chain.booking_keys(txid) == [first, f"{first}:reorg", f"chain:{txid}:{vout}:2"]


def test_dust_that_a_reorg_loses_leaves_its_account_again(shared_chain: ChainBank) -> None:
    """The wallet never had it."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("dust")
        dust_sat = chain.account_sat(client, "Liabilities:Teller:Dust")
        txid, vout = chain.send(chain.address(client, wallet), 4_000)
        lost, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert chain.account_sat(client, "Liabilities:Teller:Dust") == dust_sat + 4_000
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        assert chain.account_sat(client, "Liabilities:Teller:Dust") == dust_sat
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")


def test_money_that_was_spent_is_taken_back_all_the_same(shared_chain: ChainBank) -> None:
    """The wallet goes below zero, and the feed says so."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        alice, bob = client.create_wallet("spender"), client.create_wallet("recipient")
        txid, vout = chain.send(chain.address(client, alice), 500_000)
        lost, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        chain.bank.write_transfer(alice, bob, 400_000)
        chain.bank.wait_balance(bob, 400_000)
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        assert (client.balance_sat(alice), client.balance_sat(bob)) == (-400_000, 400_000)
        told = next(one for one in chain.events(client, alice, 6) if one.type == "wallet.overdrawn").wallet_overdrawn
        assert (told.wallet_id, told.balance_sat, told.txid, told.vout) == (alice, -400_000, txid, vout)
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(alice) == 97_000


@pytest.fixture(scope="module")
def _other_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    node = Bitcoind(binaries.bitcoind(), tmp_path_factory.mktemp("other"))
    try:
        node.start()
        node.wait_ready()
        yield node
    finally:
        node.stop()


@pytest.fixture
def other_miner(shared_chain: ChainBank, _other_node: Bitcoind) -> Bitcoind:
    """A second bitcoind on the same tip that hears of nothing any more: what both mine from here on are branches."""
    _join(shared_chain, _other_node)
    shared_chain.bitcoind.rpc("setnetworkactive", False)
    _wait_peers(_other_node, 0)
    return _other_node


def _join(chain: ChainBank, other: Bitcoind) -> None:
    """Connected again: both are on the branch with more work."""
    chain.bitcoind.rpc("setnetworkactive", True)
    other.connect(chain.bitcoind)
    _wait_peers(other, 1)
    wait_for(
        lambda: chain.bitcoind.rpc("getbestblockhash") == other.rpc("getbestblockhash"), "both nodes are on one branch"
    )


def _common_coin(chain: ChainBank, other: Bitcoind) -> Coin:
    """A coin of the time before the branches."""
    coin = make_coin(chain.bitcoind)
    other.rpc("submitblock", chain.bitcoind.rpc("getblock", chain.bitcoind.rpc("getbestblockhash"), 0))
    return coin


def _wait_peers(node: Bitcoind, peers: int) -> None:
    wait_for(lambda: len(node.rpc("getpeerinfo")) == peers, f"{peers} peers")


def test_two_miners_that_meet_again_take_a_deposit_back_and_give_it_again(
    shared_chain: ChainBank, other_miner: Bitcoind
) -> None:
    """A natural reorg: nobody invalidates anything, the other branch has more work and not this tx."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("met")
        txid, vout = chain.send(chain.address(client, wallet), 500_000)
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        other_miner.mine(3, chain.bitcoind.new_address())
        _join(chain, other_miner)
        chain.wait_state(txid, vout, "detected")
        assert client.balance_sat(wallet) == 0
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(wallet) == 497_000
    first = f"chain:{txid}:{vout}:1"
    assert chain.booking_keys(txid) == [first, f"{first}:reorg", f"chain:{txid}:{vout}:2"]


def test_a_deposit_that_is_in_both_branches_is_credited_once_in_the_end(
    shared_chain: ChainBank, other_miner: Bitcoind
) -> None:
    """It comes back in the very move that lost its block, deep enough: reversed, then settled at its new place."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("both")
        tx = spend(chain.bitcoind, _common_coin(chain, other_miner), [(chain.address(client, wallet), 500_000)])
        chain.mine_txs(tx)
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 0, "settled")
        other_miner.rpc("generateblock", chain.bitcoind.new_address(), [tx.hex])
        other_miner.mine(2, chain.bitcoind.new_address())
        _join(chain, other_miner)
        chain.wait_followed()
        wait_for(lambda: chain.deposit(client, tx.txid, 0).settlements == 2, "it is settled on the winning branch")
        assert client.balance_sat(wallet) == 497_000
    credited = ["deposit.detected", "deposit.confirmed", "deposit.settled"]
    assert chain.told(tx.txid) == [*credited, "deposit.reversed", *credited]


@pytest.mark.parametrize("blocks", [1, 2], ids=["confirmed", "settled"])
def test_a_deposit_that_the_winning_branch_double_spends_is_dropped(
    shared_chain: ChainBank, other_miner: Bitcoind, blocks: int
) -> None:
    """bitcoind tells nobody about it (node-interfaces.md B.8); what was credited is taken back."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet(f"cheated-{blocks}")
        coin = _common_coin(chain, other_miner)
        tx = spend(chain.bitcoind, coin, [(chain.address(client, wallet), 500_000)])
        other_tx = spend(chain.bitcoind, coin)
        chain.mine_txs(tx)
        chain.bitcoind.mine(blocks - 1)
        chain.wait_state(tx.txid, 0, "settled" if blocks > 1 else "confirmed")
        assert client.balance_sat(wallet) == (497_000 if blocks > 1 else 0)
        other_miner.rpc("generateblock", chain.bitcoind.new_address(), [other_tx.hex])
        other_miner.mine(blocks, chain.bitcoind.new_address())
        _join(chain, other_miner)
        chain.wait_state(tx.txid, 0, "dropped")
        assert client.balance_sat(wallet) == 0
        dropped = chain.deposit(client, tx.txid, 0)
        assert (dropped.dropped_reason, dropped.confirmations) == ("double_spent", 0)
        assert chain.pending(wallet) == []
    before = ["deposit.detected", "deposit.confirmed"]
    undone = ["deposit.settled", "deposit.reversed"] if blocks > 1 else []
    assert chain.told(tx.txid) == [*before, *undone, "deposit.detected", "deposit.dropped"]


def test_a_coinbase_on_the_losing_branch_is_dropped(shared_chain: ChainBank, other_miner: Bitcoind) -> None:
    """Its coins never were."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("lost-coinbase")
        (block,) = chain.bitcoind.mine(1, chain.address(client, wallet))
        txid = chain.bitcoind.rpc("getblock", block)["tx"][0]
        chain.wait_state(txid, 0, "confirmed")
        other_miner.mine(2, chain.bitcoind.new_address())
        _join(chain, other_miner)
        chain.wait_state(txid, 0, "dropped")
        assert chain.deposit(client, txid, 0).state == deposit_pb2.DEPOSIT_STATE_DROPPED
    assert chain.told(txid) == ["deposit.detected", "deposit.confirmed", "deposit.detected", "deposit.dropped"]


@pytest.mark.parametrize("chain", [{"keys": "max_reorg_depth = 2"}], indirect=True)
def test_a_reorg_deeper_than_configured_stops_the_chain_and_not_lightning(chain: ChainBank) -> None:
    """Two blocks are taken back, three are not: status and metric say so until a person has mended it."""
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("deep")
        txid, vout = chain.send(chain.address(client, wallet), 500_000)
        lost = chain.bitcoind.mine(2)[0]
        chain.wait_state(txid, vout, "settled")
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        lost = chain.bitcoind.mine(3)[0]
        chain.wait_state(txid, vout, "settled")
        chain.wait_followed()
        assert not _chain_status(client).halted
        assert "tellerd_chain_halted 0.0" in _metrics(chain)

        chain.bitcoind.rpc("invalidateblock", lost)
        chain.bitcoind.mine(1)
        wait_for(lambda: _chain_status(client).halted, "the chain is halted")
        assert "max_reorg_depth" in _chain_status(client).last_error
        assert "tellerd_chain_halted 1.0" in _metrics(chain)
        chain.bank.pay(chain.bank.invoices(client, wallet, [1_000]))
        chain.bank.wait_balance(wallet, 498_000)
        assert chain.state(txid, vout) == "settled"

    chain.bitcoind.rpc("reconsiderblock", lost)
    chain.bitcoind.mine(1)
    chain.bank.tellerd.process.stop()
    chain.bank.tellerd.start()
    chain.bank.tellerd.wait_ready()
    chain.wait_followed()
    assert "tellerd_chain_halted 0.0" in _metrics(chain)


def _chain_status(client: Client) -> admin_pb2.ChainStatus:
    return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).chain


def _metrics(chain: ChainBank) -> str:
    return chain.bank.tellerd.get("/metrics").text
