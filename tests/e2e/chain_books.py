"""What the books must be, computed from bitcoind's best chain alone, and whether they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.mongo.collections import DEPOSITS, LEGS, OUTBOX
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank

CONFIRMATIONS = 2
"""Asked for by default, whatever the amount."""

FEE_SAT = 3_000
"""Of a deposit between the dust threshold and 1,000,000 sat, by default: tests pay nothing else."""

AMOUNTS_SAT = range(10_000, 1_000_000)


OutputId = tuple[str, int]
"""txid and vout."""


@dataclass(frozen=True, slots=True)
class Paid:
    """An output of the best chain that pays a wallet."""

    wallet_id: str
    amount_sat: int
    block_hash: str
    confirmations: int

    @property
    def credit_sat(self) -> int:
        """What the wallet must have of it."""
        return self.amount_sat - FEE_SAT if self.confirmations >= CONFIRMATIONS else 0


def paid_in_best_chain(chain: ChainBank, owners: Mapping[str, str], *, from_height: int) -> dict[OutputId, Paid]:
    """Every output above `from_height` to an address of `owners` (address: wallet id), as bitcoind decodes blocks."""
    found: dict[OutputId, Paid] = {}
    tip = chain.bitcoind.height()
    for height in range(from_height + 1, tip + 1):
        block = chain.bitcoind.rpc("getblock", chain.bitcoind.rpc("getblockhash", height), 2)
        for tx in block["tx"]:
            for output in tx["vout"]:
                owner = owners.get(output["scriptPubKey"].get("address", ""))
                if owner is not None:
                    amount_sat = int(output["value"].scaleb(8))
                    assert amount_sat in AMOUNTS_SAT, "this amount has another fee"
                    found[tx["txid"], output["n"]] = Paid(owner, amount_sat, block["hash"], tip - height + 1)
    return found


def check_books_equal_chain(chain: ChainBank, owners: Mapping[str, str], *, from_height: int) -> int:
    """Waits until the books are at the tip; then every deposit that is deep enough has exactly one net credit and
    no other has any, balances are their sums, and the feed is gapless and ends in the same. Returns how many are
    credited."""
    chain.wait_followed()
    wait_for(lambda: not _due(chain), "everything deep enough is credited")
    paid = paid_in_best_chain(chain, owners, from_height=from_height)
    credited = {outpoint: one.credit_sat for outpoint, one in paid.items() if one.credit_sat}
    _check_deposits(chain, paid)
    assert _net_legs(chain, set(owners.values())) == credited
    with chain.bank.tellerd.client() as client:
        for wallet_id in set(owners.values()):
            ours = [one.credit_sat for one in paid.values() if one.wallet_id == wallet_id]
            assert client.balance_sat(wallet_id) == sum(ours)
        rows, totals = client.trial_balance()
    assert set(totals.values()) == {0}, totals
    on_chain_sat = -sum(row.balance for row in rows if row.account == "Assets:OnChain")
    assert on_chain_sat == sum(one.amount_sat for one in paid.values() if one.credit_sat)
    check_chain_feed(chain, credited)
    return len(credited)


def check_chain_feed(chain: ChainBank, credited: Mapping[OutputId, int]) -> None:
    """No number of the feed is missing, nothing is told twice; what was settled less what was reversed is credited."""
    rows = list(chain.bank.db[OUTBOX].find().sort("_id", 1))
    assert [row["_id"] for row in rows] == list(range(1, len(rows) + 1)), "the feed has gaps"
    assert len({row["id"] for row in rows}) == len(rows), "an event is told twice"
    standing = Counter[OutputId]()
    for row in rows:
        change = {"deposit.settled": 1, "deposit.reversed": -1}.get(row["type"], 0)
        if change:
            outpoint = row["payload"]["txid"], row["payload"]["vout"]
            standing[outpoint] += change
            assert standing[outpoint] in (0, 1), f"{row['type']} out of order: {outpoint}"
    assert {outpoint for outpoint, count in standing.items() if count} == set(credited)


def _due(chain: ChainBank) -> int:
    height = chain.bitcoind.height()
    return chain.bank.db[DEPOSITS].count_documents({"state": "confirmed", "settles_at": {"$lte": height}})


def _check_deposits(chain: ChainBank, paid: Mapping[OutputId, Paid]) -> None:
    """State and block of every stored deposit, and that none is missing."""
    stored = {(one["txid"], one["vout"]): one for one in chain.bank.db[DEPOSITS].find()}
    assert set(paid) <= set(stored)
    for outpoint, deposit in stored.items():
        one = paid.get(outpoint)
        if one is None:
            assert deposit["state"] in ("detected", "dropped"), deposit
            assert deposit["block"] is None
        else:
            assert deposit["state"] == ("settled" if one.credit_sat else "confirmed"), deposit
            assert deposit["block"]["hash"] == one.block_hash
            assert (deposit["wallet_id"], deposit["amount_sat"]) == (one.wallet_id, one.amount_sat)


def _net_legs(chain: ChainBank, wallets: set[str]) -> dict[OutputId, int]:
    """What the journals' legs leave in wallets, by outpoint; zeros left out."""
    net = Counter[OutputId]()
    query: dict[str, Any] = {"accounts": {"$in": [f"Liabilities:{wallet_id}" for wallet_id in wallets]}}
    for leg in chain.bank.db[LEGS].find(query):
        net[leg["hash"], leg["vout"]] += leg["credit"] - leg["debit"]
    return {outpoint: sat for outpoint, sat in net.items() if sat}
