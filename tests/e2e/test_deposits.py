"""On-chain deposits on a real bitcoind: from the mempool to the wallet, and back when the chain says so."""

from __future__ import annotations

from tests.e2e.chain_bank import ChainBank


def test_a_deposit_goes_from_the_mempool_to_the_wallet(chain: ChainBank) -> None:
    """Detected in the mempool, confirmed in a block, settled two deep, less the fee."""
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        address = chain.address(client, wallet)
        txid = chain.bitcoind.send(address, 500_000)
        vout = chain.vout(txid, address)
        chain.wait_state(txid, vout, "detected")
        chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "confirmed")
        assert client.balance_sat(wallet) == 0
        chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(wallet) == 497_000
    assert chain.told(txid) == ["deposit.detected", "deposit.confirmed", "deposit.settled"]


def test_a_reorg_takes_a_deposit_back_and_gives_it_again(chain: ChainBank) -> None:
    """The block is invalidated: reversed at once; mined again: settled again."""
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        address = chain.address(client, wallet)
        txid = chain.bitcoind.send(address, 500_000)
        vout = chain.vout(txid, address)
        lost, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        chain.bitcoind.rpc("invalidateblock", lost)
        chain.wait_state(txid, vout, "detected")
        assert client.balance_sat(wallet) == 0
        chain.bitcoind.mine(3)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(wallet) == 497_000
