"""LND killed under load calls invoices settled whose HTLCs it then fails back (node-interfaces.md A.0).

Whether a kill loses something is chance, so LND is killed until both was seen, a kill that cost something and one that
did not, or until it was killed often enough. After each of them books and node differ by what they differed before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.grpc_api._pb.tellerd.v1 import ledger_pb2
from adapters.mongo.collections import CURSORS, GAPS, OUTBOX
from daemon.matching.losses import LOST, UNPROVABLE, UNPROVEN
from regtest.lnd_rest import LndError
from regtest.process import NodeError
from regtest.tellerd import Client
from tests.e2e.bank import Bank, wait_for

KILLS = 20
INVOICES = 90
IN_FLIGHT = 50
ENOUGH_S = 200.0
"""No further kill begins after it."""

PROVEN_S = 240.0
"""LND is back after some 4 s, its peer at once, HTLCs are resolved a second later, and proven with the next look; on a
busy machine all of it takes several times as long, and a payment may take PAY_S."""


@dataclass
class Losses:
    """What the books say was lost."""

    count: int
    msat: int


def test_lnd_killed_under_load(own_bank: Bank, lnd_kills: list[str]) -> None:
    """Each loss is found, booked to the gap account once, and told; the wallet keeps its credit, and the difference
    between node and books is explained to the msat."""
    bank = own_bank
    seed = random.randrange(1 << 32)
    print(f"\nseed {seed}")
    rng = random.Random(seed)
    began = time.monotonic()
    difference_msat = _difference_msat(bank)
    lost_at_kills: list[int] = []
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("alice")
        while len(lost_at_kills) < KILLS and time.monotonic() - began < ENOUGH_S:
            before = _losses(bank)
            _kill_under_load(bank, client, wallet, rng)
            wait_for(lambda: _is_proven(bank), "every HTLC is proven", PROVEN_S)
            wait_for(lambda: _difference_msat(bank) == difference_msat, "books and node agree", PROVEN_S)
            after = _losses(bank)
            lost_at_kills.append(after.count - before.count)
            _check_losses(bank, after)
            if any(lost_at_kills) and not all(lost_at_kills):
                break
        lost = _losses(bank)
        lnd_kills.append(f"{len(lost_at_kills)} kills of LND under load lost {lost_at_kills} HTLCs, {lost.msat} msat")
        assert client.balance_sat(wallet) == sum(
            row["payload"]["amount_sat"] for row in bank.db[OUTBOX].find({"type": "invoice.settled"})
        )
    if lost.count:
        gap_sat = sum(row.balance for row in _rows(bank) if row.account == "Liabilities:Teller:Gap")
        assert gap_sat == -lost.msat // 1000
        assert f"tellerd_htlc_losses_total {float(lost.count)}" in bank.tellerd.get("/metrics").text
    bank.check_feed()
    bank.command("verify")


def _kill_under_load(bank: Bank, client: Client, wallet: str, rng: random.Random) -> None:
    """Payments are under way when LND ends; all of them have ended when this returns."""
    invoices = bank.invoices(client, wallet, [1_000 + number for number in range(INVOICES)])
    # The payer remembers that its channel failed at the last kill, and would find no route for an hour.
    bank.stack.payer.call("POST", "/v2/router/mc/reset", {})
    settled = bank.settled_count()
    paying = bank.start_paying(invoices, in_flight=IN_FLIGHT)
    wait_for(lambda: bank.settled_count() > settled or paying.done(), "payments come in", PROVEN_S)
    assert bank.settled_count() > settled, paying.result()
    time.sleep(rng.uniform(0.0, 0.4))
    bank.stack.lnd.kill()
    bank.stack.lnd.start()
    bank.stack.lnd.wait_ready()
    bank.stack.wait_payable()
    try:
        paying.result(timeout=PROVEN_S)
    except (LndError, NodeError):
        pass  # a payment that was not tried while its peer was away: it has cost nothing


def _is_proven(bank: Bank) -> bool:
    """Nothing is in the channel, and what LND has settled is in the books with its HTLCs proven."""
    pending = [htlc for channel in bank.stack.lnd.list_channels() for htlc in channel["pending_htlcs"]]
    invoices = bank.stack.lnd.call("GET", "/v1/invoices?num_max_invoices=10000&reversed=true")["invoices"]
    newest = max((int(one["settle_index"]) for one in invoices if one["state"] == "SETTLED"), default=0)
    cursor = bank.cursor(bank.stack.lnd.pubkey)
    return not pending and cursor["settle_index"] == cursor["htlc_checked_through"] == newest


def _difference_msat(bank: Bank) -> int:
    """What the node holds in its channels less what the books say it holds."""
    lightning_sat = -sum(row.balance for row in _rows(bank) if row.account == "Assets:Reserve:Lightning")
    cursor = bank.db[CURSORS].find_one({"_id": f"lnd:{bank.stack.lnd.pubkey}"})
    assert cursor is not None
    return bank.stack.lnd.channel_balance() - lightning_sat * 1000 - int(cursor["remainder_msat"])


def _rows(bank: Bank) -> Sequence[ledger_pb2.TrialBalanceRow]:
    with bank.tellerd.client() as client:
        return client.trial_balance()[0]


def _losses(bank: Bank) -> Losses:
    gaps = list(bank.db[GAPS].find({"kind": LOST}))
    return Losses(count=len(gaps), msat=-sum(gap["amount_msat"] for gap in gaps))


def _check_losses(bank: Bank, losses: Losses) -> None:
    """Each is told once, and nothing was given up as unproven."""
    told = list(bank.db[OUTBOX].find({"type": "htlc.lost"}))
    assert (len(told), sum(row["payload"]["amount_msat"] for row in told)) == (losses.count, losses.msat)
    assert bank.db[GAPS].count_documents({"kind": {"$in": [UNPROVEN, UNPROVABLE]}}) == 0
