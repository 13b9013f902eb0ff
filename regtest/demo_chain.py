"""The demo's deposit: from the mempool into a wallet, taken back by a reorg, and given again."""

from adapters.grpc_api._pb.tellerd.v1 import deposit_pb2
from regtest.bitcoind import Bitcoind
from regtest.demo_story import Story, sat, short
from regtest.tellerd import Client, Tellerd

DEPOSIT_SAT = 2_000_000
FEE_SAT = 6_000
"""30 hundredths of a percent: the default from a million sats on."""

CONFIRMATIONS = 2
"""The default for any amount."""

SEEN_S = 30.0
"""From bitcoind to the books: milliseconds."""


def show_deposit(story: Story, tellerd: Tellerd, bitcoind: Bitcoind) -> None:
    """One deposit; every state is claimed as the API tells it, and at the end the books as bitcoind counts."""
    story.step("A deposit on the chain")
    with tellerd.client() as client:
        wallet_id = client.create_wallet("demo-saver")
        address = client.address(wallet_id)
        story.show(f"CreateWallet   -> wallet {wallet_id}", f"GetAddress     -> {address}")
        txid = bitcoind.send(address, DEPOSIT_SAT)
        deposit = _wait(tellerd, client, wallet_id, deposit_pb2.DEPOSIT_STATE_DETECTED)
        balance_sat = client.balance_sat(wallet_id)
        story.claim(
            f"detected in the mempool: {sat(deposit.amount_sat)} in tx {short(txid)}, credited {sat(balance_sat)}",
            found=(deposit.txid, deposit.amount_sat, deposit.confirmations, balance_sat),
            expected=(txid, DEPOSIT_SAT, 0, 0),
        )
        (lost,) = bitcoind.mine(1)
        deposit = _wait(tellerd, client, wallet_id, deposit_pb2.DEPOSIT_STATE_CONFIRMED)
        story.claim(
            f"confirmed: {deposit.confirmations} of {deposit.confirmations_required} blocks",
            found=(deposit.confirmations, deposit.confirmations_required),
            expected=(1, CONFIRMATIONS),
        )
        bitcoind.mine(1)
        _wait(tellerd, client, wallet_id, deposit_pb2.DEPOSIT_STATE_SETTLED)
        _claim_settled(story, client, wallet_id, "settled")

        story.step("A reorg takes it back, and gives it again")
        bitcoind.rpc("invalidateblock", lost)
        deposit = _wait(tellerd, client, wallet_id, deposit_pb2.DEPOSIT_STATE_DETECTED)
        balance_sat = client.balance_sat(wallet_id)
        story.claim(
            f"block {short(lost)} has left the chain: the deposit is reversed, the wallet holds {sat(balance_sat)}",
            found=(deposit.confirmations, balance_sat),
            expected=(0, 0),
        )
        bitcoind.mine(CONFIRMATIONS + 1)
        _wait(tellerd, client, wallet_id, deposit_pb2.DEPOSIT_STATE_SETTLED)
        _claim_settled(story, client, wallet_id, "another branch has it: settled again")
        rows, totals = client.trial_balance()
        on_chain_sat = -sum(row.balance for row in rows if row.account == "Assets:OnChain")
        bank_sat = bitcoind.bank_balance_sat(CONFIRMATIONS)
        story.claim(
            f"books {sat(on_chain_sat)} on the chain = bitcoind's count of the bank's wallet {sat(bank_sat)}",
            found=(on_chain_sat, bank_sat, set(totals.values())),
            expected=(DEPOSIT_SAT, DEPOSIT_SAT, {0}),
        )


def _claim_settled(story: Story, client: Client, wallet_id: str, how: str) -> None:
    balance_sat = client.balance_sat(wallet_id)
    story.claim(
        f"{how}: {sat(balance_sat)} in the wallet, {sat(FEE_SAT)} fee to the bank owner's",
        found=balance_sat,
        expected=DEPOSIT_SAT - FEE_SAT,
    )


def _wait(
    tellerd: Tellerd, client: Client, wallet_id: str, state: deposit_pb2.DepositState.ValueType
) -> deposit_pb2.Deposit:
    """The wallet's only deposit as soon as it is in this state; NodeError with tellerd's log if not in time."""

    def reached() -> bool:
        deposits = client.list_deposits(wallet_id)
        return bool(deposits) and deposits[0].state == state

    name = deposit_pb2.DepositState.Name(state)
    tellerd.process.wait_until(reached, f"showing the deposit as {name}", SEEN_S)
    (deposit,) = client.list_deposits(wallet_id)
    return deposit
