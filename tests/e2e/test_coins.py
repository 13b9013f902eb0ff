"""Coins of ours that somebody else spends, on a real bitcoind: addresses of its own wallet, written into `wallets` as
another program does; tellerd has the key of none."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from adapters.mongo.collections import COINS, DEPOSITS, GAPS, LINKS, SCRIPTS
from daemon.domain.accounts import ON_CHAIN
from daemon.domain.books import GapState
from regtest.bitcoind import WALLET
from regtest.stack import Stack
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank

AMOUNT_SAT = 500_000
FEE_SAT = 1_000

Side = admin_pb2.ReconciliationSide

_numbers = count()


class CoinBank:
    """A bank whose customers are paid to addresses that bitcoind's own wallet can spend from."""

    def __init__(self, chain: ChainBank) -> None:
        self.chain = chain
        self.bitcoind = chain.bitcoind

    def wallet(self) -> str:
        """A new one."""
        with self.chain.bank.tellerd.client() as client:
            return client.create_wallet(f"owner-{next(_numbers)}")

    def watched(self, wallet: str) -> str:
        """An address of bitcoind's wallet, that pays this one."""
        address = self.bitcoind.new_address()
        self.chain.write_address(wallet, address)
        known = {"address": address, "unscanned": {"$ne": True}}
        wait_for(lambda: self.chain.bank.db[SCRIPTS].count_documents(known) == 1, "the address is watched")
        return address

    def coin(self) -> tuple[str, int]:
        """A settled deposit of AMOUNT_SAT, kept from being spent by chance."""
        txid, vout = self.chain.send(self.watched(self.wallet()), AMOUNT_SAT)
        self.bitcoind.rpc("lockunspent", False, [{"txid": txid, "vout": vout}], wallet=WALLET)
        self.bitcoind.mine(2)
        self.chain.wait_state(txid, vout, "settled")
        return txid, vout

    def spend(self, *coins: tuple[str, int], to: str | None = None) -> str:
        """A tx that spends them whole, less the fee; it is in the mempool."""
        inputs = [{"txid": txid, "vout": vout} for txid, vout in coins]
        paid = Decimal(len(coins) * AMOUNT_SAT - FEE_SAT).scaleb(-8)
        address = to or self.bitcoind.new_address()
        raw = self.bitcoind.rpc("createrawtransaction", inputs, [{address: f"{paid:.8f}"}])
        signed = self.bitcoind.rpc("signrawtransactionwithwallet", raw, wallet=WALLET)
        assert signed["complete"], signed
        return str(self.bitcoind.rpc("sendrawtransaction", signed["hex"]))

    # --- books and node ---------------------------------------------------------------------------------

    def look(self) -> Side:
        """The on-chain side of a steady look: the books are at the tip, and all that is deep enough is settled."""
        self.chain.wait_followed()
        due = {"state": "confirmed", "held": False, "settles_at": {"$lte": self.bitcoind.height()}}
        wait_for(lambda: not self.chain.bank.db[DEPOSITS].count_documents(due), "nothing is due")
        looks: list[admin_pb2.Reconciliation] = []

        def is_steady() -> bool:
            looks.append(self.reconcile().reconciliation)
            return looks[-1].steady

        wait_for(is_steady, "a look is steady")
        return side_of(looks[-1])

    def reconcile(self, *, full: bool = False) -> admin_pb2.ReconcileResponse:
        """What tellerd finds now."""
        with self.chain.bank.tellerd.client() as client:
            return client.admin.Reconcile(admin_pb2.ReconcileRequest(full=full), timeout=60)

    def gap(self, txid: str) -> tuple[str, int]:
        """State and amount of the gap of a tx that spent coins of ours."""
        found = self.chain.bank.db[GAPS].find_one({"_id": f"chain:spend:{txid}"})
        assert found is not None
        assert (found["kind"], found["reference"], found["node"]) == ("coin_spent", txid, "bitcoind")
        return found["state"], found["amount_msat"]


def side_of(look: admin_pb2.Reconciliation) -> Side:
    """The on-chain account's."""
    (side,) = (side for side in look.sides if side.account == ON_CHAIN)
    return side


def explained(side: Side, txid: str) -> int:
    """What is sent by this tx, in msat; nothing of the difference is unknown."""
    assert side.unknown_msat == 0, side
    sent = admin_pb2.DIFFERENCE_KIND_SENT
    return sum(item.amount_msat for item in side.items if (item.kind, item.reference) == (sent, txid))


@pytest.fixture(scope="module")
def bank(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoinBank]:
    """One for all tests here: each has coins of its own, and compares what changes."""
    chain = ChainBank(stack, tmp_path_factory.mktemp("coins"), keys="foreign_addresses = true")
    try:
        chain.open()
        yield CoinBank(chain)
        chain.bank.command("verify")
    finally:
        chain.close()


def test_a_coin_that_bitcoind_spends_is_explained_by_its_txid(bank: CoinBank) -> None:
    """In the mempool it is none yet; in a block it is sent, and nothing is unknown; the wallet keeps its credit."""
    before = bank.look()
    coins = bank.coin(), bank.coin()
    settled = bank.look()
    assert settled.nodes_msat - before.nodes_msat == 2 * AMOUNT_SAT * 1000
    assert settled.difference_msat == before.difference_msat
    txid = bank.spend(*coins)
    assert bank.look() == settled
    bank.bitcoind.mine(1)
    side = bank.look()
    assert side.account == ON_CHAIN
    assert side.books_msat == settled.books_msat
    assert side.nodes_msat == before.nodes_msat
    assert explained(side, txid) == -2 * AMOUNT_SAT * 1000
    assert bank.gap(txid) == (GapState.EXPLAINED, -2 * AMOUNT_SAT * 1000)
    assert bank.look() == side


def test_a_spend_that_a_reorg_undoes_is_closed(bank: CoinBank) -> None:
    """The coin is there again, until the tx is mined again."""
    coin = bank.coin()
    settled = bank.look()
    txid = bank.spend(coin)
    (lost,) = bank.bitcoind.mine(1)
    assert explained(bank.look(), txid) == -AMOUNT_SAT * 1000
    bank.bitcoind.rpc("invalidateblock", lost)
    assert bank.look() == settled
    assert bank.gap(txid)[0] == GapState.CLOSED
    assert bank.chain.bank.db[COINS].count_documents({"spender": txid}) == 0
    bank.bitcoind.rpc("generateblock", bank.bitcoind.new_address(), [])
    assert bank.look() == settled
    bank.bitcoind.mine(1)
    assert explained(bank.look(), txid) == -AMOUNT_SAT * 1000
    assert bank.gap(txid)[0] == GapState.EXPLAINED


def test_change_that_comes_back_to_us_is_a_deposit_of_its_own(bank: CoinBank) -> None:
    """The coin is sent, the change is credited to the wallet of its address: both are in the sums."""
    coin = bank.coin()
    settled = bank.look()
    wallet = bank.wallet()
    txid = bank.spend(coin, to=bank.watched(wallet))
    bank.bitcoind.mine(2)
    bank.chain.wait_state(txid, 0, "settled")
    side = bank.look()
    assert explained(side, txid) == -AMOUNT_SAT * 1000
    assert side.books_msat - settled.books_msat == (AMOUNT_SAT - FEE_SAT) * 1000
    assert side.nodes_msat - settled.nodes_msat == -FEE_SAT * 1000
    bank.chain.bank.wait_balance(wallet, AMOUNT_SAT - FEE_SAT - 3_000)


def test_a_journal_with_the_txid_accounts_for_the_spend(bank: CoinBank) -> None:
    """Blink's payout has amount and fee on the on-chain account, and the tx' id as hash."""
    coin = bank.coin()
    settled = bank.look()
    txid = bank.spend(coin)
    bank.bitcoind.mine(1)
    assert explained(bank.look(), txid) == -AMOUNT_SAT * 1000
    db, wallet = bank.chain.bank.db, bank.wallet()
    linked = db[LINKS].count_documents({"foreign": True})
    details = {"type": "onchain_payment", "hash": txid, "pending": False}
    bank.chain.bank._write_journal(f"Liabilities:{wallet}", ON_CHAIN, AMOUNT_SAT, details)
    wait_for(lambda: db[LINKS].count_documents({"foreign": True}) == linked + 1, "the journal is adopted")
    side = bank.look()
    assert explained(side, txid) == 0
    assert side.difference_msat == settled.difference_msat
    assert settled.books_msat - side.books_msat == AMOUNT_SAT * 1000
    assert bank.gap(txid)[0] == GapState.CLOSED


def test_the_full_check_finds_every_deposit_as_bitcoind_has_it(bank: CoinBank) -> None:
    """Settled, spent, confirmed and detected ones."""
    bank.spend(bank.coin())
    bank.chain.send(bank.watched(bank.wallet()), AMOUNT_SAT)
    bank.bitcoind.mine(1)
    detected = bank.chain.send(bank.watched(bank.wallet()), AMOUNT_SAT)
    bank.chain.wait_state(*detected, "detected")
    bank.chain.wait_followed()
    checked = bank.reconcile(full=True).full_check
    assert checked.deposits == bank.chain.bank.db[DEPOSITS].count_documents({})
    assert (checked.gaps, list(checked.unfinished)) == (0, [])


def test_a_bitcoind_that_is_away_leaves_look_and_check_unfinished(bank: CoinBank) -> None:
    """Both say why; when it is back everything is as it was."""
    bank.coin()
    before = bank.look()
    bank.bitcoind.process.stop()
    away = bank.reconcile(full=True)
    assert not away.reconciliation.steady
    assert side_of(away.reconciliation) == before
    (reason,) = away.full_check.unfinished
    assert "bitcoind" in reason
    bank.chain.start_bitcoind()
    assert bank.look() == before
